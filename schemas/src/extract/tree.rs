//! The pointers of a mapping as a tree, and what is found at them.
//!
//! Every reader walks this tree beside its payloads and fills the slots; what no pointer leads to is passed over.

use std::borrow::Cow;

use super::{Found, Scalar};
use crate::mapping::Place;

/// What was found, by slot.
pub(super) type Slots<'a> = Vec<Option<Scalar<'a>>>;

/// A step of a pointer, or several.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) slot: Option<usize>,
    pub(super) children: Vec<(String, usize)>,
}

/// Where a field is found, by slots.
#[derive(Debug)]
pub(super) enum Source {
    First(Vec<usize>),
    Join(Vec<usize>, String),
    Constant(String),
}

/// Pointers under construction; the first node is the whole payload.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) slots: usize,
}

impl Tree {
    pub(super) fn new() -> Self {
        Tree {
            nodes: vec![Node::default()],
            slots: 0,
        }
    }

    pub(super) fn source(&mut self, place: &Place) -> Source {
        let slots = |tree: &mut Self, pointers: &[String]| pointers.iter().map(|p| tree.slot(p)).collect();
        match place {
            Place::Value { value } => Source::Constant(value.clone()),
            Place::Join { join, with } => Source::Join(slots(self, join), with.clone()),
            other => Source::First(slots(self, other.pointers())),
        }
    }

    /// The slot of a pointer; equal pointers share one.
    pub(super) fn slot(&mut self, pointer: &str) -> usize {
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
    pub(super) fn find<'a>(&'a self, slots: &Slots<'a>) -> Found<'a> {
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

    /// As [`Source::find`], without a copy where there is one slot to take from.
    pub(super) fn take<'a>(&'a self, slots: &mut Slots<'a>) -> Found<'a> {
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
