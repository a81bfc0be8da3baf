//! The keys that there are: those of the documented defaults, and the few that have no default.

use tamiz_udfs::text::pii::Kind;
use toml::{Table, Value};

/// Keys that have no default, so that default.toml only tells of them.
pub(super) const WITHOUT_DEFAULT: [&str; 12] = [
    "input.id",
    "input.source",
    "input.created_at",
    "input.author",
    "input.text",
    "input.text_format",
    "input.only",
    "input.arrived",
    "input.key",
    "input.deletes.when",
    "input.deletes.id",
    "input.deletes.author",
];

/// Sections whose keys stand in no list of ours, and that only the file can set: a variable has no dots.
pub(super) const IN_FILE: [&str; 2] = ["source.kafka.options", "sink.storage"];

/// Sections whose keys are told by their type or by [`super::Config::check`].
const TYPED: [&str; 2] = ["noise.actions", "pii.kinds"];

/// Whether a key that default.toml does not write out may stand in a file; `above` is its section.
pub(super) fn is_free(key: &str, above: &str) -> bool {
    WITHOUT_DEFAULT.contains(&key) || IN_FILE.contains(&above) || TYPED.contains(&above)
}

/// Every key of a table; a section that is empty counts as one.
pub(super) fn all(table: &Table, prefix: &str) -> Vec<String> {
    let below = table.iter().flat_map(|(key, value)| {
        let here = path(prefix, key);
        match value {
            Value::Table(inner) if !inner.is_empty() => all(inner, &here),
            _ => vec![here],
        }
    });
    below.collect()
}

/// Every section of a table.
pub(super) fn sections(table: &Table, prefix: &str) -> Vec<String> {
    let below = table
        .iter()
        .filter_map(|(key, value)| Some((path(prefix, key), value.as_table()?)));
    below
        .flat_map(|(here, inner)| {
            let mut found = sections(inner, &here);
            found.push(here);
            found
        })
        .collect()
}

/// Every key that holds one value, whether it has a default or not.
pub(super) fn settable(defaults: &Table) -> Vec<String> {
    let mut found = all(defaults, "");
    found.retain(|key| !find(defaults, key.split('.')).is_some_and(Value::is_table));
    found.extend(WITHOUT_DEFAULT.map(String::from));
    found.extend(Kind::ALL.map(|kind| format!("pii.kinds.{}", kind.name())));
    found
}

/// What stands there.
pub(super) fn find<'t, 's>(table: &'t Table, steps: impl IntoIterator<Item = &'s str>) -> Option<&'t Value> {
    let mut steps = steps.into_iter();
    let mut here = table.get(steps.next()?)?;
    for step in steps {
        here = here.as_table()?.get(step)?;
    }
    Some(here)
}

/// The known word that was probably meant: alike as a whole, or in what stands behind its last dot.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let last = end(word);
    known.min_by_key(|other| distance(word, other).min(distance(last, end(other)) + 1))
}

/// Whether a key is another one or lies in it.
pub(crate) fn is_within(key: &str, other: &str) -> bool {
    key.strip_prefix(other)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Levenshtein's edit distance.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

fn path(prefix: &str, key: &str) -> String {
    if prefix.is_empty() {
        key.into()
    } else {
        format!("{prefix}.{key}")
    }
}

fn end(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tamiz_udfs::text::duplicates::DuplicateRules;
    use tamiz_udfs::text::noise::NoiseRules;

    use super::super::{DEFAULT, load};
    use super::*;

    /// Every field of a value; a map or a list without anything in it counts as one.
    fn fields(value: &serde_json::Value, prefix: &str) -> BTreeSet<String> {
        match value {
            serde_json::Value::Object(inner) if !inner.is_empty() => inner
                .iter()
                .flat_map(|(key, value)| fields(value, &path(prefix, key)))
                .collect(),
            _ => BTreeSet::from([prefix.to_owned()]),
        }
    }

    #[test]
    fn default_toml_writes_out_every_option_or_tells_of_it() {
        let config = load(None, std::iter::empty()).unwrap();
        let there = fields(&serde_json::to_value(&config).unwrap(), "");
        let defaults: Table = DEFAULT.parse().unwrap();
        let mut written: BTreeSet<String> = all(&defaults, "").into_iter().collect();
        for key in WITHOUT_DEFAULT {
            assert!(written.insert(key.to_owned()), "`{key}` has a default");
            assert!(DEFAULT.contains(end(key)), "{key}");
        }
        assert_eq!(there, written);
    }

    #[test]
    fn thresholds_in_default_toml_are_those_of_the_code() {
        let config = load(None, std::iter::empty()).unwrap();
        assert_eq!(config.noise.rules, NoiseRules::default());
        assert_eq!(config.noise.duplicates, DuplicateRules::default());
    }

    #[test]
    fn a_key_lies_in_its_sections_and_in_no_other() {
        for (key, other, within) in [
            ("sink.posts", "sink", true),
            ("sink.posts", "sink.posts", true),
            ("sink", "sink.posts", false),
            ("sinker.posts", "sink", false),
        ] {
            assert_eq!(is_within(key, other), within, "{key} in {other}");
        }
    }
}
