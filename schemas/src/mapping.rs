//! How a payload of any shape, or a row of any Parquet file, becomes our fields.
//!
//! A field is found by a JSON pointer (RFC 6901), by the first of several, by joining several, or it is a constant:
//!
//! ```toml
//! text = "/commit/record/text"
//! id = { first = ["/name", "/id"] }
//! title_and_text = { join = ["/title", "/selftext"] }   # present, non-empty parts, separated by a blank line
//! source = { value = "bluesky" }
//! ```
//!
//! In a Parquet file the pointer's steps are a column and the fields of its struct.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::format::{PayloadFormat, RegistryConfig};
pub use crate::presets::Preset;

/// Where one of our fields is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Place {
    /// At a JSON pointer.
    At(String),
    /// At the first of these pointers that holds something.
    First {
        /// JSON pointers, in order of preference.
        first: Vec<String>,
    },
    /// All that is present and not empty, joined.
    Join {
        /// JSON pointers, in order.
        join: Vec<String>,
        /// What stands between the parts; a blank line unless told.
        #[serde(default = "blank_line")]
        with: String,
    },
    /// The same in every row.
    Value {
        /// The constant.
        value: String,
    },
}

fn blank_line() -> String {
    "\n\n".into()
}

impl Place {
    /// The pointers that this place reads, in order.
    pub fn pointers(&self) -> &[String] {
        match self {
            Place::At(pointer) => std::slice::from_ref(pointer),
            Place::First { first } => first,
            Place::Join { join, .. } => join,
            Place::Value { .. } => &[],
        }
    }
}

/// How `text` is written in the payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextFormat {
    /// As is.
    #[default]
    Plain,
    /// HTML fragments (Mastodon, feeds): tags are taken out, paragraphs become line breaks.
    Html,
}

/// A complete mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Identifier, unique within the source.
    pub id: Place,
    /// Name of the source.
    pub source: Place,
    /// Event time.
    pub created_at: Place,
    /// Author; the only field that may be missing in a row.
    pub author: Option<Place>,
    /// What was written.
    pub text: Place,
    /// How the text is written.
    pub text_format: TextFormat,
    /// Pointer → value that a payload must hold to be a post at all; others are refused as `not_a_post`.
    pub only: BTreeMap<String, String>,
    /// When the post arrived at whoever sent it on; where that is not found, Kafka's timestamp stands for it.
    pub arrived: Option<Place>,
    /// What deletes name the post by, where that is not its identifier.
    pub key: Option<Place>,
    /// Records that take a post back.
    pub deletes: Option<DeleteMapping>,
}

/// How a record that takes a post back is known, and which post it takes back.
///
/// What it names is the post's identifier; where posts have a [`Mapping::key`], that key. Its source is found where a
/// post's is; a record without one takes back posts of every source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteMapping {
    /// Pointer → value that such a record holds, all of them; [`ANY`] stands for whatever is there.
    pub when: BTreeMap<String, String>,
    /// What it names.
    pub id: Place,
    /// The author, who may be part of the identifier.
    pub author: Option<Place>,
}

/// In [`DeleteMapping::when`]: any value but null.
pub const ANY: &str = "*";

/// The `[input]` section of the configuration: a preset, and what differs from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InputConfig {
    /// How payloads are written.
    pub format: PayloadFormat,
    /// File with the schema of Avro or Protobuf, where no registry has it.
    pub schema_file: String,
    /// The message of a Protobuf `schema_file`.
    pub message: String,
    /// Which mapping to start from.
    pub preset: Preset,
    /// Instead of the preset's.
    pub id: Option<Place>,
    /// Instead of the preset's.
    pub source: Option<Place>,
    /// Instead of the preset's.
    pub created_at: Option<Place>,
    /// Instead of the preset's.
    pub author: Option<Place>,
    /// Instead of the preset's.
    pub text: Option<Place>,
    /// Instead of the preset's.
    pub text_format: Option<TextFormat>,
    /// Instead of the preset's.
    pub only: Option<BTreeMap<String, String>>,
    /// Instead of the preset's.
    pub arrived: Option<Place>,
    /// Instead of the preset's.
    pub key: Option<Place>,
    /// `[input.deletes]`
    pub deletes: DeletesConfig,
    /// `[input.registry]`
    pub registry: RegistryConfig,
}

/// The `[input.deletes]` section: what differs from the preset's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeletesConfig {
    /// Instead of the preset's; empty: no record takes a post back.
    pub when: Option<BTreeMap<String, String>>,
    /// Instead of the preset's.
    pub id: Option<Place>,
    /// Instead of the preset's.
    pub author: Option<Place>,
    /// A message without a payload takes back the posts of its key.
    pub tombstones: bool,
}

/// A place that can never be found.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`input.{field}`: `{pointer}` is not a JSON pointer: it must start with `/`, as in `/data/text`")]
pub struct MappingError {
    /// Key in the `[input]` section.
    pub field: &'static str,
    /// The pointer as written.
    pub pointer: String,
}

impl InputConfig {
    /// The mapping that this section describes.
    ///
    /// # Errors
    /// A pointer that does not start with `/`.
    pub fn mapping(&self) -> Result<Mapping, MappingError> {
        let base = self.preset.mapping();
        let mapping = Mapping {
            id: self.id.clone().unwrap_or(base.id),
            source: self.source.clone().unwrap_or(base.source),
            created_at: self.created_at.clone().unwrap_or(base.created_at),
            author: self.author.clone().or(base.author),
            text: self.text.clone().unwrap_or(base.text),
            text_format: self.text_format.unwrap_or(base.text_format),
            only: self.only.clone().unwrap_or(base.only),
            arrived: self.arrived.clone().or(base.arrived),
            key: self.key.clone().or(base.key),
            deletes: None,
        };
        let deletes = self.deletes.over(base.deletes, &mapping);
        let mapping = Mapping { deletes, ..mapping };
        mapping.check()?;
        Ok(mapping)
    }
}

impl DeletesConfig {
    /// The preset's with what differs; what neither names is found where posts have it.
    fn over(&self, base: Option<DeleteMapping>, posts: &Mapping) -> Option<DeleteMapping> {
        let own = |base: &Option<DeleteMapping>| base.as_ref().map(|base| base.when.clone());
        let when = self.when.clone().or_else(|| own(&base))?;
        let (id, author) = match base {
            Some(base) => (base.id, base.author),
            None => (
                posts.key.clone().unwrap_or_else(|| posts.id.clone()),
                posts.author.clone(),
            ),
        };
        (!when.is_empty()).then(|| DeleteMapping {
            when,
            id: self.id.clone().unwrap_or(id),
            author: self.author.clone().or(author),
        })
    }
}

impl Mapping {
    fn check(&self) -> Result<(), MappingError> {
        let bad = |pointer: &str| !pointer.starts_with('/');
        let places = [
            ("id", Some(&self.id)),
            ("source", Some(&self.source)),
            ("created_at", Some(&self.created_at)),
            ("author", self.author.as_ref()),
            ("text", Some(&self.text)),
            ("arrived", self.arrived.as_ref()),
            ("key", self.key.as_ref()),
            ("deletes.id", self.deletes.as_ref().map(|deletes| &deletes.id)),
            (
                "deletes.author",
                self.deletes.as_ref().and_then(|deletes| deletes.author.as_ref()),
            ),
        ];
        for (field, place) in places {
            if let Some(pointer) = place.and_then(|p| p.pointers().iter().find(|p| bad(p))) {
                return Err(MappingError {
                    field,
                    pointer: pointer.clone(),
                });
            }
        }
        let none = BTreeMap::new();
        let when = self.deletes.as_ref().map_or(&none, |deletes| &deletes.when);
        for (field, conditions) in [("only", &self.only), ("deletes.when", when)] {
            if let Some(pointer) = conditions.keys().find(|p| bad(p)) {
                return Err(MappingError {
                    field,
                    pointer: pointer.clone(),
                });
            }
        }
        Ok(())
    }
}
