//! The last step: rows take the table's schema, rejects become dead letters.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, Date32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;
use sha2::{Digest, Sha256};
use tamiz_schemas::columns::*;
use tamiz_schemas::{dead_letters, posts};

use super::time;
use crate::batch::{Batch, Delete, Offsets, Permit, Reject};
use crate::observe::traces;
use crate::source::INGESTED;
use crate::stage::StageError;
use crate::stats::{StageCount, Stats};

const NAME: &str = "finish";

/// What becomes of rejects.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterRules {
    /// Keep the payload; it holds personal data.
    pub keep_payload: bool,
    /// Reasons that are counted but not stored.
    pub ignore: BTreeSet<String>,
}

/// A batch that is ready for the tables.
#[derive(Debug)]
pub struct Finished {
    /// Rows of `posts`.
    pub posts: RecordBatch,
    /// Rows of `dead_letters`.
    pub dead_letters: RecordBatch,
    /// Rows of `deletes`.
    pub deletes: RecordBatch,
    /// Per row of `posts`: index in the batch as read; with `source`, tells its offset.
    pub post_origins: Origins,
    /// Per row of `dead_letters`.
    pub dead_letter_origins: Origins,
    /// What the batch covers.
    pub offsets: Offsets,
    /// Its trace.
    pub trace: tracing::Span,
    /// Its share of the byte budget.
    pub permit: Permit,
}

/// Topic, partition, offset and Kafka's timestamp of each row.
#[derive(Debug, Clone)]
pub struct Origins {
    /// Topic or file.
    pub topics: StringArray,
    /// Partition.
    pub partitions: ArrayRef,
    /// Offset.
    pub offsets: ArrayRef,
    /// Kafka's own timestamp; NULL for rows of files.
    pub timestamps: ArrayRef,
}

impl Origins {
    fn of(source: &RecordBatch, rows: &UInt32Array) -> Result<Self, StageError> {
        let column = |column| at(source, column, rows);
        let topics = column(TOPIC_NAME)?.as_string::<i32>().clone();
        Ok(Origins {
            topics,
            partitions: column(PARTITION)?,
            offsets: column(OFFSET)?,
            timestamps: column(TIMESTAMP)?,
        })
    }
}

/// Splits a batch into rows of the two tables.
///
/// # Errors
/// A column of the table is missing: the chain is incomplete.
pub fn finish(batch: Batch, rules: &DeadLetterRules, stats: &Stats) -> Result<Finished, StageError> {
    let started = Instant::now();
    let Batch {
        rows,
        source,
        mut rejects,
        deletes,
        offsets,
        trace,
        permit,
        ..
    } = batch;
    let stage = traces::stage(&trace, NAME, rows.num_rows());
    none_lost(source.num_rows(), rows.num_rows(), rejects.len(), deletes.len())?;
    for reject in &rejects {
        stats.reject(reject.stage, reject.reason, !rules.ignore.contains(reject.reason));
    }
    rejects.retain(|reject| !rules.ignore.contains(reject.reason));
    rejects.sort_by_key(|reject| reject.row);
    let index = rows
        .column_by_name(crate::stage::ROW)
        .map(|column| column.as_primitive().clone());
    let index: UInt32Array = index.unwrap_or_else(|| UInt32Array::from_iter_values(0..rows.num_rows() as u32));
    let post_origins = Origins::of(&source, &index)?;
    let rejected = UInt32Array::from_iter_values(rejects.iter().map(|reject| reject.row));
    let dead_letter_origins = Origins::of(&source, &rejected)?;
    let posts = project(&rows)?;
    let deletes = taken_back(&source, deletes)?;
    let dead_letters = letters(&source, &rejects, &rejected, &dead_letter_origins, rules.keep_payload)?;
    drop(stage);
    stats.stage(NAME, StageCount::new(rows.num_rows(), 0, started.elapsed()));
    stats.watch().health.batch_out();
    Ok(Finished {
        posts,
        deletes,
        dead_letters,
        post_origins,
        dead_letter_origins,
        offsets,
        trace,
        permit,
    })
}

/// Every row read is a post, a reject or a delete.
fn none_lost(input: usize, output: usize, refused: usize, deletes: usize) -> Result<(), StageError> {
    if output + refused + deletes == input {
        return Ok(());
    }
    Err(StageError::Lost {
        stage: NAME,
        input,
        output,
        refused,
        deletes,
    })
}

fn project(rows: &RecordBatch) -> Result<RecordBatch, StageError> {
    // What the model added beside the columns that every table has.
    let head = DataType::Struct(posts::label_fields());
    let fields = rows.schema();
    let further = fields.fields().iter().filter(|field| *field.data_type() == head);
    let further = further
        .map(|field| field.name().as_str())
        .filter(|name| posts::fits_as_head(name));
    let schema = posts::schema_with(further);
    let created_at = time(rows, NAME, CREATED_AT)?;
    let date = cast(&created_at.clone().with_timezone("UTC"), &DataType::Date32)?;
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        DATE => Ok(Arc::clone(&date)),
        name => rows
            .column_by_name(name)
            .cloned()
            .ok_or_else(|| StageError::Model(format!("no stage makes column `{name}` of the posts table"))),
    });
    let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// A column of the batch as read, at these rows of it.
fn at(source: &RecordBatch, column: &'static str, rows: &UInt32Array) -> Result<ArrayRef, StageError> {
    let array = source.column_by_name(column).ok_or(StageError::Column {
        stage: NAME,
        column,
        wanted: "any",
    })?;
    Ok(take(array, rows, None)?)
}

fn taken_back(source: &RecordBatch, deletes: Vec<Delete>) -> Result<RecordBatch, StageError> {
    let rows = UInt32Array::from_iter_values(deletes.iter().map(|delete| delete.row));
    let at = |column| at(source, column, &rows);
    // Until they are written down: the table of deletes puts that moment here.
    let recorded_at = at(INGESTED)?;
    let text =
        |of: fn(&Delete) -> Option<&String>| -> ArrayRef { Arc::new(deletes.iter().map(of).collect::<StringArray>()) };
    let columns: Vec<ArrayRef> = vec![
        cast(&recorded_at, &DataType::Date32)?,
        recorded_at,
        text(|delete| delete.source.as_ref()),
        text(|delete| delete.named.id.as_ref()),
        text(|delete| delete.named.key.as_ref()),
        at(TOPIC_NAME)?,
        at(PARTITION)?,
        at(OFFSET)?,
        at(TIMESTAMP)?,
    ];
    Ok(RecordBatch::try_new(tamiz_schemas::deletes::schema(), columns)?)
}

fn letters(
    source: &RecordBatch,
    rejects: &[Reject],
    rows: &UInt32Array,
    origins: &Origins,
    keep_payload: bool,
) -> Result<RecordBatch, StageError> {
    let at = |column| at(source, column, rows);
    let rejected_at = at(INGESTED)?;
    let date: Date32Array = cast(&rejected_at, &DataType::Date32)?.as_primitive().clone();
    let payloads = Payloads::new(source, rejects)?;
    let mut kept = BinaryBuilder::new();
    let (mut hashes, mut sizes) = (Vec::with_capacity(rejects.len()), Vec::with_capacity(rejects.len()));
    for row in 0..rejects.len() {
        let payload = payloads.get(row);
        hashes.push(hex(&Sha256::digest(payload.unwrap_or_default())));
        sizes.push(payload.map_or(0, <[u8]>::len) as i64);
        kept.append_option(payload.filter(|_| keep_payload));
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(date),
        Arc::clone(&rejected_at),
        Arc::new(origins.topics.clone()),
        Arc::clone(&origins.partitions),
        Arc::clone(&origins.offsets),
        Arc::clone(&origins.timestamps),
        Arc::new(StringArray::from_iter_values(rejects.iter().map(|reject| reject.stage))),
        Arc::new(StringArray::from_iter_values(
            rejects.iter().map(|reject| reject.reason),
        )),
        Arc::new(StringArray::from_iter_values(
            rejects.iter().map(|reject| &reject.detail),
        )),
        Arc::new(StringArray::from(hashes)),
        Arc::new(Int64Array::from(sizes)),
        Arc::new(kept.finish()),
        new_null_array(&posts::timestamp(), rejects.len()),
        new_null_array(&DataType::Utf8, rejects.len()),
    ];
    Ok(RecordBatch::try_new(dead_letters::schema(), columns)?)
}

/// Payloads of the rejected rows: bytes as read, or the row of a Parquet file as JSON.
struct Payloads {
    bytes: Vec<Option<Vec<u8>>>,
    raw: Option<(arrow::array::BinaryArray, Vec<u32>)>,
}

impl Payloads {
    fn new(source: &RecordBatch, rejects: &[Reject]) -> Result<Self, StageError> {
        let payload = source.column_by_name(PAYLOAD).ok_or(StageError::Column {
            stage: NAME,
            column: PAYLOAD,
            wanted: "bytes or a struct",
        })?;
        let rows: Vec<u32> = rejects.iter().map(|reject| reject.row).collect();
        if let Some(bytes) = payload.as_binary_opt::<i32>() {
            return Ok(Payloads {
                bytes: Vec::new(),
                raw: Some((bytes.clone(), rows)),
            });
        }
        let taken = take(payload, &UInt32Array::from(rows), None)?;
        let file = RecordBatch::from(taken.as_struct());
        let bytes = (0..file.num_rows()).map(|row| {
            let mut json = arrow::json::LineDelimitedWriter::new(Vec::new());
            json.write(&file.slice(row, 1))?;
            json.finish()?;
            Ok::<_, StageError>(Some(json.into_inner()))
        });
        Ok(Payloads {
            bytes: bytes.collect::<Result<_, _>>()?,
            raw: None,
        })
    }

    fn get(&self, at: usize) -> Option<&[u8]> {
        match &self.raw {
            Some((array, rows)) => {
                let row = rows[at] as usize;
                array.is_valid(row).then(|| array.value(row))
            }
            None => self.bytes[at].as_deref(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
}

/// Microseconds of the clock, as the sources stamp rows.
pub fn now_micros() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

/// A column of one moment.
pub fn moment(micros: i64, rows: usize) -> TimestampMicrosecondArray {
    TimestampMicrosecondArray::from_value(micros, rows).with_timezone("UTC")
}
