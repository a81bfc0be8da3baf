//! Looks through the forms that Unicode has for ASCII characters.

/// A text with ASCII characters for those that look like them, and the way back.
pub(super) struct Folded {
    pub(super) text: String,
    /// For every byte of `text`, where its character starts in the original.
    starts: Vec<u32>,
}

impl Folded {
    /// The span of the original that a span of the folded text came from. Empty spans do not occur.
    pub(super) fn original(&self, source: &str, start: usize, end: usize) -> (usize, usize) {
        let last = self.starts[end - 1] as usize;
        let width = source[last..].chars().next().map_or(0, char::len_utf8);
        (self.starts[start] as usize, last + width)
    }
}

/// Whether folding could change anything. Cheap, and rarely true.
pub(super) fn needs_fold(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.is_ascii() {
        return false;
    }
    let next = |at: usize, ahead: usize| bytes.get(at + ahead).copied().unwrap_or(0);
    (0..bytes.len()).any(|at| match bytes[at] {
        // No-break space and soft hyphen; Arabic digits, two sets.
        0xc2 => matches!(next(at, 1), 0xa0 | 0xad),
        0xd9 => matches!(next(at, 1), 0xa0..=0xa9),
        0xdb => matches!(next(at, 1), 0xb0..=0xb9),
        // Zero-width characters, blanks, dashes, word joiner, minus.
        0xe2 => match next(at, 1) {
            0x80 => matches!(next(at, 2), 0x80..=0x95 | 0xaf),
            0x81 => next(at, 2) == 0xa0,
            0x88 => next(at, 2) == 0x92,
            _ => false,
        },
        // Full-width forms and the byte order mark; Devanagari digits; mathematical digits.
        0xef => matches!(next(at, 1), 0xbb..=0xbd),
        0xe0 => next(at, 1) == 0xa5 && matches!(next(at, 2), 0xa6..=0xaf),
        0xf0 => next(at, 1) == 0x9d && next(at, 2) == 0x9f,
        _ => false,
    })
}

/// Folds a text.
pub(super) fn fold(text: &str) -> Folded {
    let mut folded = String::with_capacity(text.len());
    let mut starts = Vec::with_capacity(text.len() + 1);
    for (start, c) in text.char_indices() {
        let Some(c) = ascii(c) else { continue };
        folded.push(c);
        starts.resize(folded.len(), start as u32);
    }
    Folded { text: folded, starts }
}

/// The character that `c` is read as; `None` for those that are not seen.
fn ascii(c: char) -> Option<char> {
    let shifted = |zero: u32| char::from_u32(u32::from(b'0') + (c as u32 - zero) % 10);
    match c {
        '\0'..='\u{9f}' => Some(c),
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' => None,
        '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' => Some(' '),
        '\u{2010}'..='\u{2015}' | '\u{2212}' => Some('-'),
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xff01 + 0x21),
        '\u{660}'..='\u{669}' => shifted(0x660),
        '\u{6f0}'..='\u{6f9}' => shifted(0x6f0),
        '\u{966}'..='\u{96f}' => shifted(0x966),
        '\u{1d7ce}'..='\u{1d7ff}' => shifted(0x1d7ce),
        _ => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_alikes_become_ascii_and_spans_lead_back() {
        let source = "ñ ４\u{200b}1–𝟝";
        assert!(needs_fold(source));
        let folded = fold(source);
        assert_eq!(folded.text, "ñ 41-5");
        let (start, end) = folded.original(source, 3, folded.text.len());
        assert_eq!(&source[start..end], "４\u{200b}1–𝟝");
        let (start, end) = folded.original(source, 3, 4);
        assert_eq!(&source[start..end], "４");
    }

    #[test]
    fn whatever_folding_changes_is_announced() {
        for c in (0..=0x10ffff).filter_map(char::from_u32) {
            let text = c.to_string();
            assert!(needs_fold(&text) || fold(&text).text == text, "{c:?}");
        }
        for text in ["plain", "naïve café", "日本語", "😀 it’s “quoted”…", "привет"] {
            assert!(!needs_fold(text), "{text:?}");
        }
    }
}
