//! Delta tables: writing with exactly-once commits, and registering for SQL.
//!
//! Invariant: rows and the offsets they came from become visible in one Delta commit, or not at all. An offset is a
//! Delta application transaction (`txn`): the key names a partition, its version is the next offset to read.
//!
//! A commit goes in three steps: check the transactions of the batch against the table, stage Parquet files (nobody
//! sees them yet, a crash leaves orphans that vacuum removes), write one log entry. Where the outcome of the last step
//! is unknown, the log decides: see [`commit`](TableWriter::commit).
//!
//! Statistics leak text, so they exist only for the columns that a [`TableSpec`] names: in the log, and in the footers
//! of data files.
//!
//! This module knows no Kafka and no model.

pub mod care;
mod create;
mod durable;
mod encode;
mod error;
mod grow;
mod marks;
mod partitions;
mod read;
mod retries;
mod s3;
mod spec;
mod stage;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod whereabouts;
mod writer;

pub use error::TableError;
pub use read::{Inspection, conform, inspect, register, standing};
pub use retries::{Retries, RetryCount};
pub use spec::TableSpec;
pub use store::{Store, StoreOptions};
pub use whereabouts::Span;
pub use writer::{Committed, TableWriter, TxnRange, Txns};
