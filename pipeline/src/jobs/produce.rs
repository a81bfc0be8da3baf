//! `tamiz produce`: JSON lines → Kafka, as fast as the broker takes them or at a given rate.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::JobError;
use crate::config::Config;
use crate::source::files::{Format, format_of, open_lines, read_line};
use crate::source::kafka::{Access, Guard};
use crate::source::{SourceError, Stop};

/// How long the last messages may take to be acknowledged.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest message that is offered to the broker.
const MAX_MESSAGE_BYTES: &str = "100000000";

/// What to send where.
#[derive(Debug, Clone)]
pub struct ProduceOptions {
    /// The topic; it must exist.
    pub topic: String,
    /// Messages per second; unlimited where absent.
    pub rate: Option<f64>,
    /// JSON lines, plain or zstd.
    pub files: Vec<PathBuf>,
}

/// At a given rate messages go out in bursts of this length: the client waits in whole milliseconds, and would spin.
const PACE: Duration = Duration::from_millis(10);

/// What was sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Produced {
    /// Messages that the broker acknowledged.
    pub acknowledged: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that it refused.
    pub failed: u64,
}

/// Counts what the broker says.
pub struct Acknowledgements {
    guard: Guard,
    delivered: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Acknowledgements {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.guard.hear_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.guard.hear(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.guard.token()
    }
}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                self.delivered.fetch_add(1, Relaxed);
                self.bytes.fetch_add(message.payload_len() as u64, Relaxed);
            }
            Err((error, _)) => {
                self.failed.fetch_add(1, Relaxed);
                tracing::warn!(%error, "message refused");
            }
        }
    }
}

/// A producer that loses and doubles nothing: idempotent, acknowledged by all replicas.
///
/// # Errors
/// Options that librdkafka refuses.
pub fn producer(mut access: Access) -> Result<BaseProducer<Acknowledgements>, SourceError> {
    let client = access.config_mut();
    for (name, value) in [
        ("enable.idempotence", "true"),
        ("linger.ms", "20"),
        ("compression.type", "lz4"),
    ] {
        if client.get(name).is_none() {
            client.set(name, value);
        }
    }
    client.set("message.max.bytes", MAX_MESSAGE_BYTES);
    access.open(Acknowledgements {
        guard: access.guard(),
        delivered: AtomicU64::default(),
        bytes: AtomicU64::default(),
        failed: AtomicU64::default(),
    })
}

/// Sends one message; waits while librdkafka's queue is full.
///
/// # Errors
/// The message cannot be queued.
pub fn send<C: ProducerContext<DeliveryOpaque = ()>>(
    producer: &BaseProducer<C>,
    topic: &str,
    payload: &[u8],
) -> Result<(), SourceError> {
    let mut record = BaseRecord::<(), [u8], ()>::to(topic).payload(payload);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                producer.poll(Duration::from_millis(10));
                record = back;
            }
            Err((error, _)) => {
                return Err(SourceError::Kafka {
                    what: format!("cannot send to `{topic}`"),
                    cause: error.to_string(),
                });
            }
        }
    }
}

/// Sends every line of every file. Blocks.
///
/// # Errors
/// A missing topic or file, no broker, or messages that were not acknowledged.
pub fn produce(config: &Config, options: &ProduceOptions, stop: &Stop) -> Result<Produced, JobError> {
    let producer = producer(config.source.kafka.client()?)?;
    check_topic(&producer, &options.topic, &config.source.kafka.brokers)?;
    let started = Instant::now();
    let mut sent = 0_u64;
    let mut line = Vec::new();
    for path in &options.files {
        let fail = |source| JobError::Io {
            what: format!("cannot read `{}`", path.display()),
            source,
        };
        let format = match format_of(path) {
            Some(Format::Parquet) => {
                return Err(JobError::Usage(format!(
                    "`{}`: `tamiz produce` sends JSON lines",
                    path.display()
                )));
            }
            Some(format) => format,
            None => Format::JsonLines,
        };
        let mut lines = open_lines(path, format).map_err(fail)?;
        while !stop.is_set() && read_line(lines.as_mut(), &mut line).map_err(fail)? {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            send(&producer, &options.topic, &line)?;
            sent += 1;
            if sent.is_multiple_of(256) {
                producer.poll(Duration::ZERO);
            }
            if let Some(rate) = options.rate {
                let due = Duration::from_secs_f64(sent as f64 / rate);
                while let ahead = due.saturating_sub(started.elapsed())
                    && ahead >= PACE
                    && !stop.is_set()
                {
                    producer.poll(ahead.min(Duration::from_millis(100)));
                }
            }
        }
    }
    finish(&producer, sent)
}

fn finish(producer: &BaseProducer<Acknowledgements>, sent: u64) -> Result<Produced, JobError> {
    let flushed = producer.flush(FLUSH_TIMEOUT);
    let counts = producer.context();
    let produced = Produced {
        acknowledged: counts.delivered.load(Relaxed),
        bytes: counts.bytes.load(Relaxed),
        failed: counts.failed.load(Relaxed),
    };
    match flushed {
        Ok(()) if produced.acknowledged == sent => Ok(produced),
        _ => Err(JobError::Failed(format!(
            "{} of {sent} messages were acknowledged: see the warnings above, and send the rest again",
            produced.acknowledged
        ))),
    }
}

fn check_topic(producer: &BaseProducer<Acknowledgements>, topic: &str, brokers: &str) -> Result<(), SourceError> {
    let guard = &producer.context().guard;
    let metadata = guard.ask(
        |time| producer.poll(time),
        |time| producer.client().fetch_metadata(Some(topic), time),
    )?;
    let found: BTreeMap<&str, bool> = metadata
        .topics()
        .iter()
        .map(|t| (t.name(), t.error().is_none() && !t.partitions().is_empty()))
        .collect();
    if found.get(topic) == Some(&true) {
        return Ok(());
    }
    Err(SourceError::Kafka {
        what: format!("topic `{topic}` does not exist at {brokers}: create it, or name another with --topic"),
        cause: "unknown topic".into(),
    })
}
