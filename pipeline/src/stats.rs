//! What the line counts as it works: rows, refusals and seconds per stage; bytes, commits, model time.
//!
//! Counted once, here; who shows it (progress bar, summary, metrics) reads a [`Snapshot`]. What is no count (lag, health,
//! what is in flight) is noted in the [`Watch`] beside.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::TimestampMicrosecondArray;

use crate::batch::Batch;
use crate::observe::{Distribution, Histogram, Watch};
use crate::stages::finish::now_micros;
use crate::table::{Retries, RetryCount};

/// Counters of one stage.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StageCount {
    /// Rows given to it.
    pub rows: u64,
    /// Rows it refused.
    pub refused: u64,
    /// Rows that took a post back.
    pub deletes: u64,
    /// Seconds of one thread.
    pub seconds: f64,
}

impl StageCount {
    /// Of one batch, where no row took a post back.
    pub fn new(rows: usize, refused: usize, took: Duration) -> Self {
        StageCount {
            rows: rows as u64,
            refused: refused as u64,
            deletes: 0,
            seconds: took.as_secs_f64(),
        }
    }

    /// Rows that it let go on.
    pub fn passed(&self) -> u64 {
        self.rows - self.refused - self.deletes
    }
}

/// Counters of a running line.
#[derive(Debug, Default)]
pub struct Stats {
    stages: Mutex<BTreeMap<&'static str, StageCount>>,
    reasons: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    read: AtomicU64,
    read_bytes: AtomicU64,
    posts: AtomicU64,
    late: AtomicU64,
    dead_letters: AtomicU64,
    ignored: AtomicU64,
    replayed: AtomicU64,
    commits: AtomicU64,
    commit_nanos: AtomicU64,
    files: AtomicU64,
    file_bytes: AtomicU64,
    conflicts: AtomicU64,
    deletes: AtomicU64,
    taken_back: AtomicU64,
    retries: Arc<Retries>,
    sizes: Sizes,
    watch: Watch,
}

/// Counts by size.
#[derive(Debug)]
struct Sizes {
    batch_rows: Histogram,
    commit_times: Histogram,
    commit_rows: Histogram,
    commit_bytes: Histogram,
    event_to_commit: Histogram,
}

impl Default for Sizes {
    fn default() -> Self {
        use crate::observe::buckets::{BYTES, COMMIT_SECONDS, EVENT_SECONDS, ROWS};
        Sizes {
            batch_rows: Histogram::new(ROWS),
            commit_times: Histogram::new(COMMIT_SECONDS),
            commit_rows: Histogram::new(ROWS),
            commit_bytes: Histogram::new(BYTES),
            event_to_commit: Histogram::new(EVENT_SECONDS),
        }
    }
}

/// The counters at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// By stage name.
    pub stages: BTreeMap<&'static str, StageCount>,
    /// Rejects by stage and reason.
    pub reasons: BTreeMap<(&'static str, &'static str), u64>,
    /// Rows read from the source.
    pub read: u64,
    /// Payload bytes read.
    pub read_bytes: u64,
    /// Posts committed.
    pub posts: u64,
    /// Of these, those marked as late.
    pub late: u64,
    /// Dead letters committed.
    pub dead_letters: u64,
    /// Rejects that the configuration only counts.
    pub ignored: u64,
    /// Rows read again that a table already held.
    pub replayed: u64,
    /// Commits of both tables.
    pub commits: u64,
    /// Seconds spent staging and committing.
    pub commit_seconds: f64,
    /// Parquet files written.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Commits that another writer fenced off.
    pub conflicts: u64,
    /// Deletes written down.
    pub deletes: u64,
    /// Posts that were taken back before they were committed.
    pub taken_back: u64,
    /// Attempts at commits that did not go in.
    pub retries: RetryCount,
    /// Rows of batches.
    pub batch_rows: Distribution,
    /// Seconds of commits.
    pub commit_times: Distribution,
    /// Rows of commits.
    pub commit_rows: Distribution,
    /// Bytes of commits.
    pub commit_bytes: Distribution,
    /// Seconds from posts' own times to their commits.
    pub event_to_commit: Distribution,
}

/// One finished commit, to count.
#[derive(Debug, Clone, Copy, Default)]
pub struct CommitCount {
    /// Posts in it.
    pub posts: u64,
    /// Of these, those marked as late.
    pub late: u64,
    /// Dead letters in it.
    pub dead_letters: u64,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Stats {
    /// Counts a stage's work.
    pub fn stage(&self, name: &'static str, done: StageCount) {
        if let Ok(mut stages) = self.stages.lock() {
            let count = stages.entry(name).or_default();
            count.rows += done.rows;
            count.refused += done.refused;
            count.deletes += done.deletes;
            count.seconds += done.seconds;
        }
        self.watch.health.line_moved();
    }

    /// Counts a batch that the source read.
    pub fn read(&self, batch: &Batch) {
        let rows = batch.rows.num_rows();
        self.read.fetch_add(rows as u64, Relaxed);
        self.read_bytes.fetch_add(batch.permit.bytes as u64, Relaxed);
        self.sizes.batch_rows.observe(rows as f64);
        self.watch.lag.read(&batch.offsets);
        self.watch.health.batch_in();
    }

    /// Counts a reject.
    pub fn reject(&self, stage: &'static str, reason: &'static str, stored: bool) {
        if let Ok(mut reasons) = self.reasons.lock() {
            *reasons.entry((stage, reason)).or_default() += 1;
        }
        if !stored {
            self.ignored.fetch_add(1, Relaxed);
        }
    }

    /// Counts rows dropped because the table held them already.
    pub fn replayed(&self, rows: usize) {
        self.replayed.fetch_add(rows as u64, Relaxed);
    }

    /// Counts a commit.
    pub fn commit(&self, count: CommitCount, took: Duration) {
        self.posts.fetch_add(count.posts, Relaxed);
        self.late.fetch_add(count.late, Relaxed);
        self.dead_letters.fetch_add(count.dead_letters, Relaxed);
        self.files.fetch_add(count.files, Relaxed);
        self.file_bytes.fetch_add(count.bytes, Relaxed);
        self.commits.fetch_add(1, Relaxed);
        self.commit_nanos.fetch_add(took.as_nanos() as u64, Relaxed);
        self.sizes.commit_times.observe(took.as_secs_f64());
        self.sizes
            .commit_rows
            .observe((count.posts + count.dead_letters) as f64);
        self.sizes.commit_bytes.observe(count.bytes as f64);
    }

    /// Counts how long ago posts happened that are in the table now, by their own times.
    pub fn event_to_commit(&self, happened: &[TimestampMicrosecondArray]) {
        let now = now_micros();
        let times = happened.iter().flat_map(|column| column.values().iter());
        // A clock ahead of ours is no negative time.
        let ages = times.map(|time| now.saturating_sub(*time).max(0) as f64 / 1e6);
        self.sizes.event_to_commit.observe_all(ages);
    }

    /// Where the tables count attempts that did not go in.
    pub fn retries(&self) -> Arc<Retries> {
        Arc::clone(&self.retries)
    }

    /// What is no count.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Counts a fenced commit.
    pub fn conflict(&self) {
        self.conflicts.fetch_add(1, Relaxed);
    }

    /// Counts deletes, and the posts that they took back in the same flush.
    pub fn deletes(&self, deletes: u64, posts: u64) {
        self.deletes.fetch_add(deletes, Relaxed);
        self.taken_back.fetch_add(posts, Relaxed);
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            stages: self.stages.lock().map(|s| s.clone()).unwrap_or_default(),
            reasons: self.reasons.lock().map(|r| r.clone()).unwrap_or_default(),
            read: self.read.load(Relaxed),
            read_bytes: self.read_bytes.load(Relaxed),
            posts: self.posts.load(Relaxed),
            late: self.late.load(Relaxed),
            dead_letters: self.dead_letters.load(Relaxed),
            ignored: self.ignored.load(Relaxed),
            replayed: self.replayed.load(Relaxed),
            commits: self.commits.load(Relaxed),
            commit_seconds: self.commit_nanos.load(Relaxed) as f64 / 1e9,
            files: self.files.load(Relaxed),
            file_bytes: self.file_bytes.load(Relaxed),
            conflicts: self.conflicts.load(Relaxed),
            deletes: self.deletes.load(Relaxed),
            taken_back: self.taken_back.load(Relaxed),
            retries: self.retries.read(),
            batch_rows: self.sizes.batch_rows.read(),
            commit_times: self.sizes.commit_times.read(),
            commit_rows: self.sizes.commit_rows.read(),
            commit_bytes: self.sizes.commit_bytes.read(),
            event_to_commit: self.sizes.event_to_commit.read(),
        }
    }
}
