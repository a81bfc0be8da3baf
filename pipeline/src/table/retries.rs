//! How often a step is tried again, and how often attempts at commits did not go in, and why. Counted as it happens, so
//! that a commit which is refused again and again shows while it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::{CommitConflictError, TransactionError};

use super::error::TableError;

/// Attempts at one step of a commit. With the waits between them that is about a minute.
pub(super) const MAX_ATTEMPTS: u32 = 12;
/// Longest wait between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Counters that writers share.
#[derive(Debug, Default)]
pub struct Retries {
    conflicts: AtomicU64,
    faults: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryCount {
    /// Another writer was first.
    pub conflicts: u64,
    /// The store failed, or its answer was lost.
    pub faults: u64,
}

impl Retries {
    /// The counters now.
    pub fn read(&self) -> RetryCount {
        RetryCount {
            conflicts: self.conflicts.load(Relaxed),
            faults: self.faults.load(Relaxed),
        }
    }

    pub(super) fn conflicts(&self, times: u64) {
        self.conflicts.fetch_add(times, Relaxed);
    }

    pub(super) fn failed(&self, error: &DeltaTableError) {
        let DeltaTableError::Transaction { source } = error else {
            self.faults.fetch_add(1, Relaxed);
            return;
        };
        match source {
            TransactionError::VersionAlreadyExists(_)
            | TransactionError::CommitConflict(_)
            | TransactionError::MaxCommitAttempts(_) => self.conflicts(1),
            _ => drop(self.faults.fetch_add(1, Relaxed)),
        }
    }
}

/// How a step is tried again that changes nothing when it fails: reading the log, staging files.
pub(super) struct Patience {
    retries: Arc<Retries>,
    attempt: u32,
}

impl Patience {
    /// Before the first attempt; failures are counted there.
    pub(super) fn new(retries: &Arc<Retries>) -> Patience {
        Patience {
            retries: Arc::clone(retries),
            attempt: 1,
        }
    }

    /// Waits after a failure, until it is time for the next attempt.
    ///
    /// # Errors
    /// That failure, where another attempt is of no use or was one too many.
    pub(super) async fn after(&mut self, error: TableError) -> Result<(), TableError> {
        if error.is_lasting() || self.attempt >= MAX_ATTEMPTS {
            return Err(error);
        }
        let attempt = self.attempt;
        tracing::debug!(attempt, %error, "the store failed, trying again");
        self.retries.faults.fetch_add(1, Relaxed);
        tokio::time::sleep(backoff(attempt)).await;
        self.attempt += 1;
        Ok(())
    }
}

/// Doubles from 50 ms; half of it is chance, so that writers in step get out of it.
pub(super) fn backoff(attempt: u32) -> Duration {
    let full = Duration::from_millis(50)
        .saturating_mul(1 << attempt.min(16))
        .min(MAX_BACKOFF);
    full.mul_f64(rand::random_range(0.5..1.0))
}

/// Another writer moved one of our offsets: there is nothing to wait for.
pub(super) fn is_fenced(error: &DeltaTableError) -> bool {
    let DeltaTableError::Transaction {
        source: TransactionError::CommitConflict(conflict),
    } = error
    else {
        return false;
    };
    matches!(conflict, CommitConflictError::ConcurrentTransaction)
}
