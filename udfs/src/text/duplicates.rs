//! Exact duplicates inside a bounded window: who posted the same text first.
//!
//! A window remembers the first post of each of the last `capacity` different texts, in the order they came, and
//! forgets the oldest when it is full. Every look-up and insertion is O(1). The answer depends on nothing but the
//! posts and their order, so that a stream that is read again gives the same marks.
//!
//! Memory: about 100 bytes a text with ids of 20 to 30 bytes (ring 40, id 32, index 20 to 35), that is 26 MB for the
//! default capacity; the window grows as it fills.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use arrow::array::{Array, StringArray, StringBuilder, TimestampMicrosecondArray, UInt64Array};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// How far back duplicates are sought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DuplicateRules {
    /// Number of different texts that are remembered; 0 finds no duplicates.
    pub capacity: usize,
    /// A text that comes back later than this after its first post, by event time, is new again.
    pub max_age_seconds: u64,
}

impl Default for DuplicateRules {
    fn default() -> Self {
        DuplicateRules {
            capacity: 262_144,
            max_age_seconds: 24 * 60 * 60,
        }
    }
}

/// XXH3-64 of every text: the keys that [`Window::mark`] compares.
pub fn keys(texts: &StringArray) -> UInt64Array {
    texts
        .iter()
        .map(|text| text.map(|text| xxh3_64(text.as_bytes())))
        .collect()
}

struct First {
    key: u64,
    at: i64,
    id: Box<str>,
}

/// The texts seen lately, with the post that brought each first.
pub struct Window {
    capacity: usize,
    max_age_micros: i64,
    ring: Vec<First>,
    oldest: usize,
    places: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
}

impl Window {
    /// An empty window.
    pub fn new(rules: DuplicateRules) -> Window {
        let micros = rules.max_age_seconds.saturating_mul(1_000_000);
        Window {
            capacity: rules.capacity.min(u32::MAX as usize),
            max_age_micros: i64::try_from(micros).unwrap_or(i64::MAX),
            ring: Vec::new(),
            oldest: 0,
            places: HashMap::default(),
        }
    }

    /// For every row the id of the post that brought its text first, NULL where the text is new.
    ///
    /// Rows are taken in order. A post is never a duplicate of itself: a row that comes a second time with the same
    /// id is new. Rows without a key or an id are new and are not remembered; a row without a time matches any age.
    pub fn mark(&mut self, keys: &UInt64Array, ids: &StringArray, at: &TimestampMicrosecondArray) -> StringArray {
        let mut out = StringBuilder::with_capacity(keys.len(), 0);
        for row in 0..keys.len() {
            if keys.is_null(row) || ids.is_null(row) {
                out.append_null();
                continue;
            }
            let at = at.is_valid(row).then(|| at.value(row));
            out.append_option(self.first(keys.value(row), ids.value(row), at));
        }
        out.finish()
    }

    /// Number of texts that are remembered.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    fn first(&mut self, key: u64, id: &str, at: Option<i64>) -> Option<&str> {
        if self.capacity == 0 {
            return None;
        }
        let place = self.places.get(&key).map(|place| *place as usize);
        if let Some(place) = place {
            let first = &self.ring[place];
            let age = at.map_or(0, |at| at.saturating_sub(first.at));
            if age <= self.max_age_micros {
                // An older post that comes late leaves the first one in its place, and so does one that comes again.
                let known = age >= -self.max_age_micros && *first.id != *id;
                return known.then(|| &*self.ring[place].id);
            }
        }
        let at = at
            .or_else(|| place.map(|place| self.ring[place].at))
            .unwrap_or(i64::MAX);
        self.remember(First { key, at, id: id.into() });
        None
    }

    fn remember(&mut self, first: First) {
        let key = first.key;
        let place = if self.ring.len() < self.capacity {
            self.ring.push(first);
            self.ring.len() - 1
        } else {
            let place = self.oldest;
            let forgotten = std::mem::replace(&mut self.ring[place], first).key;
            // The text may have come back after its time, and then its newer entry stands elsewhere.
            if self.places.get(&forgotten) == Some(&(place as u32)) {
                self.places.remove(&forgotten);
            }
            self.oldest = (place + 1) % self.capacity;
            place
        };
        self.places.insert(key, place as u32);
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600;

    /// Rows are (text, id, second); one batch per inner slice.
    fn check(rules: DuplicateRules, batches: &[&[(&str, &str, i64)]], expected: &[Option<&str>]) {
        let mut window = Window::new(rules.clone());
        let mut got = Vec::new();
        for rows in batches {
            let texts: StringArray = rows.iter().map(|row| Some(row.0)).collect();
            let ids: StringArray = rows.iter().map(|row| Some(row.1)).collect();
            let at: TimestampMicrosecondArray = rows.iter().map(|row| Some(row.2 * 1_000_000)).collect();
            let marks = window.mark(&keys(&texts), &ids, &at);
            got.extend(marks.iter().map(|mark| mark.map(str::to_owned)));
            assert!(window.len() <= rules.capacity);
        }
        let got: Vec<Option<&str>> = got.iter().map(Option::as_deref).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn the_first_post_is_named_across_batches() {
        let rules = DuplicateRules::default();
        check(
            rules,
            &[
                &[("a", "1", 0), ("b", "2", 1), ("a", "3", 2)],
                &[("a", "4", 3), ("b", "5", 4)],
            ],
            &[None, None, Some("1"), Some("1"), Some("2")],
        );
    }

    #[test]
    fn a_full_window_forgets_the_oldest() {
        let rules = DuplicateRules {
            capacity: 2,
            ..Default::default()
        };
        let rows = [
            ("a", "1", 0),
            ("b", "2", 0),
            ("c", "3", 0),
            ("b", "4", 0),
            ("a", "5", 0),
            ("c", "6", 0),
        ];
        check(rules, &[&rows], &[None, None, None, Some("2"), None, Some("3")]);
    }

    #[test]
    fn a_text_is_new_again_after_its_time() {
        let rules = DuplicateRules {
            capacity: 3,
            max_age_seconds: HOUR as u64,
        };
        let rows = [
            ("a", "1", 0),
            ("a", "2", HOUR),
            ("a", "3", HOUR + 1),
            ("a", "4", HOUR + 2),
            ("a", "5", 1),
        ];
        check(rules, &[&rows], &[None, Some("1"), None, Some("3"), Some("3")]);
    }

    #[test]
    fn a_renewed_text_survives_the_end_of_its_old_entry() {
        let rules = DuplicateRules {
            capacity: 2,
            max_age_seconds: 10,
        };
        let rows = [("a", "1", 0), ("a", "2", 20), ("b", "3", 21), ("a", "4", 22)];
        check(rules, &[&rows], &[None, None, None, Some("2")]);
    }

    #[test]
    fn a_post_that_comes_again_is_not_its_own_duplicate() {
        check(
            DuplicateRules::default(),
            &[&[("a", "1", 0)], &[("a", "1", 0), ("a", "2", 1)]],
            &[None, None, Some("1")],
        );
    }

    #[test]
    fn late_posts_match_within_the_age_and_are_new_beyond_it() {
        let rules = DuplicateRules {
            capacity: 8,
            max_age_seconds: 10,
        };
        check(
            rules,
            &[&[("a", "1", 100), ("a", "2", 95), ("a", "3", 1), ("a", "4", 105)]],
            &[None, Some("1"), None, Some("1")],
        );
    }

    #[test]
    fn nothing_is_remembered_without_key_or_id_or_capacity() {
        let at: TimestampMicrosecondArray = vec![None, None, None, None].into();
        let texts = StringArray::from(vec![None, None, Some("a"), Some("a")]);
        let ids = StringArray::from(vec![Some("1"), Some("2"), None, Some("4")]);
        let mut window = Window::new(DuplicateRules::default());
        assert_eq!(window.mark(&keys(&texts), &ids, &at).null_count(), 4);
        assert_eq!(window.len(), 1);
        check(
            DuplicateRules {
                capacity: 0,
                ..Default::default()
            },
            &[&[("a", "1", 0), ("a", "2", 0)]],
            &[None, None],
        );
    }
}
