//! Where the rows of a data file came from: topics, partitions, and between which offsets.
//!
//! Minima and maxima of the log are by column, so they cannot say which offsets of which partition a file holds. This
//! can, and when a file is lost it names exactly what has to be read again. It holds no word of a person.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use serde::{Deserialize, Serialize};
use tamiz_schemas::columns::{KAFKA, OFFSET, PARTITION, TOPIC_NAME};

/// Files with rows of more partitions than these tell nothing: the log would grow with each.
const MAX_SPANS: usize = 256;

/// The rows of one partition of a topic in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The topic, or the file of a batch job.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Lowest offset.
    pub first: i64,
    /// Highest offset.
    pub last: i64,
    /// How many rows.
    pub rows: u64,
}

/// Collects the spans of a file.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    spans: Vec<Span>,
    overflow: bool,
}

impl Whereabouts {
    /// Adds the rows of a batch, if it has columns that tell.
    pub(super) fn add(&mut self, batch: &RecordBatch) {
        let Some([topics, partitions, offsets]) = columns(batch) else {
            return;
        };
        let topics = topics.as_string::<i32>();
        let partitions = partitions.as_primitive::<Int32Type>();
        let offsets = offsets.as_primitive::<Int64Type>();
        let mut at = 0;
        for row in 0..batch.num_rows() {
            if topics.is_null(row) || partitions.is_null(row) || offsets.is_null(row) || self.overflow {
                continue;
            }
            let (topic, partition, offset) = (topics.value(row), partitions.value(row), offsets.value(row));
            let here = |span: &Span| span.partition == partition && span.topic == topic;
            // Rows of a partition mostly lie together.
            if !self.spans.get(at).is_some_and(here) {
                at = self.spans.iter().position(here).unwrap_or(self.spans.len());
            }
            match self.spans.get_mut(at) {
                Some(span) => {
                    span.first = span.first.min(offset);
                    span.last = span.last.max(offset);
                    span.rows += 1;
                }
                None if at < MAX_SPANS => self.spans.push(Span {
                    topic: topic.to_owned(),
                    partition,
                    first: offset,
                    last: offset,
                    rows: 1,
                }),
                None => self.overflow = true,
            }
        }
    }

    /// What was collected; `None` where nothing is known.
    pub(super) fn spans(self) -> Option<Vec<Span>> {
        (!self.overflow && !self.spans.is_empty()).then_some(self.spans)
    }

    /// As the log keeps it: `[["posts",0,5,120,116]]`, topic, partition, first, last, rows; `None` where nothing is known.
    pub(super) fn json(&self) -> Option<String> {
        if self.overflow || self.spans.is_empty() {
            return None;
        }
        let span = |span: &Span| (span.topic.clone(), span.partition, span.first, span.last, span.rows);
        serde_json::to_string(&self.spans.iter().map(span).collect::<Vec<_>>()).ok()
    }
}

/// Reads what [`Whereabouts::json`] wrote.
pub(super) fn parse(json: &str) -> Option<Vec<Span>> {
    let spans: Vec<(String, i32, i64, i64, u64)> = serde_json::from_str(json).ok()?;
    let span = |(topic, partition, first, last, rows)| Span {
        topic,
        partition,
        first,
        last,
        rows,
    };
    Some(spans.into_iter().map(span).collect())
}

/// Topic, partition and offset: in a struct, as posts have them, or side by side, as dead letters have them.
fn columns(batch: &RecordBatch) -> Option<[ArrayRef; 3]> {
    let names = [TOPIC_NAME, PARTITION, OFFSET];
    let types = [DataType::Utf8, DataType::Int32, DataType::Int64];
    let found: Vec<ArrayRef> = match batch.column_by_name(KAFKA).and_then(|column| column.as_struct_opt()) {
        Some(kafka) => {
            let nulls = kafka.nulls();
            let child = |name: &&str| {
                let child = kafka.column_by_name(name)?;
                let nulls = arrow::buffer::NullBuffer::union(nulls, child.nulls());
                let data = child.to_data().into_builder().nulls(nulls).build().ok()?;
                Some(arrow::array::make_array(data))
            };
            names.iter().filter_map(child).collect()
        }
        None => names
            .iter()
            .filter_map(|name| batch.column_by_name(name).cloned())
            .collect(),
    };
    let found: [ArrayRef; 3] = found.try_into().ok()?;
    found
        .iter()
        .zip(&types)
        .all(|(array, wanted)| array.data_type() == wanted)
        .then_some(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, Int64Array, StringArray};

    use super::*;

    fn letters(rows: &[(&str, i32, i64)]) -> RecordBatch {
        let topics: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
        let partitions: ArrayRef = Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.1)));
        let offsets: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)));
        RecordBatch::try_from_iter([("topic", topics), ("partition", partitions), ("offset", offsets)]).unwrap()
    }

    #[test]
    fn spans_are_by_topic_and_partition_and_come_back() {
        let mut whereabouts = Whereabouts::default();
        whereabouts.add(&letters(&[("a", 0, 7), ("a", 1, 3), ("a", 0, 5)]));
        whereabouts.add(&letters(&[("b", 0, 1), ("a", 0, 9)]));
        let json = whereabouts.json().unwrap();
        assert_eq!(json, r#"[["a",0,5,9,3],["a",1,3,3,1],["b",0,1,1,1]]"#);
        assert_eq!(parse(&json), whereabouts.spans());
        assert_eq!(parse("{}"), None);
    }

    #[test]
    fn rows_from_nowhere_and_from_everywhere_tell_nothing() {
        let mut nowhere = Whereabouts::default();
        nowhere.add(&RecordBatch::new_empty(tamiz_schemas::posts::schema()));
        assert_eq!(nowhere.json(), None);
        let mut everywhere = Whereabouts::default();
        let many: Vec<(&str, i32, i64)> = (0..=MAX_SPANS as i32).map(|partition| ("a", partition, 0)).collect();
        everywhere.add(&letters(&many));
        assert_eq!(everywhere.json(), None);
    }
}
