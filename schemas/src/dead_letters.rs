//! The table of dead letters, version 1: every row that a stage refused, and why.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::columns::*;
use crate::posts::timestamp;

/// Version of the schema that [`schema`] returns.
pub const VERSION: u32 = 1;

/// Partitioned by the UTC day of the refusal: the event time of a refused row is often unknown.
pub const PARTITION_COLUMNS: [&str; 1] = [DATE];

/// Columns whose minimum and maximum may be written to files and log.
pub const STATS_COLUMNS: [&str; 5] = [REJECTED_AT, STAGE, REASON, OFFSET, PAYLOAD_BYTES];

/// The Arrow schema of `dead_letters` version 1.
pub fn schema() -> SchemaRef {
    let required = |name, data_type| Field::new(name, data_type, false);
    let optional = |name, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        required(DATE, DataType::Date32),
        required(REJECTED_AT, timestamp()),
        required(TOPIC_NAME, DataType::Utf8),
        required(PARTITION, DataType::Int32),
        required(OFFSET, DataType::Int64),
        optional(TIMESTAMP, timestamp()),
        required(STAGE, DataType::Utf8),
        required(REASON, DataType::Utf8),
        optional(DETAIL, DataType::Utf8),
        required(PAYLOAD_HASH, DataType::Utf8),
        required(PAYLOAD_BYTES, DataType::Int64),
        optional(PAYLOAD, DataType::Binary),
    ]))
}
