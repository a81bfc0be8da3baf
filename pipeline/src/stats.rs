//! What the line counts as it works: rows, refusals and seconds per stage; bytes, commits, model time.
//!
//! Counters only; who shows them (progress bar, summary, metrics) reads a [`Snapshot`].

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counters of one stage.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StageCount {
    /// Rows given to it.
    pub rows: u64,
    /// Rows it refused.
    pub refused: u64,
    /// Seconds of one thread.
    pub seconds: f64,
}

/// Counters of a running line.
#[derive(Debug, Default)]
pub struct Stats {
    stages: Mutex<BTreeMap<&'static str, StageCount>>,
    reasons: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    read: AtomicU64,
    read_bytes: AtomicU64,
    posts: AtomicU64,
    dead_letters: AtomicU64,
    ignored: AtomicU64,
    replayed: AtomicU64,
    commits: AtomicU64,
    commit_nanos: AtomicU64,
    files: AtomicU64,
    file_bytes: AtomicU64,
    conflicts: AtomicU64,
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
}

/// One finished commit, to count.
#[derive(Debug, Clone, Copy, Default)]
pub struct CommitCount {
    /// Posts in it.
    pub posts: u64,
    /// Dead letters in it.
    pub dead_letters: u64,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Stats {
    /// Counts a stage's work.
    pub fn stage(&self, name: &'static str, rows: usize, refused: usize, took: Duration) {
        if let Ok(mut stages) = self.stages.lock() {
            let count = stages.entry(name).or_default();
            count.rows += rows as u64;
            count.refused += refused as u64;
            count.seconds += took.as_secs_f64();
        }
    }

    /// Counts rows that the source read.
    pub fn read(&self, rows: usize, bytes: usize) {
        self.read.fetch_add(rows as u64, Relaxed);
        self.read_bytes.fetch_add(bytes as u64, Relaxed);
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
        self.dead_letters.fetch_add(count.dead_letters, Relaxed);
        self.files.fetch_add(count.files, Relaxed);
        self.file_bytes.fetch_add(count.bytes, Relaxed);
        self.commits.fetch_add(1, Relaxed);
        self.commit_nanos.fetch_add(took.as_nanos() as u64, Relaxed);
    }

    /// Counts a fenced commit.
    pub fn conflict(&self) {
        self.conflicts.fetch_add(1, Relaxed);
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            stages: self.stages.lock().map(|s| s.clone()).unwrap_or_default(),
            reasons: self.reasons.lock().map(|r| r.clone()).unwrap_or_default(),
            read: self.read.load(Relaxed),
            read_bytes: self.read_bytes.load(Relaxed),
            posts: self.posts.load(Relaxed),
            dead_letters: self.dead_letters.load(Relaxed),
            ignored: self.ignored.load(Relaxed),
            replayed: self.replayed.load(Relaxed),
            commits: self.commits.load(Relaxed),
            commit_seconds: self.commit_nanos.load(Relaxed) as f64 / 1e9,
            files: self.files.load(Relaxed),
            file_bytes: self.file_bytes.load(Relaxed),
            conflicts: self.conflicts.load(Relaxed),
        }
    }
}
