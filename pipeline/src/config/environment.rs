//! The environment over the file: `TAMIZ_SINK_FLUSH_SECONDS=5` sets `sink.flush_seconds`.
//!
//! Architecture Invariant: no value of a variable that sets nothing is told; it may be a secret under a wrong name.

use std::ffi::{OsStr, OsString};

use toml::{Table, Value};

use super::KEY_VARIABLE;
use super::keys::{IN_FILE, distance, find, settable};

/// What every variable of ours begins with; those of the scripts and tests do as well.
const PREFIX: &[u8] = b"TAMIZ_";

/// A variable that is about an option.
#[derive(Debug)]
pub(super) struct Override {
    /// Its name.
    pub(super) variable: String,
    /// The option, or the one that was probably meant.
    pub(super) key: String,
    /// What it is set to, or what is wrong.
    pub(super) value: Result<Value, String>,
}

/// Every variable that is about an option, by name; all others are passed over.
pub(super) fn overrides(environment: impl Iterator<Item = (OsString, OsString)>, defaults: &Table) -> Vec<Override> {
    let known = settable(defaults);
    let mut ours: Vec<(OsString, OsString)> = environment
        .filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX))
        .collect();
    ours.sort(); // their own order is nobody's choice
    let told = |(name, text): &(OsString, OsString)| {
        let name = name.to_string_lossy().into_owned();
        match known.iter().find(|key| variable(key) == name) {
            Some(key) => Some(Override {
                // By the default's type: a file may have a whole number where others are allowed.
                value: read(text, find(defaults, key.split('.'))),
                key: key.clone(),
                variable: name,
            }),
            None => stray(name, text, &known, defaults),
        }
    };
    ours.iter().filter_map(told).collect()
}

/// The environment variable of a key.
fn variable(key: &str) -> String {
    format!("TAMIZ_{}", key.replace('.', "_").to_ascii_uppercase())
}

/// A variable that is named after a section and sets nothing; `None` where it is another's.
fn stray(name: String, text: &OsStr, known: &[String], defaults: &Table) -> Option<Override> {
    let of_section = |section: &String| name.starts_with(&format!("{}_", variable(section)));
    if name == KEY_VARIABLE || is_service(&name, text) || !defaults.keys().any(of_section) {
        return None;
    }
    let in_file = IN_FILE.iter().find(|section| name.starts_with(&variable(section)));
    let (key, message) = match in_file {
        Some(section) => (section.to_string(), format!("`{section}` can only be set in the file")),
        None => {
            let near = known.iter().min_by_key(|key| distance(&name, &variable(key)))?;
            let message = format!(
                "no option has this variable; did you mean {}? pipeline/default.toml lists all options",
                variable(near)
            );
            (near.clone(), message)
        }
    };
    Some(Override {
        variable: name,
        key,
        value: Err(message),
    })
}

/// Whether Kubernetes made the variable: it tells every container where the Services are, a `tamiz-metrics` in variables
/// as `TAMIZ_METRICS_PORT_9464_TCP_ADDR`.
fn is_service(name: &str, text: &OsStr) -> bool {
    let numbered = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit());
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && text.to_string_lossy().contains("://"))
        || name.split_once("_PORT_").is_some_and(|(_, rest)| numbered(rest))
}

fn read(text: &OsStr, like: Option<&Value>) -> Result<Value, String> {
    match text.to_str() {
        Some(text) => typed(text, like),
        None => Err("is not UTF-8: write it as such".into()),
    }
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
    use std::collections::BTreeSet;
    use std::os::unix::ffi::OsStringExt;

    use super::super::DEFAULT;
    use super::*;

    fn defaults() -> Table {
        DEFAULT.parse().unwrap()
    }

    fn of(name: &str, text: &str) -> Vec<Override> {
        overrides([(name.into(), text.into())].into_iter(), &defaults())
    }

    #[test]
    fn every_option_has_a_variable_of_its_own() {
        let keys = settable(&defaults());
        let variables: BTreeSet<String> = keys.iter().map(|key| variable(key)).collect();
        assert_eq!(variables.len(), keys.len());
        assert!(!variables.contains(KEY_VARIABLE));
    }

    #[test]
    fn a_variable_that_sets_nothing_is_told_with_the_one_that_was_meant() {
        for (name, words) in [
            ("TAMIZ_SINK_FLUSH_SECOND", "did you mean TAMIZ_SINK_FLUSH_SECONDS?"),
            ("TAMIZ_PII_KINDS_EMIAL", "did you mean TAMIZ_PII_KINDS_EMAIL?"),
            ("TAMIZ_NOISE_RULES_MIN_CHARACTER", "TAMIZ_NOISE_RULES_MIN_CHARACTERS"),
            (
                "TAMIZ_SINK_STORAGE_AWS_REGION",
                "`sink.storage` can only be set in the file",
            ),
            (
                "TAMIZ_SOURCE_KAFKA_OPTIONS",
                "`source.kafka.options` can only be set in the file",
            ),
        ] {
            let found = of(name, "hunter2");
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            let message = found[0].value.as_ref().unwrap_err();
            assert!(message.contains(words) && !message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn variables_of_scripts_secrets_and_services_are_passed_over() {
        for name in [
            "TAMIZ_BINARY",
            "TAMIZ_CACHE",
            "TAMIZ_DATA",
            "TAMIZ_FAULTS",
            "TAMIZ_FAULTS_AT_ONCE",
            "TAMIZ_KAFKA",
            "TAMIZ_KAFKA_CLIENT_SECRET",
            "TAMIZ_KAFKA_DIR",
            "TAMIZ_KAFKA_KEY_PASSWORD",
            "TAMIZ_KAFKA_OWN",
            "TAMIZ_KAFKA_PASSWORD",
            "TAMIZ_KAFKA_START_SECONDS",
            "TAMIZ_LIBTORCH",
            "TAMIZ_PII_KEY",
            "TAMIZ_REGISTRY_PASSWORD",
            "TAMIZ_S3",
            "TAMIZ_S3_BUCKET",
            "TAMIZ_TEST_TRAINING_CHILD",
            "TAMIZ_METRICS_PORT",
            "TAMIZ_METRICS_PORT_9464_TCP_ADDR",
            "TAMIZ_METRICS_SERVICE_HOST",
            "TAMIZ_METRICS_SERVICE_PORT_HTTP",
            "SINK_FLUSH_SECONDS",
            "tamiz_sink_posts",
        ] {
            let found = of(name, "tcp://10.0.0.1:9464");
            assert!(found.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn what_is_not_utf_8_is_told_where_an_option_is_meant_and_passed_over_elsewhere() {
        let broken = || OsString::from_vec(vec![0xff, 0xfe]);
        let of = |name: OsString| overrides([(name, broken())].into_iter(), &defaults());
        let found = of("TAMIZ_SINK_POSTS".into());
        assert_eq!(found.len(), 1);
        assert!(found[0].value.as_ref().unwrap_err().contains("not UTF-8"));
        assert_eq!(of(OsString::from_vec(b"TAMIZ_SINK_\xff".to_vec())).len(), 1);
        for name in [broken(), "TAMIZ_DATA".into(), "PICTURE".into()] {
            assert!(of(name).is_empty());
        }
    }
}
