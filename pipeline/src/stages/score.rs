//! Puts the model's scores on a batch. The one step that waits, so it is not a [`crate::stage::Stage`]: rows are
//! tokenized on rayon and queue for the thread that owns the model, beside everyone else who wants scores.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, BooleanArray, Int32Array, StringArray, StructArray};
use arrow::datatypes::{DataType, Field};
use tamiz_model::{Scored, Scorer, Scores};
use tamiz_schemas::columns::*;
use tamiz_schemas::posts;

use super::{text, with_columns};
use crate::batch::Batch;
use crate::observe::traces;
use crate::stage::{Outcome, ROW, Refused, StageError};
use crate::stats::{StageCount, Stats};

/// Name in dead letters, metrics and messages.
pub const NAME: &str = "score";

/// The reason of rows that the model cannot do.
const MODEL_FAILED: &str = "model_failed";

/// Scores batches; without a model it leaves the columns empty.
#[derive(Clone)]
pub struct Scoring {
    scorer: Option<Scorer>,
    identity: Option<Arc<str>>,
    further: Vec<String>,
}

impl Scoring {
    /// With this model, or with none.
    ///
    /// # Errors
    /// The model lacks a head that the table has a column for.
    pub fn new(scorer: Option<Scorer>) -> Result<Self, StageError> {
        if let Some(scorer) = &scorer {
            for head in [SENTIMENT, TOPIC] {
                if scorer.head(head).is_none() {
                    let known: Vec<_> = scorer.identity().heads.iter().map(|head| head.name.as_str()).collect();
                    return Err(StageError::Model(format!(
                        "the model {} has no head `{head}` (it has {}): choose another with `model.path`",
                        scorer.identity(),
                        known.join(", ")
                    )));
                }
            }
        }
        let identity = scorer.as_ref().map(|scorer| scorer.identity().to_string().into());
        let further = scorer.as_ref().map(further).transpose()?.unwrap_or_default();
        Ok(Scoring {
            scorer,
            identity,
            further,
        })
    }

    /// The model's heads beside sentiment and topic.
    pub fn further_heads(&self) -> &[String] {
        &self.further
    }

    /// Adds sentiment, topic, n_tokens, truncated, model and a column per further head to the batch. A row that the model
    /// cannot do, alone and after smaller batches were tried, is refused.
    ///
    /// # Errors
    /// The model cannot work at all: no row is to blame, and nothing of the batch may be committed.
    pub async fn apply(&self, batch: Batch, stats: &Stats) -> Result<Batch, StageError> {
        let started = Instant::now();
        let rows = batch.rows.num_rows();
        let trace = traces::stage(&batch.trace, NAME, rows);
        let scored = match &self.scorer {
            Some(scorer) if rows > 0 => Some(scorer.score_each(text(&batch.rows, NAME, TEXT)?).await?),
            _ => None,
        };
        let (batch, refused) = self.put(batch, scored)?;
        traces::refused(&trace, refused);
        stats.stage(NAME, StageCount::new(rows, refused, started.elapsed()));
        Ok(batch)
    }

    /// Puts scores on the rows that have some, and refuses the others; tells how many.
    pub(super) fn put(&self, mut batch: Batch, scored: Option<Scored>) -> Result<(Batch, usize), StageError> {
        let rows = batch.rows.num_rows();
        let (columns, failed) = match scored {
            Some(scored) => (self.scores(&scored.scores, rows)?, scored.failed),
            None => (self.nothing(rows), Vec::new()),
        };
        let refused: Vec<Refused> = failed
            .into_iter()
            .map(|failed| Refused {
                index: failed.row,
                reason: MODEL_FAILED,
                detail: failed.reason.to_string(),
            })
            .collect();
        let index = batch.rows.column_by_name(ROW).cloned();
        let outcome = Outcome::without(with_columns(batch.rows, columns)?, refused)?;
        let (output, refused) = (outcome.rows.num_rows(), outcome.refused.len());
        batch.rows = outcome.rows;
        batch.reject(NAME, index.as_ref(), outcome.refused);
        if output + refused != rows {
            return Err(StageError::Lost {
                stage: NAME,
                input: rows,
                output,
                refused,
                deletes: 0,
            });
        }
        Ok((batch, refused))
    }

    fn scores(&self, scores: &Scores, rows: usize) -> Result<Vec<(Field, ArrayRef)>, StageError> {
        let head = |name: &str| {
            let found = scores.heads.iter().find(|head| head.head.name == name);
            found.ok_or_else(|| StageError::Model(format!("the model gave no scores for head `{name}`")))
        };
        let sentiment = tamiz_udfs::scores::sentiment(scores).map_err(|error| StageError::Model(error.to_string()))?;
        let topic = tamiz_udfs::scores::label_confidence(head(TOPIC)?);
        let identity = self.identity.as_deref().unwrap_or_default();
        let model = StringArray::from_iter_values(std::iter::repeat_n(identity, rows));
        let (n_tokens, truncated) = (scores.n_tokens.clone(), scores.truncated.clone());
        let mut columns = columns(sentiment, topic, n_tokens, truncated, model);
        for name in &self.further {
            columns.push(label_column(name, tamiz_udfs::scores::label_confidence(head(name)?)));
        }
        Ok(columns)
    }

    fn nothing(&self, rows: usize) -> Vec<(Field, ArrayRef)> {
        let none = || StructArray::new_null(posts::label_fields(), rows);
        let mut columns = columns(
            StructArray::new_null(posts::sentiment_fields(), rows),
            none(),
            Int32Array::new_null(rows),
            BooleanArray::new_null(rows),
            StringArray::new_null(rows),
        );
        columns.extend(self.further.iter().map(|name| label_column(name, none())));
        columns
    }
}

/// The heads beside sentiment and topic, whose names become columns.
fn further(scorer: &Scorer) -> Result<Vec<String>, StageError> {
    let heads = &scorer.identity().heads;
    let further = heads
        .iter()
        .map(|head| &head.name)
        .filter(|name| *name != SENTIMENT && *name != TOPIC);
    let further: Vec<String> = further.cloned().collect();
    match further.iter().find(|name| !posts::fits_as_head(name)) {
        None => Ok(further),
        Some(name) => Err(StageError::Model(format!(
            "the model {} has a head `{name}`, and that is a column of the table already: choose another with `model.path`",
            scorer.identity()
        ))),
    }
}

fn label_column(name: &str, labels: StructArray) -> (Field, ArrayRef) {
    (Field::new(name, labels.data_type().clone(), true), Arc::new(labels))
}

fn columns(
    sentiment: StructArray,
    topic: StructArray,
    n_tokens: Int32Array,
    truncated: BooleanArray,
    model: StringArray,
) -> Vec<(Field, ArrayRef)> {
    let field = |name, array: &dyn Array| Field::new(name, array.data_type().clone(), true);
    vec![
        (field(SENTIMENT, &sentiment), Arc::new(sentiment) as ArrayRef),
        (field(TOPIC, &topic), Arc::new(topic)),
        (Field::new(N_TOKENS, DataType::Int32, true), Arc::new(n_tokens)),
        (Field::new(TRUNCATED, DataType::Boolean, true), Arc::new(truncated)),
        (Field::new(MODEL, DataType::Utf8, true), Arc::new(model)),
    ]
}
