//! The one thing that flows: rows, the rows refused on the way, and the offsets that both came from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use tokio::sync::OwnedSemaphorePermit;

use crate::stages::deletes::Named;

/// A partition of a Kafka topic; for a batch job, a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Topic, or path of the file.
    pub topic: Arc<str>,
    /// Partition; 0 for a file.
    pub partition: i32,
}

/// A half-open range of offsets of one partition.
///
/// `first` is the offset that was expected next, not that of the first row: compaction and transaction markers leave
/// legal gaps, and ranges of successive batches must chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First offset covered.
    pub first: i64,
    /// Offset to read after this range.
    pub next: i64,
    /// Which assignment of the partition this was read under; a new one means the partition went away and came back.
    pub epoch: u64,
    /// The broker's time of the first row, in microseconds since 1970, where it has one.
    pub stamped_micros: Option<i64>,
}

/// Offsets covered, by partition.
pub type Offsets = BTreeMap<TopicPartition, Range>;

/// A row that a stage refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Index of the row in the batch as it was read ([`Batch::source`]).
    pub row: u32,
    /// The stage.
    pub stage: &'static str,
    /// A word to group by, as `not_json`.
    pub reason: &'static str,
    /// For a person; never words of the post.
    pub detail: String,
}

/// A post that its source takes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// Index of the row in the batch as it was read.
    pub row: u32,
    /// Of which source; of any where that is not known.
    pub source: Option<String>,
    /// Which post.
    pub named: Named,
}

/// What flows from the source to the sink. `offsets` covers every input row, the rejected ones too.
#[derive(Debug)]
pub struct Batch {
    /// The rows, as the stages leave them.
    pub rows: RecordBatch,
    /// The rows as the source read them: payload and whereabouts, to make dead letters from.
    pub source: RecordBatch,
    /// The rows refused so far.
    pub rejects: Vec<Reject>,
    /// The rows that took posts back.
    pub deletes: Vec<Delete>,
    /// What this batch covers.
    pub offsets: Offsets,
    /// When the source closed the batch.
    pub read_at: Instant,
    /// Its trace; ends when the batch is dropped, which is after the commit.
    pub trace: tracing::Span,
    /// Its share of the byte budget; given back when the batch is dropped, which is after the commit.
    pub permit: Permit,
}

/// A share of the byte budget.
#[derive(Debug)]
pub struct Permit {
    /// Bytes that the budget counts for this batch.
    pub bytes: usize,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// A share of `bytes`, backed by the budget's semaphore.
    pub fn new(bytes: usize, permit: OwnedSemaphorePermit) -> Self {
        Permit {
            bytes,
            _permit: Some(permit),
        }
    }

    /// Gives back what a batch turned out not to need.
    pub fn shrink(mut self, bytes: usize) -> Self {
        if let Some(permit) = &mut self._permit {
            let needed = bytes.div_ceil(1024).max(1);
            drop(permit.split(permit.num_permits().saturating_sub(needed)));
        }
        self.bytes = self.bytes.min(bytes);
        self
    }

    /// A share that no budget backs: tests and single batches.
    pub fn unbounded(bytes: usize) -> Self {
        Permit { bytes, _permit: None }
    }
}

/// What moves along the line: batches, and marks that ask for a commit.
#[derive(Debug)]
pub enum Item {
    /// Rows.
    Batch(Box<Batch>),
    /// Commit all that came before, then answer. Sent before partitions are given up and at the end.
    Flush(tokio::sync::oneshot::Sender<()>),
}
