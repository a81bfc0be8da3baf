//! How kernels build their columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, StringArray, StringBuilder, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field, Fields};

/// Rewrites a column row by row. `edit` writes the new text into the buffer it is given (empty at first) and returns
/// whether the row changes at all; rows that do not are copied, and a column without any change is shared.
pub(crate) fn rewrite(texts: &StringArray, mut edit: impl FnMut(&str, &mut String) -> bool) -> StringArray {
    let mut scratch = String::new();
    let mut changed: Option<StringBuilder> = None;
    for row in 0..texts.len() {
        if texts.is_null(row) {
            if let Some(out) = &mut changed {
                out.append_null();
            }
            continue;
        }
        let text = texts.value(row);
        scratch.clear();
        if edit(text, &mut scratch) {
            changed
                .get_or_insert_with(|| first_rows(texts, row))
                .append_value(&scratch);
        } else if let Some(out) = &mut changed {
            out.append_value(text);
        }
    }
    changed.map_or_else(|| texts.clone(), |mut out| out.finish())
}

fn first_rows(texts: &StringArray, rows: usize) -> StringBuilder {
    let offsets = texts.value_offsets();
    let bytes = (offsets[texts.len()] - offsets[0]) as usize;
    let mut out = StringBuilder::with_capacity(texts.len(), bytes);
    for row in 0..rows {
        out.append_option(texts.is_valid(row).then(|| texts.value(row)));
    }
    out
}

/// A list column whose items are `values`, cut where `ends` says. Items are named `item` and may be NULL, as Delta
/// readers expect them.
pub(crate) fn list(values: ArrayRef, ends: Vec<i32>, nulls: Option<NullBuffer>) -> ListArray {
    let item = Arc::new(Field::new("item", values.data_type().clone(), true));
    ListArray::new(item, OffsetBuffer::new(ends.into()), values, nulls)
}

/// A struct column from nullable fields, with no NULL rows of its own.
pub(crate) fn structs(columns: Vec<(&str, ArrayRef)>) -> StructArray {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns
        .into_iter()
        .map(|(name, array)| (Field::new(name, array.data_type().clone(), true), array))
        .unzip();
    StructArray::new(Fields::from(fields), arrays, None)
}
