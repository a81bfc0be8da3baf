//! The stages, each a thin wrapper that puts a kernel on a batch.
//!
//! The order is fixed in [`crate::line`]: decode, validate, late, normalize, language, noise, scrub, duplicates, score, finish.

pub mod columns;
pub mod decode;
pub mod deletes;
pub mod duplicates;
pub mod finish;
pub mod html;
pub mod language;
pub mod late;
pub mod noise;
pub mod normalize;
pub mod payloads;
pub mod score;
pub mod scrub;
#[cfg(test)]
mod tests;
pub mod validate;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::stage::StageError;

/// The column as text.
pub(crate) fn text<'b>(
    rows: &'b RecordBatch,
    stage: &'static str,
    column: &'static str,
) -> Result<&'b StringArray, StageError> {
    rows.column_by_name(column)
        .and_then(|array| array.as_any().downcast_ref())
        .ok_or(StageError::Column {
            stage,
            column,
            wanted: "text",
        })
}

/// The column as UTC microseconds.
pub(crate) fn time<'b>(
    rows: &'b RecordBatch,
    stage: &'static str,
    column: &'static str,
) -> Result<&'b TimestampMicrosecondArray, StageError> {
    rows.column_by_name(column)
        .and_then(|array| array.as_any().downcast_ref())
        .ok_or(StageError::Column {
            stage,
            column,
            wanted: "timestamp",
        })
}

/// Fails unless every column is there and is text.
pub(crate) fn need_text(schema: &Schema, stage: &'static str, columns: &[&'static str]) -> Result<(), StageError> {
    for column in columns {
        if !schema
            .field_with_name(column)
            .is_ok_and(|field| field.data_type() == &DataType::Utf8)
        {
            return Err(StageError::Column {
                stage,
                column,
                wanted: "text",
            });
        }
    }
    Ok(())
}

/// The schema with these fields put in place of those of the same name, or added at the end.
pub(crate) fn with_fields(schema: &Schema, fields: &[Field]) -> SchemaRef {
    let mut all: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    for field in fields {
        match all.iter_mut().find(|old| old.name() == field.name()) {
            Some(old) => *old = Arc::new(field.clone()),
            None => all.push(Arc::new(field.clone())),
        }
    }
    Arc::new(Schema::new(all))
}

/// The batch with these columns put in place of those of the same name, or added at the end.
pub(crate) fn with_columns(rows: RecordBatch, columns: Vec<(Field, ArrayRef)>) -> Result<RecordBatch, StageError> {
    let schema = rows.schema();
    let fields: Vec<Field> = columns.iter().map(|(field, _)| field.clone()).collect();
    let wanted = with_fields(&schema, &fields);
    let (_, mut arrays, _) = rows.into_parts();
    for (field, array) in columns {
        match schema.index_of(field.name()) {
            Ok(at) => arrays[at] = array,
            Err(_) => arrays.push(array),
        }
    }
    Ok(RecordBatch::try_new(wanted, arrays)?)
}
