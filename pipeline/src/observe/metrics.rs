//! The metrics: every name once, and how the counters become Prometheus text.
//!
//! Counts and states of one process since its start; a line that starts again after it was fenced counts on. Labels are
//! words of ours (stages, reasons, tables, queues) and names of topics: their number does not grow with what is read.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    CounterValueEncoder, DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, GaugeValueEncoder, MetricEncoder,
    NoLabelSet, prometheus_text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tamiz_model::ScorerStats;

use super::histogram::Distribution;
use super::process::Process;
use super::server::View;
use super::{Queue, Watch};
use crate::stats::Snapshot;

/// What `/metrics` is served as.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// A state.
    Gauge,
    /// Counts by size; its series end in `_bucket`, `_sum` and `_count`.
    Histogram,
}

/// A metric: its name, what it is, and its help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// As Prometheus sees it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident: $kind:ident = $name:literal, $help:literal;)+) => {
        $(const $constant: Metric = Metric { name: $name, kind: Kind::$kind, help: $help };)+
        /// Every metric that is served.
        pub const ALL: &[Metric] = &[$($constant),+];
    };
}

metrics! {
    BUILD: Gauge = "tamiz_build_info", "Always 1; version, pipeline and model are its labels";
    SOURCE_ROWS: Counter = "tamiz_source_rows_total", "Rows read from the source";
    SOURCE_BYTES: Counter = "tamiz_source_bytes_total", "Payload bytes read from the source, with 64 for each row";
    BATCH_ROWS: Histogram = "tamiz_batch_rows", "Rows of a batch as the source closed it";
    STAGE_ROWS_IN: Counter = "tamiz_stage_rows_in_total", "Rows given to a stage";
    STAGE_ROWS_OUT: Counter = "tamiz_stage_rows_out_total",
        "Rows that a stage let go on: not those it refused, nor those that take a post back";
    STAGE_SECONDS: Counter = "tamiz_stage_seconds_total",
        "Seconds that a stage worked, of all its threads; for score with the wait for the model";
    REJECTS: Counter = "tamiz_rejects_total", "Rows that a stage refused, by reason";
    REJECTS_NOT_STORED: Counter = "tamiz_rejects_not_stored_total",
        "Refused rows that sink.ignore keeps out of the dead letters";
    MODEL_ROWS: Counter = "tamiz_model_rows_total", "Texts scored";
    MODEL_TOKENS: Counter = "tamiz_model_tokens_total", "Tokens of the texts scored";
    MODEL_PADDING: Counter = "tamiz_model_padding_tokens_total", "Places computed that hold no token";
    MODEL_BATCHES: Counter = "tamiz_model_batches_total", "Forward passes";
    MODEL_SPLITS: Counter = "tamiz_model_split_batches_total",
        "Forward passes that failed and were done again in pieces";
    MODEL_SPARED: Counter = "tamiz_model_spared_rows_total",
        "Texts that only the processor could do, by model.cpu_fallback";
    MODEL_SECONDS: Counter = "tamiz_model_seconds_total", "Seconds in forward passes";
    TOKENIZE_SECONDS: Counter = "tamiz_model_tokenize_seconds_total", "Seconds in tokenization, of all threads";
    MODEL_QUEUE: Gauge = "tamiz_model_queue_rows", "Rows that wait for the model or are in it";
    QUEUE_DEPTH: Gauge = "tamiz_queue_batches", "Batches in a queue of the line";
    QUEUE_CAPACITY: Gauge = "tamiz_queue_capacity_batches", "Batches that a queue of the line takes";
    IN_FLIGHT: Gauge = "tamiz_in_flight_bytes",
        "Bytes between source and commit, and the share reserved for the next batch";
    IN_FLIGHT_LIMIT: Gauge = "tamiz_in_flight_limit_bytes", "Bytes that may be between source and commit";
    COMMIT_SECONDS: Histogram = "tamiz_commit_seconds", "Seconds to write and commit a flush, to both tables";
    COMMIT_ROWS: Histogram = "tamiz_commit_rows", "Rows of a flush, in both tables";
    COMMIT_BYTES: Histogram = "tamiz_commit_bytes", "Bytes of the files of a flush, in both tables";
    COMMITTED_ROWS: Counter = "tamiz_committed_rows_total", "Rows committed, by table";
    LATE: Counter = "tamiz_late_posts_total", "Posts committed that came later than late.seconds allows";
    DELETES: Counter = "tamiz_deletes_total", "Deletes written down";
    TAKEN_BACK: Counter = "tamiz_taken_back_posts_total",
        "Posts that a delete of the same flush took back, so that they were never committed";
    COMMITTED_FILES: Counter = "tamiz_committed_files_total", "Data files committed";
    COMMIT_FAILURES: Counter = "tamiz_commit_failed_attempts_total",
        "Attempts at a commit that did not go in: another writer was first (conflict), or the store failed (store)";
    FENCED: Counter = "tamiz_commits_fenced_total",
        "Commits that another process had overtaken; the line then starts again from the tables";
    REPLAYED: Counter = "tamiz_replayed_rows_total", "Rows read again that a table already held";
    UNCOMMITTED_SECONDS: Gauge = "tamiz_uncommitted_seconds",
        "How long the oldest row in the sink has waited for its commit";
    EVENT_TO_COMMIT: Histogram = "tamiz_event_to_commit_seconds", "Seconds from a post's own time to its commit";
    PARTITIONS: Gauge = "tamiz_assigned_partitions", "Partitions that this process reads";
    LAG_MESSAGES: Gauge = "tamiz_lag_messages", "Messages that a partition holds and the table does not";
    LAG_SECONDS: Gauge = "tamiz_lag_seconds", "Age of the oldest message of a partition that the table does not hold";
    READY: Gauge = "tamiz_ready", "1 where /readyz answers 200";
    CPU: Counter = "process_cpu_seconds_total", "Processor seconds of the process";
    MEMORY: Gauge = "process_resident_memory_bytes", "Memory that the process holds";
    FILES: Gauge = "process_open_fds", "Files and sockets that the process holds open";
    STARTED: Gauge = "process_start_time_seconds", "When the process started, in seconds since 1970";
}

/// The metrics as text.
pub fn text(view: &std::sync::Arc<View>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(view.clone()));
    let mut text = String::with_capacity(16 << 10);
    // Writing to memory does not fail, and no encoder of ours does.
    let _ = prometheus_text::encode(&mut text, &registry);
    text
}

impl Collector for View {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        let counts = self.stats.snapshot();
        page.one(BUILD, self.labels(), 1_u64)?;
        page.source(&counts)?;
        page.stages(&counts)?;
        if let Some(scorer) = self.scorer() {
            page.model(scorer.stats())?;
        }
        page.commits(&counts)?;
        page.watch(self.stats.watch())?;
        page.one(READY, none(), u64::from(self.ready().is_ok()))?;
        page.process(Process::now(), self.started)
    }
}

/// Names and values of labels.
pub(super) type Labels = Vec<(&'static str, String)>;

fn none() -> Labels {
    Labels::new()
}

fn label(name: &'static str, value: &str) -> Labels {
    vec![(name, value.to_owned())]
}

/// A number: whole ones are written without a point.
#[derive(Debug, Clone, Copy)]
enum Value {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Value::Whole(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Real(value)
    }
}

impl EncodeCounterValue for Value {
    fn encode(&self, encoder: &mut CounterValueEncoder) -> fmt::Result {
        match self {
            Value::Whole(value) => EncodeCounterValue::encode(value, encoder),
            Value::Real(value) => EncodeCounterValue::encode(value, encoder),
        }
    }
}

impl EncodeGaugeValue for Value {
    fn encode(&self, encoder: &mut GaugeValueEncoder) -> fmt::Result {
        match self {
            Value::Whole(value) => EncodeGaugeValue::encode(value, encoder),
            Value::Real(value) => EncodeGaugeValue::encode(value, encoder),
        }
    }
}

/// The page under construction.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn describe(&mut self, metric: Metric) -> Result<MetricEncoder<'_>, fmt::Error> {
        let (name, kind) = match metric.kind {
            // The encoder adds the ending.
            Kind::Counter => (metric.name.trim_end_matches("_total"), MetricType::Counter),
            Kind::Gauge => (metric.name, MetricType::Gauge),
            Kind::Histogram => (metric.name, MetricType::Histogram),
        };
        self.0.encode_descriptor(name, metric.help, None, kind)
    }

    fn many<V: Into<Value>>(&mut self, metric: Metric, rows: impl IntoIterator<Item = (Labels, V)>) -> fmt::Result {
        let mut family = self.describe(metric)?;
        for (labels, value) in rows {
            let (mut one, value) = (family.encode_family(&labels)?, value.into());
            match metric.kind {
                Kind::Counter => one.encode_counter::<NoLabelSet, _, f64>(&value, None)?,
                _ => one.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    fn one(&mut self, metric: Metric, labels: Labels, value: impl Into<Value>) -> fmt::Result {
        self.many(metric, [(labels, value)])
    }

    fn histogram(&mut self, metric: Metric, told: &Distribution) -> fmt::Result {
        let mut family = self.describe(metric)?;
        family.encode_histogram::<NoLabelSet>(told.sum, told.count, &told.buckets, None)
    }

    fn source(&mut self, counts: &Snapshot) -> fmt::Result {
        self.one(SOURCE_ROWS, none(), counts.read)?;
        self.one(SOURCE_BYTES, none(), counts.read_bytes)?;
        self.histogram(BATCH_ROWS, &counts.batch_rows)
    }

    fn stages(&mut self, counts: &Snapshot) -> fmt::Result {
        let stages = || counts.stages.iter().map(|(name, count)| (label("stage", name), count));
        self.many(STAGE_ROWS_IN, stages().map(|(stage, count)| (stage, count.rows)))?;
        self.many(STAGE_ROWS_OUT, stages().map(|(stage, count)| (stage, count.passed())))?;
        self.many(STAGE_SECONDS, stages().map(|(stage, count)| (stage, count.seconds)))?;
        let rejects = counts.reasons.iter().map(|((stage, reason), count)| {
            let labels = vec![("stage", (*stage).to_owned()), ("reason", (*reason).to_owned())];
            (labels, *count)
        });
        self.many(REJECTS, rejects)?;
        self.one(REJECTS_NOT_STORED, none(), counts.ignored)
    }

    fn model(&mut self, model: ScorerStats) -> fmt::Result {
        self.one(MODEL_ROWS, none(), model.rows)?;
        self.one(MODEL_TOKENS, none(), model.tokens)?;
        // The two counters are read one after the other, while the model goes on.
        self.one(MODEL_PADDING, none(), model.padded_tokens.saturating_sub(model.tokens))?;
        self.one(MODEL_BATCHES, none(), model.batches)?;
        self.one(MODEL_SPLITS, none(), model.split_batches)?;
        self.one(MODEL_SPARED, none(), model.spared_rows)?;
        self.one(MODEL_SECONDS, none(), model.model_seconds)?;
        self.one(TOKENIZE_SECONDS, none(), model.tokenize_seconds)?;
        self.one(MODEL_QUEUE, none(), model.queued_rows)
    }

    fn commits(&mut self, counts: &Snapshot) -> fmt::Result {
        self.histogram(COMMIT_SECONDS, &counts.commit_times)?;
        self.histogram(COMMIT_ROWS, &counts.commit_rows)?;
        self.histogram(COMMIT_BYTES, &counts.commit_bytes)?;
        let tables = [("posts", counts.posts), ("dead_letters", counts.dead_letters)];
        self.many(
            COMMITTED_ROWS,
            tables.map(|(table, rows)| (label("table", table), rows)),
        )?;
        self.one(LATE, none(), counts.late)?;
        self.one(DELETES, none(), counts.deletes)?;
        self.one(TAKEN_BACK, none(), counts.taken_back)?;
        self.one(COMMITTED_FILES, none(), counts.files)?;
        let retries = [("conflict", counts.retries.conflicts), ("store", counts.retries.faults)];
        self.many(
            COMMIT_FAILURES,
            retries.map(|(cause, times)| (label("cause", cause), times)),
        )?;
        self.one(FENCED, none(), counts.conflicts)?;
        self.one(REPLAYED, none(), counts.replayed)?;
        self.histogram(EVENT_TO_COMMIT, &counts.event_to_commit)
    }

    fn watch(&mut self, watch: &Watch) -> fmt::Result {
        let queues = watch.gauges.queues();
        let each = |of: fn(&Queue) -> usize| {
            let queue = move |(name, queue): (&&'static str, &Queue)| (label("queue", name), of(queue) as u64);
            queues.iter().map(queue)
        };
        self.many(QUEUE_DEPTH, each(|queue| queue.depth))?;
        self.many(QUEUE_CAPACITY, each(|queue| queue.capacity))?;
        if let Some((used, limit)) = watch.gauges.bytes() {
            self.one(IN_FLIGHT, none(), used as u64)?;
            self.one(IN_FLIGHT_LIMIT, none(), limit as u64)?;
        }
        self.one(UNCOMMITTED_SECONDS, none(), watch.health.waited().as_secs_f64())?;
        let lag = watch.lag.now();
        self.one(PARTITIONS, none(), lag.len() as u64)?;
        let at = |index: usize| {
            let at = &lag[index].at;
            vec![("topic", at.topic.to_string()), ("partition", at.partition.to_string())]
        };
        self.many(LAG_MESSAGES, (0..lag.len()).map(|i| (at(i), lag[i].messages)))?;
        self.many(LAG_SECONDS, (0..lag.len()).map(|i| (at(i), lag[i].seconds)))
    }

    fn process(&mut self, process: Process, started: f64) -> fmt::Result {
        if let Some(seconds) = process.cpu_seconds {
            self.one(CPU, none(), seconds)?;
        }
        if let Some(bytes) = process.resident_bytes {
            self.one(MEMORY, none(), bytes)?;
        }
        if let Some(files) = process.open_files {
            self.one(FILES, none(), files)?;
        }
        self.one(STARTED, none(), started)
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
