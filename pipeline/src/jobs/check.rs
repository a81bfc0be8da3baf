//! `tamiz check`: configuration, stages, model, broker and tables, all problems at once. Touches nothing.
//!
//! What rests on an option that is wrong is skipped and said to be; all else is tried.

use std::io::{ErrorKind, Write};
use std::sync::Arc;

use tamiz_model::Scorer;

use super::run::{blocking, chain};
use super::{JobError, dead_letters_spec, posts_spec, scorer};
use crate::config::{Config, ConfigError, Draft, Problem, is_within};
use crate::deletes::deletes_spec;
use crate::line::Line;
use crate::observe;
use crate::registry::Registry;
use crate::source::SourceError;
use crate::source::kafka::reach_with;
use crate::stages::decode::Origin;
use crate::stages::payloads::Payloads;
use crate::table::{Inspection, Store, TableSpec, inspect};

/// The sections that the line is made of.
const OF_LINE: [&str; 6] = ["input", "validate", "late", "language", "noise", "pii"];

/// What of `[source.kafka]` a broker can be asked without.
const BESIDE_BROKER: [&str; 5] = [
    "source.kafka.topics",
    "source.kafka.group",
    "source.kafka.group_protocol",
    "source.kafka.first_start",
    "source.kafka.first_start_timestamp",
];

/// Checks everything that can be, and writes a line for each thing checked.
///
/// # Errors
/// [`JobError::Problems`] where anything is wrong; each problem has been written.
pub async fn check(draft: &Draft, out: &mut dyn Write) -> Result<(), JobError> {
    let config = &draft.config;
    let mut report = Report {
        out,
        draft,
        told: Vec::new(),
        problems: 0,
    };
    for problem in &draft.problems {
        report.wrong(&problem.key, &problem.message)?;
    }
    // A default that was not meant may well fit nothing else.
    let found = config.problems().into_iter();
    report.tell(found.filter(|problem| !draft.doubts(&problem.key)))?;
    if report.problems == 0 {
        report.fine("configuration", "every value can be used")?;
    }
    let scorer = report.model(config)?;
    let stages = report.stages(config, scorer)?;
    report.listen(config)?;
    if let Some(registry) = stages.registry {
        report.registry(&registry).await?;
    }
    report.kafka(config).await?;
    report.tables(config, &stages.further_heads).await?;
    match report.problems {
        0 => Ok(()),
        problems => Err(JobError::Problems(problems)),
    }
}

/// What the line tells of other places.
#[derive(Default)]
struct Stages {
    further_heads: Vec<String>,
    registry: Option<Arc<Registry>>,
}

struct Report<'w> {
    out: &'w mut dyn Write,
    draft: &'w Draft,
    /// Problems of values, by their own keys.
    told: Vec<Problem>,
    problems: usize,
}

impl Report<'_> {
    fn line(&mut self, mark: &str, what: &str, message: &str) -> Result<(), JobError> {
        writeln!(self.out, "{mark:<6} {what}: {message}").map_err(JobError::io("cannot write the report"))
    }

    fn fine(&mut self, what: &str, message: &str) -> Result<(), JobError> {
        self.line("ok", what, message)
    }

    fn wrong(&mut self, what: &str, message: &str) -> Result<(), JobError> {
        self.problems += 1;
        self.line("wrong", what, message)
    }

    fn skip(&mut self, what: &str, first: &str) -> Result<(), JobError> {
        self.line("skip", what, &format!("not tried: mend `{first}` first"))
    }

    /// Tells what has not been told.
    fn tell(&mut self, found: impl IntoIterator<Item = Problem>) -> Result<(), JobError> {
        for problem in found {
            if !self.told.contains(&problem) {
                self.wrong(&problem.key, &problem.message)?;
                self.told.push(problem);
            }
        }
        Ok(())
    }

    fn is_told(&self, section: &str) -> bool {
        self.told.iter().any(|problem| is_within(&problem.key, section))
    }

    /// Whether nothing is known against an option or a section.
    fn is_good(&self, key: &str) -> bool {
        !self.draft.doubts(key) && !self.is_told(key)
    }

    fn model(&mut self, config: &Config) -> Result<Option<Scorer>, JobError> {
        if !self.is_good("model") {
            self.skip("model", "model")?;
            return Ok(None);
        }
        match scorer(config) {
            Ok(Some(scorer)) => {
                self.fine(
                    "model",
                    &format!("{}: hashes, label maps and device fit", scorer.identity()),
                )?;
                return Ok(Some(scorer));
            }
            Ok(None) => self.fine("model", "switched off")?,
            Err(error) => self.wrong("model", &chain(&error))?,
        }
        Ok(None)
    }

    fn stages(&mut self, config: &Config, scorer: Option<Scorer>) -> Result<Stages, JobError> {
        let bad: Vec<&str> = OF_LINE.into_iter().filter(|section| !self.is_good(section)).collect();
        if !bad.is_empty() {
            self.skip("stages", &bad.join("`, `"))?;
            return Ok(Stages {
                registry: self.registry_alone(config)?,
                ..Stages::default()
            });
        }
        match Line::new(config, scorer, Origin::Kafka, Arc::default()) {
            Ok(line) => {
                self.fine("stages", &line.steps().join(" → "))?;
                Ok(Stages {
                    further_heads: line.further_heads().to_vec(),
                    registry: line.registry.clone(),
                })
            }
            Err(ConfigError(found)) => {
                self.tell(found)?;
                Ok(Stages::default())
            }
        }
    }

    /// The registry of a line that cannot be made for other reasons.
    fn registry_alone(&mut self, config: &Config) -> Result<Option<Arc<Registry>>, JobError> {
        if !self.is_good("input") {
            return Ok(None);
        }
        match Payloads::of(&config.input, &config.mapping()?) {
            Ok((_, registry)) => Ok(registry),
            Err((key, message)) => {
                self.wrong(key, &message)?;
                Ok(None)
            }
        }
    }

    /// Tries the address of the metrics; what cannot be read as one is told with the configuration.
    fn listen(&mut self, config: &Config) -> Result<(), JobError> {
        let told = match observe::bind(&config.metrics) {
            Ok(Some(_)) => "free",
            Err(JobError::Io { source, .. }) if source.kind() == ErrorKind::AddrInUse => {
                "in use: by a pipeline of this configuration, if one runs; otherwise name another"
            }
            Err(error @ JobError::Io { .. }) => return self.wrong("metrics.listen", &chain(&error)),
            Ok(None) | Err(_) => return Ok(()),
        };
        self.fine("metrics.listen", &format!("{}: {told}", config.metrics.listen))
    }

    async fn registry(&mut self, registry: &Registry) -> Result<(), JobError> {
        match registry.greet().await {
            Ok(()) => self.fine("input.registry", &format!("{} answers", registry.address())),
            Err(words) => self.wrong("input.registry", &words),
        }
    }

    async fn kafka(&mut self, config: &Config) -> Result<(), JobError> {
        let mut kafka = config.source.kafka.clone();
        let of_broker = |key: &String| is_within(key, "source") && !BESIDE_BROKER.contains(&key.as_str());
        if self.draft.doubtful.iter().any(of_broker) {
            return self.skip("kafka", "source.kafka");
        }
        if kafka.brokers.is_empty() {
            // Told already; what it takes to log in can be looked at all the same.
            return match kafka.client() {
                Ok(_) => Ok(()),
                Err(ConfigError(found)) => self.tell(found),
            };
        }
        if self.draft.doubts("source.kafka.topics") {
            kafka.topics.clear();
        }
        let letters = Some(config.sink.dead_letter_topic.topic.clone()).filter(|topic| !topic.is_empty());
        let topics = kafka.topics.join(", ");
        match blocking(move || reach_with(&kafka, letters.as_deref())).await {
            Ok(cluster) => self.fine("kafka", &format!("cluster {cluster}, topics {topics}")),
            Err(JobError::Source(SourceError::Config(ConfigError(mut found)))) => {
                // librdkafka refuses as a whole what was told by option.
                if self.is_told("source.kafka.options") {
                    found.retain(|problem| problem.key != "source.kafka");
                }
                self.tell(found)
            }
            Err(error) => self.wrong("kafka", &chain(&error)),
        }
    }

    async fn tables(&mut self, config: &Config, further: &[String]) -> Result<(), JobError> {
        if !self.is_good("sink.storage") {
            return self.skip("tables", "sink.storage");
        }
        let store = match super::store(config) {
            Ok(store) => store,
            Err(error) => return self.wrong("sink.storage", &chain(&error)),
        };
        let (posts, letters) = (&config.sink.posts, &config.sink.dead_letters);
        let deletes = config.deletes_address();
        // Without an address of its own it lies beside the posts.
        let beside = match config.deletes.table.as_str() {
            "" => "sink.posts",
            _ => "deletes.table",
        };
        for (key, place, address, spec) in [
            ("sink.posts", "sink.posts", posts, posts_spec(further)),
            ("sink.dead_letters", "sink.dead_letters", letters, dead_letters_spec()),
            ("deletes.table", beside, &deletes, deletes_spec()),
        ] {
            match [key, place].into_iter().find(|key| !self.is_good(key)) {
                Some(bad) => self.skip(key, bad)?,
                None => self.table(key, address, &store, spec).await?,
            }
        }
        Ok(())
    }

    async fn table(&mut self, key: &str, address: &str, store: &Store, spec: TableSpec) -> Result<(), JobError> {
        match inspect(address, store, &spec).await {
            Ok(Inspection::Absent) => self.fine(key, &format!("nothing at {address} yet; it will be made")),
            Ok(Inspection::Present { version, files }) => {
                self.fine(key, &format!("{address}, version {version}, {files} files"))
            }
            Err(error) => self.wrong(key, &chain(&error)),
        }
    }
}
