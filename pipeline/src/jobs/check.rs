//! `tamiz check`: configuration, stages, model, broker and tables, all problems at once. Touches nothing.

use std::io::{ErrorKind, Write};
use std::sync::Arc;

use super::run::{blocking, chain};
use super::{JobError, dead_letters_spec, posts_spec, scorer};
use crate::config::{Config, ConfigError, Problem};
use crate::line::Line;
use crate::observe;
use crate::registry::Registry;
use crate::source::SourceError;
use crate::source::kafka::reach;
use crate::stages::decode::Origin;
use crate::table::{Inspection, Store, TableSpec, inspect};

/// Checks everything, and writes a line for each thing checked.
///
/// # Errors
/// [`JobError::Problems`] where anything is wrong; each problem has been written.
pub async fn check(config: &Config, out: &mut dyn Write) -> Result<(), JobError> {
    let mut report = Report { out, problems: 0 };
    let problems = config.problems();
    for problem in &problems {
        report.wrong(&problem.key, &problem.message)?;
    }
    if problems.is_empty() {
        report.fine("configuration", "every value can be used")?;
    }
    let scorer = match scorer(config) {
        Ok(Some(scorer)) => {
            report.fine(
                "model",
                &format!("{}: hashes, label maps and device fit", scorer.identity()),
            )?;
            Some(scorer)
        }
        Ok(None) => {
            report.fine("model", "switched off")?;
            None
        }
        Err(error) => {
            report.wrong("model", &chain(&error))?;
            None
        }
    };
    let (mut further, mut registry) = (Vec::new(), None);
    if problems.is_empty() {
        match Line::new(config, scorer, Origin::Kafka, Arc::default()) {
            Ok(line) => {
                further = line.further_heads().to_vec();
                registry = line.registry.clone();
                report.fine("stages", &line.steps().join(" → "))?
            }
            Err(error) => report.wrong("stages", &error.to_string())?,
        }
    }
    report.listen(config)?;
    if let Some(registry) = registry {
        report.registry(&registry).await?;
    }
    report.kafka(config, &problems).await?;
    report.tables(config, &further).await?;
    match report.problems {
        0 => Ok(()),
        problems => Err(JobError::Problems(problems)),
    }
}

struct Report<'w> {
    out: &'w mut dyn Write,
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

    /// `told` are the problems that the report names already.
    async fn kafka(&mut self, config: &Config, told: &[Problem]) -> Result<(), JobError> {
        let mut kafka = config.source.kafka.clone();
        let letters = Some(&config.sink.dead_letter_topic.topic).filter(|topic| !topic.is_empty());
        kafka.topics.extend(letters.cloned());
        match blocking(move || reach(&kafka)).await {
            Ok(cluster) => self.fine(
                "kafka",
                &format!("cluster {cluster}, topics {}", config.source.kafka.topics.join(", ")),
            )?,
            Err(JobError::Source(SourceError::Config(ConfigError(found)))) => {
                for problem in found.iter().filter(|problem| !told.contains(problem)) {
                    self.wrong(&problem.key, &problem.message)?;
                }
            }
            Err(error) => self.wrong("kafka", &chain(&error))?,
        }
        Ok(())
    }

    async fn tables(&mut self, config: &Config, further: &[String]) -> Result<(), JobError> {
        match super::store(config) {
            Ok(store) => {
                self.table("sink.posts", &config.sink.posts, &store, posts_spec(further))
                    .await?;
                self.table(
                    "sink.dead_letters",
                    &config.sink.dead_letters,
                    &store,
                    dead_letters_spec(),
                )
                .await?;
                let deletes = config.deletes_address();
                self.table("deletes.table", &deletes, &store, crate::deletes::deletes_spec())
                    .await?;
            }
            Err(error) => self.wrong("sink.storage", &chain(&error))?,
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
