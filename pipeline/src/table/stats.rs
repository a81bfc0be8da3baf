//! The statistics of a data file that go into the Delta log: of the safe columns, and of no others.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::buffer::NullBuffer;
use arrow::compute;
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

/// Longer strings give no bound: a truncated maximum would be wrong.
const MAX_BOUND_CHARS: usize = 64;

/// Counts rows, and bounds the values of some columns.
#[derive(Debug)]
pub(super) struct FileStats {
    rows: usize,
    columns: Vec<ColumnStats>,
}

#[derive(Debug)]
struct ColumnStats {
    path: String,
    nulls: usize,
    bounds: Bounds,
}

#[derive(Debug, PartialEq)]
enum Bounds {
    /// No value seen yet.
    Unseen,
    /// Some value cannot be bounded: say nothing.
    Unknown,
    Integers(i64, i64),
    Floats(f64, f64),
    Dates(i32, i32),
    Timestamps(i64, i64),
    Strings(String, String),
}

impl FileStats {
    /// Statistics of `columns`, of which `a.b` is a field of a struct.
    pub(super) fn new(columns: &[String]) -> FileStats {
        let column = |path: &String| ColumnStats {
            path: path.clone(),
            nulls: 0,
            bounds: Bounds::Unseen,
        };
        FileStats {
            rows: 0,
            columns: columns.iter().map(column).collect(),
        }
    }

    /// Adds the rows of a batch.
    pub(super) fn add(&mut self, batch: &RecordBatch) {
        self.rows += batch.num_rows();
        for column in &mut self.columns {
            match leaf(batch, &column.path) {
                Some(array) => {
                    column.nulls += array.null_count();
                    let seen = std::mem::replace(&mut column.bounds, Bounds::Unseen);
                    column.bounds = seen.join(bounds(&array));
                }
                None => column.bounds = Bounds::Unknown,
            }
        }
    }

    /// Rows counted.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// As the log wants it; fields of structs are nested objects.
    pub(super) fn json(&self) -> String {
        let (mut min, mut max, mut nulls) = (Map::new(), Map::new(), Map::new());
        for column in &self.columns {
            put(&mut nulls, &column.path, json!(column.nulls));
            if let Some((low, high)) = column.bounds.json() {
                put(&mut min, &column.path, low);
                put(&mut max, &column.path, high);
            }
        }
        json!({ "numRecords": self.rows, "minValues": min, "maxValues": max, "nullCount": nulls }).to_string()
    }
}

impl Bounds {
    fn join(self, other: Bounds) -> Bounds {
        use Bounds::*;
        match (self, other) {
            (Unseen, bounds) | (bounds, Unseen) => bounds,
            (Integers(a, b), Integers(c, d)) => Integers(a.min(c), b.max(d)),
            (Floats(a, b), Floats(c, d)) => Floats(a.min(c), b.max(d)),
            (Dates(a, b), Dates(c, d)) => Dates(a.min(c), b.max(d)),
            (Timestamps(a, b), Timestamps(c, d)) => Timestamps(a.min(c), b.max(d)),
            (Strings(a, b), Strings(c, d)) => Strings(a.min(c), b.max(d)),
            _ => Unknown,
        }
    }

    fn json(&self) -> Option<(Value, Value)> {
        let pair = match self {
            Bounds::Unseen | Bounds::Unknown => return None,
            Bounds::Integers(low, high) => (json!(low), json!(high)),
            Bounds::Floats(low, high) => (json!(low), json!(high)),
            Bounds::Dates(low, high) => (date(*low)?, date(*high)?),
            Bounds::Timestamps(low, high) => (timestamp(*low)?, timestamp(*high)?),
            Bounds::Strings(low, high) => (json!(low), json!(high)),
        };
        Some(pair)
    }
}

fn bounds(array: &ArrayRef) -> Bounds {
    macro_rules! of {
        ($type:ty, $bounds:expr) => {{
            let array = array.as_primitive::<$type>();
            compute::min(array).zip(compute::max(array)).map($bounds)
        }};
    }
    if array.null_count() == array.len() {
        return Bounds::Unseen;
    }
    let bounds = match array.data_type() {
        DataType::Int16 => of!(Int16Type, |(low, high)| Bounds::Integers(low.into(), high.into())),
        DataType::Int32 => of!(Int32Type, |(low, high)| Bounds::Integers(low.into(), high.into())),
        DataType::Int64 => of!(Int64Type, |(low, high)| Bounds::Integers(low, high)),
        DataType::Float32 => of!(Float32Type, |(low, high)| floats(low.into(), high.into())),
        DataType::Float64 => of!(Float64Type, |(low, high)| floats(low, high)),
        DataType::Date32 => of!(Date32Type, |(low, high)| Bounds::Dates(low, high)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            of!(TimestampMicrosecondType, |(low, high)| Bounds::Timestamps(low, high))
        }
        DataType::Utf8 => {
            let array = array.as_string::<i32>();
            compute::min_string(array)
                .zip(compute::max_string(array))
                .map(|(low, high)| strings(low, high))
        }
        _ => None,
    };
    bounds.unwrap_or(Bounds::Unknown)
}

/// Arrow sorts NaN to the ends, where it shows; JSON has no word for it, nor for infinity.
fn floats(low: f64, high: f64) -> Bounds {
    if low.is_finite() && high.is_finite() {
        Bounds::Floats(low, high)
    } else {
        Bounds::Unknown
    }
}

fn strings(low: &str, high: &str) -> Bounds {
    let short = |text: &str| text.chars().nth(MAX_BOUND_CHARS).is_none();
    if short(low) && short(high) {
        Bounds::Strings(low.to_owned(), high.to_owned())
    } else {
        Bounds::Unknown
    }
}

fn date(days: i32) -> Option<Value> {
    let date = DateTime::from_timestamp(i64::from(days) * 86_400, 0)?;
    Some(json!(date.format("%Y-%m-%d").to_string()))
}

/// To the microsecond, so that the bounds are exact.
fn timestamp(micros: i64) -> Option<Value> {
    Some(json!(
        DateTime::from_timestamp_micros(micros)?.to_rfc3339_opts(SecondsFormat::Micros, true)
    ))
}

/// The column at `path`; a field of a struct is null where the struct is.
fn leaf(batch: &RecordBatch, path: &str) -> Option<ArrayRef> {
    let mut parts = path.split('.');
    let mut array = Cow::Borrowed(batch.column_by_name(parts.next()?)?);
    for part in parts {
        let parent: &StructArray = array.as_struct_opt()?;
        let child = parent.column_by_name(part)?;
        let nulls = NullBuffer::union(parent.nulls(), child.nulls());
        let data = child.to_data().into_builder().nulls(nulls).build().ok()?;
        array = Cow::Owned(arrow::array::make_array(data));
    }
    Some(array.into_owned())
}

fn put(map: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            map.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            if let Value::Object(inner) = map.entry(first).or_insert_with(|| Value::Object(Map::new())) {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float32Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Field, Fields};

    use super::*;

    fn check(column: ArrayRef, expected: Value) {
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        let mut stats = FileStats::new(&["c".to_owned()]);
        // In two steps, so that joining is covered.
        stats.add(&batch.slice(0, 1));
        stats.add(&batch.slice(1, batch.num_rows() - 1));
        assert_eq!(serde_json::from_str::<Value>(&stats.json()).unwrap(), expected);
    }

    #[test]
    fn bounds_are_exact_by_type() {
        check(
            Arc::new(Int64Array::from(vec![Some(3), None, Some(i64::MAX)])),
            json!({"numRecords": 3, "minValues": {"c": 3}, "maxValues": {"c": i64::MAX}, "nullCount": {"c": 1}}),
        );
        check(
            Arc::new(TimestampMicrosecondArray::from(vec![1_767_323_045_123_456, 0]).with_timezone("UTC")),
            json!({"numRecords": 2, "minValues": {"c": "1970-01-01T00:00:00.000000Z"},
                   "maxValues": {"c": "2026-01-02T03:04:05.123456Z"}, "nullCount": {"c": 0}}),
        );
        check(
            Arc::new(StringArray::from(vec!["es", "de"])),
            json!({"numRecords": 2, "minValues": {"c": "de"}, "maxValues": {"c": "es"}, "nullCount": {"c": 0}}),
        );
    }

    #[test]
    fn what_cannot_be_bounded_has_no_bounds() {
        let unbounded = json!({"numRecords": 2, "minValues": {}, "maxValues": {}, "nullCount": {"c": 0}});
        check(Arc::new(Float32Array::from(vec![1.0, f32::NAN])), unbounded.clone());
        check(
            Arc::new(Float32Array::from(vec![f32::NEG_INFINITY, 1.0])),
            unbounded.clone(),
        );
        check(
            Arc::new(StringArray::from(vec!["a", &"z".repeat(MAX_BOUND_CHARS + 1)])),
            unbounded,
        );
        check(
            Arc::new(Int64Array::from(vec![None, None])),
            json!({"numRecords": 2, "minValues": {}, "maxValues": {}, "nullCount": {"c": 2}}),
        );
    }

    #[test]
    fn fields_of_null_structs_are_null() {
        let fields = Fields::from(vec![Field::new("score", DataType::Float32, true)]);
        let scores: ArrayRef = Arc::new(Float32Array::from(vec![0.25, 9.0]));
        let column = StructArray::new(fields, vec![scores], Some(NullBuffer::from(vec![true, false])));
        let batch = RecordBatch::try_from_iter([("sentiment", Arc::new(column) as ArrayRef)]).unwrap();
        let mut stats = FileStats::new(&["sentiment.score".to_owned()]);
        stats.add(&batch);
        let expected = json!({"numRecords": 2, "minValues": {"sentiment": {"score": 0.25}},
            "maxValues": {"sentiment": {"score": 0.25}}, "nullCount": {"sentiment": {"score": 1}}});
        assert_eq!(serde_json::from_str::<Value>(&stats.json()).unwrap(), expected);
    }
}
