//! Whose rows go: a person's, in posts and deletes here and in dead letters beside this.
//!
//! Posts know authors by their pseudonym, and so do deletes where the author is part of a post's identifier. The payload
//! of a dead letter is as it came: its author is found as the input mapping says, and where that finds none, by looking for
//! the name in the bytes. A dead letter without its payload cannot be told to be anybody's.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use arrow::array::{AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::error::ArrowError;
use tamiz_schemas::columns::{AUTHOR, DUPLICATE_OF, ID, TEXT};
use tamiz_udfs::text::pii::{Kind, Mode, PseudonymKey};

use crate::config::{AuthorMode, Config, KEY_VARIABLE};
use crate::jobs::JobError;
use crate::table::care::Select;

/// Digits of a pseudonym.
const DIGITS: usize = 12;

/// Somebody who is to be forgotten.
#[derive(Debug, Clone)]
pub(super) struct Person {
    /// As posts have it; `None` where posts keep no authors.
    pseudonym: Option<String>,
    /// As the source has it; `None` where only the pseudonym was given.
    name: Option<String>,
    key: Option<PseudonymKey>,
}

impl Person {
    /// # Errors
    /// A name, but no key to make it a pseudonym with.
    pub(super) fn new(author: &str, config: &Config) -> Result<Person, JobError> {
        let author = author.trim();
        if author.trim_start_matches('@').is_empty() {
            return Err(JobError::Usage(
                "--author is empty: name the author whose rows are to go".into(),
            ));
        }
        let key = config.key().map_err(JobError::Usage)?;
        if is_pseudonym(author) {
            return Ok(Person {
                pseudonym: Some(author.to_owned()),
                name: None,
                key,
            });
        }
        let pseudonym = key.as_ref().map(|key| format!("u_{}", key.pseudonym(author)));
        if pseudonym.is_none() && config.pii.authors == AuthorMode::Hash {
            return Err(JobError::Usage(format!(
                "posts know authors by pseudonyms only, and a name becomes one by the key: set {KEY_VARIABLE} or \
                 `pii.key_file` to the one the table was written with, or give the pseudonym (u_ and {DIGITS} digits)"
            )));
        }
        Ok(Person {
            pseudonym,
            name: Some(author.trim_start_matches('@').to_lowercase()),
            key,
        })
    }

    /// Whether posts can hold rows of them at all.
    pub(super) fn has_pseudonym(&self) -> bool {
        self.pseudonym.is_some()
    }

    /// Whether this is what the source calls them; `None` where that cannot be told.
    pub(super) fn is(&self, author: &str) -> Option<bool> {
        match (&self.key, &self.pseudonym, &self.name) {
            (Some(key), Some(pseudonym), _) => Some(*pseudonym == format!("u_{}", key.pseudonym(author))),
            (_, _, Some(name)) => Some(author.trim().trim_start_matches('@').to_lowercase() == *name),
            _ => None,
        }
    }

    /// Whether their name stands in these bytes, as a word; `None` where only the pseudonym is known.
    pub(super) fn is_named_in(&self, bytes: &[u8]) -> Option<bool> {
        let name = self.name.as_deref()?;
        let text = String::from_utf8_lossy(bytes).to_lowercase();
        Some(has_word(&text, name) || (!name.is_ascii() && has_word(&text, &escaped(name))))
    }

    /// Whether their name stands in these bytes at all; not so where only the pseudonym is known.
    pub(super) fn occurs_in(&self, bytes: &[u8]) -> bool {
        let name = self.name.as_deref();
        name.is_some_and(|name| String::from_utf8_lossy(bytes).to_lowercase().contains(name))
    }
}

/// `u_` and hexadecimal digits.
fn is_pseudonym(author: &str) -> bool {
    author.strip_prefix("u_").is_some_and(|digits| {
        digits.len() == DIGITS
            && digits
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// Author 42 is not named by 1425.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, found)| {
        let before = text[..at].chars().next_back();
        let after = text[at + found.len()..].chars().next();
        before.is_none_or(|c| !c.is_alphanumeric()) && after.is_none_or(|c| !c.is_alphanumeric())
    })
}

/// As JSON writers escape what is not ASCII.
fn escaped(name: &str) -> String {
    let mut units = [0; 2];
    let escape = |c: char| match c.is_ascii() {
        true => c.to_string(),
        false => c
            .encode_utf16(&mut units)
            .iter()
            .map(|unit| format!("\\u{unit:04x}"))
            .collect(),
    };
    name.chars().map(escape).collect()
}

/// The column as text, where there is such a one.
fn text<'b>(rows: &'b RecordBatch, column: &str) -> Option<&'b StringArray> {
    rows.column_by_name(column)?.as_string_opt()
}

pub(super) fn none(rows: &RecordBatch) -> BooleanArray {
    BooleanArray::from(vec![false; rows.num_rows()])
}

/// Their posts. Rows of others that were marked as duplicates of one lose that mark's reference: it names the post.
pub(super) struct Posts {
    person: Person,
    /// Posts of theirs; others refer to them by these.
    ids: RwLock<HashSet<String>>,
    /// Whether texts of others may name them: where mentions are masked, none does.
    texts: bool,
}

impl Posts {
    pub(super) fn new(person: Person, config: &Config) -> Posts {
        let mentions = config.pii.kinds.get(&Kind::Mention).unwrap_or(&config.pii.default);
        Posts {
            person,
            ids: RwLock::default(),
            texts: matches!(mentions, Mode::Hash | Mode::Keep),
        }
    }
}

impl Select for Posts {
    fn columns(&self) -> Vec<&'static str> {
        let always = [AUTHOR, ID, DUPLICATE_OF];
        always.into_iter().chain(self.texts.then_some(TEXT)).collect()
    }

    fn goes(&self, rows: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let (Some(authors), Some(pseudonym)) = (text(rows, AUTHOR), &self.person.pseudonym) else {
            return Ok(none(rows));
        };
        Ok(authors.iter().map(|author| Some(author == Some(pseudonym))).collect())
    }

    fn remember(&self, rows: &RecordBatch) {
        let ids = text(rows, ID).into_iter().flat_map(|ids| ids.iter().flatten());
        let mut known = self.ids.write().unwrap_or_else(PoisonError::into_inner);
        known.extend(ids.map(str::to_owned));
    }

    fn refers(&self, rows: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let Some(references) = text(rows, DUPLICATE_OF) else {
            return Ok(none(rows));
        };
        let known = self.ids.read().unwrap_or_else(PoisonError::into_inner);
        let refers = |id: &str| {
            let is_theirs = |pseudonym: &String| id.contains(pseudonym.as_str());
            known.contains(id) || self.person.pseudonym.as_ref().is_some_and(is_theirs)
        };
        Ok(references.iter().map(|id| Some(id.is_some_and(refers))).collect())
    }

    fn without_references(&self, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let refers = self.refers(&rows)?;
        if refers.true_count() == 0 {
            return Ok(rows);
        }
        let (schema, mut columns, _) = rows.into_parts();
        let at = schema.index_of(DUPLICATE_OF)?;
        columns[at] = arrow::compute::nullif(&columns[at], &refers)?;
        RecordBatch::try_new(schema, columns)
    }

    fn notable(&self, rows: &RecordBatch) -> Result<u64, ArrowError> {
        let Some(texts) = text(rows, TEXT).filter(|_| self.texts) else {
            return Ok(0);
        };
        let digits = self.person.pseudonym.as_deref().map(|pseudonym| &pseudonym[2..]);
        let names = |text: &str| {
            digits.is_some_and(|digits| text.contains(digits)) || self.person.is_named_in(text.as_bytes()) == Some(true)
        };
        Ok(texts.iter().flatten().filter(|text| names(text)).count() as u64)
    }
}

/// Deletes of their posts, where these have the author in their identifier.
pub(super) struct TakenBack(pub(super) Person);

impl Select for TakenBack {
    fn columns(&self) -> Vec<&'static str> {
        vec![ID]
    }

    fn goes(&self, rows: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let (Some(ids), Some(pseudonym)) = (text(rows, ID), &self.0.pseudonym) else {
            return Ok(none(rows));
        };
        let is_theirs = |id: &str| id.contains(pseudonym.as_str());
        Ok(ids.iter().map(|id| Some(id.is_some_and(is_theirs))).collect())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Somebody who is called so, or only known by the key.
    pub(in crate::jobs::table) fn person(name: Option<&str>, key: Option<&[u8]>) -> Person {
        let key = key.map(|key| PseudonymKey::new(key).unwrap());
        Person {
            pseudonym: key.as_ref().map(|key| format!("u_{}", key.pseudonym("ana_b"))),
            name: name.map(str::to_owned),
            key,
        }
    }

    #[test]
    fn pseudonyms_are_told_from_names() {
        assert!(is_pseudonym("u_0123456789ab"));
        for name in [
            "ana",
            "u_",
            "u_0123456789AB",
            "u_0123456789ab0",
            "@u_0123456789ab",
            "0123456789ab",
        ] {
            assert!(!is_pseudonym(name), "{name}");
        }
    }

    #[test]
    fn names_are_found_as_json_escapes_them() {
        let person = person(Some("ñandú"), None);
        assert_eq!(person.is_named_in(br#"{"a":"\u00F1and\u00fa","#), Some(true));
        assert_eq!(person.is_named_in("{\"a\":\"ÑANDÚ\"".as_bytes()), Some(true));
    }

    #[test]
    fn deletes_are_theirs_whose_identifier_holds_their_pseudonym() {
        let person = person(Some("ana_b"), Some(&[7; 32]));
        let own = format!("{}/3k", person.pseudonym.clone().unwrap());
        let ids = StringArray::from(vec![Some(own.as_str()), Some("u_0123456789ab/3k"), Some("p-1"), None]);
        let rows = RecordBatch::try_from_iter([(ID, std::sync::Arc::new(ids) as arrow::array::ArrayRef)]).unwrap();
        let goes = |person: Person| {
            TakenBack(person)
                .goes(&rows)
                .unwrap()
                .iter()
                .flatten()
                .collect::<Vec<_>>()
        };
        assert_eq!(goes(person), [true, false, false, false]);
        assert_eq!(
            goes(super::tests::person(Some("ana_b"), None)),
            [false; 4],
            "without a key nobody is known"
        );
    }
}
