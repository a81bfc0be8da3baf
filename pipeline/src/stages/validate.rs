//! Required fields, sizes, and timestamps that can be true.

use arrow::array::{Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tamiz_schemas::columns::*;

use super::{need_text, text, time};
use crate::stage::{Outcome, Refused, Stage, StageError};

const NAME: &str = "validate";

/// Identifiers longer than this are no identifiers.
const MAX_ID_BYTES: usize = 512;
/// `source` names a folder of the table, so its alphabet is small.
const MAX_SOURCE_BYTES: usize = 64;

/// The `[validate]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidateRules {
    /// Payloads larger than this are refused unparsed.
    pub max_payload_bytes: usize,
    /// Texts longer than this are refused.
    pub max_text_bytes: usize,
    /// Event times before this RFC 3339 moment are refused.
    pub oldest: String,
    /// Event times this far ahead of the clock are refused.
    pub future_seconds: u64,
}

/// The stage.
pub struct Validate {
    max_text_bytes: usize,
    oldest: i64,
    future_micros: i64,
}

impl Validate {
    /// A validator.
    ///
    /// # Errors
    /// `oldest` is no RFC 3339 time.
    pub fn new(rules: &ValidateRules) -> Result<Self, String> {
        let oldest = tamiz_schemas::time::parse(&rules.oldest).ok_or_else(|| {
            format!(
                "`validate.oldest` is `{}`: write it as 2000-01-01T00:00:00Z",
                rules.oldest
            )
        })?;
        Ok(Validate {
            max_text_bytes: rules.max_text_bytes,
            oldest,
            future_micros: (rules.future_seconds as i64).saturating_mul(1_000_000),
        })
    }

    fn refusal(&self, row: &Row, index: usize) -> Option<(&'static str, String)> {
        for (name, column) in [(ID, row.id), (SOURCE, row.source)] {
            if column.is_null(index) || column.value(index).is_empty() {
                return Some(("missing_field", format!("`{name}` is missing")));
            }
        }
        if row.text.is_null(index) {
            return Some(("missing_field", format!("`{TEXT}` is missing")));
        }
        if row.created_at.is_null(index) {
            return Some(("missing_field", format!("`{CREATED_AT}` is missing")));
        }
        if row.id.value_length(index) as usize > MAX_ID_BYTES {
            return Some(("bad_id", format!("`id` is {} bytes long", row.id.value_length(index))));
        }
        if !is_source(row.source.value(index)) {
            return Some((
                "bad_source",
                "`source` may hold letters, digits, `_`, `-`, `.`; 64 at most".into(),
            ));
        }
        let bytes = row.text.value_length(index) as usize;
        if bytes > self.max_text_bytes {
            return Some((
                "text_too_large",
                format!("{bytes} bytes of text, {} allowed", self.max_text_bytes),
            ));
        }
        let (at, now) = (row.created_at.value(index), row.ingested_at.value(index));
        if at < self.oldest {
            return Some(("too_old", "`created_at` is before `validate.oldest`".into()));
        }
        if at > now.saturating_add(self.future_micros) {
            return Some(("in_the_future", "`created_at` is ahead of the clock".into()));
        }
        None
    }
}

struct Row<'b> {
    id: &'b StringArray,
    source: &'b StringArray,
    text: &'b StringArray,
    created_at: &'b TimestampMicrosecondArray,
    ingested_at: &'b TimestampMicrosecondArray,
}

pub(super) fn is_source(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    name.len() <= MAX_SOURCE_BYTES && name.bytes().all(allowed) && name.bytes().any(|b| b.is_ascii_alphanumeric())
}

impl Stage for Validate {
    fn name(&self) -> &'static str {
        NAME
    }

    fn schema(&self, input: &Schema) -> Result<SchemaRef, StageError> {
        need_text(input, NAME, &[ID, SOURCE, TEXT])?;
        for column in [CREATED_AT, INGESTED_AT] {
            input.field_with_name(column).map_err(|_| StageError::Column {
                stage: NAME,
                column,
                wanted: "timestamp",
            })?;
        }
        Ok(Arc::new(input.clone()))
    }

    fn apply(&self, rows: RecordBatch) -> Result<Outcome, StageError> {
        let row = Row {
            id: text(&rows, NAME, ID)?,
            source: text(&rows, NAME, SOURCE)?,
            text: text(&rows, NAME, TEXT)?,
            created_at: time(&rows, NAME, CREATED_AT)?,
            ingested_at: time(&rows, NAME, INGESTED_AT)?,
        };
        let refused = (0..rows.num_rows())
            .filter_map(|index| {
                self.refusal(&row, index)
                    .map(|(reason, detail)| Refused { index, reason, detail })
            })
            .collect();
        Outcome::without(rows, refused)
    }
}
