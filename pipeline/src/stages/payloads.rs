//! What payloads are read with: JSON by itself, Avro and Protobuf by a schema from a file or from a registry.

use std::fs;
use std::sync::Arc;

use tamiz_schemas::extract::{AvroReader, ExtractError, Extractor, ProtobufReader, Record, message_of_file};
use tamiz_schemas::format::PayloadFormat;
use tamiz_schemas::frame;
use tamiz_schemas::mapping::{InputConfig, Mapping};

use crate::registry::{Registry, Schema, Schemas, Shelf};

/// The reader of payloads.
pub struct Payloads(How);

enum How {
    Json(Arc<Extractor>),
    Avro(AvroReader),
    Protobuf(ProtobufReader),
    Registered(Arc<Shelf>),
}

/// Why a payload gave no fields: a word to group by, and words for a person.
pub type Refusal = (&'static str, String);

/// An option, and what is wrong with it.
type Wrong = (&'static str, String);

impl Payloads {
    /// JSON.
    pub fn json(mapping: &Mapping) -> Self {
        Payloads(How::Json(Arc::new(Extractor::new(mapping))))
    }

    /// As configured, and the registry that fetches the schemas, where there is one.
    ///
    /// # Errors
    /// The option that is wrong, and why.
    pub fn of(input: &InputConfig, mapping: &Mapping) -> Result<(Self, Option<Arc<Registry>>), Wrong> {
        let extractor = Arc::new(Extractor::new(mapping));
        if input.format == PayloadFormat::Json {
            return Ok((Payloads(How::Json(extractor)), None));
        }
        if !input.registry.url.is_empty() {
            let registry = Registry::new(&input.registry, input.format, extractor);
            let registry = registry.map_err(|message| ("input.registry", message))?;
            return Ok((Payloads(How::Registered(registry.shelf())), Some(Arc::new(registry))));
        }
        let path = &input.schema_file;
        let wrong = |message: String| ("input.schema_file", format!("`{path}`: {message}"));
        let file = fs::read(path).map_err(|error| ("input.schema_file", format!("cannot read `{path}`: {error}")))?;
        let how = if input.format == PayloadFormat::Avro {
            let text = String::from_utf8(file).map_err(|_| wrong("it is no Avro schema: it is not UTF-8".into()))?;
            How::Avro(AvroReader::new(extractor, &text, &[]).map_err(wrong)?)
        } else {
            How::Protobuf(message_of_file(extractor, &file, &input.message).map_err(wrong)?)
        };
        Ok((Payloads(how), None))
    }

    /// The schemas to read a batch with.
    pub fn schemas(&self) -> Arc<Schemas> {
        match &self.0 {
            How::Registered(shelf) => shelf.schemas(),
            _ => Arc::default(),
        }
    }

    /// Reads one payload; `schemas` as they were when its batch was begun.
    ///
    /// # Errors
    /// The reason for which the payload is refused; never words of it.
    pub fn read<'a>(&'a self, schemas: &'a Schemas, payload: &'a [u8]) -> Result<Record<'a>, Refusal> {
        match &self.0 {
            How::Json(extractor) => extractor.extract(payload).map_err(refusal),
            How::Avro(reader) => reader.extract(payload).map_err(refusal),
            How::Protobuf(reader) => reader.extract(payload).map_err(refusal),
            How::Registered(_) => registered(schemas, payload),
        }
    }
}

fn registered<'a>(schemas: &'a Schemas, payload: &'a [u8]) -> Result<Record<'a>, Refusal> {
    let not_framed = |words: &str| {
        (
            "not_framed",
            format!("{words}: is `input.registry` meant for this topic?"),
        )
    };
    let framed = frame::split(payload).map_err(not_framed)?;
    let number = framed.schema;
    match schemas.get(&number).map(|schema| &**schema) {
        None => Err(("unknown_schema", format!("the registry knows no schema {number}"))),
        Some(Schema::Unusable(why)) => Err(("unusable_schema", format!("schema {number}: {why}"))),
        Some(Schema::Avro(reader)) => reader.extract(framed.datum).map_err(refusal),
        Some(Schema::Protobuf(schema)) => {
            let (path, datum) = frame::message(framed.datum).map_err(not_framed)?;
            let reader = schema.message(path.steps());
            let reader = reader.ok_or_else(|| {
                (
                    "unknown_schema",
                    format!("schema {number} has no message {:?}", path.steps()),
                )
            })?;
            reader.extract(datum).map_err(refusal)
        }
    }
}

fn refusal(error: ExtractError) -> Refusal {
    let reason = match &error {
        ExtractError::Utf8(_) => "not_utf8",
        ExtractError::Json(_) => "not_json",
        ExtractError::Avro(_) => "not_avro",
        ExtractError::Protobuf(_) => "not_protobuf",
        ExtractError::NotAPost(_) => "not_a_post",
    };
    (reason, error.to_string())
}
