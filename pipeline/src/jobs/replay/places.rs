//! Where rows lay, in Kafka or in a file: by that a letter and the post of the same message are known.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use tamiz_schemas::columns::{OFFSET, PARTITION, TIMESTAMP, TOPIC_NAME};
use tamiz_schemas::posts;

use crate::batch::TopicPartition;
use crate::source::files::format_of;

/// Where a row came from.
///
/// A topic that is made anew counts its offsets from zero again: Kafka's timestamp tells its messages from those before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) at: TopicPartition,
    pub(super) offset: i64,
    /// Microseconds; rows of files have none.
    pub(super) timestamp: Option<i64>,
}

impl Place {
    /// Whether it is in a file of a batch job.
    pub(super) fn is_in_file(&self) -> bool {
        is_file(&self.at.topic)
    }
}

/// Whether a topic is a file of a batch job: those have the endings that a batch job reads.
pub(super) fn is_file(topic: &str) -> bool {
    format_of(std::path::Path::new(topic)).is_some()
}

/// The places of many rows.
pub(super) struct Places {
    topics: Vec<Option<Arc<str>>>,
    partitions: Int32Array,
    offsets: Int64Array,
    timestamps: TimestampMicrosecondArray,
}

impl Places {
    /// Of rows that have them in columns of their own.
    pub(super) fn of(rows: &RecordBatch) -> Result<Self, ArrowError> {
        let (topics, partitions) = (column(rows, TOPIC_NAME)?, column(rows, PARTITION)?);
        let (offsets, timestamps) = (column(rows, OFFSET)?, column(rows, TIMESTAMP)?);
        Places::new([topics, partitions, offsets, timestamps])
    }

    /// Of topics, partitions, offsets and timestamps.
    pub(super) fn new(columns: [&dyn Array; 4]) -> Result<Self, ArrowError> {
        let [topics, partitions, offsets, timestamps] = columns;
        let names = cast(topics, &DataType::Utf8)?;
        // A batch has a few topics and many rows.
        let mut known: HashMap<&str, Arc<str>> = HashMap::new();
        let mut shared = |name| Arc::clone(known.entry(name).or_insert_with(|| Arc::from(name)));
        let topics = names.as_string::<i32>().iter();
        Ok(Places {
            topics: topics.map(|name| name.map(&mut shared)).collect(),
            partitions: cast(partitions, &DataType::Int32)?.as_primitive::<Int32Type>().clone(),
            offsets: cast(offsets, &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
            timestamps: cast(timestamps, &posts::timestamp())?
                .as_primitive::<TimestampMicrosecondType>()
                .clone(),
        })
    }

    /// Where a row lay; a post that a batch job made tells of no place.
    pub(super) fn at(&self, row: usize) -> Option<Place> {
        let topic = self.topics[row].as_ref().filter(|_| self.offsets.is_valid(row))?;
        Some(Place {
            at: TopicPartition {
                topic: Arc::clone(topic),
                partition: self.partitions.value(row),
            },
            offset: self.offsets.value(row),
            timestamp: self.timestamps.is_valid(row).then(|| self.timestamps.value(row)),
        })
    }

    /// Of each row.
    pub(super) fn all(&self) -> impl Iterator<Item = Option<Place>> {
        (0..self.topics.len()).map(|row| self.at(row))
    }
}

fn column<'r>(rows: &'r RecordBatch, name: &str) -> Result<&'r ArrayRef, ArrowError> {
    Ok(rows.column(rows.schema_ref().index_of(name)?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A message of partition 0.
    pub(in crate::jobs::replay) fn place(topic: &str, offset: i64, timestamp: Option<i64>) -> Place {
        Place {
            at: TopicPartition {
                topic: topic.into(),
                partition: 0,
            },
            offset,
            timestamp,
        }
    }

    #[test]
    fn files_of_batch_jobs_are_told_from_topics() {
        assert!(is_file("2026/a.jsonl.zst") && is_file("b.parquet"));
        assert!(!is_file("posts") && !is_file("posts.v1"));
    }

    #[test]
    fn rows_lie_where_their_columns_say_or_nowhere() {
        let columns: [&dyn Array; 4] = [
            &arrow::array::StringArray::from(vec![Some("t"), Some("a.jsonl"), None]),
            &Int32Array::from(vec![Some(0), Some(0), None]),
            &Int64Array::from(vec![Some(7), Some(8), None]),
            &TimestampMicrosecondArray::from(vec![Some(9), None, None]).with_timezone("UTC"),
        ];
        let places = Places::new(columns).unwrap();
        let expected = [Some(place("t", 7, Some(9))), Some(place("a.jsonl", 8, None)), None];
        assert_eq!(places.all().collect::<Vec<_>>(), expected);
    }
}
