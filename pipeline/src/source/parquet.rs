//! Parquet files as a source: row numbers are the offsets, the columns travel as one struct.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::sync::mpsc;

use super::files::{Input, shrunk};
use super::{BatchLimits, Budget, SourceError, Stop, batch, schema, send, wait_for_share};
use crate::batch::{Item, Offsets, Range, TopicPartition};
use crate::stages::finish::{moment, now_micros};

/// Pushes the rows of a Parquet file, from `input.start` on.
///
/// # Errors
/// The file is no Parquet file, is damaged, or holds fewer rows than were read from it before.
pub fn read(
    input: &Input,
    limits: &BatchLimits,
    budget: &Budget,
    out: &mpsc::Sender<Item>,
    stop: &Stop,
) -> Result<(), SourceError> {
    let fail = |cause: String| SourceError::File {
        path: input.path.display().to_string(),
        cause,
    };
    let file = File::open(&input.path).map_err(|error| fail(error.to_string()))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| fail(error.to_string()))?;
    let total = builder.metadata().file_metadata().num_rows();
    if total < input.start {
        return Err(shrunk(input, total));
    }
    let reader = builder
        .with_batch_size(limits.rows)
        .with_offset(input.start as usize)
        .build();
    let mut first = input.start;
    for rows in reader.map_err(|error| fail(error.to_string()))? {
        let rows = rows.map_err(|error| fail(error.to_string()))?;
        let Some(permit) = wait_for_share(budget, rows.get_array_memory_size(), || stop.is_set()) else {
            return Ok(());
        };
        let next = first + rows.num_rows() as i64;
        let at = TopicPartition {
            topic: Arc::clone(&input.topic),
            partition: 0,
        };
        let range = Range {
            first,
            next,
            epoch: 0,
            stamped_micros: None,
        };
        let offsets = Offsets::from([(at, range)]);
        if !send(
            out,
            Item::Batch(Box::new(batch(wrap(rows, input, first), offsets, permit))),
        ) || stop.is_set()
        {
            return Ok(());
        }
        first = next;
    }
    Ok(())
}

fn wrap(rows: RecordBatch, input: &Input, first: i64) -> Result<RecordBatch, arrow::error::ArrowError> {
    let count = rows.num_rows();
    let payload = StructArray::from(rows);
    let wrapped = schema(DataType::Struct(payload.fields().clone()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&input.topic, count))),
        Arc::new(Int32Array::from_value(0, count)),
        Arc::new(Int64Array::from_iter_values(first..first + count as i64)),
        Arc::new(TimestampMicrosecondArray::new_null(count).with_timezone("UTC")),
        Arc::new(moment(now_micros(), count)),
        Arc::new(payload),
        Arc::new(BinaryArray::new_null(count)),
    ];
    RecordBatch::try_new(wrapped, columns)
}
