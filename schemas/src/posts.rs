//! The table of enriched posts, version 1.
//!
//! Only types that every Delta reader knows are used: no unsigned integers, no dictionaries, no views.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use crate::columns::*;

/// Version of the schema that [`schema`] returns.
pub const VERSION: u32 = 1;

/// Columns that version 1 was given later. They may be NULL, so a table without them is still one of version 1: it is given
/// them when it is next opened for writing, and its older rows are NULL there.
pub const GROWN_COLUMNS: [&str; 2] = [LATE, DELETE_KEY];

/// The table is partitioned by these, in this order.
pub const PARTITION_COLUMNS: [&str; 2] = [DATE, SOURCE];

/// Columns whose minimum and maximum may be written to files and log: none of them holds words of a person.
pub const STATS_COLUMNS: [&str; 6] = [
    CREATED_AT,
    INGESTED_AT,
    LANG,
    N_TOKENS,
    "sentiment.score",
    "kafka.offset",
];

/// UTC timestamp in microseconds, the one that Delta knows.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

/// Fields of [`PII`]'s items: kind and count.
pub fn pii_fields() -> Fields {
    Fields::from(vec![
        Field::new("kind", DataType::Utf8, true),
        Field::new("count", DataType::Int32, true),
    ])
}

/// Fields of [`SENTIMENT`].
pub fn sentiment_fields() -> Fields {
    let score = |name| Field::new(name, DataType::Float32, true);
    Fields::from(vec![
        Field::new("label", DataType::Utf8, true),
        score("score"),
        score("negative"),
        score("neutral"),
        score("positive"),
    ])
}

/// Fields of [`TOPIC`] and of every further head.
pub fn label_fields() -> Fields {
    Fields::from(vec![
        Field::new("label", DataType::Utf8, true),
        Field::new("confidence", DataType::Float32, true),
    ])
}

/// Fields of [`KAFKA`].
pub fn kafka_fields() -> Fields {
    Fields::from(vec![
        Field::new("topic", DataType::Utf8, true),
        Field::new("partition", DataType::Int32, true),
        Field::new("offset", DataType::Int64, true),
        Field::new("timestamp", timestamp(), true),
    ])
}

/// Whether a head of a model may be called so: a further head's name is that of its column.
pub fn fits_as_head(name: &str) -> bool {
    schema().field_with_name(name).is_err()
}

/// The schema of a table that is written with a model of further heads than sentiment and topic: [`schema`], and a column of
/// [`label_fields`] for each of them, at the end.
///
/// ```
/// let schema = tamiz_schemas::posts::schema_with(["emotion"]);
/// assert_eq!(schema.fields().last().unwrap().name(), "emotion");
/// ```
pub fn schema_with<'a>(further: impl IntoIterator<Item = &'a str>) -> SchemaRef {
    let heads = further
        .into_iter()
        .map(|head| Field::new(head, DataType::Struct(label_fields()), true));
    let fields: Vec<Field> = schema()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone())
        .chain(heads)
        .collect();
    Arc::new(Schema::new(fields))
}

/// The Arrow schema of `posts` version 1.
///
/// ```
/// assert_eq!(tamiz_schemas::posts::schema().field(0).name(), "id");
/// ```
pub fn schema() -> SchemaRef {
    let required = |name, data_type| Field::new(name, data_type, false);
    let optional = |name, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        required(ID, DataType::Utf8),
        required(SOURCE, DataType::Utf8),
        required(DATE, DataType::Date32),
        required(CREATED_AT, timestamp()),
        required(INGESTED_AT, timestamp()),
        optional(AUTHOR, DataType::Utf8),
        optional(LANG, DataType::Utf8),
        optional(LANG_CONFIDENCE, DataType::Float32),
        required(TEXT, DataType::Utf8),
        required(TEXT_HASH, DataType::Utf8),
        optional(DUPLICATE_OF, DataType::Utf8),
        optional(NOISE, list(DataType::Utf8)),
        optional(PII, list(DataType::Struct(pii_fields()))),
        optional(SENTIMENT, DataType::Struct(sentiment_fields())),
        optional(TOPIC, DataType::Struct(label_fields())),
        optional(N_TOKENS, DataType::Int32),
        optional(TRUNCATED, DataType::Boolean),
        optional(MODEL, DataType::Utf8),
        optional(KAFKA, DataType::Struct(kafka_fields())),
        optional(LATE, DataType::Boolean),
        optional(DELETE_KEY, DataType::Utf8),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_and_statistics_columns_exist() {
        let schema = schema();
        for name in PARTITION_COLUMNS {
            assert!(schema.field_with_name(name).is_ok(), "{name}");
        }
        for path in STATS_COLUMNS {
            let (column, rest) = path.split_once('.').unwrap_or((path, ""));
            let field = schema.field_with_name(column).unwrap();
            let nested = matches!(field.data_type(), DataType::Struct(inner) if inner.iter().any(|f| f.name() == rest));
            assert!(rest.is_empty() || nested, "{path}");
        }
    }

    #[test]
    fn columns_that_came_later_may_be_null_and_stand_at_the_end() {
        let schema = schema();
        let last = &schema.fields()[schema.fields().len() - GROWN_COLUMNS.len()..];
        for (field, name) in last.iter().zip(GROWN_COLUMNS) {
            assert!(field.name() == name && field.is_nullable(), "{name}");
        }
    }

    #[test]
    fn no_statistics_on_what_people_wrote() {
        for name in [TEXT, TEXT_HASH, AUTHOR, ID, DUPLICATE_OF, PII, DELETE_KEY] {
            assert!(
                !STATS_COLUMNS
                    .iter()
                    .any(|c| *c == name || c.starts_with(&format!("{name}."))),
                "{name}"
            );
        }
    }
}
