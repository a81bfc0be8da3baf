//! What a post, an enriched row and a dead letter are, by version.
//!
//! - [`columns`]: every column name, once.
//! - [`posts`], [`dead_letters`]: the Arrow schemas of the two tables.
//! - [`mapping`]: how a JSON payload or a Parquet row of any shape becomes our fields, with presets for the usual feeds.
//! - [`extract`]: the one-pass JSON reader that a mapping is compiled into.
//! - [`time`]: the timestamp spellings that are understood.
//!
//! Architecture Invariant: this crate knows no Kafka, no model and no SQL, and does no I/O.

pub mod columns;
pub mod dead_letters;
pub mod extract;
pub mod mapping;
pub mod posts;
pub mod time;
