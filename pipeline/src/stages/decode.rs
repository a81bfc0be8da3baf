//! Payload → fields: JSON by the mapping, in one pass; rows of a Parquet file by column.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, StringBuilder,
    StructArray, TimestampMicrosecondArray, TimestampMicrosecondBuilder, UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tamiz_schemas::columns::*;
use tamiz_schemas::extract::{ExtractError, Extractor, Fields, Found, Scalar};
use tamiz_schemas::mapping::{Mapping, TextFormat};
use tamiz_schemas::{posts, time};

use super::columns::Columns;
use super::html;
use crate::source::INGESTED;
use crate::stage::{Outcome, ROW, Refused, Stage, StageError};

const NAME: &str = "decode";

/// Where rows come from: only rows from Kafka have whereabouts to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A topic.
    Kafka,
    /// A file of a batch job.
    File,
}

/// The stage.
pub struct Decode {
    extractor: Extractor,
    columns: Columns,
    text_format: TextFormat,
    max_payload_bytes: usize,
    origin: Origin,
}

impl Decode {
    /// A decoder for a mapping; payloads larger than `max_payload_bytes` are refused unparsed.
    pub fn new(mapping: &Mapping, max_payload_bytes: usize, origin: Origin) -> Self {
        Decode {
            extractor: Extractor::new(mapping),
            columns: Columns::new(mapping),
            text_format: mapping.text_format,
            max_payload_bytes,
            origin,
        }
    }

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::new(ROW, DataType::UInt32, false),
            Field::new(ID, DataType::Utf8, true),
            Field::new(SOURCE, DataType::Utf8, true),
            Field::new(CREATED_AT, posts::timestamp(), true),
            Field::new(AUTHOR, DataType::Utf8, true),
            Field::new(TEXT, DataType::Utf8, true),
            Field::new(INGESTED_AT, posts::timestamp(), false),
            Field::new(KAFKA, DataType::Struct(posts::kafka_fields()), true),
        ]
    }

    fn json(&self, payloads: &BinaryArray) -> (Decoded, Vec<Refused>) {
        let mut decoded = Decoded::with_capacity(payloads.len(), payloads.value_data().len());
        let mut refused = Vec::new();
        for index in 0..payloads.len() {
            let payload = payloads.is_valid(index).then(|| payloads.value(index));
            if let Err((reason, detail)) = self.one(payload, index, &mut decoded) {
                refused.push(Refused { index, reason, detail });
            }
        }
        (decoded, refused)
    }

    fn one(&self, payload: Option<&[u8]>, index: usize, out: &mut Decoded) -> Result<(), (&'static str, String)> {
        let payload = payload.ok_or(("no_payload", "the message has no payload (a tombstone)".to_string()))?;
        if payload.len() > self.max_payload_bytes {
            let detail = format!("{} bytes, {} allowed", payload.len(), self.max_payload_bytes);
            return Err(("too_large", detail));
        }
        let fields = self
            .extractor
            .extract(payload)
            .map_err(|error| (reason(&error), error.to_string()))?;
        let created_at = created_at(&fields.created_at)?;
        for (name, found) in [
            (ID, &fields.id),
            (SOURCE, &fields.source),
            (AUTHOR, &fields.author),
            (TEXT, &fields.text),
        ] {
            if matches!(found, Found::Scalar(Scalar::Compound)) {
                return Err(("wrong_type", format!("`{name}` is an array or object, text is wanted")));
            }
        }
        out.push(index, &fields, created_at, self.text_format);
        Ok(())
    }
}

fn reason(error: &ExtractError) -> &'static str {
    match error {
        ExtractError::Utf8(_) => "not_utf8",
        ExtractError::Json(_) => "not_json",
        ExtractError::NotAPost(_) => "not_a_post",
    }
}

fn created_at(found: &Found) -> Result<Option<i64>, (&'static str, String)> {
    let bad = || {
        (
            "bad_timestamp",
            "`created_at` is neither RFC 3339 nor epoch seconds or milliseconds".to_string(),
        )
    };
    match found {
        Found::Missing => Ok(None),
        Found::Scalar(Scalar::Text(text)) => time::parse(text).map(Some).ok_or_else(bad),
        Found::Scalar(Scalar::Whole(n)) => time::from_epoch(*n as f64).map(Some).ok_or_else(bad),
        Found::Scalar(Scalar::Float(n)) => time::from_epoch(*n).map(Some).ok_or_else(bad),
        Found::Scalar(_) => Err(bad()),
    }
}

/// Columns under construction: only the rows that decode.
struct Decoded {
    rows: Vec<u32>,
    id: StringBuilder,
    source: StringBuilder,
    created_at: TimestampMicrosecondBuilder,
    author: StringBuilder,
    text: StringBuilder,
}

impl Decoded {
    fn with_capacity(rows: usize, bytes: usize) -> Self {
        Decoded {
            rows: Vec::with_capacity(rows),
            id: StringBuilder::with_capacity(rows, rows * 20),
            source: StringBuilder::with_capacity(rows, rows * 8),
            created_at: TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC"),
            author: StringBuilder::with_capacity(rows, rows * 16),
            text: StringBuilder::with_capacity(rows, bytes / 2),
        }
    }

    fn push(&mut self, index: usize, fields: &Fields, created_at: Option<i64>, format: TextFormat) {
        self.rows.push(index as u32);
        append(&mut self.id, &fields.id);
        append(&mut self.source, &fields.source);
        append(&mut self.author, &fields.author);
        self.created_at.append_option(created_at);
        match (format, &fields.text) {
            (TextFormat::Html, Found::Scalar(Scalar::Text(text))) => self.text.append_value(html::strip(text)),
            (_, text) => append(&mut self.text, text),
        }
    }
}

fn append(builder: &mut StringBuilder, found: &Found) {
    match found {
        Found::Scalar(Scalar::Text(text)) => builder.append_value(text),
        Found::Scalar(scalar) => builder.append_option(scalar.text()),
        Found::Missing => builder.append_null(),
    }
}

impl Stage for Decode {
    fn name(&self) -> &'static str {
        NAME
    }

    fn schema(&self, input: &Schema) -> Result<SchemaRef, StageError> {
        for (column, wanted) in [
            (TOPIC_NAME, "text"),
            (OFFSET, "64-bit integer"),
            (PAYLOAD, "bytes or a struct"),
        ] {
            input.field_with_name(column).map_err(|_| StageError::Column {
                stage: NAME,
                column,
                wanted,
            })?;
        }
        Ok(Arc::new(Schema::new(self.fields())))
    }

    fn apply(&self, rows: RecordBatch) -> Result<Outcome, StageError> {
        let payload = rows.column_by_name(PAYLOAD).ok_or(StageError::Column {
            stage: NAME,
            column: PAYLOAD,
            wanted: "bytes or a struct",
        })?;
        let (decoded, refused) = match payload.data_type() {
            DataType::Struct(_) => self.columns.decode(payload.as_struct(), self.text_format)?,
            _ => {
                let (mut decoded, refused) = self.json(payload.as_binary());
                let columns: [ArrayRef; 5] = [
                    Arc::new(decoded.id.finish()),
                    Arc::new(decoded.source.finish()),
                    Arc::new(decoded.created_at.finish()),
                    Arc::new(decoded.author.finish()),
                    Arc::new(decoded.text.finish()),
                ];
                ((decoded.rows, columns), refused)
            }
        };
        let (index, [id, source, created_at, author, text]) = decoded;
        let index = UInt32Array::from(index);
        let kept = take_record_batch(&rows.project(&whereabouts(&rows)?)?, &index)?;
        let ingested = kept.column_by_name(INGESTED).cloned().ok_or(StageError::Column {
            stage: NAME,
            column: INGESTED,
            wanted: "timestamp",
        })?;
        let kafka = self.kafka(&kept)?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(index),
            id,
            source,
            created_at,
            author,
            text,
            ingested,
            Arc::new(kafka),
        ];
        let rows = RecordBatch::try_new(Arc::new(Schema::new(self.fields())), columns)?;
        Ok(Outcome { rows, refused })
    }
}

fn whereabouts(rows: &RecordBatch) -> Result<Vec<usize>, StageError> {
    let schema = rows.schema();
    [TOPIC_NAME, PARTITION, OFFSET, TIMESTAMP, INGESTED]
        .iter()
        .map(|name| Ok(schema.index_of(name)?))
        .collect()
}

impl Decode {
    fn kafka(&self, kept: &RecordBatch) -> Result<StructArray, StageError> {
        let fields = posts::kafka_fields();
        if self.origin == Origin::File {
            return Ok(StructArray::new_null(fields, kept.num_rows()));
        }
        let arrays = kept.columns()[..4].to_vec();
        debug_assert!(arrays[0].as_any().is::<StringArray>() && arrays[1].as_any().is::<Int32Array>());
        debug_assert!(arrays[2].as_any().is::<Int64Array>() && arrays[3].as_any().is::<TimestampMicrosecondArray>());
        Ok(StructArray::try_new(fields, arrays, None)?)
    }
}
