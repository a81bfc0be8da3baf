//! What stands against going back to a version: files of it that are not there any more.
//!
//! They were lost, or they were packed or rewritten by the versions that would go, and vacuumed since. In the second case
//! their rows lie in files that only those versions name, so going back would lose what is there now.

use std::collections::{BTreeMap, BTreeSet};

use deltalake_core::table::state::DeltaTableState;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::causes;
use super::log_check::LogCheck;
use crate::table::care::table::DataFile;
use crate::table::care::vacuum::is_data;
use crate::table::error::TableError;
use crate::table::stage::on_rayon;
use crate::table::whereabouts::{Span, Whereabouts};

/// A version that might be gone back to.
pub(super) struct Target {
    /// What the table calls itself there.
    pub(super) name: Option<String>,
    /// Files of it that are not there.
    pub(super) missing: usize,
    /// Of these, how many have rows in files that no version up to it names.
    pub(super) elsewhere: usize,
}

impl Target {
    /// Looks at a version; `Err` within: why it cannot be read.
    pub(super) async fn look(log: &LogCheck, version: u64) -> Result<Result<Target, String>, TableError> {
        let state = match DeltaTableState::try_new(&log.location.log_store, Some(version)).await {
            Ok(state) => state,
            Err(error) => return Ok(Err(causes(&error))),
        };
        let failed = |e: deltalake_core::DeltaTableError| TableError::of("read the log of", log.address(), e);
        let files = state.log_data().into_iter().map(|view| DataFile::of(&view));
        let files: Vec<DataFile> = files.collect::<Result<_, _>>().map_err(|e| failed(e.into()))?;
        let listed = list(log).await?;
        let mut known: BTreeSet<Path> = files.iter().map(|file| file.path.clone()).collect();
        let missing: Vec<DataFile> = files.into_iter().filter(|file| !listed.contains(&file.path)).collect();
        let mut target = Target {
            name: state.metadata().name().map(str::to_owned),
            missing: missing.len(),
            elsewhere: 0,
        };
        if missing.is_empty() {
            return Ok(Ok(target));
        }
        let mut removed = state.all_tombstones(&log.location.log_store);
        while let Some(tombstone) = removed.try_next().await.map_err(failed)? {
            known.extend(Path::parse(tombstone.path()).ok());
        }
        let unknown: Vec<Path> = listed.difference(&known).cloned().collect();
        let mut held: BTreeMap<Path, Option<Vec<Span>>> = BTreeMap::new();
        for file in &missing {
            let beside = unknown.iter().filter(|path| folder(path) == folder(&file.path));
            for path in beside {
                if !held.contains_key(path) {
                    held.insert(path.clone(), spans(log, path).await?);
                }
                if overlap(file.spans().as_deref(), held[path].as_deref()) {
                    target.elsewhere += 1;
                    break;
                }
            }
        }
        Ok(Ok(target))
    }
}

async fn list(log: &LogCheck) -> Result<BTreeSet<Path>, TableError> {
    let listed = log
        .store
        .list(None)
        .try_filter(|file| std::future::ready(is_data(&file.location)));
    let listed = listed.map_ok(|file| file.location).try_collect().await;
    listed.map_err(|e| TableError::of("list", log.address(), e))
}

fn folder(path: &Path) -> &str {
    path.as_ref().rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Where the rows of a file came from, read from the file itself; `None` where it does not tell.
async fn spans(log: &LogCheck, path: &Path) -> Result<Option<Vec<Span>>, TableError> {
    let read = async { log.store.get(path).await?.bytes().await };
    let bytes = read
        .await
        .map_err(|e| TableError::of("read a data file of", log.address(), e))?;
    let found = on_rayon(move || {
        let mut found = Whereabouts::default();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| e.to_string())?;
        for rows in reader.build().map_err(|e| e.to_string())? {
            found.add(&rows.map_err(|e| e.to_string())?);
        }
        Ok(found.spans())
    });
    Ok(found.await.ok().flatten())
}

/// Whether two files may hold the same rows. Where one does not tell, they may.
fn overlap(one: Option<&[Span]>, other: Option<&[Span]>) -> bool {
    let (Some(one), Some(other)) = (one, other) else {
        return true;
    };
    let meet =
        |a: &Span, b: &Span| a.topic == b.topic && a.partition == b.partition && a.first <= b.last && b.first <= a.last;
    one.iter().any(|a| other.iter().any(|b| meet(a, b)))
}
