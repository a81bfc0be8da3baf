//! Takes what was found out of the texts, and tells how much there was.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, Int32Builder, ListArray, StringArray, StringBuilder};

use super::find::{Finder, Found};
use super::{Kind, Mode, PiiError, PiiPolicy, PseudonymKey};
use crate::text::columns::{list, rewrite, structs};

/// Rounds after which scrubbing a text ends. What is taken out may bring its neighbours together; one round is the
/// rule, two are rare.
const ROUNDS: usize = 8;

/// Scrubs columns by one policy.
#[derive(Debug, Clone)]
pub struct Scrubber {
    /// By place in [`Kind::ALL`].
    modes: [Mode; Kind::ALL.len()],
    key: Option<PseudonymKey>,
}

/// Texts without the personal data that a policy does not keep.
#[derive(Debug, Clone)]
pub struct Scrubbed {
    /// The texts.
    pub texts: StringArray,
    /// How many findings of each kind there were, kept ones included, in the order of [`Kind::ALL`]:
    /// `List<Struct<kind: Utf8, count: Int32>>`, empty where nothing was found.
    pub found: ListArray,
}

impl Scrubber {
    /// A scrubber by a policy.
    ///
    /// # Errors
    /// If the policy hashes a kind and there is no key.
    pub fn new(policy: PiiPolicy, key: Option<PseudonymKey>) -> Result<Scrubber, PiiError> {
        let modes = Kind::ALL.map(|kind| policy.mode(kind));
        match Kind::ALL.iter().find(|kind| policy.mode(**kind) == Mode::Hash) {
            Some(&kind) if key.is_none() => Err(PiiError::NoKey { kind }),
            _ => Ok(Scrubber { modes, key }),
        }
    }

    /// Scrubs every text of a column.
    ///
    /// ```
    /// # use arrow::array::StringArray;
    /// use tamiz_udfs::text::pii::{PiiPolicy, Scrubber};
    /// let scrubber = Scrubber::new(PiiPolicy::default(), None)?;
    /// let scrubbed = scrubber.scrub(&StringArray::from(vec!["@ana: write to bob@example.com"]));
    /// assert_eq!(scrubbed.texts.value(0), "@user: write to [EMAIL]");
    /// # Ok::<(), tamiz_udfs::text::pii::PiiError>(())
    /// ```
    pub fn scrub(&self, texts: &StringArray) -> Scrubbed {
        let mut finder = Finder::default();
        let mut counts = Counts::new(texts);
        let mut row = 0;
        let scrubbed = rewrite(texts, |text, out| {
            // Only rows with a text come here; those without have nothing to count.
            while texts.is_null(row) {
                row += 1;
                counts.end_row();
            }
            row += 1;
            let changed = self.scrub_text(text, out, &mut finder, &mut counts);
            counts.end_row();
            changed
        });
        Scrubbed {
            texts: scrubbed,
            found: counts.finish(),
        }
    }

    fn scrub_text(&self, text: &str, out: &mut String, finder: &mut Finder, counts: &mut Counts) -> bool {
        let found = finder.find(text);
        if found.is_empty() {
            return false;
        }
        found.iter().for_each(|found| counts.add(found.kind));
        if !self.replace(text, found, out) {
            return false;
        }
        for _ in 1..ROUNDS {
            let before = out.clone();
            let found = finder.find(&before);
            out.clear();
            if !self.replace(&before, found, out) {
                *out = before;
                break;
            }
            found
                .iter()
                .filter(|found| self.mode(found.kind) != Mode::Keep)
                .for_each(|found| counts.add(found.kind));
        }
        true
    }

    fn mode(&self, kind: Kind) -> Mode {
        self.modes[kind as usize]
    }

    /// Writes `text` to `out` with its findings replaced, and returns whether any was.
    fn replace(&self, text: &str, found: &[Found], out: &mut String) -> bool {
        let mut from = 0;
        let mut replaced = false;
        for &Found { kind, start, end } in found {
            let mode = self.mode(kind);
            if mode == Mode::Keep {
                continue;
            }
            replaced = true;
            out.push_str(&text[from..start]);
            from = end;
            match (mode, &self.key) {
                (Mode::Drop, _) => from = close_gap(text, out, end),
                (Mode::Hash, Some(key)) => push_pseudonym(out, kind, &key.pseudonym_of(kind, &text[start..end])),
                _ => out.push_str(kind.mask()),
            }
        }
        out.push_str(&text[from..]);
        replaced
    }
}

/// What comes after a finding that is taken out goes on from here: one blank stays between what stood around it.
fn close_gap(text: &str, out: &mut String, end: usize) -> usize {
    let blank = |c: Option<char>| c.is_none_or(char::is_whitespace);
    let (before, after) = (out.chars().next_back(), text[end..].chars().next());
    if blank(before) && after == Some(' ') {
        return end + 1;
    }
    if after.is_none() {
        out.truncate(out.trim_end_matches(' ').len());
    } else if !blank(before) && !blank(after) {
        out.push(' ');
    }
    end
}

fn push_pseudonym(out: &mut String, kind: Kind, code: &str) {
    if kind == Kind::Mention {
        out.push_str("@u_");
        out.push_str(code);
    } else {
        let mask = kind.mask();
        out.push_str(&mask[..mask.len() - 1]);
        out.push(':');
        out.push_str(code);
        out.push(']');
    }
}

/// Counts findings by row and kind.
struct Counts {
    row: [i32; Kind::ALL.len()],
    any: bool,
    kinds: StringBuilder,
    counts: Int32Builder,
    ends: Vec<i32>,
    rows: StringArray,
}

impl Counts {
    fn new(rows: &StringArray) -> Counts {
        let mut ends = Vec::with_capacity(rows.len() + 1);
        ends.push(0);
        let (kinds, counts) = (StringBuilder::new(), Int32Builder::new());
        Counts {
            row: [0; Kind::ALL.len()],
            any: false,
            kinds,
            counts,
            ends,
            rows: rows.clone(),
        }
    }

    fn add(&mut self, kind: Kind) {
        self.row[kind as usize] += 1;
        self.any = true;
    }

    fn end_row(&mut self) {
        let mut end = self.ends[self.ends.len() - 1];
        if self.any {
            for kind in Kind::ALL.into_iter().filter(|kind| self.row[*kind as usize] > 0) {
                self.kinds.append_value(kind.name());
                self.counts.append_value(self.row[kind as usize]);
                end += 1;
            }
            (self.row, self.any) = ([0; Kind::ALL.len()], false);
        }
        self.ends.push(end);
    }

    fn finish(mut self) -> ListArray {
        while self.ends.len() <= self.rows.len() {
            self.end_row();
        }
        let kinds: ArrayRef = Arc::new(self.kinds.finish());
        let items = structs(vec![("kind", kinds), ("count", Arc::new(self.counts.finish()))]);
        list(Arc::new(items), self.ends, self.rows.nulls().cloned())
    }
}

/// What is found in every text of a column: `List<Struct<kind: Utf8, start: Int32, end: Int32>>`, in order.
///
/// Offsets count characters (Unicode scalar values), the end exclusive. An empty list where nothing is found.
///
/// ```
/// # use arrow::array::{Array, StringArray};
/// let entities = tamiz_udfs::text::pii::entities(&StringArray::from(vec!["¿@ana?", "nothing"]));
/// assert_eq!((entities.value(0).len(), entities.value(1).len()), (1, 0));
/// ```
pub fn entities(texts: &StringArray) -> ListArray {
    let mut finder = Finder::default();
    let (mut kinds, mut starts, mut lengths) = (StringBuilder::new(), Vec::<i32>::new(), Vec::<i32>::new());
    let mut ends = Vec::with_capacity(texts.len() + 1);
    ends.push(0);
    for text in texts {
        if let Some(text) = text {
            let (mut bytes, mut characters) = (0, 0);
            for found in finder.find(text) {
                characters += text[bytes..found.start].chars().count() as i32;
                let length = text[found.start..found.end].chars().count() as i32;
                kinds.append_value(found.kind.name());
                starts.push(characters);
                lengths.push(length);
                characters += length;
                bytes = found.end;
            }
        }
        ends.push(starts.len() as i32);
    }
    let last: Int32Array = starts
        .iter()
        .zip(&lengths)
        .map(|(start, length)| start + length)
        .collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("kind", Arc::new(kinds.finish())),
        ("start", Arc::new(Int32Array::from(starts))),
        ("end", Arc::new(last)),
    ];
    list(Arc::new(structs(columns)), ends, texts.nulls().cloned())
}
