//! Packing: the small files of closed days become large ones. Rows, their order and their offsets stay as they are.
//!
//! Files are packed with their neighbours in time, not by size: the ranges of time and offset of a packed file stay
//! narrow, so filters go on to skip files. A file that was packed is left alone until something new lies beside it, and
//! a large one even then: packing again changes nothing.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use deltalake_core::protocol::DeltaOperation;

use super::commit::{Change, Landed};
use super::rewrite::{Rewriter, Rewritten};
use super::table::{DataFile, Table, by_folder};
use crate::table::error::TableError;
use crate::table::spec::TableSpec;
use crate::table::store::Store;

/// How often what is left is looked at again when another process was faster.
const ROUNDS: usize = 3;
/// Most bins in one commit.
const COMMIT_BINS: usize = 64;
/// Bytes in one commit, unless a single bin has more: what is done in vain when another process is faster.
const COMMIT_BYTES: u64 = 512 << 20;

/// What to pack.
#[derive(Debug, Clone)]
pub struct CompactOptions {
    /// Size of a packed file.
    pub target_bytes: u64,
    /// A day is closed this long after it ended; rows that come later make small files again.
    pub min_age: Duration,
    /// Only tell.
    pub dry_run: bool,
}

impl Default for CompactOptions {
    fn default() -> Self {
        CompactOptions {
            target_bytes: 128 << 20,
            min_age: Duration::from_secs(24 * 3_600),
            dry_run: false,
        }
    }
}

/// What was packed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Compacted {
    /// By partition; those with nothing to do are not here.
    pub partitions: Vec<PackedPartition>,
    /// Times that another process took a file first; what it left was packed.
    pub overtaken: usize,
    /// Small files of days that are not closed.
    pub open_files: usize,
}

/// One partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct PackedPartition {
    /// Its folder.
    pub partition: String,
    /// Files that went.
    pub files_before: usize,
    /// Files that came; of a dry run, an estimate.
    pub files_after: usize,
    /// Bytes that went.
    pub bytes_before: u64,
    /// Bytes that came; of a dry run, those that would go.
    pub bytes_after: u64,
    /// Rows that lie elsewhere now.
    pub rows: u64,
}

/// Packs the small files of closed days. Safe beside running writers, and beside another that packs.
///
/// # Errors
/// No table that tamiz made there, one without days, a damaged file, or a store that fails.
pub async fn compact(address: &str, store: &Store, options: &CompactOptions) -> Result<Compacted, TableError> {
    let mut table = Table::open(address, store).await?;
    let rewriter = Rewriter::packing(&table, options.target_bytes)?;
    let closed = closed_before(Utc::now(), options.min_age);
    if !rewriter
        .spec
        .partition_columns
        .iter()
        .any(|column| column == tamiz_schemas::columns::DATE)
    {
        return Err(TableError::Refused {
            address: address.to_owned(),
            problem: "the table is not partitioned by `date`, so no part of it is known to be closed".to_owned(),
        });
    }
    let mut done = Compacted::default();
    for _ in 0..ROUNDS {
        let plan = plan(table.files()?, &rewriter.spec, options.target_bytes, closed);
        done.open_files = plan.open_files;
        if options.dry_run {
            plan.bins
                .iter()
                .for_each(|bin| count(&mut done, bin, would_be(bin, options.target_bytes)));
            return Ok(done);
        }
        let mut overtaken = 0;
        for bins in commits(&plan.bins) {
            match pack(&mut table, &rewriter, bins).await? {
                Some(after) => bins
                    .iter()
                    .zip(after)
                    .for_each(|(bin, after)| count(&mut done, bin, after)),
                None => overtaken += 1,
            }
        }
        done.overtaken += overtaken;
        if overtaken == 0 {
            break;
        }
        table.refresh().await?;
    }
    Ok(done)
}

/// Files that are packed into one, or two when they are more than they seemed.
struct Bin {
    folder: String,
    files: Vec<DataFile>,
}

impl Bin {
    fn bytes(&self) -> u64 {
        self.files.iter().map(DataFile::size).sum()
    }

    /// What is wrong when its files hold so many rows, and the log counts others.
    fn miscounted(&self, rows: u64) -> Option<String> {
        let counted: u64 = self.files.iter().map(|file| file.rows).sum::<Option<u64>>()?;
        (counted != rows).then(|| {
            format!(
                "the log counts {counted} rows in files of `{}`, but they hold {rows}: nothing was changed; `tamiz table \
                 doctor` looks closer",
                self.folder
            )
        })
    }
}

struct Plan {
    bins: Vec<Bin>,
    open_files: usize,
}

/// Days before this one are closed.
fn closed_before(now: DateTime<Utc>, min_age: Duration) -> NaiveDate {
    let age = chrono::Duration::from_std(min_age).unwrap_or(chrono::Duration::MAX);
    now.checked_sub_signed(age)
        .map_or(NaiveDate::MIN, |then| then.date_naive())
}

fn plan(files: Vec<DataFile>, spec: &TableSpec, target: u64, closed: NaiveDate) -> Plan {
    let is_closed = |file: &DataFile| file.date().is_some_and(|date| date < closed);
    let (candidates, open): (Vec<_>, Vec<_>) = files
        .into_iter()
        .filter(|file| is_small(file, target))
        .partition(is_closed);
    let bins = by_folder(candidates, spec).into_iter().flat_map(|(folder, files)| {
        let bins = bins(files, target).into_iter();
        bins.map(move |files| Bin {
            folder: folder.clone(),
            files,
        })
        .collect::<Vec<_>>()
    });
    Plan {
        bins: bins.collect(),
        open_files: open.len(),
    }
}

/// A nearly full file is not worth the work. A packed one counts as small only while there is much room in it: each late
/// row would have it written anew otherwise.
fn is_small(file: &DataFile, target: u64) -> bool {
    let limit = if was_packed(file, target) {
        target / 2
    } else {
        target / 4 * 3
    };
    file.add.deletion_vector.is_none() && file.size() < limit
}

fn was_packed(file: &DataFile, target: u64) -> bool {
    file.packed().is_some_and(|aim| aim >= target)
}

/// Neighbours until the size is reached. One that is left over goes with those before it, so that no file waits for ever;
/// the encoder cuts what gets too large.
fn bins(files: Vec<DataFile>, target: u64) -> Vec<Vec<DataFile>> {
    let mut bins: Vec<Vec<DataFile>> = Vec::new();
    let mut room = 0;
    for file in files {
        match bins.last_mut() {
            Some(bin) if file.size() <= room || bin.len() == 1 => {
                room = room.saturating_sub(file.size());
                bin.push(file);
            }
            _ => {
                room = target.saturating_sub(file.size());
                bins.push(vec![file]);
            }
        }
    }
    if bins.len() > 1
        && let Some(last) = bins.pop_if(|bin| bin.len() == 1)
        && let Some(bin) = bins.last_mut()
    {
        bin.extend(last);
    }
    bins.retain(|bin| bin.len() > 1 && bin.iter().any(|file| !was_packed(file, target)));
    bins
}

/// Files and bytes after packing.
type After = (usize, u64);

fn would_be(bin: &Bin, target: u64) -> After {
    let bytes = bin.bytes();
    (bytes.div_ceil(target.max(1)).max(1) as usize, bytes)
}

fn count(done: &mut Compacted, bin: &Bin, (files, bytes): After) {
    if done.partitions.last().is_none_or(|last| last.partition != bin.folder) {
        done.partitions.push(PackedPartition {
            partition: bin.folder.clone(),
            ..PackedPartition::default()
        });
    }
    if let Some(partition) = done.partitions.last_mut() {
        partition.files_before += bin.files.len();
        partition.files_after += files;
        partition.bytes_before += bin.bytes();
        partition.bytes_after += bytes;
        partition.rows += bin.files.iter().filter_map(|file| file.rows).sum::<u64>();
    }
}

/// Bins that are committed together: where there are many small ones, the log should not grow by each.
fn commits(bins: &[Bin]) -> Vec<&[Bin]> {
    let mut commits = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (at, bin) in bins.iter().enumerate() {
        if at > first && (at - first == COMMIT_BINS || bytes + bin.bytes() > COMMIT_BYTES) {
            commits.push(&bins[first..at]);
            (first, bytes) = (at, 0);
        }
        bytes += bin.bytes();
    }
    if first < bins.len() {
        commits.push(&bins[first..]);
    }
    commits
}

/// `None` where another process was faster; then nothing is left behind.
async fn pack(table: &mut Table, rewriter: &Rewriter, bins: &[Bin]) -> Result<Option<Vec<After>>, TableError> {
    let groups: Vec<&[DataFile]> = bins.iter().map(|bin| bin.files.as_slice()).collect();
    let removed = groups.concat();
    let Rewritten { staged, shares } = match rewriter.rewrite(table, &groups, None).await {
        Ok(rewritten) => rewritten,
        Err(error @ TableError::Damaged { .. }) => return gone(table, &removed, error).await,
        Err(error) => return Err(error),
    };
    if let Some(problem) = bins
        .iter()
        .zip(&shares)
        .find_map(|(bin, share)| bin.miscounted(share.rows))
    {
        rewriter.discard(table, &staged).await;
        return Err(TableError::Refused {
            address: table.address().to_owned(),
            problem,
        });
    }
    let change = Change {
        operation: DeltaOperation::Optimize {
            predicate: None,
            target_size: rewriter.target() as i64,
        },
        removed: &removed,
        staged: &staged,
        data_change: false,
        deleted_rows: 0,
    };
    match table.land(&change).await? {
        Landed::Done => Ok(Some(shares.iter().map(|share| (share.files, share.bytes)).collect())),
        Landed::Overtaken => {
            rewriter.discard(table, &staged).await;
            Ok(None)
        }
    }
}

/// A file that another process has taken out meanwhile may be deleted by now, which is no damage.
async fn gone<T>(table: &mut Table, files: &[DataFile], error: TableError) -> Result<Option<T>, TableError> {
    table.refresh().await?;
    match table.holds(files) {
        true => Err(error),
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_closed_a_day_after_it_ended() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        let age = Duration::from_secs(24 * 3_600);
        // 1 May ended with the 2nd's midnight; a day later it is closed.
        assert!(day("2026-05-01") >= closed_before(at("2026-05-02T23:59:59Z"), age));
        assert!(day("2026-05-01") < closed_before(at("2026-05-03T00:00:00Z"), age));
        assert!(day("2026-05-01") < closed_before(at("2026-05-02T00:00:00Z"), Duration::ZERO));
        assert_eq!(closed_before(at("2026-05-02T00:00:00Z"), Duration::MAX), NaiveDate::MIN);
    }
}
