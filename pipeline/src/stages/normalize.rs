//! Puts the normalize kernel on the text column.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tamiz_schemas::columns::TEXT;

use super::{need_text, text, with_columns, with_fields};
use crate::stage::{Outcome, Stage, StageError};

const NAME: &str = "normalize";

/// The stage.
pub struct Normalize;

fn field() -> Field {
    Field::new(TEXT, DataType::Utf8, false)
}

impl Stage for Normalize {
    fn name(&self) -> &'static str {
        NAME
    }

    fn schema(&self, input: &Schema) -> Result<SchemaRef, StageError> {
        need_text(input, NAME, &[TEXT])?;
        Ok(with_fields(input, &[field()]))
    }

    fn apply(&self, rows: RecordBatch) -> Result<Outcome, StageError> {
        let clean = tamiz_udfs::text::normalize::normalize(text(&rows, NAME, TEXT)?);
        Ok(Outcome::all(with_columns(rows, vec![(field(), Arc::new(clean))])?))
    }
}
