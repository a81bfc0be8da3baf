//! Rows of many partitions, sorted out by partition.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, Int32Type, Int64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

/// Longest folder name that is written out; file systems end at 255 bytes.
const MAX_FOLDER_BYTES: usize = 200;

/// What Hive, Spark and Delta call the folder of NULL.
const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// The rows of one partition.
#[derive(Debug, PartialEq)]
pub(super) struct Partition {
    /// Values of the partition columns, as Delta writes them.
    pub(super) values: Vec<(String, Option<String>)>,
    /// Where the rows lie: batch and row, in order.
    pub(super) rows: Vec<(usize, usize)>,
}

impl Partition {
    /// Folder below the table's, as `date=2026-01-02/source=x`; empty without partition columns.
    pub(super) fn folder(&self) -> String {
        self.values
            .iter()
            .map(|(column, value)| folder(column, value.as_deref()))
            .collect::<Vec<_>>()
            .join("/")
    }
}

/// Sorts the rows of all batches out by the values of `columns`, in one pass; partitions stand in order of appearance.
pub(super) fn split(batches: &[RecordBatch], columns: &[String]) -> Result<Vec<Partition>, ArrowError> {
    let arrays = batches
        .iter()
        .map(|batch| partition_arrays(batch, columns))
        .collect::<Result<Vec<_>, _>>()?;
    if columns.is_empty() {
        let rows = batches
            .iter()
            .enumerate()
            .flat_map(|(b, batch)| (0..batch.num_rows()).map(move |r| (b, r)));
        return Ok(vec![Partition {
            values: Vec::new(),
            rows: rows.collect(),
        }]);
    }
    let Some(first) = arrays.first() else {
        return Ok(Vec::new());
    };
    let converter = RowConverter::new(first.iter().map(|a| SortField::new(a.data_type().clone())).collect())?;
    let mut index: HashMap<Box<[u8]>, usize> = HashMap::new();
    let mut partitions: Vec<Partition> = Vec::new();
    for (batch, arrays) in arrays.iter().enumerate() {
        let keys = converter.convert_columns(arrays)?;
        for (row, key) in keys.iter().enumerate() {
            let at = match index.get(key.data()) {
                Some(&at) => at,
                None => {
                    let values = columns
                        .iter()
                        .zip(arrays)
                        .map(|(c, array)| Ok((c.clone(), value(array, row)?)));
                    partitions.push(Partition {
                        values: values.collect::<Result<_, ArrowError>>()?,
                        rows: Vec::new(),
                    });
                    index.insert(key.data().into(), partitions.len() - 1);
                    partitions.len() - 1
                }
            };
            partitions[at].rows.push((batch, row));
        }
    }
    Ok(partitions)
}

fn partition_arrays(batch: &RecordBatch, columns: &[String]) -> Result<Vec<ArrayRef>, ArrowError> {
    columns
        .iter()
        .map(|name| Ok(batch.column(batch.schema().index_of(name)?).clone()))
        .collect()
}

/// A partition value as Delta's log holds it. An empty string is refused: the log reads it back as NULL.
fn value(array: &ArrayRef, row: usize) -> Result<Option<String>, ArrowError> {
    if array.is_null(row) {
        return Ok(None);
    }
    let text = match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Date32 => {
            let date = array.as_primitive::<Date32Type>().value_as_date(row);
            let date = date.ok_or_else(|| ArrowError::InvalidArgumentError("a date is out of range".to_owned()))?;
            date.format("%Y-%m-%d").to_string()
        }
        other => {
            return Err(ArrowError::NotYetImplemented(format!(
                "partition column of type {other}"
            )));
        }
    };
    if text.is_empty() {
        let problem = "a partition column holds an empty string, which Delta cannot tell from NULL";
        return Err(ArrowError::InvalidArgumentError(problem.to_owned()));
    }
    Ok(Some(text))
}

/// `column=value`, percent-encoded but for letters, digits and `-._~`. Readers take values from the log, never from
/// here, so a value too long for a file system is cut and told apart by its hash.
fn folder(column: &str, value: Option<&str>) -> String {
    let mut folder = encode(column);
    folder.push('=');
    let Some(value) = value else {
        return folder + NULL_FOLDER;
    };
    let encoded = encode(value);
    if folder.len() + encoded.len() <= MAX_FOLDER_BYTES {
        return folder + &encoded;
    }
    // Cut in front of an escape, not inside it.
    let room = MAX_FOLDER_BYTES.saturating_sub(folder.len() + 17);
    let cut = encoded[..room].rfind('%').filter(|at| room - at < 3).unwrap_or(room);
    format!(
        "{folder}{}~{:016x}",
        &encoded[..cut],
        xxhash_rust::xxh3::xxh3_64(value.as_bytes())
    )
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte as char),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, Int32Array, StringArray};

    use super::*;

    fn batch(days: &[Option<i32>], sources: &[Option<&str>]) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([
            (
                "n",
                Arc::new(Int32Array::from_iter_values(0..days.len() as i32)) as ArrayRef,
                false,
            ),
            ("date", Arc::new(Date32Array::from(days.to_vec())) as ArrayRef, true),
            (
                "source",
                Arc::new(StringArray::from(sources.to_vec())) as ArrayRef,
                true,
            ),
        ])
        .unwrap()
    }

    fn columns() -> Vec<String> {
        vec!["date".to_owned(), "source".to_owned()]
    }

    #[test]
    fn every_row_is_in_exactly_one_partition_and_order_is_kept() {
        let batches = [
            batch(
                &[Some(20_000), Some(20_001), Some(20_000)],
                &[Some("x"), Some("x"), None],
            ),
            batch(&[Some(20_000), None], &[Some("x"), Some("x")]),
        ];
        let partitions = split(&batches, &columns()).unwrap();
        let found: Vec<_> = partitions.iter().map(|p| (p.folder(), p.rows.clone())).collect();
        let expected = [
            ("date=2024-10-04/source=x", vec![(0, 0), (1, 0)]),
            ("date=2024-10-05/source=x", vec![(0, 1)]),
            ("date=2024-10-04/source=__HIVE_DEFAULT_PARTITION__", vec![(0, 2)]),
            ("date=__HIVE_DEFAULT_PARTITION__/source=x", vec![(1, 1)]),
        ];
        assert_eq!(found, expected.map(|(folder, rows)| (folder.to_owned(), rows)));
    }

    #[test]
    fn without_partition_columns_all_rows_are_one_partition() {
        let partitions = split(&[batch(&[None, None], &[None, None])], &[]).unwrap();
        assert_eq!(
            partitions,
            [Partition {
                values: vec![],
                rows: vec![(0, 0), (0, 1)]
            }]
        );
        assert_eq!(partitions[0].folder(), "");
    }

    #[test]
    fn folders_hold_no_character_that_means_something() {
        for (value, expected) in [
            ("a/b", "source=a%2Fb"),
            ("100%", "source=100%25"),
            ("..", "source=.."),
            ("two words", "source=two%20words"),
            ("ñandú", "source=%C3%B1and%C3%BA"),
            ("a=b&c?d#1", "source=a%3Db%26c%3Fd%231"),
        ] {
            assert_eq!(folder("source", Some(value)), expected);
        }
    }

    #[test]
    fn long_values_get_short_and_distinct_folders() {
        let long = "ü".repeat(400);
        let (one, other) = (
            folder("source", Some(&long)),
            folder("source", Some(&format!("{long}x"))),
        );
        assert!(one.len() <= MAX_FOLDER_BYTES && one != other, "{one}");
        assert!(one.split('%').skip(1).all(|rest| rest.len() >= 2), "{one}");
    }

    #[test]
    fn an_empty_string_is_refused() {
        let error = split(&[batch(&[Some(1)], &[Some("")])], &columns()).unwrap_err();
        assert!(error.to_string().contains("empty string"), "{error}");
    }
}
