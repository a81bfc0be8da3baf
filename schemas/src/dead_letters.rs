//! The table of dead letters, version 1: every row that a stage refused, and why.
//!
//! | stage | reason | what it says of the row |
//! |---|---|---|
//! | `decode` | `no_payload` | the message has none: a tombstone |
//! | `decode` | `too_large` | the payload is larger than `validate.max_payload_bytes` |
//! | `decode` | `not_utf8` | the payload is no UTF-8 |
//! | `decode` | `not_json` | the payload is no JSON |
//! | `decode` | `not_avro` | the payload does not fit its Avro schema |
//! | `decode` | `not_protobuf` | the payload is no Protobuf message |
//! | `decode` | `not_framed` | the payload does not begin as a schema registry's serializers have it |
//! | `decode` | `unknown_schema` | the registry does not know the schema, or the schema not the message |
//! | `decode` | `unusable_schema` | the registry has the schema, and it cannot be used |
//! | `decode` | `not_a_post` | a record of another kind, by `input.only`; by default counted and not stored |
//! | `decode` | `wrong_type` | an array or object stands where text is wanted |
//! | `decode` | `bad_timestamp` | the event time cannot be read |
//! | `decode` | `bad_delete` | a delete that does not name a post |
//! | `validate` | `missing_field` | a field that every post has is missing |
//! | `validate` | `bad_id` | the identifier is too long to be one |
//! | `validate` | `bad_source` | the source cannot name a folder |
//! | `validate` | `text_too_large` | the text is larger than `validate.max_text_bytes` |
//! | `validate` | `too_old` | the event time is before `validate.oldest` |
//! | `validate` | `in_the_future` | the event time is ahead of the clock |
//! | `language` | `language` | a language that `language.keep` does not name |
//! | `noise` | `empty` | no text is left, and `noise.actions` drops that |
//! | `noise` | `too_short` | as its tag says, and `noise.actions` drops that |
//! | `noise` | `link_only` | likewise |
//! | `noise` | `repetition` | likewise |
//! | `duplicates` | `duplicate` | an equal text came shortly before, and `noise.actions` drops that |
//! | `score` | `model_failed` | the model cannot do it, alone and with batches made smaller |
//!
//! The stages `late`, `normalize` and `scrub` refuse nothing.
//!
//! | outcome | what `tamiz replay` made of the row |
//! |---|---|
//! | NULL | nobody has replayed it |
//! | `passed` | it is a post now, or took one back |
//! | `failed_again` | it is refused still, for the reason that stands there now |
//! | `deleted` | its source has taken it back meanwhile |
//! | `payload_gone` | the table kept no payload, and Kafka holds the message no longer |
//!
//! Open letters are those that the next replay takes:
//!
//! ```sql
//! SELECT stage, reason, count(*) FROM dead_letters WHERE outcome IS NULL OR outcome = 'failed_again' GROUP BY 1, 2
//! ```

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::columns::*;
use crate::posts::timestamp;

/// Version of the schema that [`schema`] returns.
pub const VERSION: u32 = 1;

/// Partitioned by the UTC day of the refusal: the event time of a refused row is often unknown.
pub const PARTITION_COLUMNS: [&str; 1] = [DATE];

/// Columns whose minimum and maximum may be written to files and log.
pub const STATS_COLUMNS: [&str; 6] = [REJECTED_AT, STAGE, REASON, OFFSET, PAYLOAD_BYTES, OUTCOME];

/// Columns that version 1 was given later; as [`crate::posts::GROWN_COLUMNS`].
pub const GROWN_COLUMNS: [&str; 2] = [REPLAYED_AT, OUTCOME];

/// An outcome: the letter is a post now, or took one back.
pub const PASSED: &str = "passed";
/// An outcome: the letter is one still.
pub const FAILED_AGAIN: &str = "failed_again";
/// An outcome: its source has taken it back.
pub const DELETED: &str = "deleted";
/// An outcome: its payload is nowhere any more.
pub const PAYLOAD_GONE: &str = "payload_gone";

/// Every stage with the reasons for which it refuses rows; this module's table says what they mean.
pub const REASONS: [(&str, &[&str]); 6] = [
    (
        "decode",
        &[
            "no_payload",
            "too_large",
            "not_utf8",
            "not_json",
            "not_avro",
            "not_protobuf",
            "not_framed",
            "unknown_schema",
            "unusable_schema",
            "not_a_post",
            "wrong_type",
            "bad_timestamp",
            "bad_delete",
        ],
    ),
    (
        "validate",
        &[
            "missing_field",
            "bad_id",
            "bad_source",
            "text_too_large",
            "too_old",
            "in_the_future",
        ],
    ),
    ("language", &["language"]),
    ("noise", &["empty", "too_short", "link_only", "repetition"]),
    ("duplicates", &["duplicate"]),
    ("score", &["model_failed"]),
];

/// Whether that stage refuses rows for that reason.
pub fn is_reason(stage: &str, reason: &str) -> bool {
    REASONS
        .iter()
        .any(|(name, reasons)| *name == stage && reasons.contains(&reason))
}

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
        optional(REPLAYED_AT, timestamp()),
        optional(OUTCOME, DataType::Utf8),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_above_names_every_stage_and_reason() {
        let rows = include_str!("dead_letters.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `"));
        let words = rows.map(|row| row.split('`').step_by(2).take(2).collect::<Vec<_>>());
        // The other table has one word a row.
        let told: Vec<Vec<&str>> = words.filter(|words| words.len() == 2).collect();
        let known = REASONS
            .iter()
            .flat_map(|(stage, reasons)| reasons.iter().map(|reason| vec![*stage, *reason]));
        assert_eq!(told, known.collect::<Vec<_>>());
    }

    #[test]
    fn statistics_are_of_plain_columns_that_exist() {
        for name in PARTITION_COLUMNS.iter().chain(&STATS_COLUMNS) {
            assert!(schema().field_with_name(name).is_ok(), "{name}");
        }
    }
}
