//! How any JSON payload, or a row of any Parquet file, becomes our fields.
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
}

/// The ready mappings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Our own wire format: `{"id", "source", "created_at", "author", "text"}`.
    #[default]
    Tamiz,
    /// X / Twitter API v2, one object of the filtered or sample stream (`{"data": {…}}`).
    XV2,
    /// X / Twitter API v1.1 statuses.
    XV1,
    /// Bluesky Jetstream `commit` events that create a post.
    Bluesky,
    /// Mastodon statuses.
    Mastodon,
    /// Reddit comments and submissions.
    Reddit,
    /// A generic news item: title and description, as feed readers deliver them.
    News,
}

fn at(pointer: &str) -> Place {
    Place::At(pointer.into())
}

fn first(pointers: &[&str]) -> Place {
    Place::First {
        first: pointers.iter().map(|p| p.to_string()).collect(),
    }
}

fn join(pointers: &[&str], with: &str) -> Place {
    Place::Join {
        join: pointers.iter().map(|p| p.to_string()).collect(),
        with: with.into(),
    }
}

fn constant(value: &str) -> Place {
    Place::Value { value: value.into() }
}

impl Preset {
    /// Every preset, for tests and messages.
    pub const ALL: [Preset; 7] = [
        Preset::Tamiz,
        Preset::XV2,
        Preset::XV1,
        Preset::Bluesky,
        Preset::Mastodon,
        Preset::Reddit,
        Preset::News,
    ];

    /// The name used in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Tamiz => "tamiz",
            Preset::XV2 => "x_v2",
            Preset::XV1 => "x_v1",
            Preset::Bluesky => "bluesky",
            Preset::Mastodon => "mastodon",
            Preset::Reddit => "reddit",
            Preset::News => "news",
        }
    }

    /// The mapping that the preset stands for.
    pub fn mapping(self) -> Mapping {
        let plain = |id, source, created_at, author, text| Mapping {
            id,
            source,
            created_at,
            author: Some(author),
            text,
            text_format: TextFormat::Plain,
            only: BTreeMap::new(),
        };
        match self {
            Preset::Tamiz => plain(at("/id"), at("/source"), at("/created_at"), at("/author"), at("/text")),
            Preset::XV2 => plain(
                at("/data/id"),
                constant("x"),
                at("/data/created_at"),
                at("/data/author_id"),
                first(&["/data/note_tweet/text", "/data/text"]),
            ),
            Preset::XV1 => plain(
                at("/id_str"),
                constant("x"),
                at("/created_at"),
                at("/user/id_str"),
                first(&["/extended_tweet/full_text", "/full_text", "/text"]),
            ),
            Preset::Bluesky => Mapping {
                only: BTreeMap::from([
                    ("/kind".into(), "commit".into()),
                    ("/commit/operation".into(), "create".into()),
                    ("/commit/collection".into(), "app.bsky.feed.post".into()),
                ]),
                ..plain(
                    join(&["/did", "/commit/rkey"], "/"),
                    constant("bluesky"),
                    first(&["/commit/record/createdAt", "/time_us"]),
                    at("/did"),
                    at("/commit/record/text"),
                )
            },
            Preset::Mastodon => Mapping {
                text_format: TextFormat::Html,
                ..plain(
                    first(&["/uri", "/id"]),
                    constant("mastodon"),
                    at("/created_at"),
                    first(&["/account/acct", "/account/username"]),
                    join(&["/spoiler_text", "/content"], "\n\n"),
                )
            },
            Preset::Reddit => plain(
                first(&["/name", "/id"]),
                constant("reddit"),
                first(&["/created_utc", "/created"]),
                at("/author"),
                join(&["/title", "/selftext", "/body"], "\n\n"),
            ),
            Preset::News => Mapping {
                text_format: TextFormat::Html,
                ..plain(
                    first(&["/id", "/guid", "/link", "/url"]),
                    constant("news"),
                    first(&["/published_at", "/published", "/pubDate", "/date", "/updated"]),
                    first(&["/author/name", "/author", "/creator"]),
                    join(&["/title", "/description"], "\n\n"),
                )
            },
        }
    }
}

/// The `[input]` section of the configuration: a preset, and what differs from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InputConfig {
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
        };
        mapping.check()?;
        Ok(mapping)
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
        ];
        for (field, place) in places {
            if let Some(pointer) = place.and_then(|p| p.pointers().iter().find(|p| bad(p))) {
                return Err(MappingError {
                    field,
                    pointer: pointer.clone(),
                });
            }
        }
        match self.only.keys().find(|p| bad(p)) {
            Some(pointer) => Err(MappingError {
                field: "only",
                pointer: pointer.clone(),
            }),
            None => Ok(()),
        }
    }
}
