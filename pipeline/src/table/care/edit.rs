//! Rows changed or taken out where they lie: the files that hold such rows are written anew, in commits that name both.
//!
//! Looking is cheap and writing is not, so all files are looked into first, at the columns that decide and no others, and
//! each file that is written anew is written once. What it held before stays on disk until vacuum, for those who read an
//! older version. Beside running writers this is safe, and beside another that does the same: who comes second looks
//! again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::error::ArrowError;
use deltalake_core::protocol::DeltaOperation;
use futures::{StreamExt, TryStreamExt, stream};

use super::commit::{Change, Landed};
use super::erase::Select;
use super::rewrite::{self, Rewriter};
use super::search::{Looked, look_into};
use super::table::{DataFile, Table, by_folder};
use crate::table::error::TableError;
use crate::table::store::Store;

/// Rounds over what came meanwhile.
const ROUNDS: usize = 10;
/// Files looked into at a time.
const IN_FLIGHT: usize = 4;
/// Bytes of files written anew in one commit.
const COMMIT_BYTES: u64 = 256 << 20;

/// What is known of a data file without looking into it.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// When its youngest row was written, milliseconds since the epoch.
    pub modified: i64,
    /// Values of the partition columns; they do not lie in the file.
    pub partition: HashMap<String, Option<String>>,
}

/// Which rows are changed, and how.
pub trait Edit: Send + Sync {
    /// Columns that [`Edit::touches`] looks at. What a file lacks is not there.
    fn columns(&self) -> Vec<&'static str>;

    /// Whether a file can hold such rows at all.
    fn concerns(&self, _file: &Facts) -> bool {
        true
    }

    /// Of these rows of a file, those to be changed. None of them may be touched again afterwards.
    ///
    /// # Errors
    /// A column is not what it should be.
    fn touches(&self, file: &Facts, rows: &RecordBatch) -> Result<BooleanArray, ArrowError>;

    /// The rows with the change made: all columns of the table but those of the partitioning.
    ///
    /// # Errors
    /// A column is not what it should be.
    fn edit(&self, file: &Facts, rows: RecordBatch) -> Result<RecordBatch, ArrowError>;

    /// Whether rows go; otherwise they become others.
    fn deletes(&self) -> bool;
}

/// What was changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Edited {
    /// Rows.
    pub rows: u64,
    /// Files written anew.
    pub files: usize,
    /// Files looked into.
    pub looked: usize,
}

/// Makes a change to all rows of a table that it touches.
///
/// # Errors
/// No table that tamiz made there, a damaged file, or a store that fails; what was changed until then stays changed.
pub async fn edit(address: &str, store: &Store, edit: Arc<dyn Edit>) -> Result<Edited, TableError> {
    let mut table = Table::open(address, store).await?;
    let rewriter = Rewriter::plain(&table)?;
    let mut done = Edited::default();
    let mut clean = HashSet::new();
    for _ in 0..ROUNDS {
        let new: Vec<DataFile> = table
            .files()?
            .into_iter()
            .filter(|file| clean.insert(file.add.path.clone()))
            .collect();
        let Looked { dirty, overtaken } = look(&mut table, &edit, new, &mut done).await?;
        if dirty.is_empty() && !overtaken {
            return Ok(done);
        }
        let found: HashMap<String, u64> = dirty
            .iter()
            .map(|(file, rows)| (file.add.path.clone(), *rows))
            .collect();
        let dirty = dirty.into_iter().map(|(file, _)| file).collect();
        for (_, files) in by_folder(dirty, &rewriter.spec) {
            for files in chunks(files) {
                if !replace(&mut table, &rewriter, (&edit, &files)).await? {
                    // Another process was faster; what it made of them is new to the next round.
                    for file in &files {
                        clean.remove(&file.add.path);
                    }
                    continue;
                }
                done.files += files.len();
                done.rows += files.iter().filter_map(|file| found.get(&file.add.path)).sum::<u64>();
            }
        }
        table.refresh().await?;
    }
    Err(TableError::Refused {
        address: address.to_owned(),
        problem: "other processes keep changing the files that are to be written anew: try again later".to_owned(),
    })
}

async fn look(
    table: &mut Table,
    edit: &Arc<dyn Edit>,
    files: Vec<DataFile>,
    done: &mut Edited,
) -> Result<Looked<u64>, TableError> {
    let files: Vec<DataFile> = files.into_iter().filter(|file| edit.concerns(&facts(file))).collect();
    done.looked += files.len();
    let (mut dirty, mut gone) = (Vec::new(), Vec::new());
    for (file, rows) in each(table, edit, files).await? {
        match rows {
            Some(0) => {}
            Some(rows) => dirty.push((file, rows)),
            None => gone.push(file),
        }
    }
    table.excuse(&gone).await?;
    let overtaken = !gone.is_empty();
    Ok(Looked { dirty, overtaken })
}

/// Files with the number of such rows; `None` for one that is not there.
async fn each(
    table: &Table,
    edit: &Arc<dyn Edit>,
    files: Vec<DataFile>,
) -> Result<Vec<(DataFile, Option<u64>)>, TableError> {
    let looks = files.into_iter().map(|file| async move {
        let look = Look {
            edit: Arc::clone(edit),
            facts: facts(&file),
        };
        let found = look_into(table, &file, &look, false).await?;
        Ok((file, found.map(|found| found.goes)))
    });
    stream::iter(looks).buffered(IN_FLIGHT).try_collect().await
}

fn facts(file: &DataFile) -> Facts {
    Facts {
        modified: file.add.modification_time,
        partition: file.add.partition_values.clone(),
    }
}

/// An edit, as the search for rows wants it.
struct Look {
    edit: Arc<dyn Edit>,
    facts: Facts,
}

impl Select for Look {
    fn columns(&self) -> Vec<&'static str> {
        self.edit.columns()
    }

    fn goes(&self, rows: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        self.edit.touches(&self.facts, rows)
    }
}

/// Writes files of one partition anew; `false` where another process was faster, and then nothing was changed.
async fn replace(
    table: &mut Table,
    rewriter: &Rewriter,
    (edit, files): (&Arc<dyn Edit>, &[DataFile]),
) -> Result<bool, TableError> {
    let Some(facts) = files.first().map(facts) else {
        return Ok(true);
    };
    let own = Arc::clone(edit);
    let change: rewrite::Change = Arc::new(move |rows: RecordBatch| own.edit(&facts, rows));
    let staged = match rewriter.rewrite(table, &[files], Some(&change)).await {
        Ok(rewritten) => rewritten.staged,
        Err(error) => {
            table.refresh().await?;
            // One that another process has taken out meanwhile may be deleted by now.
            return if table.holds(files) { Err(error) } else { Ok(false) };
        }
    };
    let before: u64 = files.iter().filter_map(|file| file.rows).sum();
    let change = Change {
        operation: match edit.deletes() {
            true => DeltaOperation::Delete { predicate: None },
            false => DeltaOperation::Update { predicate: None },
        },
        removed: files,
        staged: &staged,
        data_change: true,
        deleted_rows: before.saturating_sub(staged.rows as u64),
    };
    match table.land(&change).await? {
        Landed::Done => Ok(true),
        Landed::Overtaken => {
            rewriter.discard(table, &staged).await;
            Ok(false)
        }
    }
}

/// Files that are written anew together.
fn chunks(files: Vec<DataFile>) -> Vec<Vec<DataFile>> {
    let mut chunks: Vec<(u64, Vec<DataFile>)> = Vec::new();
    for file in files {
        match chunks.last_mut() {
            Some((bytes, chunk)) if *bytes + file.size() <= COMMIT_BYTES => {
                *bytes += file.size();
                chunk.push(file);
            }
            _ => chunks.push((file.size(), vec![file])),
        }
    }
    chunks.into_iter().map(|(_, chunk)| chunk).collect()
}
