//! One pass over a JSON payload that keeps only what the mapping names.
//!
//! The pointers of a mapping form a tree; the reader walks it beside the document and skips every other value
//! unparsed, so a 3 kB record costs little more than its length. Skipping is not recursive: a nesting bomb is an
//! error or is passed over, never a stack overflow. Strings without escapes are borrowed.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::mapping::{Mapping, Place};

/// A scalar found in a payload.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// A whole number.
    Whole(i128),
    /// A number with a fraction or exponent.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// An array or object stood where a scalar was wanted.
    Compound,
}

impl Scalar<'_> {
    /// The scalar as text; `None` for a compound.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Scalar::Text(text) => Some(Cow::Borrowed(text)),
            Scalar::Whole(n) => Some(Cow::Owned(n.to_string())),
            Scalar::Float(n) => Some(Cow::Owned(n.to_string())),
            Scalar::Bool(b) => Some(Cow::Borrowed(if *b { "true" } else { "false" })),
            Scalar::Compound => None,
        }
    }

    /// Whether nothing is written here.
    pub fn is_blank(&self) -> bool {
        matches!(self, Scalar::Text(text) if text.is_empty())
    }
}

/// A field of a post, as the mapping found it.
#[derive(Debug, Clone, PartialEq)]
pub enum Found<'a> {
    /// Nothing there, or null.
    Missing,
    /// A scalar.
    Scalar(Scalar<'a>),
}

/// The fields of one payload.
#[derive(Debug)]
pub struct Fields<'a> {
    /// Identifier.
    pub id: Found<'a>,
    /// Source.
    pub source: Found<'a>,
    /// Event time, as written.
    pub created_at: Found<'a>,
    /// Author.
    pub author: Found<'a>,
    /// Text.
    pub text: Found<'a>,
}

/// Why a payload gave no fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtractError {
    /// Bytes that are no UTF-8.
    #[error("not UTF-8 at byte {0}")]
    Utf8(usize),
    /// Text that is no JSON; the message names line and column, never the text.
    #[error("not JSON: {0}")]
    Json(String),
    /// A well-formed record that the mapping's `only` excludes.
    #[error("not a post: `{0}` differs from what `input.only` asks for")]
    NotAPost(String),
}

/// A compiled mapping.
#[derive(Debug)]
pub struct Extractor {
    nodes: Vec<Node>,
    slots: usize,
    id: Source,
    source: Source,
    created_at: Source,
    author: Option<Source>,
    text: Source,
    only: Vec<(String, usize, String)>,
}

#[derive(Debug, Default)]
struct Node {
    slot: Option<usize>,
    children: Vec<(String, usize)>,
}

#[derive(Debug)]
enum Source {
    First(Vec<usize>),
    Join(Vec<usize>, String),
    Constant(String),
}

type Slots<'a> = Vec<Option<Scalar<'a>>>;

impl Extractor {
    /// Compiles a mapping.
    pub fn new(mapping: &Mapping) -> Self {
        let mut tree = Tree {
            nodes: vec![Node::default()],
            slots: 0,
        };
        let id = tree.source(&mapping.id);
        let source = tree.source(&mapping.source);
        let created_at = tree.source(&mapping.created_at);
        let author = mapping.author.as_ref().map(|place| tree.source(place));
        let text = tree.source(&mapping.text);
        let only = mapping
            .only
            .iter()
            .map(|(p, value)| (p.clone(), tree.slot(p), value.clone()))
            .collect();
        Extractor {
            nodes: tree.nodes,
            slots: tree.slots,
            id,
            source,
            created_at,
            author,
            text,
            only,
        }
    }

    /// Reads one payload.
    ///
    /// # Errors
    /// Invalid UTF-8, invalid JSON, or a record that is no post.
    pub fn extract<'a>(&'a self, payload: &'a [u8]) -> Result<Fields<'a>, ExtractError> {
        let text = std::str::from_utf8(payload).map_err(|e| ExtractError::Utf8(e.valid_up_to()))?;
        let mut slots: Slots<'a> = vec![None; self.slots];
        let mut json = serde_json::Deserializer::from_str(text);
        let describe = |e: serde_json::Error| ExtractError::Json(describe(&e));
        Walk {
            nodes: &self.nodes,
            node: 0,
            slots: &mut slots,
        }
        .deserialize(&mut json)
        .map_err(describe)?;
        json.end().map_err(describe)?;
        for (pointer, slot, wanted) in &self.only {
            let found = slots[*slot].as_ref().and_then(Scalar::text);
            if found.as_deref() != Some(wanted) {
                return Err(ExtractError::NotAPost(pointer.clone()));
            }
        }
        // `text` last: it may take its slot's string away instead of copying it.
        Ok(Fields {
            id: self.id.find(&slots),
            source: self.source.find(&slots),
            created_at: self.created_at.find(&slots),
            author: self
                .author
                .as_ref()
                .map_or(Found::Missing, |author| author.find(&slots)),
            text: self.text.take(&mut slots),
        })
    }
}

/// serde_json's message without the input: it can quote strings of the document.
fn describe(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "ends too early",
        serde_json::error::Category::Data => "unexpected value",
        _ if error.to_string().starts_with("recursion limit") => "nested too deeply",
        _ => "syntax error",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}

struct Tree {
    nodes: Vec<Node>,
    slots: usize,
}

impl Tree {
    fn source(&mut self, place: &Place) -> Source {
        let slots = |tree: &mut Self, pointers: &[String]| pointers.iter().map(|p| tree.slot(p)).collect();
        match place {
            Place::Value { value } => Source::Constant(value.clone()),
            Place::Join { join, with } => Source::Join(slots(self, join), with.clone()),
            other => Source::First(slots(self, other.pointers())),
        }
    }

    fn slot(&mut self, pointer: &str) -> usize {
        let mut node = 0;
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            node = match self.nodes[node].children.iter().find(|(name, _)| *name == step) {
                Some((_, child)) => *child,
                None => {
                    self.nodes.push(Node::default());
                    let child = self.nodes.len() - 1;
                    self.nodes[node].children.push((step, child));
                    child
                }
            };
        }
        *self.nodes[node].slot.get_or_insert_with(|| {
            self.slots += 1;
            self.slots - 1
        })
    }
}

impl Source {
    fn find<'a>(&'a self, slots: &Slots<'a>) -> Found<'a> {
        match self {
            Source::Constant(value) => Found::Scalar(Scalar::Text(Cow::Borrowed(value))),
            Source::First(places) => {
                let mut present = places.iter().filter_map(|slot| slots[*slot].as_ref());
                match present
                    .clone()
                    .find(|scalar| !scalar.is_blank())
                    .or_else(|| present.next())
                {
                    Some(scalar) => Found::Scalar(scalar.clone()),
                    None => Found::Missing,
                }
            }
            Source::Join(places, with) => join(places, with, slots),
        }
    }

    fn take<'a>(&'a self, slots: &mut Slots<'a>) -> Found<'a> {
        if let Source::First(places) = self {
            let filled = |slot: &&usize| slots[**slot].as_ref().is_some_and(|scalar| !scalar.is_blank());
            if let Some(slot) = places.iter().find(filled) {
                return slots[*slot].take().map_or(Found::Missing, Found::Scalar);
            }
        }
        self.find(slots)
    }
}

fn join<'a>(places: &[usize], with: &str, slots: &Slots<'a>) -> Found<'a> {
    let present: Vec<&Scalar> = places.iter().filter_map(|slot| slots[*slot].as_ref()).collect();
    if present.iter().any(|scalar| matches!(scalar, Scalar::Compound)) {
        return Found::Scalar(Scalar::Compound);
    }
    let parts: Vec<Cow<str>> = present
        .iter()
        .filter(|s| !s.is_blank())
        .filter_map(|s| s.text())
        .collect();
    match (present.is_empty(), parts.as_slice()) {
        (true, _) => Found::Missing,
        (false, _) => Found::Scalar(Scalar::Text(Cow::Owned(parts.join(with)))),
    }
}

/// Walks the document and the tree side by side.
struct Walk<'w, 'a> {
    nodes: &'w [Node],
    node: usize,
    slots: &'w mut Slots<'a>,
}

impl<'a> Walk<'_, 'a> {
    fn put(self, scalar: Option<Scalar<'a>>) {
        if let Some(slot) = self.nodes[self.node].slot {
            self.slots[slot] = scalar;
        }
    }
}

impl<'a> DeserializeSeed<'a> for Walk<'_, 'a> {
    type Value = ();
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Walk<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        let node = &self.nodes[self.node];
        while let Some(child) = map.next_key_seed(Step(node))? {
            match child {
                Some(child) => map.next_value_seed(Walk {
                    nodes: self.nodes,
                    node: child,
                    slots: self.slots,
                })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if let Some(slot) = node.slot {
            self.slots.as_mut_slice()[slot] = Some(Scalar::Compound);
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut seq: S) -> Result<(), S::Error> {
        let node = &self.nodes[self.node];
        for index in 0.. {
            let child = node.children.iter().find(|(name, _)| name.parse() == Ok(index));
            let more = match child {
                Some((_, child)) => seq
                    .next_element_seed(Walk {
                        nodes: self.nodes,
                        node: *child,
                        slots: self.slots,
                    })?
                    .is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        self.put(Some(Scalar::Compound));
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<(), E> {
        self.put(Some(Scalar::Text(Cow::Borrowed(text))));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.put(Some(Scalar::Text(Cow::Owned(text.into()))));
        Ok(())
    }

    fn visit_u64<E>(self, n: u64) -> Result<(), E> {
        self.put(Some(Scalar::Whole(n.into())));
        Ok(())
    }

    fn visit_i64<E>(self, n: i64) -> Result<(), E> {
        self.put(Some(Scalar::Whole(n.into())));
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<(), E> {
        if !n.is_finite() {
            return Err(E::custom("number out of range"));
        }
        self.put(Some(Scalar::Float(n)));
        Ok(())
    }

    fn visit_bool<E>(self, b: bool) -> Result<(), E> {
        self.put(Some(Scalar::Bool(b)));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.put(None);
        Ok(())
    }
}

/// Which child an object key leads to.
struct Step<'n>(&'n Node);

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Step<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self
            .0
            .children
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, child)| *child))
    }
}
