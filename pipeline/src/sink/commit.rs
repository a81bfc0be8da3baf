//! One commit to the tables, as a task of its own: dead letters first, then deletes, then posts.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch, TimestampMicrosecondArray};
use tamiz_schemas::columns::{CREATED_AT, LATE};
use tokio::task::JoinHandle;

use super::{SinkError, Tables};
use crate::batch::{Offsets, Permit};
use crate::observe::traces;
use crate::stats::{CommitCount, Stats};
use crate::table::{Committed, Txns};

/// Rows that wait for a commit, and what goes with them.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) posts: Vec<RecordBatch>,
    pub(super) dead_letters: Vec<RecordBatch>,
    pub(super) deletes: Vec<RecordBatch>,
    pub(super) offsets: Offsets,
    pub(super) permits: Vec<Permit>,
    pub(super) traces: Vec<tracing::Span>,
    pub(super) bytes: usize,
    pub(super) since: Option<Instant>,
}

/// A commit under way.
pub(super) struct Commit {
    pub(super) task: JoinHandle<Result<Flushed, SinkError>>,
    /// Since when its oldest row waits.
    pub(super) since: Option<Instant>,
}

/// A commit that is in, and the tables to go on with.
pub(super) struct Flushed {
    pub(super) tables: Tables,
    pub(super) offsets: Offsets,
    pub(super) wrote_dead_letters: bool,
}

/// Waits for the commit under way, or for ever where there is none. Giving up waiting leaves it under way.
pub(super) async fn landed(in_flight: &mut Option<Commit>) -> Result<Flushed, SinkError> {
    let Some(commit) = in_flight else {
        return std::future::pending().await;
    };
    let ended = (&mut commit.task).await;
    *in_flight = None;
    ended.map_err(|_| SinkError::Abandoned)?
}

/// Commits, in an order that a crash cannot harm; see [`super`].
pub(super) async fn commit(
    mut tables: Tables,
    mut pending: Pending,
    posts: Txns,
    dead_letters: Txns,
    stats: Arc<Stats>,
) -> Result<Flushed, SinkError> {
    let started = Instant::now();
    let (letters, deletes) = (rows(&pending.dead_letters), rows(&pending.deletes));
    let trace = traces::Commit::new(&pending.traces, letters, deletes);
    let mut count = CommitCount::default();
    let wrote_dead_letters = !pending.dead_letters.is_empty();
    if wrote_dead_letters {
        let _table = trace.table("dead_letters");
        if let Some(topic) = &tables.letter_topic {
            topic.send(&pending.dead_letters).await?;
        }
        let ended = tables.dead_letters.commit(pending.dead_letters, &dead_letters).await?;
        if let Committed::New { files, bytes, .. } = not_fenced(ended, &stats)? {
            (count.dead_letters, count.files, count.bytes) = (letters, files as u64, bytes);
        }
    }
    if !pending.deletes.is_empty() {
        let _table = trace.table("deletes");
        let waiting = rows(&pending.posts);
        pending.posts = tables.deletes.take_back(pending.deletes, pending.posts).await?;
        stats.deletes(deletes, waiting - rows(&pending.posts));
    }
    let (written, late, happened) = (rows(&pending.posts), late(&pending.posts), event_times(&pending.posts));
    trace.posts(written);
    let table = trace.table("posts");
    let ended = tables.posts.commit(pending.posts, &posts).await?;
    if let Committed::New { files, bytes, .. } = not_fenced(ended, &stats)? {
        (count.posts, count.late) = (written, late);
        count.files += files as u64;
        count.bytes += bytes;
        stats.event_to_commit(&happened);
    }
    drop(table);
    trace.done(count.files, count.bytes);
    stats.commit(count, started.elapsed());
    let (posts, dead_letters) = (count.posts, count.dead_letters);
    let (seconds, files) = (started.elapsed().as_secs_f64(), count.files);
    tracing::debug!(posts, dead_letters, files, seconds, "committed");
    drop(pending.permits);
    Ok(Flushed {
        tables,
        offsets: pending.offsets,
        wrote_dead_letters,
    })
}

fn rows(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

fn late(posts: &[RecordBatch]) -> u64 {
    let marked = |batch: &RecordBatch| Some(batch.column_by_name(LATE)?.as_boolean_opt()?.true_count() as u64);
    posts.iter().filter_map(marked).sum()
}

/// When the posts happened, by their own times. Cheap: the columns are shared, not copied.
fn event_times(posts: &[RecordBatch]) -> Vec<TimestampMicrosecondArray> {
    let column = |batch: &RecordBatch| batch.column_by_name(CREATED_AT)?.as_primitive_opt().cloned();
    posts.iter().filter_map(column).collect()
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
