//! What a post, an enriched row and a dead letter are, by version.
//!
//! - [`columns`]: every column name, once.
//! - [`posts`], [`dead_letters`], [`deletes`]: the Arrow schemas of the tables.
//! - [`mapping`]: how a JSON payload or a Parquet row of any shape becomes our fields, with presets for the usual feeds.
//! - [`extract`]: the one-pass readers of JSON, Avro and Protobuf that a mapping is compiled into.
//! - [`mod@format`], [`frame`]: how payloads are written, and what a schema registry puts before them.
//! - [`time`]: the timestamp spellings that are understood.
//!
//! Architecture Invariant: this crate knows no Kafka, no model and no SQL, and does no I/O.

pub mod columns;
pub mod dead_letters;
pub mod deletes;
pub mod extract;
pub mod format;
pub mod frame;
pub mod mapping;
pub mod posts;
mod presets;
pub mod time;
