//! Where rows come from: a Kafka topic or files. A source reads on a thread of its own and pushes [`Item`]s.
//!
//! Every source delivers batches of one shape ([`schema`]): payload and whereabouts. A source takes its share of the
//! byte budget before it reads; without one it waits (Kafka: pauses its partitions and keeps polling).

pub mod files;
pub mod kafka;
pub mod parquet;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, Int32Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tamiz_schemas::columns::*;
use tamiz_schemas::posts;
use tokio::sync::{Semaphore, TryAcquireError, mpsc};

use crate::batch::{Batch, Item, Offsets, Permit, Range, TopicPartition};
use crate::config::ConfigError;
use crate::observe::traces;
use crate::stages::finish::{moment, now_micros};

/// When the source read the row; becomes `ingested_at`.
pub const INGESTED: &str = "ingested";

/// Key of the message, where it is wanted: tombstones hold nothing else.
pub const MESSAGE_KEY: &str = "message_key";

/// What a row costs beside its payload, in the budget's count.
const ROW_BYTES: usize = 64;

/// What every source delivers; `payload` is bytes, or a struct of a Parquet file's columns.
pub fn schema(payload: DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(TOPIC_NAME, DataType::Utf8, false),
        Field::new(PARTITION, DataType::Int32, false),
        Field::new(OFFSET, DataType::Int64, false),
        Field::new(TIMESTAMP, posts::timestamp(), true),
        Field::new(INGESTED, posts::timestamp(), false),
        Field::new(PAYLOAD, payload, true),
        Field::new(MESSAGE_KEY, DataType::Binary, true),
    ]))
}

/// How large a batch may grow.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Rows.
    pub rows: usize,
    /// Payload bytes; a single larger row makes a batch of its own.
    pub bytes: usize,
    /// How long a first row waits for company.
    pub linger: Duration,
}

/// One byte budget for all that is in flight between source and commit.
#[derive(Debug, Clone)]
pub struct Budget {
    semaphore: Arc<Semaphore>,
    kib: u32,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let kib = u32::try_from((bytes / 1024).max(1)).unwrap_or(u32::MAX);
        Budget {
            semaphore: Arc::new(Semaphore::new(kib as usize)),
            kib,
        }
    }

    /// Whether the share is more than the whole budget.
    fn share(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(1024).max(1))
            .unwrap_or(u32::MAX)
            .min(self.kib)
    }

    /// A share now, or `None` while too much is in flight. A single row larger than the whole budget takes all of it.
    pub fn try_take(&self, bytes: usize) -> Option<Permit> {
        match Arc::clone(&self.semaphore).try_acquire_many_owned(self.share(bytes)) {
            Ok(permit) => Some(Permit::new(bytes, permit)),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => None,
        }
    }

    /// Bytes that may be in flight.
    pub fn limit(&self) -> usize {
        self.kib as usize * 1024
    }

    /// Bytes in flight.
    pub fn used(&self) -> usize {
        (self.kib as usize - self.semaphore.available_permits()) * 1024
    }
}

/// Says when to stop: set by a signal or by a failure further down the line.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    own: Arc<AtomicBool>,
    above: Option<Arc<AtomicBool>>,
}

impl Stop {
    /// Asks the source to stop after what it has read.
    pub fn set(&self) {
        self.own.store(true, Ordering::SeqCst);
    }

    /// Whether someone asked, here or above.
    pub fn is_set(&self) -> bool {
        let set = |flag: &Arc<AtomicBool>| flag.load(Ordering::SeqCst);
        set(&self.own) || self.above.as_ref().is_some_and(set)
    }

    /// One that can be set without setting this one; setting this one sets it too.
    pub fn child(&self) -> Self {
        Stop {
            own: Arc::default(),
            above: Some(Arc::clone(&self.own)),
        }
    }
}

/// A source that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The Kafka client refused its configuration.
    #[error("kafka: {what}: {cause}")]
    Kafka {
        /// What was tried, on what, and what to do.
        what: String,
        /// librdkafka's words.
        cause: String,
    },
    /// Brokers answer, but do not let us in.
    #[error("kafka: {0}")]
    Refused(String),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What the table stores and what the topic holds do not fit.
    #[error("{0}")]
    Offsets(String),
    /// A file.
    #[error("cannot read `{path}`: {cause}")]
    File {
        /// The file.
        path: String,
        /// Why.
        cause: String,
    },
}

/// Sends an item and waits while the line is full; `false` when the line is gone.
pub(crate) fn send(out: &mpsc::Sender<Item>, item: Item) -> bool {
    out.blocking_send(item).is_ok()
}

/// Waits for a share of the budget; `None` when there is no point in waiting any longer.
pub(crate) fn wait_for_share(budget: &Budget, bytes: usize, give_up: impl Fn() -> bool) -> Option<Permit> {
    loop {
        if let Some(permit) = budget.try_take(bytes) {
            return Some(permit);
        }
        if give_up() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A batch of payloads under construction.
pub(crate) struct Collector {
    topics: StringBuilder,
    partitions: Int32Builder,
    offsets: Int64Builder,
    timestamps: TimestampMicrosecondBuilder,
    payloads: BinaryBuilder,
    keys: BinaryBuilder,
    covered: BTreeMap<TopicPartition, Range>,
    /// Starts of partitions are among what is covered.
    starts: bool,
    rows: usize,
    bytes: usize,
    opened: Instant,
}

impl Collector {
    pub(crate) fn new() -> Self {
        Collector {
            topics: StringBuilder::new(),
            partitions: Int32Builder::new(),
            offsets: Int64Builder::new(),
            timestamps: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            payloads: BinaryBuilder::new(),
            keys: BinaryBuilder::new(),
            covered: BTreeMap::new(),
            starts: false,
            rows: 0,
            bytes: 0,
            opened: Instant::now(),
        }
    }

    /// Adds a row; `expected` is the offset that was next in its partition.
    pub(crate) fn push(&mut self, at: &TopicPartition, row: RowAt<'_>, payload: Option<&[u8]>) {
        if self.covered.is_empty() {
            self.opened = Instant::now();
        }
        self.topics.append_value(&at.topic);
        self.partitions.append_value(at.partition);
        self.offsets.append_value(row.offset);
        self.timestamps.append_option(row.timestamp_micros);
        self.payloads.append_option(payload);
        self.keys.append_option(row.key);
        self.rows += 1;
        self.bytes += payload.map_or(0, <[u8]>::len) + row.key.map_or(0, <[u8]>::len) + ROW_BYTES;
        let next = row.offset + 1;
        match self.covered.get_mut(at) {
            Some(range) => {
                if range.next == range.first {
                    range.stamped_micros = row.timestamp_micros;
                }
                range.next = next;
            }
            None => {
                let range = Range {
                    first: row.expected,
                    next,
                    epoch: row.epoch,
                    stamped_micros: row.timestamp_micros,
                };
                self.covered.insert(at.clone(), range);
            }
        }
    }

    /// Has the batch say where a partition is read from, with rows of it or without. Such a batch is due at once.
    pub(crate) fn start(&mut self, at: &TopicPartition, offset: i64, epoch: u64) {
        let range = Range {
            first: offset,
            next: offset,
            epoch,
            stamped_micros: None,
        };
        self.cover(at, range);
        self.starts = true;
    }

    fn cover(&mut self, at: &TopicPartition, range: Range) {
        if self.covered.is_empty() {
            self.opened = Instant::now();
        }
        self.covered.entry(at.clone()).or_insert(range);
    }

    /// Whether there is nothing to hand over: neither rows nor starts.
    pub(crate) fn is_empty(&self) -> bool {
        self.covered.is_empty()
    }

    /// Whether starts of partitions are to be handed over.
    pub(crate) fn has_starts(&self) -> bool {
        self.starts && !self.is_empty()
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the batch should go: full, old enough, or with starts, which should be in the table soon.
    pub(crate) fn is_due(&self, limits: &BatchLimits) -> bool {
        self.rows >= limits.rows
            || self.bytes >= limits.bytes
            || self.has_starts()
            || (!self.is_empty() && self.opened.elapsed() >= limits.linger)
    }

    /// Takes the rows of partitions out that now belong to someone else.
    pub(crate) fn discard(&mut self, gone: &[TopicPartition]) {
        if !self.covered.keys().any(|at| gone.contains(at)) {
            return;
        }
        let mut old = std::mem::replace(self, Collector::new());
        let (topics, partitions) = (old.topics.finish(), old.partitions.finish());
        let (offsets, timestamps, payloads) = (old.offsets.finish(), old.timestamps.finish(), old.payloads.finish());
        let keys = old.keys.finish();
        self.starts = old.starts;
        for (at, range) in old.covered.iter().filter(|(at, _)| !gone.contains(at)) {
            let start = Range {
                next: range.first,
                stamped_micros: None,
                ..*range
            };
            self.cover(at, start);
        }
        for row in 0..topics.len() {
            let at = TopicPartition {
                topic: topics.value(row).into(),
                partition: partitions.value(row),
            };
            let Some(range) = old.covered.get(&at).filter(|_| !gone.contains(&at)) else {
                continue;
            };
            let row_at = RowAt {
                offset: offsets.value(row),
                expected: range.first,
                epoch: range.epoch,
                timestamp_micros: timestamps.is_valid(row).then(|| timestamps.value(row)),
                key: keys.is_valid(row).then(|| keys.value(row)),
            };
            self.push(&at, row_at, payloads.is_valid(row).then(|| payloads.value(row)));
        }
    }

    /// The batch, and an empty collector in its place.
    pub(crate) fn take(&mut self, permit: Permit) -> Batch {
        let mut done = std::mem::replace(self, Collector::new());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(done.topics.finish()),
            Arc::new(done.partitions.finish()),
            Arc::new(done.offsets.finish()),
            Arc::new(done.timestamps.finish()),
            Arc::new(moment(now_micros(), done.rows)),
            Arc::new(done.payloads.finish()),
            Arc::new(done.keys.finish()),
        ];
        batch(
            RecordBatch::try_new(schema(DataType::Binary), columns),
            done.covered,
            permit,
        )
    }
}

/// A batch around rows as read.
pub(crate) fn batch(rows: Result<RecordBatch, arrow::error::ArrowError>, offsets: Offsets, permit: Permit) -> Batch {
    let rows = rows.expect("the builders were made for this schema and have one length");
    let trace = traces::batch(rows.num_rows(), permit.bytes, offsets.len());
    Batch {
        source: rows.clone(),
        rows,
        rejects: Vec::new(),
        deletes: Vec::new(),
        offsets,
        read_at: Instant::now(),
        trace,
        permit,
    }
}

/// Where a row lay.
pub(crate) struct RowAt<'r> {
    pub(crate) offset: i64,
    pub(crate) expected: i64,
    pub(crate) epoch: u64,
    pub(crate) timestamp_micros: Option<i64>,
    pub(crate) key: Option<&'r [u8]>,
}
