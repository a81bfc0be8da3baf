//! What is wrong with a configuration: every problem at once, each with its cure.

use tamiz_model::DeviceChoice;
use tamiz_schemas::dead_letters::REASONS;
use tamiz_udfs::text::language::UNDETERMINED;

use super::{Config, keys};
use crate::source::kafka::FirstStart;
use crate::stages::noise::TAGS;
use crate::stages::validate::Validate;

/// One thing that is wrong: where, what, and the cure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Key, as `sink.flush_bytes`; or what was checked.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// A configuration that cannot be used: every problem at once.
#[derive(Debug, thiserror::Error)]
#[error("{}", join(.0))]
pub struct ConfigError(pub Vec<Problem>);

fn join(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Everything that is wrong with the values themselves; asks no broker, opens no file but the key's.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut wrong = |key: &str, message: String| {
            found.push(Problem {
                key: key.into(),
                message,
            })
        };
        if self.pipeline.name.is_empty() || self.pipeline.name.contains('/') {
            wrong("pipeline.name", "give the pipeline a name without `/`".into());
        }
        self.input_problems(&mut wrong);
        if let Err(message) = Validate::new(&self.validate) {
            wrong("validate.oldest", message);
        }
        self.refusal_problems(&mut wrong);
        self.kafka_problems(&mut wrong);
        if self.source.kafka.topics.contains(&self.sink.dead_letter_topic.topic) {
            wrong(
                "sink.dead_letter_topic.topic",
                "is a topic that is read: what was refused would come back; name another".into(),
            );
        }
        self.limit_problems(&mut wrong);
        self.address_problems(&mut wrong);
        for (key, message) in self.table.problems() {
            wrong(key, message);
        }
        if let Err(message) = self.model.device.parse::<DeviceChoice>() {
            wrong("model.device", format!("`{}`: {message}", self.model.device));
        }
        if let Err(message) = self.scrub() {
            wrong("pii", message);
        }
        self.deletes_problems(&mut wrong);
        self.told_problems(&mut wrong);
        found
    }

    fn input_problems(&self, wrong: &mut impl FnMut(&str, String)) {
        if let Err(error) = self.input.mapping() {
            wrong(
                &format!("input.{}", error.field),
                format!(
                    "`{}` is not a JSON pointer: it must start with `/`, as in `/data/text`",
                    error.pointer
                ),
            );
        }
        for problem in super::input::problems(&self.input) {
            wrong(&problem.key, problem.message);
        }
    }

    /// Of what refuses rows, and of where refused ones go.
    fn refusal_problems(&self, wrong: &mut impl FnMut(&str, String)) {
        // The detector's codes have two letters, and are compared as they are.
        let is_code = |code: &str| {
            code == UNDETERMINED || (code.len() == 2 && code.bytes().all(|letter| letter.is_ascii_lowercase()))
        };
        for code in self.language.keep.iter().filter(|code| !is_code(code)) {
            wrong(
                "language.keep",
                format!("`{code}`: write ISO 639-1 codes in small letters, as `en`, or `{UNDETERMINED}`"),
            );
        }
        if !(0.0..=1.0).contains(&self.language.min_confidence) {
            wrong("language.min_confidence", "must be between 0 and 1".into());
        }
        for tag in self.noise.actions.keys().filter(|tag| !TAGS.contains(&tag.as_str())) {
            wrong(
                &format!("noise.actions.{tag}"),
                format!("no such tag; known are {}", TAGS.join(", ")),
            );
        }
        let known: Vec<&str> = REASONS
            .iter()
            .flat_map(|(_, reasons)| reasons.iter().copied())
            .collect();
        let unknown = |reason: &&String| !known.contains(&reason.as_str());
        for reason in self.sink.ignore.iter().filter(unknown) {
            let near = keys::nearest(reason, known.iter().copied()).unwrap_or_default();
            wrong(
                "sink.ignore",
                format!("`{reason}`: no such reason; did you mean `{near}`? schemas/src/dead_letters.rs lists all"),
            );
        }
    }

    fn deletes_problems(&self, wrong: &mut impl FnMut(&str, String)) {
        let naming = self.input.mapping().map(|mapping| self.naming(&mapping));
        if let (Ok(_), Ok(Err(message))) = (self.scrub(), naming) {
            wrong("input.deletes", message);
        }
        if !self.deletes.apply_minutes.is_finite() || !(0.01..=525_600.0).contains(&self.deletes.apply_minutes) {
            wrong("deletes.apply_minutes", "must be between 0.01 and 525,600".into());
        }
        if self.deletes.remember_hours == 0 {
            wrong("deletes.remember_hours", "must be at least 1".into());
        }
    }

    /// Of what the pipeline tells: logs, metrics, traces.
    fn told_problems(&self, wrong: &mut impl FnMut(&str, String)) {
        if self.log.level.parse::<tracing::Level>().is_err() {
            wrong(
                "log.level",
                format!("`{}`: use error, warn, info, debug or trace", self.log.level),
            );
        }
        if let Err(message) = self.metrics.address() {
            wrong("metrics.listen", message);
        }
        if let Err(message) = self.traces.endpoint() {
            wrong("traces.otlp_endpoint", message);
        }
    }

    fn kafka_problems(&self, wrong: &mut impl FnMut(&str, String)) {
        let kafka = &self.source.kafka;
        if kafka.brokers.is_empty() {
            wrong("source.kafka.brokers", "name at least one broker as host:port".into());
        }
        if kafka.topics.is_empty() {
            wrong("source.kafka.topics", "name at least one topic".into());
        }
        let time = tamiz_schemas::time::parse(&kafka.first_start_timestamp);
        if kafka.first_start == FirstStart::Timestamp && time.is_none() {
            wrong(
                "source.kafka.first_start_timestamp",
                "write a moment, as 2026-01-02T03:04:05Z".into(),
            );
        }
        for name in kafka.forbidden_options() {
            let key = format!("source.kafka.options.{name}");
            wrong(&key, "delivery rests on tamiz's own value: take the option out".into());
        }
        let mut told: Vec<Problem> = kafka.security_problems();
        for (name, message) in kafka.unusable_options() {
            let key = format!("source.kafka.options.{name}");
            if !told.iter().any(|problem| problem.key == key) {
                told.push(Problem { key, message });
            }
        }
        told.into_iter()
            .for_each(|problem| wrong(&problem.key, problem.message));
    }

    fn limit_problems(&self, wrong: &mut impl FnMut(&str, String)) {
        let (limits, sink) = (&self.limits, &self.sink);
        if sink.flush_bytes > limits.memory_bytes / 2 {
            wrong(
                "sink.flush_bytes",
                format!(
                    "{} is more than half of limits.memory_bytes ({}): the line would stand still; lower the one or \
                     raise the other",
                    sink.flush_bytes, limits.memory_bytes
                ),
            );
        }
        if limits.batch_bytes > limits.memory_bytes / 4 {
            wrong(
                "limits.batch_bytes",
                "must be at most a quarter of limits.memory_bytes".into(),
            );
        }
        if self.validate.max_payload_bytes > limits.memory_bytes / 2 {
            wrong(
                "validate.max_payload_bytes",
                "must be at most half of limits.memory_bytes".into(),
            );
        }
        if limits.batch_rows == 0 || limits.batch_rows > 1_000_000 {
            wrong("limits.batch_rows", "must be between 1 and 1,000,000".into());
        }
        if !sink.flush_seconds.is_finite() || sink.flush_seconds <= 0.0 || sink.flush_seconds > 86_400.0 {
            wrong("sink.flush_seconds", "must be more than 0 and at most 86,400".into());
        }
        if self.model.batch_tokens < 128 {
            wrong("model.batch_tokens", "must be at least 128".into());
        }
    }

    fn address_problems(&self, wrong: &mut impl FnMut(&str, String)) {
        let sink = &self.sink;
        for (key, address) in [("sink.posts", &sink.posts), ("sink.dead_letters", &sink.dead_letters)] {
            if address.is_empty() {
                wrong(key, "needs an address: a folder, or s3://bucket/folder".into());
            }
        }
        let deletes = self.deletes_address();
        let tables = [
            ("sink.posts", sink.posts.as_str()),
            ("sink.dead_letters", &sink.dead_letters),
            ("deletes.table", &deletes),
        ];
        for (place, (key, address)) in tables.iter().enumerate().skip(1) {
            for (other, taken) in &tables[..place] {
                if address.is_empty() || taken.is_empty() || !touch(address, taken) {
                    continue;
                }
                wrong(
                    key,
                    format!(
                        "`{address}` and {other} (`{taken}`) are one folder or lie inside each other, so that care of one table \
                         would take away files of the other: give each a folder of its own"
                    ),
                );
            }
        }
    }

    /// Ok, or every problem.
    ///
    /// # Errors
    /// As [`Config::problems`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let problems = self.problems();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError(problems))
        }
    }
}

/// Whether two addresses are the same folder, or one lies inside the other.
fn touch(one: &str, other: &str) -> bool {
    let parts = |address: &str| -> Vec<String> {
        let parts = address.split('/').filter(|part| !part.is_empty() && *part != ".");
        parts.map(str::to_owned).collect()
    };
    let rooted = |address: &str| address.starts_with('/');
    let (one_parts, other_parts) = (parts(one), parts(other));
    rooted(one) == rooted(other) && one_parts.iter().zip(&other_parts).all(|(one, other)| one == other)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{AuthorMode, load};
    use super::*;

    /// What is wrong with the defaults after a change; no key is needed for them.
    fn problems(change: impl FnOnce(&mut Config)) -> Vec<Problem> {
        let mut config = load(None, std::iter::empty()).unwrap();
        config.pii.authors = AuthorMode::Drop;
        change(&mut config);
        config.problems()
    }

    #[test]
    fn codes_that_the_detector_never_gives_are_told() {
        let none = problems(|config| config.language.keep = vec!["en".into(), "und".into()]);
        assert!(none.is_empty(), "{none:?}");
        for code in ["EN", "english", "eng", "en-US", ""] {
            let told = problems(|config| config.language.keep = vec![code.into()]);
            assert_eq!(told.len(), 1, "{code}: {told:?}");
            assert_eq!(told[0].key, "language.keep");
        }
    }

    #[test]
    fn a_confidence_is_a_share() {
        for share in [0.0, 1.0] {
            assert!(problems(|config| config.language.min_confidence = share).is_empty());
        }
        for share in [-0.1, 1.1, f32::NAN, f32::INFINITY] {
            let told = problems(|config| config.language.min_confidence = share);
            assert_eq!(told.len(), 1, "{share}: {told:?}");
            assert_eq!(told[0].key, "language.min_confidence");
        }
    }

    #[test]
    fn a_reason_that_no_dead_letter_has_is_told_with_its_neighbour() {
        let ignore = |reasons: &[&str]| reasons.iter().map(|reason| reason.to_string()).collect::<BTreeSet<_>>();
        let none = problems(|config| config.sink.ignore = ignore(&["not_json", "duplicate", "model_failed"]));
        assert!(none.is_empty(), "{none:?}");
        let told = problems(|config| config.sink.ignore = ignore(&["not_apost", "not_json", "to_old"]));
        assert_eq!(told.len(), 2, "{told:?}");
        for (problem, near) in told.iter().zip(["`not_a_post`", "`too_old`"]) {
            assert!(
                problem.key == "sink.ignore" && problem.message.contains(near),
                "{problem}"
            );
        }
    }

    #[test]
    fn each_table_without_an_address_is_told() {
        let told = problems(|config| {
            config.sink.posts.clear();
            config.sink.dead_letters.clear();
        });
        let keys: Vec<&str> = told.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["sink.posts", "sink.dead_letters"]);
    }

    #[test]
    fn tables_have_folders_of_their_own() {
        for (posts, dead_letters, apart) in [
            ("data/posts", "data/dead_letters", true),
            ("data/posts", "data/posts_2", true),
            ("s3://b/posts", "s3://c/posts", true),
            ("data", "data/dead_letters", false),
            ("./data/posts/", "data/posts", false),
            ("s3://b/x/posts", "s3://b/x", false),
        ] {
            let problems = problems(|config| {
                config.sink.posts = posts.to_owned();
                config.sink.dead_letters = dead_letters.to_owned();
            });
            let told = problems
                .iter()
                .any(|problem| problem.message.contains("inside each other"));
            assert_eq!(told, !apart, "{posts} and {dead_letters}");
        }
    }
}
