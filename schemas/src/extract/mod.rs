//! Payload → fields, by a mapping: JSON here, Avro and Protobuf by their schemas.
//!
//! The pointers of a mapping form a tree. Each reader walks it beside the payload in one pass and passes over every other
//! value unread, so a 3 kB record costs little more than its length. Strings without escapes are borrowed.

mod avro;
mod avro_steps;
mod json;
mod proto_schema;
mod protobuf;
mod protobuf_plan;
#[cfg(test)]
mod tests;
mod tree;
mod wire;

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat};
use serde::de::DeserializeSeed;

use crate::mapping::{ANY, Mapping};

use tree::{Node, Slots, Source, Tree};

pub use avro::AvroReader;
pub use proto_schema::{ProtobufSchema, message_of_file};
pub use protobuf::ProtobufReader;
pub(crate) use wire::Wire;

/// A scalar found in a payload.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// A whole number.
    Whole(i128),
    /// A number with a fraction or exponent.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A moment, in microseconds since the epoch: formats that know times.
    Moment(i64),
    /// Something that is no scalar stood where one was wanted: an array, an object, bytes that are no text.
    Compound,
}

impl Scalar<'_> {
    /// The scalar as text; `None` for a compound.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Scalar::Text(text) => Some(Cow::Borrowed(text)),
            Scalar::Whole(n) => Some(Cow::Owned(n.to_string())),
            Scalar::Float(n) => Some(Cow::Owned(n.to_string())),
            Scalar::Bool(b) => Some(Cow::Borrowed(if *b { "true" } else { "false" })),
            Scalar::Moment(micros) => DateTime::from_timestamp_micros(*micros)
                .map(|moment| Cow::Owned(moment.to_rfc3339_opts(SecondsFormat::AutoSi, true))),
            Scalar::Compound => None,
        }
    }

    /// Whether nothing is written here.
    pub fn is_blank(&self) -> bool {
        matches!(self, Scalar::Text(text) if text.is_empty())
    }
}

/// A field of a post, as the mapping found it.
#[derive(Debug, Clone, PartialEq)]
pub enum Found<'a> {
    /// Nothing there, or null.
    Missing,
    /// A scalar.
    Scalar(Scalar<'a>),
}

/// The fields of one payload.
#[derive(Debug)]
pub struct Fields<'a> {
    /// Identifier.
    pub id: Found<'a>,
    /// Source.
    pub source: Found<'a>,
    /// Event time, as written.
    pub created_at: Found<'a>,
    /// Author.
    pub author: Found<'a>,
    /// Text.
    pub text: Found<'a>,
    /// When it arrived, as written.
    pub arrived: Found<'a>,
    /// What deletes name it by, where that is not its identifier.
    pub key: Found<'a>,
}

/// What a record that takes a post back says.
#[derive(Debug)]
pub struct Delete<'a> {
    /// Which post: its identifier, or its key where posts have keys.
    pub id: Found<'a>,
    /// Of which source; of any where that is missing.
    pub source: Found<'a>,
    /// Who wrote it.
    pub author: Found<'a>,
}

/// What one payload is.
#[derive(Debug)]
pub enum Record<'a> {
    /// A post.
    Post(Fields<'a>),
    /// The end of one.
    Delete(Delete<'a>),
}

/// Why a payload gave no fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtractError {
    /// Bytes that are no UTF-8.
    #[error("not UTF-8 at byte {0}")]
    Utf8(usize),
    /// Text that is no JSON; the message names line and column, never the text.
    #[error("not JSON: {0}")]
    Json(String),
    /// Bytes that are no Avro of their schema; the message names the byte.
    #[error("not Avro of its schema: {0}")]
    Avro(String),
    /// Bytes that are no Protobuf message.
    #[error("not Protobuf: {0}")]
    Protobuf(String),
    /// A well-formed record that the mapping's `only` excludes.
    #[error("not a post: `{0}` differs from what `input.only` asks for")]
    NotAPost(String),
}

/// A compiled mapping.
#[derive(Debug)]
pub struct Extractor {
    nodes: Vec<Node>,
    slots: usize,
    id: Source,
    source: Source,
    created_at: Source,
    author: Option<Source>,
    text: Source,
    only: Vec<(String, usize, String)>,
    arrived: Option<Source>,
    key: Option<Source>,
    deletes: Option<Deletes>,
}

#[derive(Debug)]
struct Deletes {
    when: Vec<(usize, String)>,
    id: Source,
    author: Option<Source>,
}

impl Extractor {
    /// Compiles a mapping.
    pub fn new(mapping: &Mapping) -> Self {
        let mut tree = Tree::new();
        let id = tree.source(&mapping.id);
        let source = tree.source(&mapping.source);
        let created_at = tree.source(&mapping.created_at);
        let author = mapping.author.as_ref().map(|place| tree.source(place));
        let text = tree.source(&mapping.text);
        let only = mapping
            .only
            .iter()
            .map(|(p, value)| (p.clone(), tree.slot(p), value.clone()))
            .collect();
        let arrived = mapping.arrived.as_ref().map(|place| tree.source(place));
        let key = mapping.key.as_ref().map(|place| tree.source(place));
        let deletes = mapping.deletes.as_ref().map(|deletes| {
            let when = deletes.when.iter();
            Deletes {
                when: when.map(|(p, value)| (tree.slot(p), value.clone())).collect(),
                id: tree.source(&deletes.id),
                author: deletes.author.as_ref().map(|place| tree.source(place)),
            }
        });
        Extractor {
            nodes: tree.nodes,
            slots: tree.slots,
            id,
            source,
            created_at,
            author,
            text,
            only,
            arrived,
            key,
            deletes,
        }
    }

    /// Reads one payload of JSON.
    ///
    /// # Errors
    /// Invalid UTF-8, invalid JSON, or a record that is neither a post nor the end of one.
    pub fn extract<'a>(&'a self, payload: &'a [u8]) -> Result<Record<'a>, ExtractError> {
        let text = std::str::from_utf8(payload).map_err(|e| ExtractError::Utf8(e.valid_up_to()))?;
        let mut slots: Slots<'a> = vec![None; self.slots];
        let mut json = serde_json::Deserializer::from_str(text);
        let describe = |e: serde_json::Error| ExtractError::Json(json::describe(&e));
        json::Walk {
            nodes: &self.nodes,
            node: 0,
            slots: &mut slots,
        }
        .deserialize(&mut json)
        .map_err(describe)?;
        json.end().map_err(describe)?;
        self.record(slots)
    }

    /// A post or the end of one, from what was found at the pointers.
    fn record<'a>(&'a self, mut slots: Slots<'a>) -> Result<Record<'a>, ExtractError> {
        if let Some(deletes) = self.deletes.as_ref().filter(|deletes| deletes.apply(&slots)) {
            return Ok(Record::Delete(Delete {
                id: deletes.id.find(&slots),
                source: self.source.find(&slots),
                author: find(&deletes.author, &slots),
            }));
        }
        for (pointer, slot, wanted) in &self.only {
            let found = slots[*slot].as_ref().and_then(Scalar::text);
            if found.as_deref() != Some(wanted) {
                return Err(ExtractError::NotAPost(pointer.clone()));
            }
        }
        // `text` last: it may take its slot's string away instead of copying it.
        Ok(Record::Post(Fields {
            id: self.id.find(&slots),
            source: self.source.find(&slots),
            created_at: self.created_at.find(&slots),
            author: find(&self.author, &slots),
            arrived: find(&self.arrived, &slots),
            key: find(&self.key, &slots),
            text: self.text.take(&mut slots),
        }))
    }
}

impl Deletes {
    /// Whether a record is one.
    fn apply(&self, slots: &Slots) -> bool {
        self.when.iter().all(|(slot, wanted)| {
            let found = slots[*slot].as_ref();
            found.is_some_and(|found| wanted == ANY || found.text().as_deref() == Some(wanted))
        })
    }
}

fn find<'a>(source: &'a Option<Source>, slots: &Slots<'a>) -> Found<'a> {
    source.as_ref().map_or(Found::Missing, |source| source.find(slots))
}
