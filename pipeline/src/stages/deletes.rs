//! How deletes and posts name each other, before anything flows on: no raw identifier of a person leaves `decode`.
//!
//! A delete names a post by its identifier, and the table's identifiers have the author replaced by the pseudonym; so has
//! the delete's. Where that cannot tell posts apart, both carry a key instead, `delete_key`, a keyed hash of the raw name:
//!
//! - feeds whose deletes name posts otherwise than by `id` (`input.key`);
//! - tombstones, which hold nothing but the message's key;
//! - tables without authors (`pii.authors = "drop"`), where the rest of an identifier may be that of somebody else's post,
//!   and anybody may choose it so: a delete must never reach a post of another author.

use std::fmt::Write;

use arrow::array::{Array, BinaryArray, StringArray};
use sha2::{Digest, Sha256};
use tamiz_schemas::mapping::Mapping;
use tamiz_udfs::text::pii::PseudonymKey;

use super::scrub::Authors;

/// How a delete names posts; at least one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// By `id`.
    pub id: Option<String>,
    /// By `delete_key`.
    pub key: Option<String>,
}

/// Names posts and deletes alike.
pub struct Naming {
    authors: Authors,
    key: Option<PseudonymKey>,
    /// Posts have a key of their own.
    has_keys: bool,
    /// Posts have authors, who may be part of what names them.
    has_authors: bool,
    /// Messages without a payload are deletes.
    tombstones: bool,
}

/// Why a delete cannot be understood: the key of the pseudonyms is missing.
const NO_KEY: &str = "its post is known by a keyed hash only, and there is no key: set TAMIZ_PII_KEY or `pii.key_file`";

impl Naming {
    /// For posts of this mapping, whose authors are treated so.
    pub fn new(mapping: &Mapping, tombstones: bool, authors: Authors, key: Option<PseudonymKey>) -> Self {
        Naming {
            authors,
            key,
            has_keys: mapping.key.is_some(),
            has_authors: mapping.author.is_some(),
            tombstones,
        }
    }

    /// Whether messages without a payload are deletes.
    pub fn tombstones(&self) -> bool {
        self.tombstones
    }

    /// What a delete record names.
    ///
    /// # Errors
    /// A sentence, where a key is needed and there is none.
    pub fn record(&self, name: &str, author: &str) -> Result<Named, &'static str> {
        if self.has_keys {
            return self.by_key(name.as_bytes());
        }
        match (self.authors.replaced(name, author), &self.authors) {
            (Some(_), Authors::Drop) => self.by_key(name.as_bytes()),
            (replaced, _) => Ok(Named {
                id: Some(replaced.unwrap_or_else(|| name.to_owned())),
                key: None,
            }),
        }
    }

    /// What a tombstone names: the key of its message. That may also be the identifier of posts that were written when
    /// tombstones were not asked for; but a tombstone knows no author, so where posts have some the name of one would
    /// stand in it, and only the hash is kept.
    ///
    /// # Errors
    /// As [`Naming::record`].
    pub fn tombstone(&self, key: &[u8]) -> Result<Named, &'static str> {
        let id = (!self.has_keys && !self.has_authors)
            .then(|| std::str::from_utf8(key).ok().map(str::to_owned))
            .flatten();
        Ok(Named {
            id,
            ..self.by_key(key)?
        })
    }

    fn by_key(&self, name: &[u8]) -> Result<Named, &'static str> {
        Ok(Named {
            id: None,
            key: Some(self.hash(name).ok_or(NO_KEY)?),
        })
    }

    /// The `delete_key` of posts: `own` are the keys of the mapping, `messages` those of Kafka.
    pub fn keys(
        &self,
        ids: &StringArray,
        authors: &StringArray,
        own: &StringArray,
        messages: &BinaryArray,
    ) -> StringArray {
        let dropped = matches!(self.authors, Authors::Drop);
        if self.key.is_none() || !(self.has_keys || self.tombstones || dropped) {
            return StringArray::new_null(ids.len());
        }
        let key = |row: usize| {
            if self.has_keys {
                return own
                    .is_valid(row)
                    .then(|| self.hash(own.value(row).as_bytes()))
                    .flatten();
            }
            if self.tombstones && messages.is_valid(row) {
                return self.hash(messages.value(row));
            }
            let (id, author) = (
                ids.is_valid(row).then(|| ids.value(row))?,
                authors.is_valid(row).then(|| authors.value(row))?,
            );
            self.authors.replaced(id, author).filter(|_| dropped)?;
            self.hash(id.as_bytes())
        };
        (0..ids.len()).map(key).collect()
    }

    /// 96 bits of HMAC-SHA256. One pseudonym has 48, which among a billion posts would mean two at a time.
    fn hash(&self, name: &[u8]) -> Option<String> {
        let key = self.key.as_ref()?;
        // Pseudonyms take upper and lower case for the same; hexadecimal digits do not mind.
        let digest = Sha256::digest(name).iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let half = |part: &str| key.pseudonym(&format!("delete key {part} {digest}"));
        Some(format!("k_{}{}", half("one"), half("two")))
    }
}

#[cfg(test)]
mod tests {
    use tamiz_schemas::mapping::Preset;

    use super::*;

    const DID: &str = "did:plc:abc";

    fn secret() -> PseudonymKey {
        PseudonymKey::new(&[7; 32]).unwrap()
    }

    fn naming(preset: Preset, tombstones: bool, drop: bool) -> Naming {
        let authors = if drop {
            Authors::Drop
        } else {
            Authors::Pseudonym(secret())
        };
        Naming::new(&preset.mapping(), tombstones, authors, Some(secret()))
    }

    /// The key of one post.
    fn key(naming: &Naming, id: &str, own: Option<&str>, message: Option<&[u8]>) -> Option<String> {
        let (ids, authors) = (StringArray::from(vec![id]), StringArray::from(vec![DID]));
        let (own, messages) = (StringArray::from(vec![own]), BinaryArray::from(vec![message]));
        naming
            .keys(&ids, &authors, &own, &messages)
            .iter()
            .next()
            .unwrap()
            .map(str::to_owned)
    }

    #[test]
    fn a_record_names_the_identifier_that_the_table_holds() {
        let naming = naming(Preset::Bluesky, false, false);
        let pseudonym = secret().pseudonym(DID);
        let named = naming.record("did:plc:abc/3k", DID).unwrap();
        assert_eq!(named.id, Some(format!("u_{pseudonym}/3k")));
        assert_eq!((named.key, key(&naming, "did:plc:abc/3k", None, None)), (None, None));
    }

    #[test]
    fn without_authors_a_post_is_known_by_a_key_that_nobody_else_can_have() {
        let naming = naming(Preset::Bluesky, false, true);
        let one = naming.record("did:plc:abc/3k", DID).unwrap();
        assert_eq!((one.id, &one.key), (None, &key(&naming, "did:plc:abc/3k", None, None)));
        // Another author with the same record key.
        let other = naming.record("did:plc:mallory/3k", "did:plc:mallory").unwrap();
        assert_ne!(other.key, one.key);
        // An identifier without its author tells enough.
        let plain = naming.record("1700", DID).unwrap();
        assert_eq!(
            (plain.id.as_deref(), key(&naming, "1700", None, None)),
            (Some("1700"), None)
        );
    }

    #[test]
    fn feeds_with_other_names_for_their_posts_go_by_these() {
        let naming = naming(Preset::Mastodon, false, false);
        let named = naming.record("114", "").unwrap();
        assert_eq!(
            (named.id, named.key),
            (None, key(&naming, "https://a.example/1", Some("114"), None))
        );
        assert_eq!(key(&naming, "https://a.example/1", None, None), None);
    }

    #[test]
    fn a_tombstone_goes_by_the_key_of_its_message() {
        let naming = naming(Preset::Tamiz, true, false);
        let named = naming.tombstone(b"p-1").unwrap();
        assert_eq!(named.key, key(&naming, "other", None, Some(b"p-1")));
        assert_ne!(
            naming.tombstone(b"P-1").unwrap().key,
            naming.tombstone(b"p-1").unwrap().key,
            "case counts"
        );
    }

    #[test]
    fn a_tombstone_keeps_its_key_as_it_is_only_where_nobody_can_be_named_in_it() {
        for preset in Preset::ALL {
            let named = naming(preset, true, false).tombstone(b"did:plc:abc/3k").unwrap();
            assert!(named.id.is_none() && named.key.is_some(), "{}", preset.name());
        }
        let mut mapping = Preset::News.mapping();
        mapping.author = None;
        let naming = Naming::new(&mapping, true, Authors::Drop, Some(secret()));
        assert_eq!(naming.tombstone(b"p-1").unwrap().id.as_deref(), Some("p-1"));
        assert_eq!(naming.tombstone(&[0xff]).unwrap().id, None);
    }

    #[test]
    fn keys_are_long_and_say_nothing() {
        let naming = naming(Preset::Mastodon, false, false);
        let hash = naming.record("114", "").unwrap().key.unwrap();
        assert!(
            hash.len() == 26 && hash.starts_with("k_") && !hash.contains("114"),
            "{hash}"
        );
        let keyless = Naming::new(&Preset::Mastodon.mapping(), true, Authors::Drop, None);
        assert_eq!(keyless.record("114", ""), Err(NO_KEY));
        assert_eq!(keyless.tombstone(b"114"), Err(NO_KEY));
        assert_eq!(key(&keyless, "1", Some("114"), None), None);
    }
}
