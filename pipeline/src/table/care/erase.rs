//! Rows taken out for good: out of the table, and out of every file below its folder.
//!
//! The files that hold such rows are written anew without them, in commits that name both; then the old ones are deleted
//! at once, not left to vacuum. Files that no version names are searched as well: what was packed or removed before, what
//! crashes left behind, what was set aside. Log and statistics hold nothing of a person, so they stay.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use arrow::error::ArrowError;
use chrono::{DateTime, Utc};
use deltalake_core::protocol::DeltaOperation;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use super::commit::{Change, Landed};
use super::rewrite::{self, Rewriter};
use super::search::{Found, Looked, Miss, look_into, search};
use super::table::{DataFile, Table, by_folder};
use super::{aside, leftovers, vacuum};
use crate::table::error::TableError;
use crate::table::store::Store;

/// Rounds over what came meanwhile.
const ROUNDS: usize = 10;
/// Files looked into at a time.
const IN_FLIGHT: usize = 4;
/// Bytes of files written anew in one commit.
const COMMIT_BYTES: u64 = 256 << 20;
/// A file that no version names is a writer's until it is this old.
const SETTLED: Duration = Duration::from_secs(24 * 3_600);
/// So is a staging file.
const STAGING: Duration = Duration::from_secs(3_600);

/// Which rows go.
pub trait Select: Send + Sync {
    /// Columns that the other methods look at. What a file lacks is not there.
    fn columns(&self) -> Vec<&'static str>;

    /// Of these rows, those that go.
    ///
    /// # Errors
    /// A column is not what it should be.
    fn goes(&self, rows: &RecordBatch) -> Result<BooleanArray, ArrowError>;

    /// Called with rows that go, before anything is written anew.
    fn remember(&self, _rows: &RecordBatch) {}

    /// Of rows that stay, those that refer to rows that go.
    ///
    /// # Errors
    /// A column is not what it should be.
    fn refers(&self, rows: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        Ok(BooleanArray::from(vec![false; rows.num_rows()]))
    }

    /// Rows that stay, without such references.
    ///
    /// # Errors
    /// A column is not what it should be.
    fn without_references(&self, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        Ok(rows)
    }

    /// How many rows that stay a person should know about.
    ///
    /// # Errors
    /// A column is not what it should be.
    fn notable(&self, _rows: &RecordBatch) -> Result<u64, ArrowError> {
        Ok(0)
    }
}

/// What was erased, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Erased {
    /// Rows that are gone.
    pub rows: u64,
    /// Rows of others that referred to them, and do not any more.
    pub references: u64,
    /// Files of the table that were written anew, or dropped whole.
    pub files: usize,
    /// Files deleted from the store: those, and what no version named.
    pub deleted: usize,
    /// Files that no version names, that are too young to be told from a writer's, and that hold such rows or cannot be
    /// read. Erase again when they have settled.
    pub unsettled: usize,
    /// Rows that stay and that a person should know about.
    pub notable: u64,
}

/// Takes rows out of the table and of every file below it.
///
/// # Errors
/// No table that tamiz made there, a damaged file, or a store that fails; what was erased until then stays erased.
pub async fn erase(address: &str, store: &Store, select: Arc<dyn Select>, dry_run: bool) -> Result<Erased, TableError> {
    let mut table = Table::open(address, store).await?;
    let rewriter = Rewriter::plain(&table)?;
    let mut work = Work {
        select,
        done: Erased::default(),
        clean: HashSet::new(),
        doomed: Vec::new(),
    };
    for round in 0.. {
        let Looked { dirty, overtaken } = work.look(&mut table).await?;
        if dirty.is_empty() && !overtaken {
            break;
        }
        if dry_run && !overtaken {
            work.done.files = dirty.len();
            return Ok(work.done);
        }
        if round == ROUNDS {
            return Err(TableError::Refused {
                address: address.to_owned(),
                problem: "rows to be erased keep coming: stop the writers and repeat it".to_owned(),
            });
        }
        if !dry_run {
            work.rewrite(&mut table, &rewriter, dirty).await?;
        }
        table.refresh().await?;
    }
    if !dry_run {
        work.sweep(&mut table).await?;
    }
    Ok(work.done)
}

struct Work {
    select: Arc<dyn Select>,
    done: Erased,
    /// Files that were looked into and need nothing.
    clean: HashSet<String>,
    /// Files that left the table.
    doomed: Vec<Path>,
}

impl Work {
    /// Looks into the files of the table that are new, or into all where that is needed.
    async fn look(&mut self, table: &mut Table) -> Result<Looked<Found>, TableError> {
        let files = table.files()?;
        let new: Vec<&DataFile> = files
            .iter()
            .filter(|file| !self.clean.contains(&file.add.path))
            .collect();
        let remembered = self.each(table, &new, true).await?;
        // New rows to go may be referred to anywhere.
        let grew = remembered.iter().flatten().any(|found| found.goes > 0);
        let again: Vec<&DataFile> = if grew { files.iter().collect() } else { new };
        let found = self.each(table, &again, false).await?;
        let (mut dirty, mut gone) = (Vec::new(), Vec::new());
        for (file, found) in again.into_iter().zip(found) {
            let Some(found) = found else {
                gone.push(file.clone());
                continue;
            };
            if found.goes + found.refers > 0 {
                self.clean.remove(&file.add.path);
                dirty.push((file.clone(), found));
            } else if self.clean.insert(file.add.path.clone()) {
                self.done.notable += found.notable;
            }
        }
        table.excuse(&gone).await?;
        let overtaken = !gone.is_empty();
        Ok(Looked { dirty, overtaken })
    }

    /// What each file holds; `None` for one that is not there.
    async fn each(&self, table: &Table, files: &[&DataFile], remember: bool) -> Result<Vec<Option<Found>>, TableError> {
        let looks = files
            .iter()
            .map(|file| look_into(table, file, self.select.as_ref(), remember));
        stream::iter(looks).buffered(IN_FLIGHT).try_collect().await
    }

    async fn rewrite(
        &mut self,
        table: &mut Table,
        rewriter: &Rewriter,
        dirty: Vec<(DataFile, Found)>,
    ) -> Result<(), TableError> {
        let found: HashMap<String, Found> = dirty
            .iter()
            .map(|(file, found)| (file.add.path.clone(), *found))
            .collect();
        // Those with references only go first: were this cut short, the rows that they refer to would still be found.
        let (last, first): (Vec<_>, Vec<_>) = dirty.into_iter().partition(|(_, found)| found.goes > 0);
        for part in [first, last] {
            let files = part.into_iter().map(|(file, _)| file).collect();
            for groups in chunks(by_folder(files, &rewriter.spec)) {
                self.replace(table, rewriter, &groups, &found).await?;
            }
        }
        Ok(())
    }

    async fn replace(
        &mut self,
        table: &mut Table,
        rewriter: &Rewriter,
        groups: &[Vec<DataFile>],
        found: &HashMap<String, Found>,
    ) -> Result<(), TableError> {
        let files = &groups.concat();
        let groups: Vec<&[DataFile]> = groups.iter().map(Vec::as_slice).collect();
        let select = Arc::clone(&self.select);
        let change: rewrite::Change = Arc::new(move |rows: RecordBatch| {
            let kept = filter_record_batch(&rows, &not(&select.goes(&rows)?)?)?;
            select.without_references(kept)
        });
        let staged = match rewriter.rewrite(table, &groups, Some(&change)).await {
            Ok(rewritten) => rewritten.staged,
            Err(error) => {
                table.refresh().await?;
                // One that another process has taken out meanwhile may be deleted by now: the next round sees.
                return if table.holds(files) { Err(error) } else { Ok(()) };
            }
        };
        let sum = |count: fn(&Found) -> u64| {
            files
                .iter()
                .filter_map(|file| found.get(&file.add.path))
                .map(count)
                .sum()
        };
        let (goes, refers): (u64, u64) = (sum(|found| found.goes), sum(|found| found.refers));
        let change = Change {
            operation: DeltaOperation::Delete { predicate: None },
            removed: files,
            staged: &staged,
            data_change: true,
            deleted_rows: goes,
        };
        match table.land(&change).await? {
            Landed::Done => {
                self.done.rows += goes;
                self.done.references += refers;
                self.done.files += files.len();
                self.doomed.extend(files.iter().map(|file| file.path.clone()));
            }
            Landed::Overtaken => rewriter.discard(table, &staged).await,
        }
        Ok(())
    }

    /// Deletes what left the table, and files outside of it that hold such rows or cannot be searched.
    async fn sweep(&mut self, table: &mut Table) -> Result<(), TableError> {
        let listed = vacuum::list(table).await?;
        table.refresh().await?;
        let active: HashSet<Path> = table.files()?.into_iter().map(|file| file.path).collect();
        let removed = removed(table).await?;
        let mut doomed: HashSet<Path> = self.doomed.drain(..).collect();
        for file in listed {
            if active.contains(&file.location) || doomed.contains(&file.location) {
                continue;
            }
            let found = search(table, (&file.location, file.size), self.select.as_ref(), false).await;
            let holds = match found {
                Ok(found) => found.goes + found.refers > 0,
                Err(Miss::Gone) => continue,
                // What cannot be searched may hold anything.
                Err(Miss::Unreadable(_)) => true,
                Err(Miss::Store(error)) => {
                    return Err(TableError::of("read a data file of", table.address(), error));
                }
            };
            let is_settled = removed.contains(&file.location)
                || aside::since(&file.location).is_some()
                || is_older(file.last_modified, SETTLED);
            match (holds, is_settled) {
                (true, true) => drop(doomed.insert(file.location)),
                (true, false) => self.done.unsettled += 1,
                (false, _) => {}
            }
        }
        let leftovers = leftovers::find(&table.location, Duration::ZERO).await?;
        let old = leftovers::find(&table.location, STAGING).await?;
        self.done.unsettled += leftovers.len() - old.len().min(leftovers.len());
        self.done.deleted = doomed.len() + old.len();
        vacuum::delete(table, doomed.into_iter().collect()).await?;
        leftovers::remove(&table.location, &old).await
    }
}

/// Files that are written anew in one commit, by partition.
fn chunks(partitions: Vec<(String, Vec<DataFile>)>) -> Vec<Vec<Vec<DataFile>>> {
    let mut chunks: Vec<Vec<Vec<DataFile>>> = Vec::new();
    let mut bytes = u64::MAX;
    for (_, files) in partitions {
        let mut is_new = true;
        for file in files {
            bytes = bytes.saturating_add(file.size());
            if bytes > COMMIT_BYTES {
                chunks.push(Vec::new());
                (bytes, is_new) = (file.size(), true);
            }
            if let Some(chunk) = chunks.last_mut() {
                match chunk.last_mut().filter(|_| !is_new) {
                    Some(group) => group.push(file),
                    None => chunk.push(vec![file]),
                }
                is_new = false;
            }
        }
    }
    chunks
}

/// Files that the log took out and still remembers.
async fn removed(table: &Table) -> Result<HashSet<Path>, TableError> {
    let failed = |e: deltalake_core::DeltaTableError| TableError::of("read the log of", table.address(), e);
    let mut removed = HashSet::new();
    let mut tombstones = table.state.all_tombstones(&table.location.log_store);
    while let Some(tombstone) = tombstones.try_next().await.map_err(failed)? {
        if let Ok(path) = Path::parse(tombstone.path()) {
            removed.insert(path);
        }
    }
    Ok(removed)
}

fn is_older(then: DateTime<Utc>, age: Duration) -> bool {
    (Utc::now() - then).to_std().is_ok_and(|found| found >= age)
}
