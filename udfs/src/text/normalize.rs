//! One spelling for what looks alike.
//!
//! - Unicode normalization form C. Compatibility forms (ligatures, full-width letters) are content and stay.
//! - HTML references that end in a semicolon are decoded until none is left: feeds escape once, twice or not at all,
//!   and only the end of that is a fixed point. `&amp;lt;` thus becomes `<`; a lone `&` or `AT&T` stays.
//! - Controls, zero-width characters, soft hyphens, bidirectional controls and non-characters go. Joiners stay inside
//!   emoji sequences and between letters of scripts that need them, variation selectors after characters that have
//!   variants: an emoji keeps its look, a digit cannot hide behind them.
//! - A run of white characters becomes one blank, or one line feed if it holds a line break, for lines are structure
//!   (lists, quotations, repetition). None is left at the ends.
//!
//! Links and @mentions stay as they are. Normalizing twice changes nothing more. Cost: one pass over bytes for ASCII
//! text in which nothing is to be done, and no allocation.

use arrow::array::StringArray;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::characters::{Class, class, is_plain, joins, selects};
use super::columns::rewrite;

/// Longest reference that is decoded, from `&` to `;`: the longest name has 31 letters.
const LONGEST_REFERENCE: usize = 33;

/// Normalizes every text of a column; see the [module](self) for what that means.
///
/// ```
/// # use arrow::array::StringArray;
/// let texts = StringArray::from(vec!["Fish &amp; chips \t\u{200b}  at\u{a0}8 "]);
/// assert_eq!(tamiz_udfs::text::normalize::normalize(&texts).value(0), "Fish & chips at 8");
/// ```
pub fn normalize(texts: &StringArray) -> StringArray {
    rewrite(texts, |text, out| {
        if is_normal(text) {
            return false;
        }
        normalize_text(text, out);
        *text != **out
    })
}

/// Whether there is surely nothing to do. `false` means that one has to look closer.
fn is_normal(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return true;
    };
    if first.is_ascii_whitespace() || last.is_ascii_whitespace() {
        return false;
    }
    let mut reference = false;
    let mut white = false;
    let mut ascii = true;
    for &byte in bytes {
        match byte {
            b' ' | b'\n' if white => return false,
            b' ' | b'\n' => white = true,
            0..=0x1f | 0x7f => return false,
            b';' if reference => return false,
            b'&' => (reference, white) = (true, false),
            0x80.. => (ascii, white) = (false, false),
            _ => white = false,
        }
    }
    ascii || text.chars().all(|c| c.is_ascii() || is_plain(c))
}

fn normalize_text(text: &str, out: &mut String) {
    Filter::new(out, Joiners::Kept).text(text);
    if !compose(out) {
        return;
    }
    // Marks have moved, and a joiner may now stand between others than it was kept for. Such text has no meaning in
    // any script; without joiners it is a fixed point after one more pass, however it was made.
    let mut again = String::with_capacity(out.len());
    Filter::new(&mut again, Joiners::Kept).text(out);
    if again != *out {
        out.clear();
        Filter::new(out, Joiners::Removed).text(&again);
        compose(out);
    }
}

/// Brings `text` into NFC and returns whether it was not so. Removing what stood between a letter and its accent, or
/// decoding an accent, makes work here; nothing that comes out of it makes work for the filter, joiners apart.
fn compose(text: &mut String) -> bool {
    if is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return false;
    }
    let composed: String = text.nfc().collect();
    let changed = composed != *text;
    *text = composed;
    changed
}

/// What becomes of joiners that have a meaning where they stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joiners {
    Kept,
    Removed,
}

/// Writes characters to `out`, holding back what depends on the next one.
struct Filter<'a> {
    out: &'a mut String,
    /// White characters since the last visible one.
    gap: Option<char>,
    /// A joiner, or the emoji selector after a digit: kept only if the next character calls for it.
    pending: Option<char>,
    joiners: Joiners,
}

impl<'a> Filter<'a> {
    fn new(out: &'a mut String, joiners: Joiners) -> Filter<'a> {
        Filter {
            out,
            gap: None,
            pending: None,
            joiners,
        }
    }

    fn text(&mut self, text: &str) {
        for c in text.chars() {
            self.push(c);
        }
    }

    fn push(&mut self, c: char) {
        match class(c) {
            Class::Keep => self.keep(c),
            Class::Remove => {}
            Class::Break => self.gap = Some('\n'),
            Class::Blank => self.gap = self.gap.or(Some(' ')),
            Class::Joiner => self.pending = Some(c),
            Class::Selector => match self.last() {
                Some(base) if selects(base, c) => self.out.push(c),
                Some('0'..='9' | '#' | '*') if c == '\u{fe0f}' => self.pending = Some(c),
                _ => {}
            },
        }
    }

    /// The character that the next one follows directly.
    fn last(&self) -> Option<char> {
        if self.gap.is_some() || self.pending.is_some() {
            None
        } else {
            self.out.chars().next_back()
        }
    }

    fn keep(&mut self, c: char) {
        // NFC knows these three as ASCII characters; they must be so before references are sought.
        let c = match c {
            '\u{37e}' => ';',
            '\u{1fef}' => '`',
            '\u{212a}' => 'K',
            _ => c,
        };
        let pending = self.pending.take();
        if let Some(gap) = self.gap.take() {
            if !self.out.is_empty() {
                self.out.push(gap);
            }
        } else if let (Some(held), Some(before)) = (pending, self.out.chars().next_back()) {
            let keycap = held == '\u{fe0f}' && c == '\u{20e3}';
            let joined = self.joiners == Joiners::Kept && held != '\u{fe0f}' && joins(before, held, c);
            if keycap || joined {
                self.out.push(held);
            }
        }
        self.out.push(c);
        if c == ';' {
            self.decode();
        }
    }

    /// Replaces a reference that has just been completed by its characters. They take the same way in, so that they
    /// may complete another one: no reference is ever left behind in `out`.
    fn decode(&mut self) {
        let end = self.out.len();
        let window = &self.out.as_bytes()[end.saturating_sub(LONGEST_REFERENCE)..];
        let Some(back) = memchr::memrchr(b'&', window).map(|at| window.len() - at) else {
            return;
        };
        let Some(decoded) = reference(&self.out[end - back..]) else {
            return;
        };
        self.out.truncate(end - back);
        if let Some(white) = self.out.chars().next_back().filter(|c| matches!(c, ' ' | '\n')) {
            self.out.pop();
            self.gap = Some(white);
        }
        for c in decoded.into_iter().flatten() {
            self.push(c);
        }
    }
}

/// The one or two characters that a whole reference, from `&` to `;`, stands for.
fn reference(text: &str) -> Option<[Option<char>; 2]> {
    let decoded = htmlize::unescape(text);
    let mut chars = decoded.chars();
    let pair = [chars.next(), chars.next()];
    // Old names are also decoded without their semicolon, in front of other letters; those leave three characters.
    (chars.next().is_none() && decoded != text).then_some(pair)
}

#[cfg(test)]
#[path = "normalize_tests.rs"]
mod tests;
