//! Clearing away: data files that no version needs any more, and what crashes left behind.
//!
//! Three kinds go: files that the log took out, files that never came to be named (a crash between staging and commit),
//! and staging files of the local store that never got their name. Each only when it is older than the retention, which
//! is what keeps files that a writer has staged and is about to commit. Only Parquet files are touched, none below a
//! name that begins with `_` or `.`, save what `doctor` has set aside, and none of a table that lies in a folder below.
//! The log is not changed.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use deltalake_core::table::config::TablePropertiesExt;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use super::table::Table;
use super::{aside, leftovers, log};
use crate::table::error::TableError;
use crate::table::store::Store;

/// A shorter retention has to be asked for: staging takes less, on the slowest store, than this.
const SHORTEST: Duration = Duration::from_secs(3_600);

/// What to clear away.
#[derive(Debug, Clone)]
pub struct VacuumOptions {
    /// Files needed by versions as old as this stay, and so do files younger than this that no version names.
    pub retention: Duration,
    /// Allow a retention of less than an hour. A writer at work loses what it has staged.
    pub force: bool,
    /// Only tell.
    pub dry_run: bool,
}

impl Default for VacuumOptions {
    fn default() -> Self {
        VacuumOptions {
            retention: Duration::from_secs(7 * 24 * 3_600),
            force: false,
            dry_run: false,
        }
    }
}

/// What was cleared away, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Vacuumed {
    /// Data files.
    pub files: usize,
    /// Their size.
    pub bytes: u64,
    /// Staging files without a name.
    pub leftovers: usize,
    /// Their size.
    pub leftover_bytes: u64,
    /// Data files that no version names, but too young to go.
    pub kept: usize,
}

/// Deletes what no version within the retention needs.
///
/// # Errors
/// No table there, a retention that is too short, or a store that fails.
pub async fn vacuum(address: &str, store: &Store, options: &VacuumOptions) -> Result<Vacuumed, TableError> {
    if options.retention < SHORTEST && !options.force {
        return Err(TableError::Refused {
            address: address.to_owned(),
            problem: "a retention of less than an hour takes away what a running writer has staged: stop all writers \
                      and repeat it with --force, or choose a longer one"
                .to_owned(),
        });
    }
    let age = chrono::Duration::from_std(options.retention).unwrap_or(chrono::Duration::MAX);
    let cutoff = Utc::now().checked_sub_signed(age).unwrap_or(DateTime::<Utc>::MIN_UTC);
    let mut table = Table::open(address, store).await?;
    // Listed before the log is read: what is committed in between is then known as such.
    let listed = list(&table).await?;
    table.refresh().await?;
    let needed = needed(&table, cutoff, options.retention).await?;
    let mut done = Vacuumed::default();
    let mut doomed = Vec::new();
    for file in listed.into_iter().filter(|file| !needed.contains(&file.location)) {
        if aside::since(&file.location).unwrap_or(file.last_modified) > cutoff {
            done.kept += 1;
            continue;
        }
        done.files += 1;
        done.bytes += file.size;
        doomed.push(file.location);
    }
    let leftovers = leftovers::find(&table.location, options.retention).await?;
    done.leftovers = leftovers.len();
    done.leftover_bytes = leftovers.iter().map(|leftover| leftover.bytes).sum();
    if !options.dry_run {
        delete(&table, doomed).await?;
        leftovers::remove(&table.location, &leftovers).await?;
        leftovers::remove_empty_folders(&table.location).await;
    }
    Ok(done)
}

/// Every Parquet file of the table outside of the log, with those set aside; none of tables in folders below.
pub(super) async fn list(table: &Table) -> Result<Vec<ObjectMeta>, TableError> {
    let failed = |e: object_store::Error| TableError::of("list", table.address(), e);
    let (mut files, mut nested) = (Vec::new(), BTreeSet::new());
    let mut listed = table.store.list(None);
    while let Some(file) = listed.try_next().await.map_err(failed)? {
        nested.extend(nested_table(&file.location).map(str::to_owned));
        if is_data(&file.location) {
            files.push(file);
        }
    }
    let lies_below = |path: &Path, folder: &String| {
        let rest = path.as_ref().strip_prefix(folder.as_str());
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    files.retain(|file| !nested.iter().any(|folder| lies_below(&file.location, folder)));
    Ok(files)
}

/// The folder of another table below this one, by the path of a file of its log. A log that was set aside makes no table.
fn nested_table(path: &Path) -> Option<&str> {
    let (folder, _) = path.as_ref().split_once("/_delta_log/")?;
    let top = folder.split('/').next();
    (top != Some(aside::FOLDER)).then_some(folder)
}

pub(super) fn is_data(path: &Path) -> bool {
    let top = path.parts().next();
    let top = top.as_ref().map_or("", |part| part.as_ref());
    // What lies aside of the log is not data, and is kept.
    let hidden = (top.starts_with('_') || top.starts_with('.'))
        && !(top == aside::FOLDER && path.parts().nth(2).is_some_and(|part| part.as_ref() != "_delta_log"));
    path.as_ref().ends_with(".parquet") && !hidden
}

/// Deletes files; one that is gone already is as good.
pub(super) async fn delete(table: &Table, paths: Vec<Path>) -> Result<(), TableError> {
    let paths = stream::iter(paths.into_iter().map(Ok)).boxed();
    let deleted = table.store.delete_stream(paths).map(|outcome| match outcome {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        outcome => outcome.map(drop),
    });
    let deleted: Result<Vec<()>, object_store::Error> = deleted.try_collect().await;
    deleted
        .map(drop)
        .map_err(|e| TableError::of("delete files of", table.address(), e))
}

/// Files of the newest version, and those that were taken out after `cutoff`.
async fn needed(table: &Table, cutoff: DateTime<Utc>, retention: Duration) -> Result<HashSet<Path>, TableError> {
    let failed = |e: deltalake_core::DeltaTableError| TableError::of("read the log of", table.address(), e);
    let parse = |path: &str| Path::parse(path).map_err(|e| failed(object_store::Error::from(e).into()));
    let mut needed: HashSet<Path> = table.files()?.into_iter().map(|file| file.path).collect();
    let mut removed = table.state.all_tombstones(&table.location.log_store);
    while let Some(tombstone) = removed.try_next().await.map_err(failed)? {
        let at = tombstone.deletion_timestamp().and_then(DateTime::from_timestamp_millis);
        if at.is_none_or(|at| at > cutoff) {
            needed.insert(parse(&tombstone.path())?);
        }
    }
    drop(removed);
    // A checkpoint forgets removals that are older than the table's own retention.
    if retention > table.state.table_config().deleted_file_retention_duration() {
        for path in log::removed_since(table.store.as_ref(), table.address(), cutoff).await? {
            needed.insert(parse(&path)?);
        }
    }
    Ok(needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_in_a_folder_below_makes_that_folder_another_table() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(nested_table(&Path::parse(path).unwrap()), expected, "{path}");
        };
        check("dead/_delta_log/00000000000000000000.json", Some("dead"));
        check("a/b/_delta_log/1.checkpoint.parquet", Some("a/b"));
        check("a/_delta_log/x/_delta_log/1.json", Some("a"));
        check("_delta_log/00000000000000000000.json", None);
        check("_tamiz_aside/20260102T030405Z/_delta_log/1.json", None);
        check("date=2026-01-02/a_delta_log/b.parquet", None);
    }
}
