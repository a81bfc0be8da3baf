//! Deletes on their way: written down, and matched against posts.
//!
//! They are written down before the offsets that they were read at, like dead letters, so none is lost; one that was
//! written down just before a crash is written down again, which changes nothing. What waits beside a delete in the same
//! flush is taken back at once; what is in the files already is taken out later, many at a time
//! ([`jobs::deletes`](crate::jobs::deletes)).

mod set;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{cast, filter_record_batch, not};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use tamiz_schemas::columns::{DATE, RECORDED_AT};
use tamiz_schemas::deletes;

pub use set::Deletes;

use crate::stages::finish::{moment, now_micros};
use crate::table::{Retries, Store, TableError, TableSpec, TableWriter, Txns};

/// What the table of deletes must be.
pub fn deletes_spec() -> TableSpec {
    TableSpec {
        name: "deletes",
        schema: deletes::schema(),
        growing: Vec::new(),
        partition_columns: deletes::PARTITION_COLUMNS.map(String::from).to_vec(),
        stats_columns: deletes::STATS_COLUMNS.map(String::from).to_vec(),
    }
}

/// The table of deletes; made when the first one comes, since most feeds have none.
pub struct DeletesTable {
    address: String,
    store: Store,
    writer: Option<TableWriter>,
    retries: Arc<Retries>,
}

impl DeletesTable {
    /// At this address. Touches nothing.
    pub fn new(address: String, store: Store) -> Self {
        DeletesTable {
            address,
            store,
            writer: None,
            retries: Arc::default(),
        }
    }

    /// Counts attempts that did not go in there, from before the first commit on.
    pub fn count_retries(&mut self, retries: Arc<Retries>) {
        self.retries = retries;
    }

    /// Writes deletes down, and takes back what they mean among posts that are not committed yet. Without offsets of its
    /// own: a delete that is there twice means the same.
    ///
    /// # Errors
    /// A table that cannot be written.
    pub async fn take_back(
        &mut self,
        deletes: Vec<RecordBatch>,
        posts: Vec<RecordBatch>,
    ) -> Result<Vec<RecordBatch>, TableError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let mut writer = TableWriter::open(&self.address, &self.store, deletes_spec()).await?;
                writer.count_retries(Arc::clone(&self.retries));
                self.writer.insert(writer)
            }
        };
        let failed = |error: ArrowError| TableError::Rows {
            table: "deletes",
            problem: error.to_string(),
        };
        let wanted = Deletes::of(&deletes).map_err(failed)?;
        let now = now_micros();
        let deletes = deletes.into_iter().map(|rows| recorded(rows, now));
        let deletes = deletes.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        writer.commit(deletes, &Txns::new()).await?;
        let kept = posts.into_iter().map(|rows| {
            let goes = wanted.mean(&rows, None)?;
            filter_record_batch(&rows, &not(&goes)?)
        });
        let kept: Vec<RecordBatch> = kept.collect::<Result<_, _>>().map_err(failed)?;
        Ok(kept.into_iter().filter(|rows| rows.num_rows() > 0).collect())
    }
}

/// Deletes as written down at that moment, however long ago they were read: a round looks for those in every file that
/// were recorded since the one before, and what waits in the line must not be older than that.
fn recorded(rows: RecordBatch, micros: i64) -> Result<RecordBatch, ArrowError> {
    let (schema, mut columns, count) = rows.into_parts();
    let now: ArrayRef = Arc::new(moment(micros, count));
    columns[schema.index_of(DATE)?] = cast(&now, &DataType::Date32)?;
    columns[schema.index_of(RECORDED_AT)?] = now;
    RecordBatch::try_new(schema, columns)
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Date32Type, TimestampMicrosecondType};
    use arrow::json::ReaderBuilder;
    use datafusion::prelude::SessionContext;
    use serde_json::json;

    use super::*;
    use crate::table::{StoreOptions, conform, register};

    /// A delete that was read long ago.
    fn old() -> RecordBatch {
        let row = json!({"date": "2026-01-02", "recorded_at": "2026-01-02T03:04:06Z", "id": "a", "topic": "t",
            "partition": 0, "offset": 10});
        let line = row.to_string();
        let mut reader = ReaderBuilder::new(deletes::schema()).build(line.as_bytes()).unwrap();
        reader.next().unwrap().unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_delete_that_waited_in_the_line_is_recorded_when_it_is_written_down() {
        let folder = tempfile::tempdir().unwrap();
        let address = folder.path().join("deletes").display().to_string();
        let store = Store::new(&StoreOptions::new()).unwrap();
        let before = now_micros();
        let mut table = DeletesTable::new(address.clone(), store.clone());
        table.take_back(vec![old()], Vec::new()).await.unwrap();
        let ctx = SessionContext::new();
        register(&ctx, "t", &address, &store).await.unwrap();
        let rows = ctx.table("t").await.unwrap().collect().await.unwrap();
        let row = rows.iter().find(|rows| rows.num_rows() == 1).unwrap();
        let row = conform(row, &deletes::schema()).unwrap();
        let column = |name| row.column_by_name(name).unwrap();
        let recorded = column(RECORDED_AT).as_primitive::<TimestampMicrosecondType>().value(0);
        assert!((before..=now_micros()).contains(&recorded), "{recorded}");
        let day = column(DATE).as_primitive::<Date32Type>().value(0);
        assert_eq!(i64::from(day), recorded.div_euclid(86_400_000_000));
    }
}
