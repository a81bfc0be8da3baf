//! Deletes applied to the files of posts: beside `tamiz run` every so often, after `tamiz batch` and `run
//! --until-caught-up` at once.
//!
//! A file is written anew once for all deletes that mean rows of it. To rewrite it for each would be too dear by far on a
//! feed with thousands of deletes an hour, and deletion vectors, which would be cheaper, are nothing that deltalake can
//! write. So a delete waits up to half of `deletes.apply_minutes` for company; the rest of the time is for the work.
//!
//! A round looks for fresh deletes in every file, and for older ones in those files only that came since the last round:
//! a post can arrive after its delete, from another partition or by a replay. What a round covered is a transaction of the
//! deletes table, the moment at which it began. Everything here can be done again without harm, after a crash or by two
//! workers at once, and none of it touches the offsets of posts.
//!
//! In the end a round takes care of the deletes table, as nobody else does: deletes that are too old leave it, and after
//! `table.retention_hours` the disk.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use arrow::error::ArrowError;
use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use datafusion::prelude::{SessionContext, col, lit};
use futures::StreamExt;
use rand::Rng;
use tamiz_schemas::columns::{DELETE_KEY, ID, KAFKA, RECORDED_AT, SOURCE};
use tokio::task::JoinHandle;

use super::run::chain;
use super::{JobError, store};
use crate::config::Config;
use crate::deletes::{Deletes, deletes_spec};
use crate::table::care::{CompactOptions, Edit, Edited, Facts, VacuumOptions, compact, edit, expire, vacuum};
use crate::table::{self, Inspection, Store, TableError, TableWriter, TxnRange, Txns, conform, inspect};

/// Under this name the deletes table keeps the moment at which the last round began, in milliseconds.
const APPLIED: &str = "tamiz/deletes/applied";
/// Rows and deletes may be this much older than the commit that brings them: a commit that is tried again, clocks of
/// several machines. How long a delete waited in the line before does not matter, it is recorded just before its commit.
const SLACK: Duration = Duration::from_secs(15 * 60);
/// Deletes held in memory at a time.
const AT_ONCE: usize = 500_000;

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Deletes that were looked for.
    pub deletes: usize,
    /// Posts that were taken out.
    pub posts: u64,
    /// Files written anew.
    pub files: usize,
}

/// Work in the background; it ends with the value.
pub(crate) struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts the rounds. What goes wrong in one is told, and tried again with the next.
///
/// # Errors
/// The store's options are wrong.
pub(crate) fn start(config: &Config) -> Result<Keeper, TableError> {
    let (config, store) = (config.clone(), store(config)?);
    let period = Duration::from_secs_f64(config.deletes.apply_minutes * 60.0 / 2.0);
    let work = async move {
        // Workers of one group should not all begin at the same moment.
        let mut wait = period.mul_f64(rand::rng().random_range(0.1..1.0));
        loop {
            tokio::time::sleep(wait).await;
            wait = period;
            match round(&config, &store, Some(period)).await {
                Ok(Applied { posts: 0, .. }) => {}
                Ok(done) => tracing::info!(
                    posts = done.posts,
                    files = done.files,
                    "posts that were taken back are out"
                ),
                Err(error) => {
                    let error = chain(&error);
                    tracing::error!(
                        error,
                        "posts that were taken back are still in the table; to be tried again"
                    );
                }
            }
        }
    };
    Ok(Keeper(tokio::spawn(work)))
}

/// Applies all deletes that are written down.
///
/// # Errors
/// A table that cannot be read or written.
pub async fn apply(config: &Config) -> Result<Applied, JobError> {
    Ok(round(config, &store(config)?, None).await?)
}

/// One round; none where another process had one less than `period` / 2 ago.
async fn round(config: &Config, store: &Store, period: Option<Duration>) -> Result<Applied, TableError> {
    let address = config.deletes_address();
    if inspect(&address, store, &deletes_spec()).await? == Inspection::Absent {
        return Ok(Applied::default());
    }
    let mut writer = TableWriter::open(&address, store, deletes_spec()).await?;
    let last = writer.next_offsets(&[APPLIED.to_owned()]).await?.get(APPLIED).copied();
    let began = Utc::now().timestamp_millis();
    let recent = period.map_or(0, |period| period.as_millis() as i64 / 2);
    if last.is_some_and(|last| began - last < recent) {
        return Ok(Applied::default());
    }
    let slack = (SLACK + Duration::from_secs_f64(config.sink.flush_seconds)).as_millis() as i64;
    let remembered = began - i64::from(config.deletes.remember_hours) * 3_600_000;
    let fresh = last.unwrap_or_default().saturating_sub(slack);
    let mut done = Applied::default();
    let mut rows = deletes_since(&address, store, fresh.min(remembered)).await?;
    loop {
        let (set, more) = rows.next(fresh).await?;
        done.deletes += set.count;
        let edited = apply_to(config, store, set).await?;
        done.posts += edited.rows;
        done.files += edited.files;
        if !more {
            break;
        }
    }
    let covered = TxnRange {
        first: last.unwrap_or_default(),
        next: began.max(last.unwrap_or_default() + 1),
    };
    // Another worker may have had a round meanwhile: its moment is as good.
    writer
        .commit(Vec::new(), &Txns::from([(APPLIED.to_owned(), covered)]))
        .await?;
    tidy(config, store, &address).await?;
    Ok(done)
}

/// Takes old deletes out, packs small files, and clears away what no version needs.
async fn tidy(config: &Config, store: &Store, address: &str) -> Result<(), TableError> {
    let days = config.deletes.remember_hours.div_ceil(24).max(1);
    expire(address, store, days, false).await?;
    compact(address, store, &CompactOptions::default()).await?;
    let options = VacuumOptions {
        retention: Duration::from_secs(config.table.retention_hours * 3_600),
        ..VacuumOptions::default()
    };
    vacuum(address, store, &options).await?;
    Ok(())
}

async fn apply_to(config: &Config, store: &Store, set: Set) -> Result<Edited, TableError> {
    if set.count == 0 {
        return Ok(Edited::default());
    }
    match edit(&config.sink.posts, store, Arc::new(set)).await {
        // Deletes can come before the first post.
        Err(TableError::Missing { .. }) => Ok(Edited::default()),
        edited => edited,
    }
}

/// Deletes that are applied together.
#[derive(Default)]
struct Set {
    /// Not looked for in any file yet.
    fresh: Deletes,
    /// Looked for already in all files but those that came since.
    older: Deletes,
    /// Files from then on are new: milliseconds.
    since: i64,
    count: usize,
}

impl Set {
    fn goes(&self, file: &Facts, rows: &RecordBatch, all: bool) -> Result<BooleanArray, ArrowError> {
        let source = file.partition.get(SOURCE).and_then(|source| source.as_deref());
        let fresh = self.fresh.mean(rows, source)?;
        if !all && file.modified < self.since {
            return Ok(fresh);
        }
        arrow::compute::or(&fresh, &self.older.mean(rows, source)?)
    }
}

impl Edit for Set {
    fn columns(&self) -> Vec<&'static str> {
        vec![ID, DELETE_KEY, KAFKA]
    }

    fn concerns(&self, file: &Facts) -> bool {
        !self.fresh.is_empty() || file.modified >= self.since
    }

    fn touches(&self, file: &Facts, rows: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        self.goes(file, rows, false)
    }

    /// Where a file is written anew, every delete counts: files of several ages may be written together.
    fn edit(&self, file: &Facts, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let goes = self.goes(file, &rows, true)?;
        filter_record_batch(&rows, &not(&goes)?)
    }

    fn deletes(&self) -> bool {
        true
    }
}

/// Rows of the deletes table, so many at a time.
struct Rows {
    stream: datafusion::execution::SendableRecordBatchStream,
    address: String,
}

/// Deletes that were recorded at `since` or later, in milliseconds.
async fn deletes_since(address: &str, store: &Store, since: i64) -> Result<Rows, TableError> {
    let failed = |e: datafusion::error::DataFusionError| TableError::read(address, e);
    let ctx = SessionContext::new();
    table::register(&ctx, "deletes", address, store).await?;
    let since = ScalarValue::TimestampMicrosecond(Some(since.saturating_mul(1000)), Some("UTC".into()));
    let frame = ctx.table("deletes").await.map_err(failed)?;
    let frame = frame.filter(col(RECORDED_AT).gt_eq(lit(since))).map_err(failed)?;
    Ok(Rows {
        stream: frame.execute_stream().await.map_err(failed)?,
        address: address.to_owned(),
    })
}

impl Rows {
    /// The next deletes, sorted out by whether they are `fresh`, and whether there may be more.
    async fn next(&mut self, fresh: i64) -> Result<(Set, bool), TableError> {
        let mut set = Set {
            since: fresh,
            ..Set::default()
        };
        while let Some(rows) = self.stream.next().await {
            let failed = |e: ArrowError| TableError::read(&self.address, e);
            let rows = rows.map_err(|e| TableError::read(&self.address, e))?;
            let rows = conform(&rows, &tamiz_schemas::deletes::schema()).map_err(failed)?;
            let is_fresh = is_fresh(&rows, fresh);
            let parts = not(&is_fresh).and_then(|is_older| {
                set.fresh.add(&filter_record_batch(&rows, &is_fresh)?)?;
                set.older.add(&filter_record_batch(&rows, &is_older)?)
            });
            parts.map_err(failed)?;
            set.count += rows.num_rows();
            if set.count >= AT_ONCE {
                return Ok((set, true));
            }
        }
        Ok((set, false))
    }
}

fn is_fresh(rows: &RecordBatch, since: i64) -> BooleanArray {
    let times = rows.column_by_name(RECORDED_AT);
    let times = times.and_then(|times| times.as_primitive_opt::<arrow::datatypes::TimestampMicrosecondType>());
    let since = DateTime::from_timestamp_millis(since).map_or(i64::MIN, |since| since.timestamp_micros());
    let fresh = |row: usize| times.is_none_or(|times| times.is_null(row) || times.value(row) >= since);
    (0..rows.num_rows()).map(|row| Some(fresh(row))).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use arrow::json::ReaderBuilder;
    use serde_json::json;

    use super::*;
    use crate::deletes::DeletesTable;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_round_clears_away_what_the_table_of_deletes_needs_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = crate::config::load(None, std::iter::empty()).unwrap();
        config.sink.posts = folder.path().join("posts").display().to_string();
        config.table.retention_hours = 1;
        let row = json!({"date": "2026-01-02", "recorded_at": "2026-01-02T03:04:06Z", "id": "a", "topic": "t",
            "partition": 0, "offset": 10});
        let line = row.to_string();
        let mut reader = ReaderBuilder::new(tamiz_schemas::deletes::schema())
            .build(line.as_bytes())
            .unwrap();
        let rows = reader.next().unwrap().unwrap();
        let mut table = DeletesTable::new(config.deletes_address(), store(&config).unwrap());
        table.take_back(vec![rows], Vec::new()).await.unwrap();
        // As a file lies there that was packed into another, or never committed.
        let [old, young] = ["old.parquet", "young.parquet"].map(|name| folder.path().join("posts_deletes").join(name));
        let two_hours_ago = SystemTime::now() - Duration::from_secs(7_200);
        File::create(&old).unwrap().set_modified(two_hours_ago).unwrap();
        File::create(&young).unwrap();
        let done = apply(&config).await.unwrap();
        assert_eq!((done.deletes, done.posts), (1, 0));
        assert!(!old.exists() && young.exists());
    }
}
