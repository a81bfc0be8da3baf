//! Files out and files in, in one commit.
//!
//! deltalake checks a commit against those that came before it, but overlooks removals that change no data: of two that
//! pack the same file both would pass, and its rows would be there twice. So its retries are switched off, and each
//! attempt is made against a version in which every file that goes was seen to be there. The log lets one writer have
//! each version, so between that look and the commit nothing can come.

use std::collections::HashSet;
use std::time::Duration;

use deltalake_core::kernel::Action;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake_core::protocol::DeltaOperation;
use deltalake_core::{DeltaResult, DeltaTableError};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::table::{DataFile, Table};
use crate::table::error::TableError;
use crate::table::marks;
use crate::table::retries::{MAX_ATTEMPTS, backoff};
use crate::table::stage::Staged;
use crate::table::writer::Txns;

/// How often another writer may take the version before this gives up. Each time something went in, so none is stuck.
const MAX_OVERTAKEN: u32 = 200;

/// What is to change.
pub(super) struct Change<'a> {
    /// What the log calls it.
    pub(super) operation: DeltaOperation,
    /// Files that go.
    pub(super) removed: &'a [DataFile],
    /// Files that come.
    pub(super) staged: &'a Staged,
    /// Whether rows differ afterwards, or only how they lie.
    pub(super) data_change: bool,
    /// Rows that are gone afterwards, for the log.
    pub(super) deleted_rows: u64,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Landed {
    /// It is in.
    Done,
    /// A file that was to go is gone already; nothing was committed.
    Overtaken,
}

impl Table {
    /// Makes the change, all of it or nothing.
    ///
    /// # Errors
    /// As [`TableWriter::commit`](crate::table::TableWriter::commit); on an unknown outcome what is staged must stay.
    pub(super) async fn land(&mut self, change: &Change<'_>) -> Result<Landed, TableError> {
        let id = Uuid::new_v4().to_string();
        self.refresh().await?;
        let before = self.state.version();
        let (mut failed, mut overtaken) = (0, 0);
        loop {
            if !self.holds(change.removed) {
                return Ok(Landed::Overtaken);
            }
            let error = match self.attempt(change, &id).await {
                Ok(()) => return Ok(Landed::Done),
                Err(error) => error,
            };
            tracing::debug!(table = self.name(), %error, "change not confirmed, the log decides");
            let is_taken = is_taken(&error);
            let error = TableError::of("commit to", self.address(), error);
            if is_taken {
                overtaken += 1;
                tokio::time::sleep(Duration::from_millis(rand::random_range(1..20))).await;
            } else {
                failed += 1;
                tokio::time::sleep(backoff(failed)).await;
            }
            let given_up = error.is_lasting() || failed >= MAX_ATTEMPTS || overtaken >= MAX_OVERTAKEN;
            match self.landed(before, &id).await {
                Ok(true) => return Ok(Landed::Done),
                Ok(false) | Err(_) if given_up => return Err(error),
                Ok(false) => {}
                // Where the log cannot be read it cannot be committed to either: that counts as an attempt.
                Err(error) if error.is_lasting() => return Err(error),
                Err(_) => failed += 1,
            }
        }
    }

    /// Whether every one of these files is in the version seen.
    pub(super) fn holds(&self, files: &[DataFile]) -> bool {
        let mut sought: HashSet<&str> = files.iter().map(|file| file.add.path.as_str()).collect();
        self.state.log_data().iter().for_each(|view| {
            sought.remove(view.path().as_ref());
        });
        sought.is_empty()
    }

    async fn attempt(&mut self, change: &Change<'_>, id: &str) -> DeltaResult<()> {
        let removes = change
            .removed
            .iter()
            .map(|file| Action::Remove(file.remove(change.data_change)));
        let adds = change.staged.adds.iter().cloned().map(|mut add| {
            add.data_change = change.data_change;
            Action::Add(add)
        });
        let actions: Vec<Action> = removes.chain(adds).collect();
        let mut metadata = marks::of_commit(id, actions.len(), &Txns::new());
        metadata.push(("operationMetrics".to_owned(), Value::Object(metrics(change))));
        let properties = CommitProperties::default()
            .with_metadata(metadata)
            .with_max_retries(0)
            .with_cleanup_expired_logs(Some(false));
        let written = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(
                Some(&self.state),
                self.location.log_store.clone(),
                change.operation.clone(),
            )
            .into_prepared_commit_future()
            .await?
            .await?;
        let version = written.version;
        match written.await {
            Ok(done) => self.state = done.snapshot,
            Err(error) => {
                tracing::warn!(table = self.name(), version, %error, "committed, but no checkpoint");
            }
        }
        Ok(())
    }

    /// Whether a commit with that identifier came after `before`; takes up the newest version.
    async fn landed(&mut self, before: u64, id: &str) -> Result<bool, TableError> {
        self.refresh().await?;
        for version in before + 1..=self.state.version() {
            let entry = self.location.log_store.read_commit_entry(version).await;
            let entry = entry.map_err(|e| TableError::of("read the log of", self.address(), e))?;
            if entry.is_some_and(|entry| String::from_utf8_lossy(&entry).contains(id)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Another writer had the version.
fn is_taken(error: &DeltaTableError) -> bool {
    let DeltaTableError::Transaction { source } = error else {
        return false;
    };
    matches!(
        source,
        TransactionError::MaxCommitAttempts(_) | TransactionError::VersionAlreadyExists(_)
    )
}

/// As Delta's own operations name them; numbers are strings there.
fn metrics(change: &Change) -> Map<String, Value> {
    let bytes = |sizes: &mut dyn Iterator<Item = u64>| sizes.sum::<u64>();
    let figures = [
        ("numRemovedFiles", change.removed.len() as u64),
        ("numRemovedBytes", bytes(&mut change.removed.iter().map(DataFile::size))),
        ("numAddedFiles", change.staged.adds.len() as u64),
        ("numAddedBytes", change.staged.bytes),
        ("numDeletedRows", change.deleted_rows),
    ];
    figures
        .into_iter()
        .map(|(name, figure)| (name.to_owned(), json!(figure.to_string())))
        .collect()
}
