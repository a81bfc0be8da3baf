//! Lays the file over the defaults and the environment over both, one value at a time, so that all that is wrong is told
//! at once and the rest can be used.

use std::ffi::OsString;
use std::path::Path;

use toml::{Table, Value};

use super::{Config, ConfigError, Problem, environment, keys};

/// The documented defaults.
pub const DEFAULT: &str = include_str!("../../default.toml");

/// What a file and the environment say, as far as it can be used.
#[derive(Debug)]
pub struct Draft {
    /// The configuration; what cannot be used stands at its default.
    pub config: Config,
    /// Everything of syntax, names and types that is wrong.
    pub problems: Vec<Problem>,
    /// Keys that stand at their defaults although something else was probably meant.
    pub doubtful: Vec<String>,
}

impl Draft {
    /// Whether it is not known what was meant by a key, or by something in that section.
    pub fn doubts(&self, key: &str) -> bool {
        let related = |other: &String| keys::is_within(other, key) || keys::is_within(key, other);
        self.doubtful.iter().any(related)
    }

    /// The configuration.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn finish(self) -> Result<Config, ConfigError> {
        if self.problems.is_empty() {
            Ok(self.config)
        } else {
            Err(ConfigError(self.problems))
        }
    }
}

/// The configuration from an optional file and the environment.
///
/// # Errors
/// Every problem of syntax, names and types; what values mean is checked by [`Config::check`].
pub fn load(
    path: Option<&Path>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Config, ConfigError> {
    draft(path, environment)?.finish()
}

/// As [`load`], for someone who goes on where something is wrong.
///
/// # Errors
/// The file cannot be read at all.
pub fn draft(
    path: Option<&Path>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Draft, ConfigError> {
    let mut layers = Layers::new()?;
    let mut unread = false;
    if let Some(path) = path {
        let name = path.display().to_string();
        match read(path) {
            Ok(file) => layers.lay_file(file, &[], &name),
            Err(message) => {
                unread = true;
                layers.draft.problems.push(Problem { key: name, message });
            }
        }
    }
    layers.lay_environment(environment);
    if unread {
        return Err(ConfigError(layers.draft.problems));
    }
    Ok(layers.draft)
}

fn read(path: &Path) -> Result<Table, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read the configuration: {error}"))?;
    text.parse()
        .map_err(|error: toml::de::Error| error.to_string().trim_end().to_owned())
}

fn understand(table: &Table) -> Result<Config, toml::de::Error> {
    Value::Table(table.clone()).try_into()
}

struct Layers {
    defaults: Table,
    /// The defaults with all that was laid over them.
    table: Table,
    /// What the table means, and what did not get into it.
    draft: Draft,
}

impl Layers {
    fn new() -> Result<Self, ConfigError> {
        let wrong = |error: toml::de::Error| {
            ConfigError(vec![Problem {
                key: "default.toml".into(),
                message: error.to_string(),
            }])
        };
        let defaults: Table = DEFAULT.parse().map_err(wrong)?;
        let config = understand(&defaults).map_err(wrong)?;
        Ok(Layers {
            table: defaults.clone(),
            defaults,
            draft: Draft {
                config,
                problems: Vec::new(),
                doubtful: Vec::new(),
            },
        })
    }

    /// Lays what stands in a section of a file.
    fn lay_file(&mut self, file: Table, section: &[String], name: &str) {
        let above = section.join(".");
        for (key, value) in file {
            let mut steps = section.to_vec();
            steps.push(key);
            let here = steps.join(".");
            let default = keys::find(&self.defaults, steps.iter().map(String::as_str));
            let (is_section, is_known) = (default.is_some_and(Value::is_table), default.is_some());
            match value {
                Value::Table(inner) if is_section => self.lay_file(inner, &steps, name),
                value if is_known || keys::is_free(&here, &above) => {
                    self.lay(&steps, value, format!("{name}: {here}"));
                }
                value => self.refuse_unknown(&here, value.is_table(), name),
            }
        }
    }

    fn lay_environment(&mut self, environment: impl Iterator<Item = (OsString, OsString)>) {
        for variable in environment::overrides(environment, &self.defaults) {
            match variable.value {
                Ok(value) => {
                    let steps: Vec<String> = variable.key.split('.').map(str::to_owned).collect();
                    self.lay(&steps, value, variable.variable);
                }
                Err(message) => self.refuse(variable.variable, message, variable.key),
            }
        }
    }

    /// Lays one value, unless it does not fit there.
    fn lay(&mut self, steps: &[String], value: Value, place: String) {
        let mut table = self.table.clone();
        insert(&mut table, steps, value);
        match understand(&table) {
            Ok(config) => {
                self.table = table;
                self.draft.config = config;
            }
            Err(error) => self.refuse(place, error.message().to_owned(), steps.join(".")),
        }
    }

    fn refuse(&mut self, place: String, message: String, doubtful: String) {
        self.draft.problems.push(Problem { key: place, message });
        self.draft.doubtful.push(doubtful);
    }

    fn refuse_unknown(&mut self, key: &str, is_section: bool, name: &str) {
        let known = if is_section {
            keys::sections(&self.defaults, "")
        } else {
            keys::settable(&self.defaults)
        };
        // There is always one.
        let near = keys::nearest(key, known.iter().map(String::as_str)).unwrap_or_default();
        let message = format!("no such option; did you mean `{near}`? pipeline/default.toml lists all");
        self.refuse(format!("{name}: {key}"), message, near.to_owned());
    }
}

/// Puts a value into its section, which is there.
fn insert(table: &mut Table, steps: &[String], value: Value) {
    match steps {
        [] => {}
        [last] => drop(table.insert(last.clone(), value)),
        [first, rest @ ..] => {
            if let Some(Value::Table(inner)) = table.get_mut(first) {
                insert(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use tamiz_schemas::mapping::Place;
    use tamiz_udfs::text::pii::{Kind, Mode};

    use super::*;

    fn drafted(text: &str, environment: &[(&str, &str)]) -> Result<Draft, ConfigError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let environment = environment.iter().map(|(k, v)| (OsString::from(k), OsString::from(v)));
        draft(Some(file.path()), environment)
    }

    fn from(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        drafted(text, environment)?.finish()
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
    fn the_environment_sets_what_default_toml_does_not_write_out() {
        let file = "[pii.kinds]\nemail = \"keep\"\nphone = \"keep\"\n";
        let environment = [
            ("TAMIZ_PII_KINDS_EMAIL", "drop"),
            ("TAMIZ_PII_KINDS_URL_CREDENTIALS", "hash"),
            ("TAMIZ_NOISE_RULES_MIN_CHARACTERS", "5"),
            ("TAMIZ_NOISE_DUPLICATES_CAPACITY", "0"),
            ("TAMIZ_INPUT_TEXT", "/x"),
        ];
        let config = from(file, &environment).unwrap();
        let kinds = BTreeMap::from([
            (Kind::Email, Mode::Drop),
            (Kind::Phone, Mode::Keep),
            (Kind::UrlCredentials, Mode::Hash),
        ]);
        assert_eq!(config.pii.kinds, kinds);
        assert_eq!(config.noise.rules.min_characters, 5);
        assert_eq!(config.noise.duplicates.capacity, 0);
        assert_eq!(config.input.text, Some(Place::At("/x".into())));
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
        assert!(error.contains("modle") && error.contains("`model`"), "{error}");
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

    const WRONG: &str = "log = 5\n[sink]\nflush_byte = 1\nflush_seconds = 3\n[limits]\nbatch_rows = \"many\"\n\
         [input]\npreset = \"x_v3\"\n[pii.kinds]\nshoe_size = \"mask\"\n";
    const WRONG_VARIABLES: [(&str, &str); 3] = [
        ("TAMIZ_METRICS_LISTENS", "127.0.0.1:1"),
        ("TAMIZ_MODEL_ENABLED", "perhaps"),
        ("TAMIZ_PII_DEFAULT", "shred"),
    ];

    #[test]
    fn names_types_and_variables_are_told_all_at_once() {
        let problems = drafted(WRONG, &WRONG_VARIABLES).unwrap().problems;
        let mut told: Vec<&str> = problems
            .iter()
            .map(|problem| problem.key.rsplit(' ').next().unwrap())
            .collect();
        told.sort_unstable();
        let wanted = [
            "TAMIZ_METRICS_LISTENS",
            "TAMIZ_MODEL_ENABLED",
            "TAMIZ_PII_DEFAULT",
            "input.preset",
            "limits.batch_rows",
            "log",
            "pii.kinds.shoe_size",
            "sink.flush_byte",
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_draft_keeps_what_is_right_and_doubts_what_is_wrong() {
        let draft = drafted(WRONG, &WRONG_VARIABLES).unwrap();
        assert_eq!(draft.config.sink.flush_seconds, 3.0);
        assert_eq!(draft.config.limits.batch_rows, 4_096);
        for key in [
            "sink",
            "sink.flush_bytes",
            "limits",
            "input.preset",
            "log.level",
            "metrics",
        ] {
            assert!(draft.doubts(key), "{key}");
        }
        for key in ["sink.posts", "input.text", "table", "source.kafka"] {
            assert!(!draft.doubts(key), "{key}");
        }
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_beside_the_variables() {
        let ConfigError(problems) = drafted("[sink\n", &WRONG_VARIABLES).unwrap_err();
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(problems[0].message.contains("line 1"), "{problems:?}");
    }
}
