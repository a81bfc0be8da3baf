//! Tags noise, and refuses the tags that the configuration drops. Tags are kept on the rows that stay, so that
//! thresholds can change later without reading the source again.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, ListArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use tamiz_schemas::columns::{NOISE, TEXT};
use tamiz_udfs::text::duplicates::{self, DuplicateRules};
use tamiz_udfs::text::noise::{self, NoiseRules};

use super::{need_text, text, with_columns, with_fields};
use crate::stage::{Outcome, Refused, Stage, StageError};

const NAME: &str = "noise";

/// Internal column: key of the text for the duplicate window, taken before personal data is masked.
pub const DUPLICATE_KEY: &str = "duplicate_key";

/// Every tag, with the word that stands as reason in a dead letter.
pub const TAGS: [&str; 5] = ["empty", "too_short", "link_only", "repetition", "duplicate"];

/// What happens to a row with a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It goes on, tagged.
    Keep,
    /// It becomes a dead letter.
    Drop,
}

/// The `[noise]` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoiseConfig {
    /// Thresholds of the tags.
    pub rules: NoiseRules,
    /// The window for exact duplicates.
    pub duplicates: DuplicateRules,
    /// Tag → action.
    pub actions: BTreeMap<String, Action>,
}

impl NoiseConfig {
    /// The reason for a dead letter, if the tag is dropped.
    pub fn dropped(&self, tag: &str) -> Option<&'static str> {
        let known = TAGS.iter().find(|known| **known == tag)?;
        (self.actions.get(tag) == Some(&Action::Drop)).then_some(*known)
    }
}

/// The stage.
pub struct Noise {
    config: NoiseConfig,
}

impl Noise {
    /// For this configuration.
    pub fn new(config: NoiseConfig) -> Self {
        Noise { config }
    }
}

/// The field of the tags.
pub fn field() -> Field {
    Field::new(
        NOISE,
        DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))),
        true,
    )
}

fn key_field() -> Field {
    Field::new(DUPLICATE_KEY, DataType::UInt64, true)
}

/// Refusals for the rows that carry a dropped tag.
fn dropped(tags: &ListArray, config: &NoiseConfig) -> Vec<Refused> {
    let values = tags.values().as_string::<i32>();
    let offsets = tags.value_offsets();
    (0..tags.len())
        .filter_map(|index| {
            let mut own = (offsets[index]..offsets[index + 1]).map(|at| values.value(at as usize));
            own.find_map(|tag| config.dropped(tag)).map(|reason| Refused {
                index,
                reason,
                detail: format!("tagged `{reason}`, which `noise.actions` drops"),
            })
        })
        .collect()
}

impl Stage for Noise {
    fn name(&self) -> &'static str {
        NAME
    }

    fn schema(&self, input: &Schema) -> Result<SchemaRef, StageError> {
        need_text(input, NAME, &[TEXT])?;
        Ok(with_fields(input, &[field(), key_field()]))
    }

    fn apply(&self, rows: RecordBatch) -> Result<Outcome, StageError> {
        let texts = text(&rows, NAME, TEXT)?;
        let tags = noise::tag(texts, &self.config.rules);
        let keys = duplicates::keys(texts);
        let refused = dropped(&tags, &self.config);
        let rows = with_columns(rows, vec![(field(), Arc::new(tags)), (key_field(), Arc::new(keys))])?;
        Outcome::without(rows, refused)
    }
}
