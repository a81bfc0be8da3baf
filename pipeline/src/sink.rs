//! Rows and offsets into the two tables, in one commit each.
//!
//! Dead letters are committed before posts. So the posts table's offsets alone say where to resume: every dead letter
//! of an offset below them is safe, and one committed just before a crash is recognised by the dead-letter table's own
//! offsets when its row is read again. A batch without dead letters costs one commit, not two.
//!
//! Architecture Invariant: a batch's share of the byte budget is given back only after its rows are committed.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, Int64Type};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::batch::{Offsets, Permit, TopicPartition};
use crate::source::kafka::Committed as CommittedOffsets;
use crate::stages::finish::{Finished, Origins};
use crate::stats::{CommitCount, Stats};
use crate::table::{Committed, TableError, TableWriter, TxnRange, Txns};

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

/// Both tables, and how offsets are named in them.
pub struct Tables {
    /// `posts`.
    pub posts: TableWriter,
    /// `dead_letters`.
    pub dead_letters: TableWriter,
}

/// Name under which a table keeps a partition's offset: `{pipeline}/{cluster}/{topic}/{partition}`.
pub fn app_id(prefix: &str, at: &TopicPartition) -> String {
    format!("{prefix}/{}/{}", at.topic, at.partition)
}

/// What one table knows of one partition.
#[derive(Debug, Clone, Copy)]
struct Known {
    epoch: u64,
    posts: Option<i64>,
    dead_letters: Option<i64>,
}

/// Collects rows and commits them.
pub struct Sink {
    prefix: String,
    rules: FlushRules,
    stats: Arc<Stats>,
    committed: CommittedOffsets,
    tables: Option<Tables>,
    in_flight: Option<JoinHandle<Result<Flushed, SinkError>>>,
    known: BTreeMap<TopicPartition, Known>,
    pending: Pending,
}

#[derive(Default)]
struct Pending {
    posts: Vec<RecordBatch>,
    dead_letters: Vec<RecordBatch>,
    offsets: Offsets,
    permits: Vec<Permit>,
    bytes: usize,
    since: Option<Instant>,
}

struct Flushed {
    tables: Tables,
    offsets: Offsets,
    wrote_dead_letters: bool,
}

impl Sink {
    /// A sink into two tables.
    pub fn new(
        prefix: String,
        tables: Tables,
        rules: FlushRules,
        stats: Arc<Stats>,
        committed: CommittedOffsets,
    ) -> Self {
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
        self.known.insert(
            at,
            Known {
                epoch,
                posts,
                dead_letters,
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
        for (at, range) in &rows.offsets {
            if self.known.get(at).is_none_or(|known| known.epoch != range.epoch) {
                self.learn(at, range.epoch).await?;
            }
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
        let fresh = |known: &Known| known.posts;
        let posts = self.unseen(rows.posts, &rows.post_origins, &rows.offsets, fresh)?;
        let fresh = |known: &Known| known.dead_letters;
        let dead_letters = self.unseen(rows.dead_letters, &rows.dead_letter_origins, &rows.offsets, fresh)?;
        let pending = &mut self.pending;
        pending.since.get_or_insert_with(Instant::now);
        pending.bytes += rows.permit.bytes;
        pending.permits.push(rows.permit);
        pending.posts.extend((posts.num_rows() > 0).then_some(posts));
        pending
            .dead_letters
            .extend((dead_letters.num_rows() > 0).then_some(dead_letters));
        Ok(())
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
        self.known.insert(
            at.clone(),
            Known {
                epoch,
                posts,
                dead_letters,
            },
        );
        Ok(())
    }

    /// The rows that the table does not hold yet.
    fn unseen(
        &self,
        rows: RecordBatch,
        origins: &Origins,
        offsets: &Offsets,
        held: impl Fn(&Known) -> Option<i64>,
    ) -> Result<RecordBatch, SinkError> {
        let held_to = |at: &TopicPartition| self.known.get(at).and_then(&held).unwrap_or(i64::MIN);
        if rows.num_rows() == 0 || offsets.iter().all(|(at, range)| held_to(at) <= range.first) {
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
                Some(numbers.value(row) >= held_to(&at))
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
            let range = |(at, range): (&TopicPartition, &crate::batch::Range)| {
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
        self.in_flight = Some(tokio::spawn(commit(
            tables,
            pending,
            posts,
            dead_letters,
            Arc::clone(&self.stats),
        )));
        Ok(())
    }

    /// Waits for the commit under way, if any, and learns its outcome.
    async fn settle(&mut self) -> Result<(), SinkError> {
        let Some(task) = self.in_flight.take() else {
            return Ok(());
        };
        let flushed = task.await.map_err(|_| SinkError::Abandoned)??;
        self.tables = Some(flushed.tables);
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
        Ok(())
    }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn commit(
    mut tables: Tables,
    pending: Pending,
    posts: Txns,
    dead_letters: Txns,
    stats: Arc<Stats>,
) -> Result<Flushed, SinkError> {
    let started = Instant::now();
    let rows = |batches: &[RecordBatch]| batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
    let mut count = CommitCount::default();
    let wrote_dead_letters = !pending.dead_letters.is_empty();
    if wrote_dead_letters {
        let letters = rows(&pending.dead_letters);
        if let Committed::New { files, bytes, .. } = not_fenced(
            tables.dead_letters.commit(pending.dead_letters, &dead_letters).await?,
            &stats,
        )? {
            (count.dead_letters, count.files, count.bytes) = (letters, files as u64, bytes);
        }
    }
    let written = rows(&pending.posts);
    if let Committed::New { files, bytes, .. } = not_fenced(tables.posts.commit(pending.posts, &posts).await?, &stats)?
    {
        count.posts = written;
        count.files += files as u64;
        count.bytes += bytes;
    }
    stats.commit(count, started.elapsed());
    tracing::debug!(
        posts = count.posts,
        dead_letters = count.dead_letters,
        files = count.files,
        "committed"
    );
    drop(pending.permits);
    Ok(Flushed {
        tables,
        offsets: pending.offsets,
        wrote_dead_letters,
    })
}

fn not_fenced(outcome: Committed, stats: &Stats) -> Result<Committed, SinkError> {
    match outcome {
        Committed::Fenced { app_id, .. } => {
            stats.conflict();
            Err(SinkError::Fenced(app_id))
        }
        other => Ok(other),
    }
}
