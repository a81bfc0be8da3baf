//! One pass over a JSON payload that keeps only what the mapping names.
//!
//! Skipping is not recursive: a nesting bomb is an error or is passed over, never a stack overflow.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Scalar;
use super::tree::{Node, Slots};

/// serde_json's message without the input: it can quote strings of the document.
pub(super) fn describe(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "ends too early",
        serde_json::error::Category::Data => "unexpected value",
        _ if error.to_string().starts_with("recursion limit") => "nested too deeply",
        _ => "syntax error",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}

/// Walks the document and the tree side by side.
pub(super) struct Walk<'w, 'a> {
    pub(super) nodes: &'w [Node],
    pub(super) node: usize,
    pub(super) slots: &'w mut Slots<'a>,
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
