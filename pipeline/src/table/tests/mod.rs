//! The table as its users see it: what is committed, what is not, and what readers find.

mod care;
mod commits;
mod faults;
mod opening;
mod reading;
mod s3;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Date32Array, Float32Array, Int32Array, Int64Array, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::SessionContext;
use tamiz_schemas::{columns, posts};

use super::*;

/// 2026-01-01.
const DAY: i32 = 20_454;
const MICROS_PER_DAY: i64 = 86_400_000_000;
/// What must never show outside of data pages.
const SECRET: &str = "zebra.quagga@example.org";

fn spec() -> TableSpec {
    TableSpec {
        name: "posts",
        schema: posts::schema(),
        partition_columns: posts::PARTITION_COLUMNS.map(str::to_owned).to_vec(),
        stats_columns: posts::STATS_COLUMNS.map(str::to_owned).to_vec(),
        growing: Vec::new(),
    }
}

fn store() -> Store {
    Store::new(&StoreOptions::new()).unwrap()
}

fn address(dir: &tempfile::TempDir) -> String {
    dir.path().join("posts").to_str().unwrap().to_owned()
}

/// Posts with offsets from `first` on, over `days` days and the given sources, in turn.
fn rows(first: i64, count: i64, days: i32, sources: &[&str]) -> RecordBatch {
    let offsets: Vec<i64> = (first..first + count).collect();
    let at = |offset: &i64| i64::from(DAY) * MICROS_PER_DAY + (offset % i64::from(days)) * MICROS_PER_DAY + offset;
    let times = || -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(offsets.iter().map(at)).with_timezone("UTC"))
    };
    let strings =
        |f: &dyn Fn(&i64) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(offsets.iter().map(f))) };
    let schema = posts::schema();
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        columns::ID => strings(&|offset| format!("post-{offset}")),
        columns::SOURCE => strings(&|offset| sources[*offset as usize % sources.len()].to_owned()),
        columns::DATE => Arc::new(Date32Array::from_iter_values(
            offsets.iter().map(|o| DAY + (o % i64::from(days)) as i32),
        )) as ArrayRef,
        columns::CREATED_AT | columns::INGESTED_AT => times(),
        columns::TEXT => strings(&|offset| format!("{SECRET} writes about tree number {offset}")),
        columns::AUTHOR | columns::TEXT_HASH | columns::DUPLICATE_OF => strings(&|_| SECRET.to_owned()),
        columns::LANG => strings(&|_| "es".to_owned()),
        columns::N_TOKENS => Arc::new(Int32Array::from_iter_values(
            offsets.iter().map(|offset| *offset as i32),
        )),
        columns::SENTIMENT => sentiment(&offsets),
        columns::KAFKA => kafka(&offsets, times()),
        _ => new_null_array(field.data_type(), offsets.len()),
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

fn sentiment(offsets: &[i64]) -> ArrayRef {
    let label: ArrayRef = Arc::new(StringArray::from_iter_values(offsets.iter().map(|_| "neutral")));
    let score: ArrayRef = Arc::new(Float32Array::from_iter_values(
        offsets.iter().map(|offset| *offset as f32 / 1e6),
    ));
    let none = || new_null_array(&DataType::Float32, offsets.len());
    Arc::new(StructArray::new(
        posts::sentiment_fields(),
        vec![label, score, none(), none(), none()],
        None,
    ))
}

fn kafka(offsets: &[i64], times: ArrayRef) -> ArrayRef {
    let topic: ArrayRef = Arc::new(StringArray::from_iter_values(offsets.iter().map(|_| "topic")));
    let partition: ArrayRef = Arc::new(Int32Array::from_iter_values(offsets.iter().map(|_| 0)));
    let offset: ArrayRef = Arc::new(Int64Array::from(offsets.to_vec()));
    Arc::new(StructArray::new(
        posts::kafka_fields(),
        vec![topic, partition, offset, times],
        None,
    ))
}

fn txns<const N: usize>(ranges: [(&str, i64, i64); N]) -> Txns {
    ranges
        .into_iter()
        .map(|(id, first, next)| (id.to_owned(), TxnRange { first, next }))
        .collect()
}

async fn query(address: &str, sql: &str) -> Vec<RecordBatch> {
    let ctx = SessionContext::new();
    register(&ctx, "posts", address, &store()).await.unwrap();
    ctx.sql(sql).await.unwrap().collect().await.unwrap()
}

/// Rows and distinct ids.
async fn counts(address: &str) -> (i64, i64) {
    let batches = query(address, "SELECT count(*), count(DISTINCT id) FROM posts").await;
    let count = |column: usize| batches[0].column(column).as_primitive::<Int64Type>().value(0);
    (count(0), count(1))
}

/// Every file below a folder, by its path there.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}
