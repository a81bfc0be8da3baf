//! A set of deletes, and which posts it means.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, StructArray,
    new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use arrow::error::ArrowError;
use tamiz_schemas::columns::*;
use tamiz_schemas::{deletes, posts};

use crate::table::conform;

/// A set of deletes, to hold rows against.
#[derive(Debug, Default)]
pub struct Deletes {
    by_id: HashMap<Box<str>, OfName>,
    by_key: HashMap<Box<str>, OfName>,
}

/// Deletes of one name. Whoever sends them chooses their sources, so these are not searched one by one.
#[derive(Debug, Default)]
struct OfName {
    /// Of posts of any source.
    any: Vec<Delete>,
    by_source: HashMap<Box<str>, Vec<Delete>>,
}

impl OfName {
    fn put(&mut self, source: Option<&str>, delete: &Delete) {
        match source {
            None => put(&mut self.any, delete),
            Some(source) => put(self.by_source.entry(source.into()).or_default(), delete),
        }
    }

    /// Those that can mean a post of this source.
    fn of(&self, source: Option<&str>) -> impl Iterator<Item = &Delete> {
        let own = source.and_then(|source| self.by_source.get(source));
        self.any.iter().chain(own.into_iter().flatten())
    }
}

#[derive(Debug, Clone)]
struct Delete {
    topic: Arc<str>,
    partition: i32,
    offset: i64,
    has_key: bool,
}

impl Deletes {
    /// Those of rows of the deletes table.
    ///
    /// # Errors
    /// Rows of another table.
    pub fn of(rows: &[RecordBatch]) -> Result<Self, ArrowError> {
        let mut all = Deletes::default();
        rows.iter().try_for_each(|rows| all.add(rows))?;
        Ok(all)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.by_key.is_empty()
    }

    /// Adds rows of the deletes table.
    ///
    /// # Errors
    /// Rows of another table.
    pub fn add(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        let rows = conform(rows, &deletes::schema())?;
        let text = |name| Ok::<_, ArrowError>(rows.column(rows.schema_ref().index_of(name)?).as_string::<i32>());
        let (ids, keys, sources, topics) = (text(ID)?, text(DELETE_KEY)?, text(SOURCE)?, text(TOPIC_NAME)?);
        let partitions = rows
            .column(rows.schema_ref().index_of(PARTITION)?)
            .as_primitive::<Int32Type>();
        let offsets = rows
            .column(rows.schema_ref().index_of(OFFSET)?)
            .as_primitive::<Int64Type>();
        let mut topic: Arc<str> = "".into();
        for row in 0..rows.num_rows() {
            if *topic != *topics.value(row) {
                topic = topics.value(row).into();
            }
            let delete = Delete {
                topic: Arc::clone(&topic),
                partition: partitions.value(row),
                offset: offsets.value(row),
                has_key: keys.is_valid(row),
            };
            for (found, by) in [(value(ids, row), &mut self.by_id), (value(keys, row), &mut self.by_key)] {
                if let Some(name) = found {
                    by.entry(name.into()).or_default().put(value(sources, row), &delete);
                }
            }
        }
        Ok(())
    }

    /// Of rows of posts, those that are taken back. `source` is that of all of them, where they have no such column. Rows
    /// without `delete_key` or `kafka` are of a file that is older than these columns.
    ///
    /// # Errors
    /// A column is not what it should be.
    pub fn mean(&self, rows: &RecordBatch, source: Option<&str>) -> Result<BooleanArray, ArrowError> {
        let text = |name| optional(rows, name, &DataType::Utf8);
        let (ids, keys, sources) = (text(ID)?, text(DELETE_KEY)?, text(SOURCE)?);
        let (ids, keys, sources) = (
            ids.as_string::<i32>(),
            keys.as_string::<i32>(),
            sources.as_string::<i32>(),
        );
        let kafka = optional(rows, KAFKA, &DataType::Struct(posts::kafka_fields()))?;
        let places = Places::of(kafka.as_struct())?;
        let goes = |row: usize| {
            let source = value(sources, row).or(source);
            let key = value(keys, row);
            let by_key = key.and_then(|key| self.by_key.get(key));
            let by_key = by_key.into_iter().flat_map(|all| all.of(source));
            let by_id = value(ids, row).and_then(|id| self.by_id.get(id));
            let by_id = by_id.into_iter().flat_map(|all| all.of(source));
            let by_id = by_id.filter(|one| key.is_none() || !one.has_key);
            by_key.chain(by_id).any(|delete| !places.is_after(row, delete))
        };
        Ok((0..rows.num_rows()).map(|row| Some(goes(row))).collect())
    }
}

/// A column as that type; NULL in every row where there is none.
fn optional(rows: &RecordBatch, name: &str, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    match rows.column_by_name(name) {
        Some(column) => cast(column, data_type),
        None => Ok(new_null_array(data_type, rows.num_rows())),
    }
}

/// Of deletes of one post from one partition the last one says all, so there are no more than partitions.
fn put(all: &mut Vec<Delete>, delete: &Delete) {
    let same = |one: &&mut Delete| {
        one.partition == delete.partition && one.topic == delete.topic && one.has_key == delete.has_key
    };
    match all.iter_mut().find(same) {
        Some(one) => one.offset = one.offset.max(delete.offset),
        None => all.push(delete.clone()),
    }
}

fn value(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

/// Where rows lay in Kafka; rows of files lay nowhere.
struct Places<'r> {
    kafka: &'r StructArray,
    topics: &'r StringArray,
    partitions: &'r Int32Array,
    offsets: &'r Int64Array,
}

impl<'r> Places<'r> {
    fn of(kafka: &'r StructArray) -> Result<Self, ArrowError> {
        let field = |name: &str| {
            let missing = || ArrowError::SchemaError(format!("`{KAFKA}` has no `{name}`"));
            kafka.column_by_name(name).ok_or_else(missing)
        };
        Ok(Places {
            kafka,
            topics: field(TOPIC_NAME)?.as_string(),
            partitions: field(PARTITION)?.as_primitive(),
            offsets: field(OFFSET)?.as_primitive(),
        })
    }

    /// Whether a row came after a delete in the same partition: then it was written anew, and the delete means the one before.
    fn is_after(&self, row: usize, delete: &Delete) -> bool {
        self.kafka.is_valid(row)
            && self.partitions.value(row) == delete.partition
            && self.topics.value(row) == &*delete.topic
            && self.offsets.value(row) > delete.offset
    }
}

#[cfg(test)]
mod tests {
    use arrow::json::ReaderBuilder;
    use serde_json::{Value, json};
    use tamiz_schemas::posts;

    use super::*;

    fn rows(schema: arrow::datatypes::SchemaRef, rows: &[Value]) -> RecordBatch {
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let mut reader = ReaderBuilder::new(schema).build(lines.as_bytes()).unwrap();
        reader.next().unwrap().unwrap()
    }

    fn delete(other: Value) -> Value {
        let mut row = json!({"date": "2026-01-02", "recorded_at": "2026-01-02T03:04:06Z", "topic": "t", "partition": 0, "offset": 10});
        other
            .as_object()
            .unwrap()
            .iter()
            .for_each(|(name, value)| row[name] = value.clone());
        row
    }

    fn post(id: &str, key: Option<&str>, (topic, partition, offset): (&str, i32, i64)) -> Value {
        json!({"id": id, "source": "x", "date": "2026-01-02", "created_at": "2026-01-02T03:04:05Z",
            "ingested_at": "2026-01-02T03:04:05Z", "text": "t", "text_hash": "0", "delete_key": key,
            "kafka": {"topic": topic, "partition": partition, "offset": offset}})
    }

    /// Which of the posts go.
    fn check(deletes: &[Value], posts: &[Value], expected: &[bool]) {
        let given = if deletes.is_empty() {
            vec![]
        } else {
            vec![rows(deletes::schema(), deletes)]
        };
        let goes = Deletes::of(&given)
            .unwrap()
            .mean(&rows(posts::schema(), posts), None)
            .unwrap();
        assert_eq!(goes.iter().flatten().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_post_goes_by_its_id_and_its_neighbours_stay() {
        let posts = [
            post("a", None, ("t", 0, 1)),
            post("b", None, ("t", 0, 2)),
            post("a", None, ("t", 1, 99)),
        ];
        check(
            &[delete(json!({"id": "a", "source": "x"}))],
            &posts,
            &[true, false, true],
        );
        check(&[delete(json!({"id": "a"}))], &posts, &[true, false, true]);
        check(&[delete(json!({"id": "a", "source": "news"}))], &posts, &[false; 3]);
        check(&[], &posts, &[false; 3]);
    }

    #[test]
    fn a_post_that_was_written_anew_in_the_same_partition_stays() {
        let posts = [
            post("a", None, ("t", 0, 9)),
            post("a", None, ("t", 0, 11)),
            post("a", None, ("other", 0, 11)),
        ];
        check(&[delete(json!({"id": "a"}))], &posts, &[true, false, true]);
        // Taken back again.
        check(
            &[delete(json!({"id": "a"})), delete(json!({"id": "a", "offset": 12}))],
            &posts,
            &[true, true, true],
        );
        // Posts of files have no place: any delete means them.
        let mut of_file = post("a", None, ("t", 0, 11));
        of_file["kafka"] = Value::Null;
        check(&[delete(json!({"id": "a"}))], &[of_file], &[true]);
    }

    #[test]
    fn keys_come_before_ids() {
        let posts = [
            post("a", Some("k_1"), ("t", 0, 1)),
            post("a", Some("k_2"), ("t", 0, 2)),
            post("a", None, ("t", 0, 3)),
        ];
        check(&[delete(json!({"delete_key": "k_1"}))], &posts, &[true, false, false]);
        check(&[delete(json!({"id": "a"}))], &posts, &[true; 3]);
        // One that names both; what has a key of its own goes by that alone.
        check(
            &[delete(json!({"id": "a", "delete_key": "k_1"}))],
            &posts,
            &[true, false, true],
        );
    }

    #[test]
    fn a_post_is_not_held_against_deletes_of_other_sources_however_many_there_are() {
        let of = |source: String, offset: i64| delete(json!({"id": "a", "source": source, "offset": offset}));
        let mut sent: Vec<Value> = (0..500).map(|at| of(format!("s{at}"), at)).collect();
        sent.extend([of("x".into(), 3_000), of("x".into(), 3_001), delete(json!({"id": "a"}))]);
        let all = Deletes::of(&[rows(deletes::schema(), &sent)]).unwrap();
        let seen = |source| all.by_id["a"].of(source).map(|one| one.offset).collect::<Vec<_>>();
        assert_eq!(seen(Some("x")), [10, 3_001]);
        assert_eq!(
            (seen(Some("s7")), seen(Some("news")), seen(None)),
            (vec![10, 7], vec![10], vec![10])
        );
    }
}
