//! How often attempts at commits did not go in, and why. Counted as it happens, so that a commit which is refused again
//! and again shows while it is.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::{CommitConflictError, TransactionError};

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
