//! The writer of one table: opens or creates it, and commits to it exactly once.
//!
//! How a commit ends is never guessed. Whatever the log write answers, short of success, the writer reads the log
//! again: its own entry is known by an identifier, and the transactions tell whether the batch is in, still to come, or
//! somebody else's by now.

mod standing;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::state::DeltaTableState;
use uuid::Uuid;

use super::create::create;
use super::encode::Layout;
use super::error::TableError;
use super::grow::grow;
use super::marks;
use super::read;
use super::retries::{MAX_ATTEMPTS, Patience, Retries, backoff, is_fenced};
use super::spec::TableSpec;
use super::stage::{Staged, Staging};
use super::store::{Location, Store};
use crate::fault::{crash_at, fails_at};

/// A view of the table that is older is renewed before a commit. The library checks a commit against each version since
/// its view, each with all files of the table: after a day beside a busy writer that takes minutes.
const STALE: Duration = Duration::from_secs(60);

/// Offsets that a commit covers, by application id.
pub type Txns = BTreeMap<String, TxnRange>;

/// Half-open range of offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxnRange {
    /// First offset in this commit; must be where the table stands, unless the table knows nothing of the id yet.
    pub first: i64,
    /// Where the table stands after this commit.
    pub next: i64,
}

/// How a commit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// The rows are in.
    New {
        /// Version of the table that holds them first.
        version: u64,
        /// Data files written.
        files: usize,
        /// Their size.
        bytes: u64,
        /// Rows written.
        rows: usize,
    },
    /// The table was past this batch: it had been committed before.
    Already,
    /// Another writer moved an offset; nothing was committed. Discard the batch and read again from where the table
    /// stands.
    Fenced {
        /// Whose offset.
        app_id: String,
        /// Where the table stands.
        version: i64,
    },
}

/// Writes one table. At most one per table and process: writers of the same table wait for each other.
pub struct TableWriter {
    location: Location,
    spec: TableSpec,
    layout: Arc<Layout>,
    table: DeltaTableState,
    /// Transactions as of `table`, as far as they were asked for.
    txns: HashMap<String, Option<i64>>,
    /// Commits since `table` was last read from the start; it grows slower with each.
    commits: u64,
    /// When `table` was the newest version.
    pub(super) looked: Instant,
    retries: Arc<Retries>,
}

impl TableWriter {
    /// Opens the table, or creates it with its folder.
    ///
    /// # Errors
    /// An existing table with other columns, types or partitioning; a place that cannot be reached or written.
    pub async fn open(address: &str, store: &Store, spec: TableSpec) -> Result<TableWriter, TableError> {
        let location = store.resolve(address)?;
        let mismatch = |difference| TableError::Mismatch {
            table: spec.name,
            address: address.to_owned(),
            difference,
        };
        spec.check().map_err(mismatch)?;
        let table = match read::load(&location).await? {
            Some(table) => table,
            None => create(&location, &spec).await?,
        };
        if let Some(difference) = spec.difference(&table).map_err(mismatch)? {
            return Err(mismatch(difference));
        }
        let table = grow(&location, &spec, table).await?;
        let layout = Arc::new(Layout::new(&spec));
        Ok(TableWriter {
            location,
            spec,
            layout,
            table,
            txns: HashMap::new(),
            commits: 0,
            looked: Instant::now(),
            retries: Arc::default(),
        })
    }

    /// Counts attempts that did not go in there from now on.
    pub fn count_retries(&mut self, retries: Arc<Retries>) {
        self.retries = retries;
    }

    /// Version of the table that this writer saw last.
    pub fn version(&self) -> u64 {
        self.table.version()
    }

    /// Writes `rows` and moves the offsets of `txns`, both or neither. Without rows only the offsets move; without
    /// either there is nothing to do, which is [`Committed::Already`].
    ///
    /// A range that ends where it begins moves nothing, save that the table knows its id afterwards. Rows may go with it;
    /// whether they are in already the caller has to know, from [`offsets_of_rows`](TableWriter::offsets_of_rows): the
    /// transactions cannot tell.
    ///
    /// Conflicts and faults that pass are retried with growing, jittered waits, each step for about a minute. Dropping the
    /// future is safe.
    ///
    /// # Errors
    /// Rows that do not fit the table; a full disk, missing permission, a store that stays unreachable. When the store
    /// fails during the last step the outcome is unknown: open the table again and ask it for
    /// [`next_offsets`](TableWriter::next_offsets).
    pub async fn commit(&mut self, rows: Vec<RecordBatch>, txns: &Txns) -> Result<Committed, TableError> {
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        if txns.is_empty() && count == 0 {
            return Ok(Committed::Already);
        }
        if self.looked.elapsed() >= STALE {
            self.reread().await;
            // No conflict with what changed before this view tells of it any more.
            self.fits()?;
        }
        let mut patience = Patience::new(&self.retries);
        let ended = loop {
            match self.standing(txns, count).await {
                Ok(ended) => break ended,
                Err(error) => patience.after(error).await?,
            }
        };
        if let Some(ended) = ended {
            return Ok(ended);
        }
        crash_at("before_staging");
        let staged = self.stage(rows).await?;
        crash_at("staged");
        self.land(&staged, txns).await
    }

    /// Stages rows, again where the store fails for a while: an attempt that failed leaves nothing behind.
    async fn stage(&self, rows: Vec<RecordBatch>) -> Result<Staged, TableError> {
        let staging = Staging {
            spec: &self.spec,
            address: &self.location.address,
            layout: Arc::clone(&self.layout),
            store: self.location.log_store.object_store(None),
        };
        let mut patience = Patience::new(&self.retries);
        loop {
            match staging.stage(rows.clone()).await {
                Ok(staged) => return Ok(staged),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    /// Gets the log entry written, or finds out why not.
    async fn land(&mut self, staged: &Staged, txns: &Txns) -> Result<Committed, TableError> {
        let id = Uuid::new_v4().to_string();
        let new = |version| {
            let Staged { adds, rows, bytes } = staged;
            Committed::New {
                version,
                files: adds.len(),
                bytes: *bytes,
                rows: *rows,
            }
        };
        let before = self.table.version();
        let mut attempt = 1;
        loop {
            let error = match self.attempt(&staged.adds, txns, &id).await {
                Ok(version) => return Ok(new(version)),
                Err(error) => error,
            };
            tracing::debug!(table = self.spec.name, attempt, %error, "commit not confirmed, the log decides");
            let fenced = is_fenced(&error);
            if !fenced {
                self.retries.failed(&error);
            }
            let error = self.error("commit to", error);
            if !fenced && !error.is_lasting() {
                tokio::time::sleep(backoff(attempt)).await;
            }
            match self.verdict(before, &id, (txns, staged.rows)).await {
                Ok(Verdict::Ours(version)) => return Ok(new(version)),
                Ok(Verdict::Ended(ended)) => return Ok(ended),
                Ok(Verdict::Open) if error.is_lasting() || attempt >= MAX_ATTEMPTS => return Err(error),
                Err(error) if error.is_lasting() || attempt >= MAX_ATTEMPTS => return Err(error),
                Ok(Verdict::Open) | Err(_) => attempt += 1,
            }
        }
    }

    /// One attempt at the log entry. Success means that it is there; what follows may fail without harm.
    async fn attempt(&mut self, adds: &[Add], txns: &Txns, id: &str) -> Result<u64, DeltaTableError> {
        let interval = self.checkpoint_interval();
        let transactions = txns
            .iter()
            .map(|(app_id, range)| Transaction::new(app_id, range.next))
            .collect();
        let properties = CommitProperties::default()
            .with_metadata(marks::of_commit(id, adds.len(), txns))
            .with_application_transactions(transactions)
            // Expired log files are looked for beside a checkpoint, not with every commit: it lists the whole log.
            .with_cleanup_expired_logs(Some((self.table.version() + 2).is_multiple_of(interval)));
        let partition_by = Some(self.spec.partition_columns.clone());
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by,
            predicate: None,
        };
        crash_at("before_commit");
        if fails_at("log_write_fails") {
            return Err(DeltaTableError::generic(
                "the log entry was not written: a test wanted it",
            ));
        }
        let written = CommitBuilder::from(properties)
            .with_actions(adds.iter().cloned().map(Action::Add).collect())
            .build(Some(&self.table), self.location.log_store.clone(), operation)
            .into_prepared_commit_future()
            .await?
            .await?;
        let version = written.version;
        crash_at("after_commit");
        if fails_at("log_answer_lost") {
            return Err(DeltaTableError::generic("no answer to the log entry: a test wanted it"));
        }
        self.advance(
            version,
            written.await.map(|done| {
                self.retries.conflicts(done.metrics.num_retries);
                (done.snapshot, done.metrics.new_checkpoint_created)
            }),
            txns,
        )
        .await;
        Ok(version)
    }

    /// Takes up the table as the commit of `version` left it.
    async fn advance(&mut self, version: u64, after: Result<(DeltaTableState, bool), DeltaTableError>, txns: &Txns) {
        if version != self.table.version() + 1 {
            // Others committed meanwhile; only the ids of this commit are known not to be among theirs.
            self.txns.clear();
        }
        self.txns
            .extend(txns.iter().map(|(app_id, range)| (app_id.clone(), Some(range.next))));
        self.commits += 1;
        match after {
            Ok((table, checkpointed)) => {
                self.table = table;
                self.looked = Instant::now();
                if checkpointed || self.commits >= self.checkpoint_interval() {
                    self.reread().await;
                }
            }
            Err(error) => {
                tracing::warn!(table = self.spec.name, version, %error, "committed, but no checkpoint or clean-up");
                self.reread().await;
            }
        }
    }

    /// Reads the table from its last checkpoint, which makes the next commits fast again. A failure only leaves the old
    /// view, which the next commit is checked against.
    async fn reread(&mut self) {
        if let Err(error) = self.reload().await {
            tracing::warn!(table = self.spec.name, %error, "the table could not be read again, going on with the older view");
        }
    }

    async fn reload(&mut self) -> Result<(), TableError> {
        let fresh = DeltaTableState::try_new(&self.location.log_store, None);
        let fresh = fresh.await.map_err(|e| self.error("read the log of", e))?;
        if fresh.version() != self.table.version() {
            self.txns.clear();
        }
        self.table = fresh;
        self.commits = 0;
        self.looked = Instant::now();
        Ok(())
    }

    /// What the log says about a commit whose attempt did not succeed.
    async fn verdict(&mut self, before: u64, id: &str, (txns, rows): (&Txns, usize)) -> Result<Verdict, TableError> {
        self.reload().await?;
        for version in before + 1..=self.table.version() {
            let entry = self.location.log_store.read_commit_entry(version).await;
            let entry = entry.map_err(|e| self.error("read the log of", e))?;
            if entry.is_some_and(|entry| String::from_utf8_lossy(&entry).contains(id)) {
                return Ok(Verdict::Ours(version));
            }
        }
        self.fits()?;
        Ok(self.standing(txns, rows).await?.map_or(Verdict::Open, Verdict::Ended))
    }

    /// Whether the table is still one that this writer can append to.
    fn fits(&self) -> Result<(), TableError> {
        match self.spec.difference(&self.table).map_err(|e| self.mismatch(e))? {
            Some(difference) => Err(self.mismatch(difference)),
            None => Ok(()),
        }
    }

    fn checkpoint_interval(&self) -> u64 {
        self.table
            .table_config()
            .checkpoint_interval
            .map_or(100, |interval| interval.get())
    }

    fn error(&self, action: &'static str, error: DeltaTableError) -> TableError {
        TableError::of(action, &self.location.address, error)
    }

    fn mismatch(&self, difference: String) -> TableError {
        TableError::Mismatch {
            table: self.spec.name,
            address: self.location.address.clone(),
            difference,
        }
    }
}

enum Verdict {
    /// The entry is in the log.
    Ours(u64),
    /// The batch is not the next one any more.
    Ended(Committed),
    /// Not there; to be tried again.
    Open,
}
