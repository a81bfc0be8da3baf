//! Rows and offsets into the two tables, in one commit each.
//!
//! Dead letters are committed before posts. So the posts table's offsets alone say where to resume: every dead letter
//! of an offset below them is safe, and one committed just before a crash is found in the dead-letter table when its row
//! is read again. A batch without dead letters costs one commit, not two. Deletes are committed between the two, for the
//! same reason; they need no offsets, since one that is there twice means the same.
//!
//! Which rows are refused may change between two readings: a model fails once, an operator changes a rule. So above the
//! posts' offsets a letter counts as committed only where the table holds it, whatever its own offsets say.
//!
//! Architecture Invariant: a batch's share of the byte budget is given back only after its rows are committed.

mod commit;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, Int64Type};
use tokio::sync::{mpsc, oneshot};

use crate::batch::{Offsets, Range, TopicPartition};
use crate::letter_topic::LetterTopicError;
use crate::source::kafka::Committed as CommittedOffsets;
use crate::stages::finish::{Finished, Origins};
use crate::stats::Stats;
use crate::table::{TableError, TxnRange, Txns};
pub use crate::tables::{Tables, app_id};
use commit::{Commit, Flushed, Pending, commit, landed};

/// What the sink is sent.
#[derive(Debug)]
pub enum SinkItem {
    /// Rows.
    Rows(Box<Finished>),
    /// Commit all that came before, then answer.
    Flush(oneshot::Sender<()>),
}

/// When to commit.
#[derive(Debug, Clone, Copy)]
pub struct FlushRules {
    /// Payload bytes that may wait.
    pub bytes: usize,
    /// How long the oldest row may wait.
    pub age: Duration,
}

/// A sink that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Another writer has committed these offsets: what was read since must be read again.
    #[error("another process committed `{0}` meanwhile: its rows are read again from there")]
    Fenced(String),
    /// The topic of dead letters.
    #[error(transparent)]
    LetterTopic(#[from] LetterTopicError),
    /// Arrow refused.
    #[error("cannot filter rows")]
    Arrow(#[from] arrow::error::ArrowError),
    /// The commit's task died.
    #[error("the commit was abandoned; what it staged is committed or will be read again")]
    Abandoned,
    /// Ranges of batches do not chain.
    #[error(
        "`{topic}` [{partition}]: a batch begins at offset {found}, {expected} was expected; report this as a defect"
    )]
    Gap {
        /// Topic.
        topic: Arc<str>,
        /// Partition.
        partition: i32,
        /// Where the batch begins.
        found: i64,
        /// Where the last one ended.
        expected: i64,
    },
}

/// What the tables know of one partition.
#[derive(Debug, Clone)]
struct Known {
    epoch: u64,
    posts: Option<i64>,
    dead_letters: Option<i64>,
    /// Offsets of dead letters that the table held beyond `posts` when it was asked, rising: those of a flush that was cut
    /// short.
    letters: Vec<i64>,
}

impl Known {
    /// Whether the row of that offset is through: a post, a letter or a delete, and committed.
    fn holds_post(&self, offset: i64) -> bool {
        self.posts.is_some_and(|next| offset < next)
    }

    /// Whether the row of that offset is through, or is a dead letter already.
    fn holds_letter(&self, offset: i64) -> bool {
        self.holds_post(offset) || self.letters.binary_search(&offset).is_ok()
    }

    /// Whether no row from that offset on was ever committed.
    fn is_new_from(&self, first: i64) -> bool {
        !self.holds_post(first) && self.letters.last().is_none_or(|last| *last < first)
    }
}

/// Collects rows and commits them.
pub struct Sink {
    prefix: String,
    rules: FlushRules,
    stats: Arc<Stats>,
    committed: CommittedOffsets,
    tables: Option<Tables>,
    in_flight: Option<Commit>,
    known: BTreeMap<TopicPartition, Known>,
    pending: Pending,
}

impl Sink {
    /// A sink into two tables.
    pub fn new(
        prefix: String,
        mut tables: Tables,
        rules: FlushRules,
        stats: Arc<Stats>,
        committed: CommittedOffsets,
    ) -> Self {
        for table in [&mut tables.posts, &mut tables.dead_letters] {
            table.count_retries(stats.retries());
        }
        tables.deletes.count_retries(stats.retries());
        Sink {
            prefix,
            rules,
            stats,
            committed,
            tables: Some(tables),
            in_flight: None,
            known: BTreeMap::new(),
            pending: Pending::default(),
        }
    }

    /// Tells the sink beforehand how far the tables are, for sources that had to ask anyway.
    pub fn know(&mut self, at: TopicPartition, epoch: u64, posts: Option<i64>, dead_letters: Option<i64>) {
        // A flush was cut short: which letters it left has to be asked with the first batch.
        if dead_letters > posts {
            return;
        }
        self.known.insert(
            at,
            Known {
                epoch,
                posts,
                dead_letters,
                letters: Vec::new(),
            },
        );
    }

    /// Takes rows until the line ends, commits by size and age, and commits what is left.
    ///
    /// # Errors
    /// A table that cannot be written, or another writer that owns the partitions now.
    pub async fn run(mut self, mut items: mpsc::Receiver<SinkItem>) -> Result<(), SinkError> {
        loop {
            let due = self
                .pending
                .since
                .map(|since| tokio::time::Instant::from_std(since + self.rules.age));
            let item = tokio::select! {
                item = items.recv() => item,
                () = sleep_until(due) => {
                    self.flush().await?;
                    continue;
                }
                // On a quiet topic nothing else would ask how the last commit ended.
                flushed = landed(&mut self.in_flight) => {
                    self.learn_outcome(flushed?);
                    continue;
                }
            };
            match item {
                Some(SinkItem::Rows(rows)) => {
                    self.add(*rows).await?;
                    if self.pending.bytes >= self.rules.bytes {
                        self.flush().await?;
                    }
                }
                Some(SinkItem::Flush(done)) => {
                    self.flush().await?;
                    self.settle().await?;
                    // The one who asked may have given up waiting.
                    let _ = done.send(());
                }
                None => {
                    self.flush().await?;
                    return self.settle().await;
                }
            }
        }
    }

    async fn add(&mut self, rows: Finished) -> Result<(), SinkError> {
        // Before any offset is taken up: learning may flush, and an offset that waits then goes in without its rows.
        for (at, range) in &rows.offsets {
            if self.known.get(at).is_none_or(|known| known.epoch != range.epoch) {
                self.learn(at, range.epoch).await?;
            }
        }
        for (at, range) in &rows.offsets {
            match self.pending.offsets.get_mut(at) {
                Some(pending) if pending.next != range.first => {
                    let (topic, partition) = (Arc::clone(&at.topic), at.partition);
                    return Err(SinkError::Gap {
                        topic,
                        partition,
                        found: range.first,
                        expected: pending.next,
                    });
                }
                Some(pending) => pending.next = range.next,
                None => drop(self.pending.offsets.insert(at.clone(), *range)),
            }
        }
        let (offsets, letters) = (&rows.offsets, &rows.dead_letter_origins);
        let posts = self.unseen(rows.posts, &rows.post_origins, offsets, Known::holds_post)?;
        let dead_letters = self.unseen(rows.dead_letters, letters, offsets, Known::holds_letter)?;
        let pending = &mut self.pending;
        pending.since.get_or_insert_with(Instant::now);
        pending.bytes += rows.permit.bytes;
        pending.permits.push(rows.permit);
        pending.traces.push(rows.trace);
        pending.posts.extend((posts.num_rows() > 0).then_some(posts));
        pending
            .deletes
            .extend((rows.deletes.num_rows() > 0).then_some(rows.deletes));
        pending
            .dead_letters
            .extend((dead_letters.num_rows() > 0).then_some(dead_letters));
        self.note_waiting();
        Ok(())
    }

    /// Shows since when the oldest row waits.
    fn note_waiting(&self) {
        let oldest = self
            .in_flight
            .as_ref()
            .map_or(self.pending.since, |commit| commit.since);
        self.stats.watch().health.rows_wait(oldest);
    }

    /// Asks both tables how far they are in a partition that is new here, or that was away.
    async fn learn(&mut self, at: &TopicPartition, epoch: u64) -> Result<(), SinkError> {
        if self.pending.offsets.contains_key(at) {
            self.flush().await?;
        }
        self.settle().await?;
        let id = app_id(&self.prefix, at);
        let Some(tables) = &self.tables else {
            return Err(SinkError::Abandoned);
        };
        let ids = [id.clone()];
        let posts = tables.posts.next_offsets(&ids).await?.get(&id).copied();
        let dead_letters = tables.dead_letters.next_offsets(&ids).await?.get(&id).copied();
        let letters = match dead_letters {
            Some(next) if dead_letters > posts => {
                let cut_short = posts.unwrap_or(0)..next;
                let table = &tables.dead_letters;
                table.offsets_of_rows(&at.topic, at.partition, cut_short).await?
            }
            _ => Vec::new(),
        };
        self.known.insert(
            at.clone(),
            Known {
                epoch,
                posts,
                dead_letters,
                letters,
            },
        );
        Ok(())
    }

    /// The rows that are not committed yet.
    ///
    /// A row that was refused before a crash and passes when it is read again gets its post beside the letter, which is in
    /// already; a replay of that letter finds the post. The other way round a row that passed and is refused now gets its
    /// letter, since its post never came to be committed.
    fn unseen(
        &self,
        rows: RecordBatch,
        origins: &Origins,
        offsets: &Offsets,
        held: impl Fn(&Known, i64) -> bool,
    ) -> Result<RecordBatch, SinkError> {
        let is_new = |at: &TopicPartition, first| self.known.get(at).is_none_or(|known| known.is_new_from(first));
        if rows.num_rows() == 0 || offsets.iter().all(|(at, range)| is_new(at, range.first)) {
            return Ok(rows);
        }
        let partitions = origins.partitions.as_primitive::<Int32Type>();
        let numbers = origins.offsets.as_primitive::<Int64Type>();
        let keep: BooleanArray = (0..rows.num_rows())
            .map(|row| {
                let at = TopicPartition {
                    topic: origins.topics.value(row).into(),
                    partition: partitions.value(row),
                };
                let known = self.known.get(&at);
                Some(!known.is_some_and(|known| held(known, numbers.value(row))))
            })
            .collect();
        self.stats.replayed(rows.num_rows() - keep.true_count());
        Ok(filter_record_batch(&rows, &keep)?)
    }

    /// Starts a commit of all that waits; the one before must be through.
    async fn flush(&mut self) -> Result<(), SinkError> {
        if self.pending.offsets.is_empty() {
            return Ok(());
        }
        self.settle().await?;
        let pending = std::mem::take(&mut self.pending);
        let Some(tables) = self.tables.take() else {
            return Err(SinkError::Abandoned);
        };
        let txns = |held: fn(&Known) -> Option<i64>| -> Txns {
            let range = |(at, range): (&TopicPartition, &Range)| {
                let first = self.known.get(at).and_then(held).unwrap_or(range.first);
                (
                    app_id(&self.prefix, at),
                    TxnRange {
                        first,
                        next: range.next.max(first),
                    },
                )
            };
            pending.offsets.iter().map(range).collect()
        };
        let (posts, dead_letters) = (txns(|known| known.posts), txns(|known| known.dead_letters));
        let since = pending.since;
        let task = tokio::spawn(commit(tables, pending, posts, dead_letters, Arc::clone(&self.stats)));
        self.in_flight = Some(Commit { task, since });
        Ok(())
    }

    /// Waits for the commit under way, if any, and learns its outcome.
    async fn settle(&mut self) -> Result<(), SinkError> {
        if self.in_flight.is_some() {
            let flushed = landed(&mut self.in_flight).await?;
            self.learn_outcome(flushed);
        }
        Ok(())
    }

    fn learn_outcome(&mut self, flushed: Flushed) {
        self.tables = Some(flushed.tables);
        self.stats.watch().lag.committed(&flushed.offsets);
        let mut reported = self.committed.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, range) in flushed.offsets {
            if let Some(known) = self.known.get_mut(&at) {
                known.posts = Some(range.next.max(known.posts.unwrap_or(i64::MIN)));
                if flushed.wrote_dead_letters {
                    known.dead_letters = Some(range.next.max(known.dead_letters.unwrap_or(i64::MIN)));
                }
            }
            reported.insert(at, range.next);
        }
        drop(reported);
        self.note_waiting();
    }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
