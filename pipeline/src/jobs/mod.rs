//! The commands of the binary, as functions of a configuration.
//!
//! | command | file |
//! |---|---|
//! | `run` | [`run`] |
//! | `batch` | [`batch`] |
//! | `replay` | [`replay`] |
//! | `demo` | [`demo`] |
//! | `check` | [`check`] |
//! | `sql` | [`sql`] |
//! | `produce` | [`produce`] |
//! | `table …` | [`table`] |
//! | `model …` | [`model`] |

pub mod batch;
pub mod care;
pub mod check;
pub mod deletes;
pub mod demo;
mod embedded;
pub mod model;
pub mod posts;
pub mod produce;
pub mod progress;
pub mod replay;
pub mod run;
pub mod sql;
pub mod table;

use std::io;
use std::time::Duration;

use tamiz_model::{ModelError, Scorer};
use tamiz_schemas::{dead_letters, posts as posts_table};

use crate::config::{Config, ConfigError, Problem};
use crate::deletes::DeletesTable;
use crate::flow::FlowError;
use crate::sink::{FlushRules, Tables};
use crate::source::SourceError;
use crate::table::{Store, TableError, TableSpec, TableWriter};

/// A command that failed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Called in a way that cannot work.
    #[error("{0}")]
    Usage(String),
    /// The line.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// SQL.
    #[error("{0}")]
    Sql(String),
    /// A file or the terminal.
    #[error("{what}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Checks that failed, each already printed.
    #[error("{}", count_problems(*.0))]
    Problems(usize),
    /// Anything else, in one sentence.
    #[error("{0}")]
    Failed(String),
}

fn count_problems(count: usize) -> String {
    format!("{count} {} found", if count == 1 { "problem" } else { "problems" })
}

impl JobError {
    /// 2 for bad usage or configuration, 1 for a job that failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            JobError::Config(_) | JobError::Usage(_) | JobError::Source(SourceError::Config(_)) => 2,
            _ => 1,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> JobError {
        let what = what.into();
        move |source| JobError::Io { what, source }
    }
}

/// What the posts table must be, with a column for each of these further heads of the model.
pub fn posts_spec(further: &[String]) -> TableSpec {
    TableSpec {
        name: "posts",
        schema: posts_table::schema_with(further.iter().map(String::as_str)),
        growing: owned(&posts_table::GROWN_COLUMNS)
            .chain(further.iter().cloned())
            .collect(),
        partition_columns: posts_table::PARTITION_COLUMNS.map(String::from).to_vec(),
        stats_columns: posts_table::STATS_COLUMNS.map(String::from).to_vec(),
    }
}

/// What the dead-letters table must be.
pub fn dead_letters_spec() -> TableSpec {
    TableSpec {
        name: "dead_letters",
        schema: dead_letters::schema(),
        growing: owned(&dead_letters::GROWN_COLUMNS).collect(),
        partition_columns: dead_letters::PARTITION_COLUMNS.map(String::from).to_vec(),
        stats_columns: dead_letters::STATS_COLUMNS.map(String::from).to_vec(),
    }
}

fn owned(names: &[&str]) -> impl Iterator<Item = String> {
    names.iter().map(|name| name.to_string())
}

/// Opens both tables for writing; makes those that are missing.
pub(crate) async fn open_tables(config: &Config, store: &Store, further: &[String]) -> Result<Tables, TableError> {
    Ok(Tables {
        posts: TableWriter::open(&config.sink.posts, store, posts_spec(further)).await?,
        dead_letters: TableWriter::open(&config.sink.dead_letters, store, dead_letters_spec()).await?,
        letter_topic: None,
        deletes: DeletesTable::new(config.deletes_address(), store.clone()),
    })
}

pub(crate) fn store(config: &Config) -> Result<Store, TableError> {
    Store::new(&config.sink.storage)
}

/// Opens the configured model; `None` where it is switched off.
///
/// # Errors
/// The folder, its hashes, its label maps or the device are wrong.
pub fn scorer(config: &Config) -> Result<Option<Scorer>, JobError> {
    if !config.model.enabled {
        return Ok(None);
    }
    let wrong = |message| {
        ConfigError(vec![Problem {
            key: "model".into(),
            message,
        }])
    };
    let path = config.model_path().map_err(wrong)?;
    let options = config.scorer_options().map_err(wrong)?;
    Ok(Some(Scorer::open(&path, options)?))
}

pub(crate) fn flush_rules(config: &Config) -> FlushRules {
    FlushRules {
        bytes: config.sink.flush_bytes,
        age: Duration::from_secs_f64(config.sink.flush_seconds),
    }
}
