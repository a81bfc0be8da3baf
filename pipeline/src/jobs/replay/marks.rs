//! Outcomes, written into the rows of their letters.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use chrono::NaiveDate;
use tamiz_schemas::columns::*;
use tamiz_schemas::dead_letters::{DELETED, FAILED_AGAIN, PASSED};

use super::places::{Place, Places};
use crate::table::care::{Edit, Facts};

/// What a letter is marked with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) outcome: &'static str,
    /// Stage, reason and detail of today, for one that failed again.
    pub(super) refusal: Option<[String; 3]>,
}

impl Mark {
    pub(super) fn of(outcome: &'static str) -> Self {
        Mark { outcome, refusal: None }
    }
}

/// Outcomes on their way into the table.
pub(super) struct Marks {
    pub(super) days: HashSet<NaiveDate>,
    pub(super) marks: HashMap<Place, Mark>,
    pub(super) at: i64,
}

impl Marks {
    /// The mark of each row, where it has to be written.
    fn of(&self, rows: &RecordBatch) -> Result<Vec<Option<&Mark>>, ArrowError> {
        let places = Places::of(rows)?;
        // A file that is older than these columns has neither.
        let outcomes = rows
            .column_by_name(OUTCOME)
            .and_then(|column| column.as_string_opt::<i32>());
        let dates = rows.column_by_name(REPLAYED_AT);
        let dates = dates.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let mark = |row: usize| {
            let outcome = outcomes.filter(|all| all.is_valid(row)).map(|all| all.value(row));
            let date = dates.filter(|all| all.is_valid(row)).map(|all| all.value(row));
            // A final outcome stands, and so does one of this very replay or of a later one.
            let is_open =
                outcome.is_none_or(|outcome| outcome == FAILED_AGAIN) && date.is_none_or(|date| date < self.at);
            let place = is_open.then(|| places.at(row)).flatten()?;
            self.marks.get(&place)
        };
        Ok((0..rows.num_rows()).map(mark).collect())
    }
}

impl Edit for Marks {
    fn columns(&self) -> Vec<&'static str> {
        vec![TOPIC_NAME, PARTITION, OFFSET, TIMESTAMP, OUTCOME, REPLAYED_AT]
    }

    fn concerns(&self, file: &Facts) -> bool {
        let day = file.partition.get(DATE).and_then(|day| day.as_deref()?.parse().ok());
        day.is_none_or(|day| self.days.contains(&day))
    }

    fn touches(&self, _file: &Facts, rows: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        Ok(self.of(rows)?.into_iter().map(|mark| Some(mark.is_some())).collect())
    }

    fn edit(&self, _file: &Facts, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let marks = self.of(&rows)?;
        let schema = rows.schema();
        let columns = schema
            .fields()
            .iter()
            .zip(rows.columns())
            .map(|(field, old)| written(field.name(), old, &marks, self.at));
        RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_, _>>()?)
    }

    fn deletes(&self) -> bool {
        false
    }
}

/// A column with the marks written into it.
fn written(name: &str, old: &ArrayRef, marks: &[Option<&Mark>], at: i64) -> Result<ArrayRef, ArrowError> {
    let text = |new: &dyn Fn(&Mark) -> Option<String>| -> Result<ArrayRef, ArrowError> {
        let old = old
            .as_string_opt::<i32>()
            .ok_or_else(|| ArrowError::SchemaError(format!("`{name}` is no text")))?;
        let value = |(row, mark): (usize, &Option<&Mark>)| {
            let new = mark.and_then(new);
            new.or_else(|| old.is_valid(row).then(|| old.value(row).to_owned()))
        };
        Ok(Arc::new(marks.iter().enumerate().map(value).collect::<StringArray>()))
    };
    let refusal = |place: usize| move |mark: &Mark| mark.refusal.as_ref().map(|words| words[place].clone());
    match name {
        OUTCOME => text(&|mark| Some(mark.outcome.to_owned())),
        STAGE => text(&refusal(0)),
        REASON => text(&refusal(1)),
        DETAIL => text(&refusal(2)),
        REPLAYED_AT => {
            let old = old.as_primitive::<TimestampMicrosecondType>();
            let value = |(row, mark): (usize, &Option<&Mark>)| match mark {
                Some(_) => Some(at),
                None => old.is_valid(row).then(|| old.value(row)),
            };
            let times: TimestampMicrosecondArray = marks.iter().enumerate().map(value).collect();
            Ok(Arc::new(times.with_timezone("UTC")))
        }
        // It holds personal data, and nobody needs it any more.
        PAYLOAD => {
            let old = old.as_binary::<i32>();
            let value = |(row, mark): (usize, &Option<&Mark>)| {
                let is_final = mark.is_some_and(|mark| mark.outcome == PASSED || mark.outcome == DELETED);
                (old.is_valid(row) && !is_final).then(|| old.value(row))
            };
            Ok(Arc::new(marks.iter().enumerate().map(value).collect::<BinaryArray>()))
        }
        _ => Ok(Arc::clone(old)),
    }
}

#[cfg(test)]
mod tests {
    use arrow::json::ReaderBuilder;
    use serde_json::{Value, json};
    use tamiz_schemas::dead_letters::{self, PAYLOAD_GONE};

    use super::super::places::tests::place;
    use super::*;

    const NOW: i64 = 1_000_000;

    fn letter(offset: i64, outcome: Option<&str>, replayed_at: Option<&str>) -> Value {
        json!({"date": "2026-01-02", "rejected_at": "2026-01-02T03:04:06Z", "topic": "t", "partition": 0, "offset": offset,
            "stage": "decode", "reason": "not_json", "detail": "old", "payload_hash": "0", "payload_bytes": 1, "payload": "61",
            "outcome": outcome, "replayed_at": replayed_at})
    }

    fn rows(letters: &[Value]) -> RecordBatch {
        let lines: String = letters.iter().map(|row| format!("{row}\n")).collect();
        let mut reader = ReaderBuilder::new(dead_letters::schema())
            .build(lines.as_bytes())
            .unwrap();
        reader.next().unwrap().unwrap()
    }

    fn marks(marks: Vec<(i64, Mark)>) -> Marks {
        let place = |offset| place("t", offset, None);
        Marks {
            days: HashSet::new(),
            marks: marks.into_iter().map(|(offset, mark)| (place(offset), mark)).collect(),
            at: NOW,
        }
    }

    fn texts(rows: &RecordBatch, name: &str) -> Vec<Option<String>> {
        let column = rows.column_by_name(name).unwrap().as_string::<i32>();
        column.iter().map(|value| value.map(str::to_owned)).collect()
    }

    #[test]
    fn outcomes_are_written_once_and_only_into_their_letters() {
        let refused = Mark {
            outcome: FAILED_AGAIN,
            refusal: Some(["score", "model_failed", "new"].map(str::to_owned)),
        };
        let marks = marks(vec![(1, Mark::of(PASSED)), (2, refused), (3, Mark::of(PAYLOAD_GONE))]);
        let rows = rows(&[
            letter(1, None, None),
            letter(2, None, None),
            letter(3, None, None),
            letter(4, None, None),
        ]);
        let file = Facts::default();
        let touched = |rows: &RecordBatch| marks.touches(&file, rows).unwrap().iter().flatten().collect::<Vec<_>>();
        assert_eq!(touched(&rows), [true, true, true, false]);
        let after = marks.edit(&file, rows.clone()).unwrap();
        let words = |words: [Option<&str>; 4]| words.map(|word| word.map(str::to_owned));
        assert_eq!(
            texts(&after, OUTCOME),
            words([Some(PASSED), Some(FAILED_AGAIN), Some(PAYLOAD_GONE), None])
        );
        assert_eq!(
            texts(&after, STAGE),
            words([Some("decode"), Some("score"), Some("decode"), Some("decode")])
        );
        assert_eq!(
            texts(&after, DETAIL),
            words([Some("old"), Some("new"), Some("old"), Some("old")])
        );
        let payloads = after.column_by_name(PAYLOAD).unwrap();
        assert_eq!(
            (0..4).map(|row| payloads.is_valid(row)).collect::<Vec<_>>(),
            [false, true, true, true]
        );
        assert_eq!(touched(&after), [false; 4], "nothing is left to be done");
        assert_eq!(after.schema(), rows.schema());
    }

    #[test]
    fn a_final_outcome_stands_whatever_another_replay_thinks() {
        let old = "1970-01-01T00:00:00Z";
        let rows = rows(&[
            letter(1, Some(PASSED), Some(old)),
            letter(2, Some(DELETED), Some(old)),
            letter(3, Some(FAILED_AGAIN), Some(old)),
            letter(4, Some(FAILED_AGAIN), Some("2026-01-02T03:04:06Z")),
        ]);
        let marks = marks((1..=4).map(|offset| (offset, Mark::of(PAYLOAD_GONE))).collect());
        let touched = marks.touches(&Facts::default(), &rows).unwrap();
        assert_eq!(
            touched.iter().flatten().collect::<Vec<_>>(),
            [false, false, true, false]
        );
    }

    #[test]
    fn a_mark_is_not_written_into_the_letter_of_a_message_that_came_to_lie_in_the_same_place() {
        let mut other = letter(1, None, None);
        other["timestamp"] = json!("2026-01-02T03:04:05Z");
        let rows = rows(&[letter(1, None, None), other]);
        let touched = marks(vec![(1, Mark::of(PASSED))])
            .touches(&Facts::default(), &rows)
            .unwrap();
        assert_eq!(touched.iter().flatten().collect::<Vec<_>>(), [true, false]);
    }
}
