//! Marks posts that came late: so long after they were written that whoever looked at their day has seen it without them.
//!
//! Late is measured between two times that belong to the post itself: when it was written (`created_at`), and when it
//! arrived, which is what the payload says (`input.arrived`) or else Kafka's timestamp of the message. So a row is late or
//! not whoever reads it, however often: after a restart, by several workers, by a batch job over the same payloads. A
//! watermark (the latest event time seen so far) or the clock would give another answer each time.
//!
//! Never is a row refused here, nor moved: it goes into the day it belongs to, marked.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use tamiz_schemas::columns::{CREATED_AT, LATE};

use super::decode::ARRIVED;
use super::{time, with_columns, with_fields};
use crate::stage::{Outcome, Stage, StageError};

const NAME: &str = "late";

/// The `[late]` section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LateRules {
    /// A post that arrives more than this after it was written is late; 0: none is marked.
    pub seconds: u64,
}

/// The stage.
pub struct Late {
    micros: Option<i64>,
}

impl Late {
    /// For these rules.
    pub fn new(rules: LateRules) -> Self {
        let micros = i64::try_from(rules.seconds)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000_000);
        Late {
            micros: (micros > 0).then_some(micros),
        }
    }
}

fn field() -> Field {
    Field::new(LATE, DataType::Boolean, true)
}

impl Stage for Late {
    fn name(&self) -> &'static str {
        NAME
    }

    fn schema(&self, input: &Schema) -> Result<SchemaRef, StageError> {
        for column in [CREATED_AT, ARRIVED] {
            input.field_with_name(column).map_err(|_| StageError::Column {
                stage: NAME,
                column,
                wanted: "timestamp",
            })?;
        }
        Ok(with_fields(input, &[field()]))
    }

    fn apply(&self, rows: RecordBatch) -> Result<Outcome, StageError> {
        let (written, arrived) = (time(&rows, NAME, CREATED_AT)?, time(&rows, NAME, ARRIVED)?);
        let late: BooleanArray = match self.micros {
            None => BooleanArray::new_null(rows.num_rows()),
            Some(micros) => (0..rows.num_rows())
                .map(|row| {
                    let known = written.is_valid(row) && arrived.is_valid(row);
                    known.then(|| arrived.value(row).saturating_sub(written.value(row)) > micros)
                })
                .collect(),
        };
        Ok(Outcome::all(with_columns(rows, vec![(field(), Arc::new(late))])?))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
    use tamiz_schemas::posts::timestamp;

    use super::*;

    fn marks(seconds: u64, pairs: &[(i64, Option<i64>)]) -> Vec<Option<bool>> {
        let times = |times: Vec<Option<i64>>| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
        };
        let written = times(pairs.iter().map(|(written, _)| Some(written * 1_000_000)).collect());
        let arrived = times(
            pairs
                .iter()
                .map(|(_, arrived)| arrived.map(|at| at * 1_000_000))
                .collect(),
        );
        let fields = [CREATED_AT, ARRIVED].map(|name| Field::new(name, timestamp(), true));
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), vec![written, arrived]).unwrap();
        let outcome = Late::new(LateRules { seconds }).apply(rows).unwrap();
        assert!(outcome.refused.is_empty());
        outcome.rows.column_by_name(LATE).unwrap().as_boolean().iter().collect()
    }

    #[test]
    fn late_is_more_than_the_limit_between_writing_and_arriving() {
        let pairs = [(100, Some(160)), (100, Some(161)), (100, Some(40)), (100, None)];
        assert_eq!(marks(60, &pairs), [Some(false), Some(true), Some(false), None]);
        assert_eq!(marks(0, &pairs), [None; 4]);
        assert_eq!(marks(u64::MAX, &pairs), [Some(false), Some(false), Some(false), None]);
    }
}
