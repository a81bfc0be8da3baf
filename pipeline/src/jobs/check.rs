//! `tamiz check`: configuration, stages, model, broker and tables, all problems at once. Touches nothing.

use std::io::Write;
use std::sync::Arc;

use super::run::{blocking, chain};
use super::{JobError, dead_letters_spec, posts_spec, scorer};
use crate::config::Config;
use crate::line::Line;
use crate::source::SourceError;
use crate::source::kafka::{KafkaConfig, KafkaSource, check_topics};
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
    let mut further = Vec::new();
    if problems.is_empty() {
        match Line::new(config, scorer, Origin::Kafka, Arc::default()) {
            Ok(line) => {
                further = line.further_heads().to_vec();
                report.fine("stages", &line.steps().join(" → "))?
            }
            Err(error) => report.wrong("stages", &error.to_string())?,
        }
    }
    let kafka = config.source.kafka.clone();
    match blocking(move || broker(&kafka)).await {
        Ok(cluster) => report.fine(
            "kafka",
            &format!("cluster {cluster}, topics {}", config.source.kafka.topics.join(", ")),
        )?,
        Err(error) => report.wrong("kafka", &chain(&error))?,
    }
    match super::store(config) {
        Ok(store) => {
            report
                .table("sink.posts", &config.sink.posts, &store, posts_spec(&further))
                .await?;
            report
                .table(
                    "sink.dead_letters",
                    &config.sink.dead_letters,
                    &store,
                    dead_letters_spec(),
                )
                .await?;
        }
        Err(error) => report.wrong("sink.storage", &chain(&error))?,
    }
    match report.problems {
        0 => Ok(()),
        problems => Err(JobError::Problems(problems)),
    }
}

/// The cluster's id, if a broker answers and the topics exist.
pub(super) fn broker(kafka: &KafkaConfig) -> Result<String, SourceError> {
    let client = kafka.client();
    let cluster = KafkaSource::cluster_id(&client)?;
    let consumer: rdkafka::consumer::BaseConsumer = client.create().map_err(|error| SourceError::Kafka {
        what: "`source.kafka.options`".into(),
        cause: error.to_string(),
    })?;
    check_topics(&consumer, &kafka.brokers, &kafka.topics)?;
    Ok(cluster)
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
