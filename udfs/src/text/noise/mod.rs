//! Tags for posts that say nothing, or the same over and over, and a rough score for spam.
//!
//! Tags are only marks: whether a tagged post is kept, dropped or sent to the dead letters is another decision, so
//! that it can be changed without reading the posts again.
//!
//! | tag | given when |
//! |---|---|
//! | `empty` | nothing is to be seen: no characters but white ones |
//! | `link_only` | there are links, and besides them only @mentions and signs |
//! | `too_short` | fewer letters, digits and emoji than [`NoiseRules::min_characters`], links and @mentions aside |
//! | `repetition` | one of [`NoiseRules`]'s limits on characters, words or lines is reached |
//!
//! The first three exclude each other. [`duplicates`](super::duplicates) are found across posts, not here.

mod shape;
mod spam;

use std::sync::Arc;

use arrow::array::{Array, ListArray, StringArray, StringBuilder};
use serde::{Deserialize, Serialize};

use self::shape::{Shape, Surveyor};
use super::columns::list;

pub use self::spam::spam_score;

/// Nothing is to be seen.
pub const EMPTY: &str = "empty";
/// Too little to be judged.
pub const TOO_SHORT: &str = "too_short";
/// A link without words.
pub const LINK_ONLY: &str = "link_only";
/// The same character, word or line over and over.
pub const REPETITION: &str = "repetition";
/// The same text as an earlier post; given by whoever runs [`duplicates`](super::duplicates).
pub const DUPLICATE: &str = "duplicate";

/// Where noise begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NoiseRules {
    /// Letters, digits and emoji that a post needs.
    pub min_characters: u32,
    /// The same letter, digit, emoji, `!` or `?` so many times in a row is repetition.
    pub same_characters: u32,
    /// The same word so many times in a row is repetition.
    pub same_words: u32,
    /// One word making up more than this share of eight or more words is repetition.
    pub word_share: f32,
    /// The same line so many times is repetition.
    pub same_lines: u32,
}

impl Default for NoiseRules {
    fn default() -> Self {
        NoiseRules {
            min_characters: 3,
            same_characters: 10,
            same_words: 4,
            word_share: 0.5,
            same_lines: 3,
        }
    }
}

/// Words from which on a share of them means something.
const MANY_WORDS: u32 = 8;

impl NoiseRules {
    fn tags(&self, shape: &Shape) -> impl Iterator<Item = &'static str> {
        let amount = if shape.blank {
            Some(EMPTY)
        } else if shape.links > 0 && shape.characters == 0 {
            Some(LINK_ONLY)
        } else {
            (shape.characters < self.min_characters).then_some(TOO_SHORT)
        };
        amount.into_iter().chain(self.repeats(shape).then_some(REPETITION))
    }

    fn repeats(&self, shape: &Shape) -> bool {
        shape.character_run >= self.same_characters
            || shape.word_run >= self.same_words
            || shape.equal_lines >= self.same_lines
            || (shape.words >= MANY_WORDS && shape.equal_words as f32 > self.word_share * shape.words as f32)
    }
}

/// The tags of every text of a column: `List<Utf8>`, an empty list where there is nothing to say.
///
/// ```
/// # use arrow::array::{Array, StringArray};
/// use tamiz_udfs::text::noise::{NoiseRules, tag};
/// let tags = tag(&StringArray::from(vec!["https://example.com/x", "hello there"]), &NoiseRules::default());
/// assert_eq!(tags.value(0).len(), 1); // link_only
/// assert_eq!(tags.value(1).len(), 0);
/// ```
pub fn tag(texts: &StringArray, rules: &NoiseRules) -> ListArray {
    let mut surveyor = Surveyor::default();
    let mut tags = StringBuilder::new();
    let mut ends = Vec::with_capacity(texts.len() + 1);
    let mut end = 0;
    ends.push(end);
    for text in texts {
        if let Some(text) = text {
            for tag in rules.tags(&surveyor.survey(text)) {
                tags.append_value(tag);
                end += 1;
            }
        }
        ends.push(end);
    }
    list(Arc::new(tags.finish()), ends, texts.nulls().cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(text: &str, rules: &NoiseRules) -> Vec<String> {
        let tags = tag(&StringArray::from(vec![text]), rules).value(0);
        let tags = tags.as_any().downcast_ref::<StringArray>().unwrap();
        tags.iter().map(|tag| tag.unwrap().to_owned()).collect()
    }

    fn check(cases: &[(&str, &[&str])]) {
        for (text, expected) in cases {
            assert_eq!(tags(text, &NoiseRules::default()), *expected, "{text:?}");
        }
    }

    #[test]
    fn posts_with_something_to_say_have_no_tags() {
        check(&[
            ("lol", &[]),
            ("今日は", &[]),
            ("😂😂😂", &[]),
            ("that was sooooo good!!!", &[]),
            ("no no no, not again https://example.com", &[]),
            ("#win", &[]),
            ("----------------\nA headline\n----------------", &[]),
            ("1000000", &[]),
        ]);
    }

    #[test]
    fn too_little_is_tagged_by_what_is_missing() {
        check(&[
            ("", &[EMPTY]),
            (" \n\u{200b} ", &[EMPTY]),
            ("ok", &[TOO_SHORT]),
            ("...", &[TOO_SHORT]),
            ("@ana_b @bob", &[TOO_SHORT]),
            ("👍", &[TOO_SHORT]),
            ("https://example.com/a?b=c", &[LINK_ONLY]),
            ("@ana: www.example.com/abc -- http://example.org", &[LINK_ONLY]),
        ]);
    }

    #[test]
    fn repetition_is_seen_in_characters_words_and_lines() {
        check(&[
            ("goooooooooool", &[REPETITION]),
            ("what!!!!!!!!!!!!", &[REPETITION]),
            ("😭😭😭😭😭😭😭😭😭😭 so sad", &[REPETITION]),
            ("buy Buy BUY buy now", &[REPETITION]),
            ("spam a spam b spam c spam d spam", &[REPETITION]),
            ("free money\nfree money\nfree money", &[REPETITION]),
            ("aaaaaaaaaaaa", &[REPETITION]),
        ]);
    }

    #[test]
    fn limits_come_from_the_rules() {
        let rules = NoiseRules {
            min_characters: 10,
            same_words: 2,
            ..Default::default()
        };
        assert_eq!(tags("go go", &rules), [TOO_SHORT, REPETITION]);
        let rules: NoiseRules = serde_json::from_str(r#"{"same_characters": 3}"#).unwrap();
        assert_eq!(tags("ooops", &rules), [REPETITION]);
        assert!(serde_json::from_str::<NoiseRules>(r#"{"same_chars": 3}"#).is_err());
    }

    #[test]
    fn null_rows_stay_null() {
        let tags = tag(
            &StringArray::from(vec![Some("hello"), None, Some("")]),
            &NoiseRules::default(),
        );
        assert_eq!(
            (tags.is_null(0), tags.is_null(1), tags.is_null(2)),
            (false, true, false)
        );
        assert_eq!(
            (tags.value_length(0), tags.value_length(1), tags.value_length(2)),
            (0, 0, 1)
        );
        assert!(spam_score(&StringArray::from(vec![None::<&str>])).is_null(0));
    }
}
