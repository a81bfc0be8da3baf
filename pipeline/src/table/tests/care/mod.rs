//! Care of a table: what is packed, cleared away, mended or erased, and that nothing else changes.

mod clearing;
pub(super) mod erasing;
mod meanwhile;
mod mending;
mod packing;

use std::path::PathBuf;

use deltalake_core::table::state::DeltaTableState;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::table::care::*;

const PARTITION: &str = "p/0";

/// Commits of ten rows each, one after the other, with offsets from 0 on.
pub(super) async fn commits(address: &str, from: i64, to: i64, days: i32) {
    let mut writer = TableWriter::open(address, &store(), spec()).await.unwrap();
    for n in from..to {
        let (first, next) = (n * 10, n * 10 + 10);
        let batch = vec![rows(first, 10, days, &["x", "y"])];
        let outcome = writer.commit(batch, &txns([(PARTITION, first, next)])).await.unwrap();
        assert!(matches!(outcome, Committed::New { rows: 10, .. }), "{outcome:?}");
    }
}

/// Where reading goes on.
pub(super) async fn stands(address: &str) -> i64 {
    let writer = TableWriter::open(address, &store(), spec()).await.unwrap();
    let known = writer.next_offsets(&[PARTITION.to_owned()]).await.unwrap();
    known.get(PARTITION).copied().unwrap_or(0)
}

fn entry(address: &str, version: u64) -> PathBuf {
    PathBuf::from(format!("{address}/_delta_log/{version:020}.json"))
}

/// The data files of the newest version.
async fn active(address: &str) -> Vec<PathBuf> {
    let location = store().resolve(address).unwrap();
    let state = DeltaTableState::try_new(&location.log_store, None).await.unwrap();
    let files = state.log_data();
    let paths = files
        .iter()
        .map(|view| PathBuf::from(address).join(view.path().as_ref()));
    paths.collect::<Vec<_>>()
}

/// In each data file the offsets rise, as the writer wrote them.
async fn in_order(address: &str) {
    for path in active(address).await {
        let file = std::fs::File::open(&path).unwrap();
        let mut last = -1;
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let kafka = batch.column_by_name("kafka").unwrap().as_struct().clone();
            for offset in kafka
                .column_by_name("offset")
                .unwrap()
                .as_primitive::<Int64Type>()
                .values()
            {
                assert!(*offset > last, "{offset} after {last} in {}", path.display());
                last = *offset;
            }
        }
    }
}

/// Every row, as text.
async fn everything(address: &str) -> String {
    let names: Vec<_> = posts::schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let sql = format!("SELECT {} FROM posts ORDER BY n_tokens", names.join(", "));
    let rows = query(address, &sql).await;
    arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string()
}

/// Doctor finds nothing that does harm.
pub(super) async fn healthy(address: &str) -> Report {
    let report = doctor(address, &store(), &DoctorOptions::default()).await.unwrap();
    assert_eq!(report.harm(), 0, "{report:#?}");
    report
}

fn small(target_bytes: u64) -> CompactOptions {
    CompactOptions {
        target_bytes,
        ..CompactOptions::default()
    }
}

/// Parquet files on disk below the table.
fn on_disk(address: &str) -> usize {
    let names = files(Path::new(address)).into_keys();
    names
        .filter(|name| name.ends_with(".parquet") && !name.starts_with('_'))
        .count()
}
