//! Lays the file over the defaults and the environment over both, and tells every unknown key at once.

use std::path::Path;

use toml::{Table, Value};

use super::{Config, ConfigError, Problem};

/// The documented defaults.
pub const DEFAULT: &str = include_str!("../../default.toml");

/// Sections whose keys the user makes up, or that are typed further down.
const FREE: [&str; 7] = [
    "source.kafka.options",
    "sink.storage",
    "noise.actions",
    "noise.rules",
    "noise.duplicates",
    "pii.kinds",
    "input",
];

/// The configuration from an optional file and the environment.
///
/// # Errors
/// Every problem of syntax and every unknown key; what values mean is checked by [`Config::check`].
pub fn load(path: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    let defaults: Table = DEFAULT.parse().map_err(|error| one("default.toml", error))?;
    let mut table = defaults.clone();
    let name = path.map_or("default.toml".to_string(), |path| path.display().to_string());
    if let Some(path) = path {
        let text = std::fs::read_to_string(path)
            .map_err(|error| one(&name, format!("cannot read the configuration: {error}")))?;
        let file: Table = text
            .parse()
            .map_err(|error: toml::de::Error| one(&name, error.to_string().trim_end()))?;
        let mut unknown = Vec::new();
        find_unknown(&file, &defaults, "", &mut unknown);
        if !unknown.is_empty() {
            let known = keys(&defaults, "");
            let problems = unknown.iter().map(|key| Problem {
                key: format!("{name}: {key}"),
                message: hint(key, &known),
            });
            return Err(ConfigError(problems.collect()));
        }
        lay_over(&mut table, file);
    }
    apply_environment(&mut table, &defaults, environment)?;
    // The message of a wrong type names its key.
    Config::deserialize_from(table).map_err(|error| one(&name, error.to_string().trim_end()))
}

impl Config {
    fn deserialize_from(table: Table) -> Result<Self, toml::de::Error> {
        Value::Table(table).try_into()
    }
}

fn one(key: &str, message: impl ToString) -> ConfigError {
    ConfigError(vec![Problem {
        key: key.into(),
        message: message.to_string(),
    }])
}

fn path(prefix: &str, key: &str) -> String {
    if prefix.is_empty() {
        key.into()
    } else {
        format!("{prefix}.{key}")
    }
}

fn find_unknown(file: &Table, known: &Table, prefix: &str, unknown: &mut Vec<String>) {
    for (key, value) in file {
        let here = path(prefix, key);
        match (known.get(key), value) {
            _ if FREE.contains(&here.as_str()) => {}
            (Some(Value::Table(known)), Value::Table(file)) => find_unknown(file, known, &here, unknown),
            (Some(_), _) => {}
            (None, _) => unknown.push(here),
        }
    }
}

fn keys(table: &Table, prefix: &str) -> Vec<String> {
    let below = table.iter().flat_map(|(key, value)| {
        let here = path(prefix, key);
        match value {
            // What a free section has by default can be set by name too.
            Value::Table(inner) if !inner.is_empty() => keys(inner, &here),
            _ => vec![here],
        }
    });
    below.collect()
}

fn hint(key: &str, known: &[String]) -> String {
    let last = key.rsplit('.').next().unwrap_or(key);
    let near = known.iter().min_by_key(|other| {
        let end = other.rsplit('.').next().unwrap_or(other);
        distance(key, other).min(distance(last, end) + 1)
    });
    match near {
        Some(near) => format!("no such option; did you mean `{near}`? pipeline/default.toml lists all"),
        None => "no such option".into(),
    }
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
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

fn lay_over(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => lay_over(base, over),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

/// `TAMIZ_SINK_FLUSH_SECONDS=5` sets `sink.flush_seconds`; what has no default can only be set in the file.
fn apply_environment(
    table: &mut Table,
    defaults: &Table,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    let known = keys(defaults, "");
    for (name, text) in environment {
        let Some(key) = known.iter().find(|key| variable(key) == name) else {
            continue;
        };
        let mut steps: Vec<&str> = key.split('.').collect();
        let last = steps.pop().unwrap_or_default();
        let mut here = &mut *table;
        for step in steps {
            here = match here.get_mut(step) {
                Some(Value::Table(inner)) => inner,
                _ => return Err(one(&name, "does not name a section")),
            };
        }
        // By the default's type: a file may have a whole number where others are allowed.
        let value = typed(&text, find(defaults, key)).map_err(|message| one(&name, message))?;
        here.insert(last.into(), value);
    }
    Ok(())
}

fn find<'t>(table: &'t Table, key: &str) -> Option<&'t Value> {
    let mut steps = key.split('.');
    let mut here = table.get(steps.next()?)?;
    for step in steps {
        here = here.as_table()?.get(step)?;
    }
    Some(here)
}

/// The environment variable of a key.
fn variable(key: &str) -> String {
    format!("TAMIZ_{}", key.replace('.', "_").to_ascii_uppercase())
}

fn typed(text: &str, like: Option<&Value>) -> Result<Value, String> {
    let parsed = || {
        format!("value = {text}")
            .parse::<Table>()
            .ok()
            .and_then(|mut table| table.remove("value"))
    };
    let wanted = |kind| format!("`{text}` is not {kind}");
    match like {
        Some(Value::Integer(_)) => parsed()
            .filter(Value::is_integer)
            .ok_or_else(|| wanted("a whole number")),
        Some(Value::Float(_)) => parsed()
            .filter(|v| v.is_float() || v.is_integer())
            .ok_or_else(|| wanted("a number")),
        Some(Value::Boolean(_)) => parsed().filter(Value::is_bool).ok_or_else(|| wanted("true or false")),
        Some(Value::Array(_)) => Ok(parsed()
            .filter(Value::is_array)
            .unwrap_or_else(|| Value::Array(text.split(',').map(|one| Value::String(one.trim().into())).collect()))),
        _ => Ok(Value::String(text.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn from(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        load(
            Some(file.path()),
            environment.iter().map(|(k, v)| (k.to_string(), v.to_string())),
        )
    }

    #[test]
    fn the_defaults_load() {
        let config = load(None, std::iter::empty()).unwrap();
        assert_eq!(config.pipeline.name, "tamiz");
    }

    #[test]
    fn environment_beats_file_beats_default() {
        let file = "[sink]\nflush_seconds = 3\nposts = \"a\"\n";
        let config = from(file, &[("TAMIZ_SINK_POSTS", "b"), ("TAMIZ_SOURCE_KAFKA_TOPICS", "x,y")]).unwrap();
        assert_eq!((config.sink.flush_seconds, config.sink.posts.as_str()), (3.0, "b"));
        assert_eq!(config.source.kafka.topics, ["x", "y"]);
    }

    #[test]
    fn every_unknown_key_is_told_with_its_neighbour() {
        let error = from("[sink]\nflush_byte = 1\n[modle]\npath = \"x\"\n", &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("sink.flush_byte") && error.contains("`sink.flush_bytes`"),
            "{error}"
        );
        assert!(error.contains("modle"), "{error}");
        assert_eq!(error.lines().count(), 2, "{error}");
    }

    #[test]
    fn a_wrong_type_names_its_key() {
        for (file, environment) in [
            ("[limits]\nbatch_rows = \"many\"\n", &[][..]),
            ("", &[("TAMIZ_LIMITS_BATCH_ROWS", "many")][..]),
        ] {
            let error = from(file, environment).unwrap_err().to_string().to_lowercase();
            assert!(error.contains("batch_rows") && error.contains("many"), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_in_a_typed_section_is_an_error() {
        for file in [
            "[input]\npresett = \"x_v2\"\n",
            "[noise.rules]\nmagic = 1\n",
            "[pii.kinds]\nshoe_size = \"mask\"\n",
        ] {
            assert!(from(file, &[]).is_err(), "{file}");
        }
    }
}
