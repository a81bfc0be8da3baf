//! The pipeline: Kafka or files → the sieve → the Transformer → a Delta table, and SQL over it.
//!
//! Start reading in [`flow`]: the straight line. [`batch`] is what flows, [`mod@line`] the stages in their order, [`sink`]
//! the commits, [`jobs`] the commands.
//!
//! Architecture Invariant: a stage is a function on a batch and a SQL function is the same function on a column; the
//! kernel exists once, in `tamiz-udfs`, and scoring exists once, behind `tamiz_model::Scorer`.

pub mod batch;
pub mod config;
pub mod deletes;
pub mod fault;
pub mod flow;
mod http;
pub mod jobs;
pub mod letter_topic;
pub mod line;
pub mod observe;
pub mod registry;
pub mod sink;
pub mod source;
pub mod stage;
pub mod stages;
pub mod stats;
pub mod table;
pub mod tables;
