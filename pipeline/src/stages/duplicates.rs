//! Marks exact duplicates inside a bounded window.
//!
//! The one stage with a memory, so it sees batches in the order they were read, one at a time. The window is not part
//! of the commit: after a restart it is empty, and a duplicate of a post read before counts as new.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, ListArray, ListBuilder, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use tamiz_schemas::columns::{CREATED_AT, DUPLICATE_OF, ID, NOISE};
use tamiz_udfs::text::duplicates::Window;

use super::noise::{DUPLICATE_KEY, NoiseConfig};
use super::{need_text, text, time, with_columns, with_fields};
use crate::stage::{Outcome, Refused, Stage, StageError};

const NAME: &str = "duplicates";

/// The stage.
pub struct Duplicates {
    window: Mutex<Window>,
    config: NoiseConfig,
}

impl Duplicates {
    /// With an empty window.
    pub fn new(config: NoiseConfig) -> Self {
        Duplicates {
            window: Mutex::new(Window::new(config.duplicates.clone())),
            config,
        }
    }
}

fn field() -> Field {
    Field::new(DUPLICATE_OF, DataType::Utf8, true)
}

/// The tags, with `duplicate` added where a row has a predecessor.
fn tagged(tags: &ListArray, of: &StringArray) -> ListArray {
    let values = tags.values().as_string::<i32>();
    let mut out = ListBuilder::new(StringBuilder::new());
    for row in 0..tags.len() {
        let offsets = tags.value_offsets();
        for at in offsets[row]..offsets[row + 1] {
            out.values().append_value(values.value(at as usize));
        }
        if of.is_valid(row) {
            out.values().append_value("duplicate");
        }
        out.append(true);
    }
    out.finish()
}

impl Stage for Duplicates {
    fn name(&self) -> &'static str {
        NAME
    }

    fn schema(&self, input: &Schema) -> Result<SchemaRef, StageError> {
        need_text(input, NAME, &[ID])?;
        for (column, wanted) in [
            (DUPLICATE_KEY, "64-bit key"),
            (NOISE, "list of text"),
            (CREATED_AT, "timestamp"),
        ] {
            input.field_with_name(column).map_err(|_| StageError::Column {
                stage: NAME,
                column,
                wanted,
            })?;
        }
        Ok(with_fields(input, &[field()]))
    }

    fn apply(&self, rows: RecordBatch) -> Result<Outcome, StageError> {
        let wrong = |column, wanted| StageError::Column {
            stage: NAME,
            column,
            wanted,
        };
        let keys = rows
            .column_by_name(DUPLICATE_KEY)
            .and_then(|c| c.as_primitive_opt::<UInt64Type>());
        let keys = keys.ok_or_else(|| wrong(DUPLICATE_KEY, "64-bit key"))?;
        let ids = text(&rows, NAME, ID)?;
        let at = time(&rows, NAME, CREATED_AT)?;
        let of = self
            .window
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .mark(keys, ids, at);
        let drop = self.config.dropped("duplicate");
        let refused: Vec<Refused> = match drop {
            None => Vec::new(),
            Some(reason) => (0..of.len())
                .filter(|index| of.is_valid(*index))
                .map(|index| Refused {
                    index,
                    reason,
                    detail: "an equal text came shortly before".into(),
                })
                .collect(),
        };
        let mut columns: Vec<(Field, arrow::array::ArrayRef)> = Vec::new();
        if of.null_count() < of.len() {
            let tags = rows.column_by_name(NOISE).and_then(|c| c.as_list_opt::<i32>());
            let tags = tagged(tags.ok_or_else(|| wrong(NOISE, "list of text"))?, &of);
            columns.push((super::noise::field(), Arc::new(tags)));
        }
        columns.push((field(), Arc::new(of)));
        Outcome::without(with_columns(rows, columns)?, refused)
    }
}
