//! Takes personal data out of text, author and id. After this stage no name is left in a row.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tamiz_schemas::columns::{AUTHOR, ID, PII, TEXT, TEXT_HASH};
use tamiz_schemas::posts;
use tamiz_udfs::text::hash::text_hash;
use tamiz_udfs::text::pii::{PseudonymKey, Scrubber};

use super::{need_text, text, with_columns, with_fields};
use crate::stage::{Outcome, Stage, StageError};

const NAME: &str = "scrub";

/// What happens to authors.
pub enum Authors {
    /// Each becomes a keyed pseudonym, the same for the same author everywhere.
    Pseudonym(PseudonymKey),
    /// The column stays empty.
    Drop,
}

impl Authors {
    /// What stands for an author in rows.
    fn name(&self, author: &str) -> Option<String> {
        match self {
            Authors::Drop => None,
            Authors::Pseudonym(key) => Some(format!("u_{}", key.pseudonym(author))),
        }
    }

    /// `id` with that in place of its author; `None` where no author is in it.
    pub fn replaced(&self, id: &str, author: &str) -> Option<String> {
        let places = places(id, author)?;
        Some(swapped(id, &places, self.name(author).as_deref().unwrap_or(NOBODY)))
    }
}

/// Stands in an identifier for an author who is dropped.
const NOBODY: &str = "author";

/// The stage.
pub struct Scrub {
    scrubber: Scrubber,
    authors: Authors,
}

impl Scrub {
    /// With a scrubber for texts and a rule for authors.
    pub fn new(scrubber: Scrubber, authors: Authors) -> Self {
        Scrub { scrubber, authors }
    }

    fn authors(&self, authors: &StringArray) -> StringArray {
        authors.iter().map(|author| self.authors.name(author?)).collect()
    }
}

/// Identifiers of some feeds contain the author (Bluesky's DID, Mastodon's user URL): there it is replaced as well.
fn ids(ids: &StringArray, authors: &StringArray, pseudonyms: &StringArray) -> StringArray {
    let mut out = StringBuilder::with_capacity(ids.len(), ids.value_data().len());
    for row in 0..ids.len() {
        let id = ids.value(row);
        let author = if authors.is_valid(row) { authors.value(row) } else { "" };
        let name = if pseudonyms.is_valid(row) {
            pseudonyms.value(row)
        } else {
            NOBODY
        };
        match places(id, author) {
            Some(places) => out.append_value(swapped(id, &places, name)),
            None => out.append_value(id),
        }
    }
    out.finish()
}

/// Where an identifier names its author; `None` where no author is in it.
fn places(id: &str, author: &str) -> Option<Vec<Range<usize>>> {
    if author.is_empty() {
        return None;
    }
    if id.contains(author) {
        return Some(words(id, author));
    }
    // Mastodon calls the people of other servers user@domain, and their posts https://domain/users/user/statuses/1, in
    // which upper and lower case may be others.
    let (local, domain) = author.strip_prefix('@').unwrap_or(author).split_once('@')?;
    if local.is_empty() || domain.is_empty() {
        return None;
    }
    let found = words(&id.to_ascii_lowercase(), &local.to_ascii_lowercase());
    (!found.is_empty()).then_some(found)
}

/// Where a word stands between delimiters: author 42 is not part of id 1425.
fn words(text: &str, word: &str) -> Vec<Range<usize>> {
    let stands_alone = |found: &Range<usize>| {
        let before = text[..found.start].chars().next_back();
        let after = text[found.end..].chars().next();
        before.is_none_or(|c| !c.is_alphanumeric()) && after.is_none_or(|c| !c.is_alphanumeric())
    };
    let found = text.match_indices(word).map(|(at, word)| at..at + word.len());
    found.filter(stands_alone).collect()
}

/// `id` with `name` at these places.
fn swapped(id: &str, places: &[Range<usize>], name: &str) -> String {
    let mut out = String::with_capacity(id.len());
    let mut last = 0;
    for place in places {
        out.push_str(&id[last..place.start]);
        out.push_str(name);
        last = place.end;
    }
    out.push_str(&id[last..]);
    out
}

fn fields() -> [Field; 5] {
    [
        Field::new(ID, DataType::Utf8, false),
        Field::new(AUTHOR, DataType::Utf8, true),
        Field::new(TEXT, DataType::Utf8, false),
        Field::new(
            PII,
            DataType::List(Arc::new(Field::new(
                "item",
                DataType::Struct(posts::pii_fields()),
                true,
            ))),
            true,
        ),
        Field::new(TEXT_HASH, DataType::Utf8, false),
    ]
}

impl Stage for Scrub {
    fn name(&self) -> &'static str {
        NAME
    }

    fn schema(&self, input: &Schema) -> Result<SchemaRef, StageError> {
        need_text(input, NAME, &[ID, AUTHOR, TEXT])?;
        Ok(with_fields(input, &fields()))
    }

    fn apply(&self, rows: RecordBatch) -> Result<Outcome, StageError> {
        let scrubbed = self.scrubber.scrub(text(&rows, NAME, TEXT)?);
        let raw = text(&rows, NAME, AUTHOR)?;
        let pseudonyms = self.authors(raw);
        let ids = ids(text(&rows, NAME, ID)?, raw, &pseudonyms);
        let hash = text_hash(&scrubbed.texts);
        let [id, author, words, pii, text_hash] = fields();
        let columns: Vec<(Field, arrow::array::ArrayRef)> = vec![
            (id, Arc::new(ids)),
            (author, Arc::new(pseudonyms)),
            (words, Arc::new(scrubbed.texts)),
            (pii, Arc::new(scrubbed.found)),
            (text_hash, Arc::new(hash)),
        ];
        Ok(Outcome::all(with_columns(rows, columns)?))
    }
}

#[cfg(test)]
mod tests {
    use super::{places, swapped};

    #[test]
    fn authors_are_taken_out_of_ids_only_as_whole_words() {
        for (id, author, expected) in [
            ("did:plc:abc/3k", "did:plc:abc", Some("u/3k")),
            (
                "https://a.example/users/ada/statuses/1",
                "ada",
                Some("https://a.example/users/u/statuses/1"),
            ),
            ("14253", "42", Some("14253")),
            ("ada", "ada", Some("u")),
            ("1", "ada", None),
            ("1", "", None),
        ] {
            check(id, author, expected);
        }
    }

    #[test]
    fn people_of_other_servers_are_taken_out_of_ids_by_their_name_there() {
        let id = "https://b.example/users/Ada_L/statuses/1";
        let expected = Some("https://b.example/users/u/statuses/1");
        for author in ["Ada_L@b.example", "ada_l@b.example", "@ADA_L@B.example"] {
            check(id, author, expected);
        }
        check("acct:ada@b.example/1", "@ada@b.example", Some("acct:u@b.example/1"));
        // The name of somebody else, no name, and no domain.
        for author in [
            "da_L@b.example",
            "Ada_@b.example",
            "@b.example",
            "@@b.example",
            "bob@",
            "@",
        ] {
            check(id, author, None);
        }
        check("https://b.example/users/İx/1", "x@b.example", None);
    }

    #[test]
    fn statuses_as_servers_send_them_keep_no_user_in_their_id() {
        for line in include_str!("../../../schemas/fixtures/v1/mastodon.expected.jsonl").lines() {
            let status: serde_json::Value = serde_json::from_str(line).unwrap();
            let (id, author) = (status["id"].as_str().unwrap(), status["author"].as_str().unwrap());
            let left = swapped(id, &places(id, author).unwrap(), "u").to_lowercase();
            assert!(!left.contains(author.split('@').next().unwrap()), "{left}");
        }
    }

    fn check(id: &str, author: &str, expected: Option<&str>) {
        let found = places(id, author).map(|places| swapped(id, &places, "u"));
        assert_eq!(found.as_deref(), expected, "{id} {author}");
    }
}
