//! Text kernels on Arrow columns, and the text and model functions for any DataFusion program.
//!
//! - [`text`]: the kernels, whole columns in and out; no I/O, no DataFusion.
//! - [`scores`]: what the model returned, as the columns that tables hold and SQL returns.
//! - [`sql`]: both as SQL functions, with the rule that scores every row once. [`register`] is all that a program needs.
//!
//! ```no_run
//! use datafusion::prelude::SessionContext;
//! use tamiz_model::{Scorer, ScorerOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let ctx = SessionContext::new();
//! tamiz_udfs::register(&ctx, Scorer::open("model".as_ref(), ScorerOptions::default())?)?;
//! ctx.sql("SELECT sentiment('what a day')['label']").await?.show().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here knows Kafka, a table format or a server.

pub mod scores;
pub mod sql;
pub mod text;

pub use sql::{ScoreConfig, ScorePlanner, TextOptions, configure, register, register_text, register_with};
