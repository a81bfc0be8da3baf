//! A stage is a function on a batch; the chain is checked before the first row flows.
//!
//! Architecture Invariant: no stage does I/O, none awaits, and none loses a row: rows in == rows out + rejects + deletes.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};

use tamiz_schemas::dead_letters;

use crate::batch::{Batch, Delete, Reject};
use crate::observe::traces;
use crate::stages::deletes::Named;
use crate::stats::{StageCount, Stats};

/// Column that holds a row's index in the batch as read; internal, never written.
pub const ROW: &str = "row";

/// A row that a stage refuses, by its index in the batch given to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Index in the stage's input.
    pub index: usize,
    /// A word to group by.
    pub reason: &'static str,
    /// For a person; never words of the post.
    pub detail: String,
}

/// A row that takes a post back, by its index in the batch given to the stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenBack {
    /// Index in the stage's input.
    pub index: usize,
    /// Of which source; of any where that is not known.
    pub source: Option<String>,
    /// Which post.
    pub named: Named,
}

/// What a stage makes of its rows.
#[derive(Debug)]
pub struct Outcome {
    /// The rows that go on.
    pub rows: RecordBatch,
    /// The rows that do not.
    pub refused: Vec<Refused>,
    /// The rows that are no posts but end some.
    pub deletes: Vec<TakenBack>,
}

impl Outcome {
    /// All rows go on.
    pub fn all(rows: RecordBatch) -> Self {
        Outcome {
            rows,
            refused: Vec::new(),
            deletes: Vec::new(),
        }
    }

    /// The rows of `rows` but the refused ones.
    ///
    /// # Errors
    /// Arrow's, on filtering.
    pub fn without(rows: RecordBatch, refused: Vec<Refused>) -> Result<Self, StageError> {
        if refused.is_empty() {
            return Ok(Outcome::all(rows));
        }
        let mut keep = vec![true; rows.num_rows()];
        for one in &refused {
            keep[one.index] = false;
        }
        let rows = filter_record_batch(&rows, &BooleanArray::from(keep))?;
        Ok(Outcome {
            refused,
            ..Outcome::all(rows)
        })
    }
}

/// A broken stage: a defect or a wrong configuration, never a bad row.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The column is not what the stage needs.
    #[error("stage `{stage}` needs column `{column}` as {wanted}: the stages are chained in the wrong order")]
    Column {
        /// The stage.
        stage: &'static str,
        /// The column.
        column: &'static str,
        /// Its type.
        wanted: &'static str,
    },
    /// Arrow refused.
    #[error("cannot assemble a batch")]
    Arrow(#[from] arrow::error::ArrowError),
    /// Rows went missing.
    #[error(
        "stage `{stage}` lost rows: {input} in, {output} out, {refused} refused, {deletes} deletes; report this as a defect"
    )]
    Lost {
        /// The stage.
        stage: &'static str,
        /// Rows in.
        input: usize,
        /// Rows out.
        output: usize,
        /// Rows refused.
        refused: usize,
        /// Rows that took posts back.
        deletes: usize,
    },
    /// The model failed.
    #[error("the model could not score a batch")]
    Score(#[from] tamiz_model::ScoreError),
    /// The model's heads are not what the table needs.
    #[error("{0}")]
    Model(String),
}

/// Pure, synchronous, no I/O; runs on rayon.
pub trait Stage: Send + Sync {
    /// Name in dead letters, metrics and messages.
    fn name(&self) -> &'static str;

    /// The output schema for an input schema; the whole chain is checked with it at start.
    ///
    /// # Errors
    /// A column is missing or has another type.
    fn schema(&self, input: &Schema) -> Result<SchemaRef, StageError>;

    /// The work.
    ///
    /// # Errors
    /// Only for defects; bad rows are refused, not errors.
    fn apply(&self, rows: RecordBatch) -> Result<Outcome, StageError>;
}

/// Stages in order.
#[derive(Clone)]
pub struct Chain {
    stages: Vec<Arc<dyn Stage>>,
    stats: Arc<Stats>,
}

impl Chain {
    /// Checks that each stage's output is what the next one needs.
    ///
    /// # Errors
    /// The first stage that does not fit.
    pub fn new(stages: Vec<Arc<dyn Stage>>, input: SchemaRef, stats: Arc<Stats>) -> Result<Self, StageError> {
        stages.iter().try_fold(input, |schema, stage| stage.schema(&schema))?;
        Ok(Chain { stages, stats })
    }

    /// The schema after the last stage.
    ///
    /// # Errors
    /// As [`Chain::new`].
    pub fn output(&self, input: SchemaRef) -> Result<SchemaRef, StageError> {
        self.stages
            .iter()
            .try_fold(input, |schema, stage| stage.schema(&schema))
    }

    /// The stages' names, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.stages.iter().map(|stage| stage.name()).collect()
    }

    /// Runs every stage over the batch.
    ///
    /// # Errors
    /// Defects only; see [`Stage::apply`].
    pub fn apply(&self, mut batch: Batch) -> Result<Batch, StageError> {
        for stage in &self.stages {
            batch = apply_one(stage.as_ref(), batch, &self.stats)?;
        }
        Ok(batch)
    }
}

/// Runs one stage, counts its rows, and turns what it refused into rejects of the batch.
pub fn apply_one(stage: &dyn Stage, mut batch: Batch, stats: &Stats) -> Result<Batch, StageError> {
    let started = Instant::now();
    let input = batch.rows.num_rows();
    let trace = traces::stage(&batch.trace, stage.name(), input);
    let index = batch.rows.column_by_name(ROW).cloned();
    let outcome = stage.apply(batch.rows)?;
    let (output, refused) = (outcome.rows.num_rows(), outcome.refused.len());
    let deletes = outcome.deletes.len();
    if output + refused + deletes != input {
        return Err(StageError::Lost {
            stage: stage.name(),
            input,
            output,
            refused,
            deletes,
        });
    }
    batch.rows = outcome.rows;
    batch.deletes.extend(outcome.deletes.into_iter().map(|one| Delete {
        row: row(index.as_ref(), one.index),
        source: one.source,
        named: one.named,
    }));
    batch.reject(stage.name(), index.as_ref(), outcome.refused);
    traces::refused(&trace, refused);
    let count = StageCount {
        deletes: deletes as u64,
        ..StageCount::new(input, refused, started.elapsed())
    };
    stats.stage(stage.name(), count);
    Ok(batch)
}

impl Batch {
    /// Notes the rows that a stage refused. `index` is the column [`ROW`] of the stage's input; the first stage sees the batch
    /// as read, so there the indices are the rows themselves.
    pub fn reject(&mut self, stage: &'static str, index: Option<&ArrayRef>, refused: Vec<Refused>) {
        let known = |one: &Refused| dead_letters::is_reason(stage, one.reason);
        debug_assert!(
            refused.iter().all(known),
            "`{stage}` gives a reason that tamiz_schemas does not list"
        );
        self.rejects.extend(refused.into_iter().map(|one| Reject {
            row: row(index, one.index),
            stage,
            reason: one.reason,
            detail: one.detail,
        }));
    }
}

/// The row that stands at `at` of a stage's input, by the column [`ROW`] there.
fn row(index: Option<&ArrayRef>, at: usize) -> u32 {
    let index = index.and_then(|column| column.as_any().downcast_ref::<UInt32Array>());
    index.map_or(at as u32, |index| index.value(at))
}
