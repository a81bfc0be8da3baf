//! Spans of batches and commits, sent to an OpenTelemetry collector (OTLP over HTTP, protobuf).
//!
//! A batch is a trace: from the moment the source closed it until its rows are committed, with a span for each stage. A
//! commit is a trace of its own that is linked to the batches in it. Without a collector nobody listens to these spans,
//! which then cost a load and a branch each.
//!
//! Numbers are signed: others reach the collector as text, since the layer between knows signed ones only.
//!
//! Architecture Invariant: a span holds names and numbers, never text.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::{Span, Subscriber, info_span};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Config, ConfigError, Problem};

/// Target of the spans that are exported; log lines never show them.
pub const TARGET: &str = "tamiz_trace";
/// Batches that a commit is linked to; the usual 128 are fewer than a large flush of small batches has.
const LINKS: u32 = 1024;
/// How long the end of the process waits for the collector.
const LAST_EXPORT: Duration = Duration::from_secs(5);

/// The exporter.
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// As `[traces]` says; `None` where no collector is named. Connects to nobody yet.
    ///
    /// # Errors
    /// The address is none, or the HTTP client cannot be made.
    pub fn new(config: &Config) -> Result<Option<Self>, ConfigError> {
        let wrong = |message| {
            ConfigError(vec![Problem {
                key: "traces.otlp_endpoint".into(),
                message,
            }])
        };
        let Some(url) = config.traces.endpoint().map_err(wrong)? else {
            return Ok(None);
        };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_endpoint(url)
            .with_protocol(Protocol::HttpBinary)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        let resource = Resource::builder()
            .with_service_name(service_name(std::env::var("OTEL_SERVICE_NAME").ok()))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("tamiz.pipeline", config.pipeline.name.clone()))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(Telling(exporter))
            .with_max_links_per_span(LINKS)
            .with_resource(resource)
            .build();
        Ok(Some(Traces { provider }))
    }

    /// The layer that hands our spans, and nothing else, to the exporter.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let ours = filter_fn(|metadata| metadata.target() == TARGET && metadata.is_span());
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("tamiz"))
            .with_location(false)
            .with_threads(false)
            .with_level(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(ours.with_max_level_hint(LevelFilter::INFO))
    }

    /// Sends what waits.
    pub(super) fn finish(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST_EXPORT) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

fn service_name(of_environment: Option<String>) -> String {
    of_environment
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "tamiz".into())
}

/// An exporter whose failures are told like any other trouble.
#[derive(Debug)]
struct Telling(opentelemetry_otlp::SpanExporter);

impl SpanExporter for Telling {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.0.export(batch).await;
        if let Err(error) = &sent {
            tracing::warn!(spans, %error, "spans were not exported");
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

/// The trace of a batch, from read to committed.
pub fn batch(rows: usize, bytes: usize, partitions: usize) -> Span {
    let [rows, bytes, partitions] = [rows, bytes, partitions].map(|number| number as i64);
    info_span!(target: TARGET, parent: None, "batch", rows, bytes, partitions)
}

/// A stage's work on a batch.
pub fn stage(batch: &Span, name: &'static str, rows: usize) -> Span {
    let rows = rows as i64;
    info_span!(target: TARGET, parent: batch, "stage", otel.name = name, rows, refused = Empty)
}

/// A stage refused so many rows.
pub fn refused(stage: &Span, rows: usize) {
    stage.record("refused", rows as i64);
}

/// The trace of a commit to the tables. One that is dropped before it is done has failed.
#[derive(Debug)]
pub struct Commit {
    span: Span,
    done: bool,
}

impl Commit {
    /// Of these batches, to which it is linked.
    pub fn new(batches: &[Span], dead_letters: u64, deletes: u64) -> Self {
        let span = info_span!(
            target: TARGET,
            parent: None,
            "commit",
            batches = batches.len() as i64,
            posts = Empty,
            dead_letters = dead_letters as i64,
            deletes = deletes as i64,
            files = Empty,
            bytes = Empty,
            otel.status_code = Empty,
        );
        for batch in batches {
            span.follows_from(batch.id());
        }
        Commit { span, done: false }
    }

    /// So many posts are to go in: those that are left when its deletes have taken back theirs.
    pub fn posts(&self, rows: u64) {
        self.span.record("posts", rows as i64);
    }

    /// Its part in one table.
    pub fn table(&self, name: &'static str) -> Span {
        info_span!(target: TARGET, parent: &self.span, "table", otel.name = name)
    }

    /// It is in.
    pub fn done(mut self, files: u64, bytes: u64) {
        self.span.record("files", files as i64);
        self.span.record("bytes", bytes as i64);
        self.done = true;
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        if !self.done {
            self.span.record("otel.status_code", "ERROR");
        }
    }
}
