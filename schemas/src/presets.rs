//! The ready mappings, one per feed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mapping::{ANY, DeleteMapping, Mapping, Place, TextFormat};

/// The ready mappings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Our own wire format: `{"id", "source", "created_at", "author", "text"}`, with `received_at` where the sender knows
    /// it; `{"id", "source", "deleted": true}` takes a post back.
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

fn all(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(pointer, value): &(&str, &str)| (pointer.to_string(), value.to_string());
    pairs.iter().map(owned).collect()
}

/// What a Jetstream event holds that does this to a post.
fn bluesky(operation: &str) -> BTreeMap<String, String> {
    all(&[
        ("/kind", "commit"),
        ("/commit/operation", operation),
        ("/commit/collection", "app.bsky.feed.post"),
    ])
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
            arrived: None,
            key: None,
            deletes: None,
        };
        match self {
            Preset::Tamiz => Mapping {
                arrived: Some(at("/received_at")),
                deletes: Some(DeleteMapping {
                    when: all(&[("/deleted", "true")]),
                    id: at("/id"),
                    author: Some(at("/author")),
                }),
                ..plain(at("/id"), at("/source"), at("/created_at"), at("/author"), at("/text"))
            },
            Preset::XV2 => Mapping {
                // Of the stream of compliance events.
                deletes: Some(DeleteMapping {
                    when: all(&[("/data/delete/tweet/id", ANY)]),
                    id: at("/data/delete/tweet/id"),
                    author: Some(at("/data/delete/tweet/author_id")),
                }),
                ..plain(
                    at("/data/id"),
                    constant("x"),
                    at("/data/created_at"),
                    at("/data/author_id"),
                    first(&["/data/note_tweet/text", "/data/text"]),
                )
            },
            Preset::XV1 => Mapping {
                deletes: Some(DeleteMapping {
                    when: all(&[("/delete/status/id_str", ANY)]),
                    id: at("/delete/status/id_str"),
                    author: Some(at("/delete/status/user_id_str")),
                }),
                ..plain(
                    at("/id_str"),
                    constant("x"),
                    at("/created_at"),
                    at("/user/id_str"),
                    first(&["/extended_tweet/full_text", "/full_text", "/text"]),
                )
            },
            Preset::Bluesky => Mapping {
                only: bluesky("create"),
                arrived: Some(at("/time_us")),
                deletes: Some(DeleteMapping {
                    when: bluesky("delete"),
                    id: join(&["/did", "/commit/rkey"], "/"),
                    author: Some(at("/did")),
                }),
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
                // The streaming API names a deleted status by the number that its server gave it, which is the end of
                // the `uri` only for statuses that were written there.
                key: Some(at("/id")),
                deletes: Some(DeleteMapping {
                    when: all(&[("/event", "delete")]),
                    id: at("/payload"),
                    author: None,
                }),
                ..plain(
                    first(&["/uri", "/id"]),
                    constant("mastodon"),
                    at("/created_at"),
                    // user@domain for people of other servers, whose `uri` has the user alone.
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
