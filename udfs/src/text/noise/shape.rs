//! What can be counted about a post in one pass.

use crate::text::characters::is_emoji;
use crate::text::tokens::{Token, starts_word, token};

/// Counts over one text. Runs and repeats count the repeated thing itself: 1 where nothing repeats.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// No visible characters.
    pub(super) blank: bool,
    /// Letters, digits and emoji outside links and mentions.
    pub(super) characters: u32,
    pub(super) letters: u32,
    pub(super) capitals: u32,
    pub(super) words: u32,
    pub(super) links: u32,
    /// #tags and $cashtags.
    pub(super) tags: u32,
    /// `!` and amounts of money.
    pub(super) exclamations: u32,
    pub(super) money: u32,
    pub(super) character_run: u32,
    pub(super) word_run: u32,
    pub(super) equal_words: u32,
    pub(super) equal_lines: u32,
}

/// Surveys texts one after the other with the same buffers.
#[derive(Default)]
pub(super) struct Surveyor {
    words: Vec<u32>,
    lines: Vec<u64>,
}

impl Surveyor {
    pub(super) fn survey(&mut self, text: &str) -> Shape {
        self.words.clear();
        let mut pass = Pass::new(&mut self.words);
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            let marks = matches!(byte, b'@' | b'#' | b'$' | b'h' | b'H' | b'w' | b'W') && starts_word(bytes, at);
            if let Some((kind, end)) = marks.then(|| token(bytes, at)).flatten() {
                pass.token(kind, &text[at..end]);
                at = end;
            } else if byte.is_ascii() {
                pass.ascii(byte, bytes.get(at + 1).copied());
                at += 1;
            } else {
                let c = text[at..].chars().next().unwrap_or('\0');
                pass.other(c);
                at += c.len_utf8();
            }
        }
        let mut shape = pass.finish();
        shape.words = self.words.len() as u32;
        shape.equal_words = longest_run_sorted(&mut self.words);
        shape.equal_lines = self.equal_lines(text);
        shape
    }

    fn equal_lines(&mut self, text: &str) -> u32 {
        if memchr::memchr(b'\n', text.as_bytes()).is_none() {
            return 1;
        }
        self.lines.clear();
        let lines = text
            .split('\n')
            .map(str::trim)
            .filter(|line| line.chars().any(char::is_alphanumeric));
        self.lines
            .extend(lines.map(|line| xxhash_rust::xxh3::xxh3_64(line.as_bytes())));
        longest_run_sorted(&mut self.lines)
    }
}

fn longest_run_sorted<T: Ord>(items: &mut [T]) -> u32 {
    items.sort_unstable();
    items.chunk_by(|a, b| a == b).map(<[T]>::len).max().unwrap_or(0) as u32
}

/// State of one pass; a word is hashed (FNV-1a over lower case) as its characters come by.
struct Pass<'a> {
    shape: Shape,
    words: &'a mut Vec<u32>,
    word: Option<u32>,
    run: (char, u32),
    repeated: u32,
}

const FNV_BASE: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

impl<'a> Pass<'a> {
    fn new(words: &'a mut Vec<u32>) -> Pass<'a> {
        let shape = Shape {
            blank: true,
            ..Shape::default()
        };
        Pass {
            shape,
            words,
            word: None,
            run: ('\0', 0),
            repeated: 0,
        }
    }

    fn token(&mut self, kind: Token, text: &str) {
        self.end_word();
        self.run.1 = 0;
        self.shape.blank = false;
        match kind {
            Token::Link => self.shape.links += 1,
            Token::Mention => {}
            Token::Tag | Token::Cashtag => {
                self.shape.tags += 1;
                self.shape.characters += text.chars().count() as u32 - 1;
            }
        }
    }

    fn ascii(&mut self, byte: u8, next: Option<u8>) {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {
                self.shape.letters += 1;
                self.shape.capitals += u32::from(byte.is_ascii_uppercase());
                self.grow_word(byte.to_ascii_lowercase().into());
                self.same(byte.to_ascii_lowercase().into());
            }
            b'0'..=b'9' => {
                self.grow_word(byte.into());
                // A number with many noughts is no repetition.
                self.run.1 = 0;
            }
            b'\'' if self.word.is_some() => {}
            _ => {
                self.end_word();
                self.shape.blank &= byte.is_ascii_whitespace() || byte.is_ascii_control();
                match byte {
                    b'!' | b'?' => {
                        self.shape.exclamations += u32::from(byte == b'!');
                        self.same(byte.into());
                    }
                    b'$' if next.is_some_and(|next| next.is_ascii_digit()) => self.shape.money += 1,
                    _ => self.run.1 = 0,
                }
            }
        }
    }

    fn other(&mut self, c: char) {
        if c.is_alphanumeric() {
            self.shape.letters += 1;
            self.shape.capitals += u32::from(c.is_uppercase());
            self.grow_word(c.into());
            self.same(c);
        } else if is_emoji(c) {
            self.end_word();
            self.shape.blank = false;
            self.shape.characters += 1;
            self.same(c);
        } else if matches!(c, '\u{200d}' | '\u{fe0f}') {
            // Parts of emoji do not end their run.
        } else {
            self.end_word();
            self.run.1 = 0;
            self.shape.money += u32::from(matches!(c, '£' | '€' | '¥' | '₹' | '₿'));
            let invisible = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
            self.shape.blank &= c.is_whitespace() || c.is_control() || invisible;
        }
    }

    fn grow_word(&mut self, c: u32) {
        self.shape.blank = false;
        self.shape.characters += 1;
        self.word = Some((self.word.unwrap_or(FNV_BASE) ^ c).wrapping_mul(FNV_PRIME));
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        self.repeated = if self.words.last() == Some(&word) {
            self.repeated + 1
        } else {
            1
        };
        self.shape.word_run = self.shape.word_run.max(self.repeated);
        self.words.push(word);
    }

    fn same(&mut self, c: char) {
        self.run = if self.run.0 == c { (c, self.run.1 + 1) } else { (c, 1) };
        self.shape.character_run = self.shape.character_run.max(self.run.1);
    }

    fn finish(mut self) -> Shape {
        self.end_word();
        self.shape
    }
}
