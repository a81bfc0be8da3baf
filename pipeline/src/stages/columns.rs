//! Rows of a Parquet file → fields: the mapping's pointers name columns and the fields of their structs.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, StringArray, StringBuilder, StructArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use tamiz_schemas::mapping::{Mapping, Place, TextFormat};
use tamiz_schemas::{posts, time};

use super::html;
use crate::stage::{Refused, StageError};

/// A mapping applied to columns.
pub struct Columns {
    id: Place,
    source: Place,
    created_at: Place,
    author: Option<Place>,
    text: Place,
    arrived: Option<Place>,
    key: Option<Place>,
}

/// The rows that decode, and id, source, created_at, author, text, arrived and key for each.
pub type Decoded = (Vec<u32>, [ArrayRef; 7]);

impl Columns {
    /// For a mapping.
    pub fn new(mapping: &Mapping) -> Self {
        Columns {
            id: mapping.id.clone(),
            source: mapping.source.clone(),
            created_at: mapping.created_at.clone(),
            author: mapping.author.clone(),
            text: mapping.text.clone(),
            arrived: mapping.arrived.clone(),
            key: mapping.key.clone(),
        }
    }

    /// Takes the fields out of the file's columns. A column that is not in the file counts as missing in every row.
    ///
    /// # Errors
    /// A column that cannot be text (or a timestamp) at all.
    pub fn decode(&self, file: &StructArray, format: TextFormat) -> Result<(Decoded, Vec<Refused>), StageError> {
        let rows = file.len();
        let id = text(&self.id, file)?;
        let source = text(&self.source, file)?;
        let (created_at, bad) = timestamps(&self.created_at, file)?;
        let found = |place: &Option<Place>| match place {
            Some(place) => text(place, file),
            None => Ok(StringArray::new_null(rows)),
        };
        let (author, key) = (found(&self.author)?, found(&self.key)?);
        let arrived = match &self.arrived {
            Some(place) => timestamps(place, file)?.0,
            None => TimestampMicrosecondArray::new_null(rows).with_timezone("UTC"),
        };
        let mut words = text(&self.text, file)?;
        if format == TextFormat::Html {
            words = words.iter().map(|one| one.map(html::strip)).collect();
        }
        let refused: Vec<Refused> = bad
            .into_iter()
            .map(|index| Refused {
                index,
                reason: "bad_timestamp",
                detail: "`created_at` is not a time".into(),
            })
            .collect();
        let mut keep = vec![true; rows];
        refused.iter().for_each(|one| keep[one.index] = false);
        let index: Vec<u32> = (0..rows as u32).filter(|row| keep[*row as usize]).collect();
        let all: [ArrayRef; 7] = [
            Arc::new(id),
            Arc::new(source),
            Arc::new(created_at),
            Arc::new(author),
            Arc::new(words),
            Arc::new(arrived),
            Arc::new(key),
        ];
        if refused.is_empty() {
            return Ok(((index, all), refused));
        }
        let take = arrow::array::UInt32Array::from(index.clone());
        let mut kept = all;
        for column in &mut kept {
            *column = arrow::compute::take(column, &take, None)?;
        }
        Ok(((index, kept), refused))
    }
}

fn column(pointer: &str, file: &StructArray) -> Option<ArrayRef> {
    let mut steps = pointer
        .split('/')
        .skip(1)
        .map(|step| step.replace("~1", "/").replace("~0", "~"));
    let first = steps.next()?;
    steps.try_fold(Arc::clone(file.column_by_name(&first)?), |array, step| {
        array
            .as_struct_opt()
            .and_then(|inner| inner.column_by_name(&step))
            .cloned()
    })
}

fn text(place: &Place, file: &StructArray) -> Result<StringArray, StageError> {
    let rows = file.len();
    let (with, all) = match place {
        Place::Value { value } => return Ok(StringArray::from_iter_values(std::iter::repeat_n(value, rows))),
        Place::Join { with, .. } => (with.as_str(), true),
        _ => ("", false),
    };
    let mut parts: Vec<StringArray> = Vec::new();
    for pointer in place.pointers() {
        if let Some(array) = column(pointer, file) {
            parts.push(cast(&array, &DataType::Utf8)?.as_string::<i32>().clone());
        }
    }
    if let [only] = parts.as_slice() {
        return Ok(only.clone());
    }
    let mut out = StringBuilder::with_capacity(rows, rows * 64);
    for row in 0..rows {
        let mut present = parts
            .iter()
            .filter(|part| part.is_valid(row))
            .map(|part| part.value(row))
            .peekable();
        if present.peek().is_none() {
            out.append_null();
            continue;
        }
        let filled: Vec<&str> = present
            .filter(|part| !part.is_empty())
            .take(if all { usize::MAX } else { 1 })
            .collect();
        out.append_value(filled.join(with));
    }
    Ok(out.finish())
}

/// Times, and the rows whose time could not be read.
fn timestamps(place: &Place, file: &StructArray) -> Result<(TimestampMicrosecondArray, Vec<usize>), StageError> {
    let found = place.pointers().iter().find_map(|pointer| column(pointer, file));
    let array = match (found, place) {
        (Some(array), _) => array,
        (None, Place::Value { .. }) => Arc::new(text(place, file)?) as ArrayRef,
        (None, _) => {
            return Ok((
                TimestampMicrosecondArray::new_null(file.len()).with_timezone("UTC"),
                Vec::new(),
            ));
        }
    };
    if array.data_type().is_temporal() {
        let times = cast(&array, &posts::timestamp())?;
        return Ok((times.as_primitive().clone(), Vec::new()));
    }
    let parsed: Vec<Option<i64>> = if array.data_type().is_numeric() {
        let numbers = cast(&array, &DataType::Float64)?;
        let numbers: &Float64Array = numbers.as_primitive::<Float64Type>();
        numbers.iter().map(|number| number.and_then(time::from_epoch)).collect()
    } else {
        let texts = cast(&array, &DataType::Utf8)?;
        texts
            .as_string::<i32>()
            .iter()
            .map(|one| one.and_then(time::parse))
            .collect()
    };
    let bad = (0..array.len())
        .filter(|row| array.is_valid(*row) && parsed[*row].is_none())
        .collect();
    Ok((TimestampMicrosecondArray::from(parsed).with_timezone("UTC"), bad))
}
