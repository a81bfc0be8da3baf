//! Payload → fields: JSON, Avro or Protobuf by the mapping, in one pass; rows of a Parquet file by column. Records that
//! take posts back leave the rows here, as deletes.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, StringBuilder,
    StructArray, TimestampMicrosecondArray, TimestampMicrosecondBuilder, UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tamiz_schemas::columns::*;
use tamiz_schemas::extract::{Delete, Fields, Found, Record, Scalar};
use tamiz_schemas::mapping::{Mapping, Place, TextFormat};
use tamiz_schemas::{posts, time};

use super::columns::Columns;
use super::deletes::{Named, Naming};
use super::html;
use super::payloads::{Payloads, Refusal};
use super::validate::is_source;
use crate::registry::Schemas;
use crate::source::{INGESTED, MESSAGE_KEY};
use crate::stage::{Outcome, ROW, Refused, Stage, StageError, TakenBack};

const NAME: &str = "decode";

/// Internal column: when the post arrived, by its payload or else by Kafka.
pub const ARRIVED: &str = "arrived";

/// Longest name of a post in a delete.
const MAX_NAME_BYTES: usize = 512;

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
    payloads: Payloads,
    columns: Columns,
    text_format: TextFormat,
    max_payload_bytes: usize,
    origin: Origin,
    naming: Naming,
    /// The source of posts, where all have the same: a tombstone says nothing of it.
    source: Option<String>,
}

impl Decode {
    /// A decoder of JSON for a mapping; payloads larger than `max_payload_bytes` are refused unparsed.
    pub fn new(mapping: &Mapping, max_payload_bytes: usize, origin: Origin, naming: Naming) -> Self {
        Decode {
            payloads: Payloads::json(mapping),
            columns: Columns::new(mapping),
            text_format: mapping.text_format,
            max_payload_bytes,
            origin,
            naming,
            source: match &mapping.source {
                Place::Value { value } => Some(value.clone()),
                _ => None,
            },
        }
    }

    /// The same for payloads that are read otherwise.
    pub fn with(self, payloads: Payloads) -> Self {
        Decode { payloads, ..self }
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
            Field::new(ARRIVED, posts::timestamp(), true),
            Field::new(DELETE_KEY, DataType::Utf8, true),
        ]
    }

    fn bytes(&self, payloads: &BinaryArray, keys: &BinaryArray) -> Read {
        let mut read = Read {
            posts: Decoded::with_capacity(payloads.len(), payloads.value_data().len()),
            refused: Vec::new(),
            deletes: Vec::new(),
        };
        let schemas = self.payloads.schemas();
        for index in 0..payloads.len() {
            let payload = payloads.is_valid(index).then(|| payloads.value(index));
            let key = keys.is_valid(index).then(|| keys.value(index));
            match self.one((payload, key), &schemas, index, &mut read.posts) {
                Ok(None) => {}
                Ok(Some((source, named))) => read.deletes.push(TakenBack { index, source, named }),
                Err((reason, detail)) => read.refused.push(Refused { index, reason, detail }),
            }
        }
        read
    }

    /// Puts a post into `out`, or tells what is taken back.
    fn one(
        &self,
        (payload, key): (Option<&[u8]>, Option<&[u8]>),
        schemas: &Schemas,
        index: usize,
        out: &mut Decoded,
    ) -> Result<Option<Ended>, Refusal> {
        let Some(payload) = payload else {
            return self.tombstone(key).map(Some);
        };
        if payload.len() > self.max_payload_bytes {
            let detail = format!("{} bytes, {} allowed", payload.len(), self.max_payload_bytes);
            return Err(("too_large", detail));
        }
        let fields = match self.payloads.read(schemas, payload)? {
            Record::Post(fields) => fields,
            Record::Delete(delete) => return self.delete(&delete).map(Some),
        };
        let created_at = created_at(&fields.created_at)?;
        for (name, found) in [
            (ID, &fields.id),
            (SOURCE, &fields.source),
            (AUTHOR, &fields.author),
            (TEXT, &fields.text),
        ] {
            if matches!(found, Found::Scalar(Scalar::Compound)) {
                return Err((
                    "wrong_type",
                    format!("`{name}` is an array, an object or no text; text is wanted"),
                ));
            }
        }
        out.push(index, &fields, created_at, self.text_format);
        Ok(None)
    }

    fn tombstone(&self, key: Option<&[u8]>) -> Result<Ended, Refusal> {
        let no_payload = |detail: &str| ("no_payload", detail.to_owned());
        if !self.naming.tombstones() {
            return Err(no_payload("the message has no payload (a tombstone)"));
        }
        let key = key.filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| no_payload("the message has neither a payload nor a key"))?;
        if key.len() > MAX_NAME_BYTES {
            return Err(("bad_delete", format!("the key is {} bytes long", key.len())));
        }
        let named = self
            .naming
            .tombstone(key)
            .map_err(|why| ("bad_delete", why.to_owned()))?;
        Ok((self.source.clone(), named))
    }

    fn delete(&self, delete: &Delete) -> Result<Ended, Refusal> {
        let bad = |detail: &str| ("bad_delete", detail.to_owned());
        let text = |found: &Found| match found {
            Found::Missing => Ok(None),
            Found::Scalar(scalar) => scalar.text().map(|text| Some(text.into_owned())).ok_or(()),
        };
        let compound = |()| bad("an array, an object or no text stands where the delete names its post");
        let name = text(&delete.id).map_err(compound)?.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| bad("the delete does not say which post"))?;
        if name.len() > MAX_NAME_BYTES {
            return Err((
                "bad_delete",
                format!("the name of the post is {} bytes long", name.len()),
            ));
        }
        let source = text(&delete.source)
            .map_err(compound)?
            .filter(|source| !source.is_empty());
        if source.as_deref().is_some_and(|source| !is_source(source)) {
            return Err(bad("`source` cannot be that of a post"));
        }
        let author = text(&delete.author).map_err(compound)?.unwrap_or_default();
        let named = self.naming.record(&name, &author).map_err(bad)?;
        Ok((source, named))
    }
}

/// Source and name of a post that is taken back.
type Ended = (Option<String>, Named);

/// What payloads turned out to be.
struct Read {
    posts: Decoded,
    refused: Vec<Refused>,
    deletes: Vec<TakenBack>,
}

fn created_at(found: &Found) -> Result<Option<i64>, Refusal> {
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
        Found::Scalar(Scalar::Moment(micros)) => Ok(Some(*micros)),
        Found::Scalar(_) => Err(bad()),
    }
}

fn created_at_of(found: &Found) -> Option<i64> {
    created_at(found).ok().flatten()
}

/// Columns under construction: only the rows that decode.
struct Decoded {
    rows: Vec<u32>,
    id: StringBuilder,
    source: StringBuilder,
    created_at: TimestampMicrosecondBuilder,
    author: StringBuilder,
    text: StringBuilder,
    arrived: TimestampMicrosecondBuilder,
    key: StringBuilder,
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
            arrived: TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC"),
            key: StringBuilder::new(),
        }
    }

    fn finish(&mut self) -> (Vec<u32>, [ArrayRef; 7]) {
        let columns: [ArrayRef; 7] = [
            Arc::new(self.id.finish()),
            Arc::new(self.source.finish()),
            Arc::new(self.created_at.finish()),
            Arc::new(self.author.finish()),
            Arc::new(self.text.finish()),
            Arc::new(self.arrived.finish()),
            Arc::new(self.key.finish()),
        ];
        (std::mem::take(&mut self.rows), columns)
    }

    fn push(&mut self, index: usize, fields: &Fields, created_at: Option<i64>, format: TextFormat) {
        self.rows.push(index as u32);
        append(&mut self.id, &fields.id);
        append(&mut self.source, &fields.source);
        append(&mut self.author, &fields.author);
        self.created_at.append_option(created_at);
        // One that cannot be read is as good as none: nothing but a mark hangs on it.
        self.arrived.append_option(created_at_of(&fields.arrived));
        append(&mut self.key, &fields.key);
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
        let mut deletes = Vec::new();
        let (decoded, refused) = match payload.data_type() {
            DataType::Struct(_) => self.columns.decode(payload.as_struct(), self.text_format)?,
            _ => {
                let mut read = self.bytes(payload.as_binary(), keys(&rows)?);
                deletes = read.deletes;
                (read.posts.finish(), read.refused)
            }
        };
        let (index, [id, source, created_at, author, text, arrived, key]) = decoded;
        let index = UInt32Array::from(index);
        let kept = take_record_batch(&rows.project(&whereabouts(&rows)?)?, &index)?;
        let ingested = kept.column_by_name(INGESTED).cloned().ok_or(StageError::Column {
            stage: NAME,
            column: INGESTED,
            wanted: "timestamp",
        })?;
        let kafka = self.kafka(&kept)?;
        let arrived = arrived_or(arrived.as_primitive(), kept.column(3).as_primitive());
        let delete_key = self
            .naming
            .keys(id.as_string(), author.as_string(), key.as_string(), keys(&kept)?);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(index),
            id,
            source,
            created_at,
            author,
            text,
            ingested,
            Arc::new(kafka),
            Arc::new(arrived),
            Arc::new(delete_key),
        ];
        let rows = RecordBatch::try_new(Arc::new(Schema::new(self.fields())), columns)?;
        Ok(Outcome { rows, refused, deletes })
    }
}

/// Keys of the messages.
fn keys(rows: &RecordBatch) -> Result<&BinaryArray, StageError> {
    let keys = rows
        .column_by_name(MESSAGE_KEY)
        .and_then(|column| column.as_binary_opt());
    keys.ok_or(StageError::Column {
        stage: NAME,
        column: MESSAGE_KEY,
        wanted: "bytes",
    })
}

/// What payloads say of their arrival, and where they say nothing what Kafka says.
fn arrived_or(payload: &TimestampMicrosecondArray, kafka: &TimestampMicrosecondArray) -> TimestampMicrosecondArray {
    let both = payload.iter().zip(kafka.iter());
    let times: TimestampMicrosecondArray = both.map(|(payload, kafka)| payload.or(kafka)).collect();
    times.with_timezone("UTC")
}

fn whereabouts(rows: &RecordBatch) -> Result<Vec<usize>, StageError> {
    let schema = rows.schema();
    [TOPIC_NAME, PARTITION, OFFSET, TIMESTAMP, INGESTED, MESSAGE_KEY]
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
