//! Takes personal data out of text, author and id. After this stage no name is left in a row.

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
        if author.is_empty() || !id.contains(author) {
            return None;
        }
        replaced(id, author, self.name(author).as_deref().unwrap_or(NOBODY))
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
        match replaced(id, author, name) {
            Some(id) => out.append_value(id),
            None => out.append_value(id),
        }
    }
    out.finish()
}

/// `id` with `name` in place of `author`, where that stands between delimiters: author 42 is not part of id 1425.
fn replaced(id: &str, author: &str, name: &str) -> Option<String> {
    if author.is_empty() || !id.contains(author) {
        return None;
    }
    let mut out = String::with_capacity(id.len());
    let mut last = 0;
    for (at, found) in id.match_indices(author) {
        let before = id[..at].chars().next_back();
        let after = id[at + found.len()..].chars().next();
        if before.is_none_or(|c| !c.is_alphanumeric()) && after.is_none_or(|c| !c.is_alphanumeric()) {
            out.push_str(&id[last..at]);
            out.push_str(name);
            last = at + found.len();
        }
    }
    out.push_str(&id[last..]);
    Some(out)
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
    use super::replaced;

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
            assert_eq!(replaced(id, author, "u").as_deref(), expected, "{id} {author}");
        }
    }
}
