//! The table of deletes, version 1: posts that their sources took back. It holds no word of them.
//!
//! A delete is written down before the offsets that it was read at, and is applied to the files of posts later, in one go
//! with others. It names a post by `id`, by `delete_key`, or by both; as the posts table does, never by the name of a
//! person. A row of posts is taken back when
//!
//! - `source` is the same, or the delete knows none, and
//! - `delete_key` is the same, or `id` is and one of the two has no `delete_key`,
//!
//! unless it came after the delete in the same partition: then it was written anew.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::columns::*;
use crate::posts::timestamp;

/// Version of the schema that [`schema`] returns.
pub const VERSION: u32 = 1;

/// Partitioned by the UTC day on which the delete was written down, so that old ones can be forgotten.
pub const PARTITION_COLUMNS: [&str; 1] = [DATE];

/// Columns whose minimum and maximum may be written to files and log.
pub const STATS_COLUMNS: [&str; 2] = [RECORDED_AT, OFFSET];

/// The Arrow schema of `deletes` version 1.
pub fn schema() -> SchemaRef {
    let required = |name, data_type| Field::new(name, data_type, false);
    let optional = |name, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        required(DATE, DataType::Date32),
        required(RECORDED_AT, timestamp()),
        optional(SOURCE, DataType::Utf8),
        optional(ID, DataType::Utf8),
        optional(DELETE_KEY, DataType::Utf8),
        required(TOPIC_NAME, DataType::Utf8),
        required(PARTITION, DataType::Int32),
        required(OFFSET, DataType::Int64),
        optional(TIMESTAMP, timestamp()),
    ]))
}
