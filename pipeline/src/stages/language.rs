//! Puts the language kernel on the text column; refuses the languages that the configuration does not want.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use tamiz_schemas::columns::{LANG, LANG_CONFIDENCE, TEXT};

use super::{need_text, text, with_columns, with_fields};
use crate::stage::{Outcome, Refused, Stage, StageError};

const NAME: &str = "language";

/// The `[language]` section.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageRules {
    /// ISO 639-1 codes that go on; empty means every language. `und` is the code of texts that do not tell.
    pub keep: Vec<String>,
    /// Below this confidence a row is kept whatever its language.
    pub min_confidence: f32,
}

/// The stage.
pub struct Language {
    rules: LanguageRules,
}

impl Language {
    /// For these rules.
    pub fn new(rules: LanguageRules) -> Self {
        Language { rules }
    }
}

fn fields() -> [Field; 2] {
    [
        Field::new(LANG, DataType::Utf8, true),
        Field::new(LANG_CONFIDENCE, DataType::Float32, true),
    ]
}

impl Stage for Language {
    fn name(&self) -> &'static str {
        NAME
    }

    fn schema(&self, input: &Schema) -> Result<SchemaRef, StageError> {
        need_text(input, NAME, &[TEXT])?;
        Ok(with_fields(input, &fields()))
    }

    fn apply(&self, rows: RecordBatch) -> Result<Outcome, StageError> {
        let found = tamiz_udfs::text::language::detect(text(&rows, NAME, TEXT)?);
        let mut refused = Vec::new();
        if !self.rules.keep.is_empty() {
            for index in 0..rows.num_rows() {
                let sure =
                    found.confidence.is_valid(index) && found.confidence.value(index) >= self.rules.min_confidence;
                let lang = if found.lang.is_valid(index) {
                    found.lang.value(index)
                } else {
                    "und"
                };
                if sure && !self.rules.keep.iter().any(|keep| keep == lang) {
                    refused.push(Refused {
                        index,
                        reason: "language",
                        detail: format!("language `{lang}`"),
                    });
                }
            }
        }
        let [lang, confidence] = fields();
        let rows = with_columns(
            rows,
            vec![(lang, Arc::new(found.lang)), (confidence, Arc::new(found.confidence))],
        )?;
        Outcome::without(rows, refused)
    }
}
