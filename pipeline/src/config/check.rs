//! What is wrong with a configuration: every problem at once, each with its cure.

use tamiz_model::DeviceChoice;

use super::Config;
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
        for tag in self.noise.actions.keys().filter(|tag| !TAGS.contains(&tag.as_str())) {
            wrong(
                &format!("noise.actions.{tag}"),
                format!("no such tag; known are {}", TAGS.join(", ")),
            );
        }
        self.kafka_problems(&mut wrong);
        if self.source.kafka.topics.contains(&self.sink.dead_letter_topic.topic) {
            wrong(
                "sink.dead_letter_topic.topic",
                "is a topic that is read: what was refused would come back; name another".into(),
            );
        }
        self.limit_problems(&mut wrong);
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
            wrong("input", error.to_string());
        }
        for problem in super::input::problems(&self.input) {
            wrong(&problem.key, problem.message);
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
        if limits.batch_bytes * 4 > limits.memory_bytes {
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
        if sink.posts.is_empty() || sink.dead_letters.is_empty() {
            wrong("sink", "`posts` and `dead_letters` need an address each".into());
        } else if sink.posts.trim_end_matches('/') == sink.dead_letters.trim_end_matches('/') {
            wrong("sink.dead_letters", "must not be the posts table".into());
        }
        let deletes = self.deletes_address();
        if [&sink.posts, &sink.dead_letters]
            .iter()
            .any(|other| other.trim_end_matches('/') == deletes.trim_end_matches('/'))
        {
            wrong("deletes.table", "must not be one of the other tables".into());
        }
        if self.model.batch_tokens < 128 {
            wrong("model.batch_tokens", "must be at least 128".into());
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
