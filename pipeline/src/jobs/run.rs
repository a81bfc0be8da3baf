//! `tamiz run`: Kafka → tables, until told to stop or caught up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tamiz_model::Scorer;
use tokio::sync::mpsc;

use super::{JobError, deletes, flush_rules, open_tables, posts_spec, store};
use crate::batch::TopicPartition;
use crate::config::Config;
use crate::flow::{self, FlowError, SOURCE_QUEUE};
use crate::letter_topic::LetterTopic;
use crate::line::Line;
use crate::observe::Kind;
use crate::sink::{Sink, app_id};
use crate::source::kafka::{Committed, KafkaParts, KafkaSource, Resume, reach};
use crate::source::{Budget, SourceError, Stop};
use crate::stages::decode::Origin;
use crate::stats::Stats;
use crate::table::TableWriter;

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// On a signal.
    Stopped,
    /// Once every assigned partition was read to its end.
    CaughtUp,
}

/// Runs the pipeline. When another process takes partitions over in mid-commit, it starts again from the tables.
///
/// # Errors
/// The first failure that trying again does not cure.
pub async fn run(
    config: &Config,
    scorer: Option<Scorer>,
    until: Until,
    stats: Arc<Stats>,
    stop: Stop,
) -> Result<(), JobError> {
    config.check()?;
    let kafka = config.source.kafka.clone();
    // Asked before the tables are opened: a wrong topic should not leave empty tables behind.
    let cluster = blocking(move || reach(&kafka)).await?;
    let prefix = format!("{}/{cluster}", config.pipeline.name);
    let _caretaker = super::care::start(config)?;
    loop {
        let line = Line::new(config, scorer.clone(), Origin::Kafka, Arc::clone(&stats))?;
        match once(config, line, &prefix, until, stop.child()).await {
            // The rows are another's now, and nothing is left to do for one who was told to stop.
            Err(JobError::Flow(error)) if error.is_fenced() && stop.is_set() => {
                tracing::info!(%error, "stopped");
                return Ok(());
            }
            Err(JobError::Flow(error)) if error.is_fenced() => {
                // Until the next one begins there is no line, and no partition is ours.
                stats.watch().lag.clear();
                stats.watch().health.end();
                let wait = rand::rng().random_range(100..1_000);
                tracing::warn!(%error, wait_millis = wait, "starting again from the tables' offsets");
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            result => return result,
        }
    }
}

async fn once(config: &Config, line: Line, prefix: &str, until: Until, stop: Stop) -> Result<(), JobError> {
    let store = store(config)?;
    let mut tables = open_tables(config, &store, line.further_heads()).await?;
    tables.letter_topic = letter_topic(config).await?;
    let reader = TableWriter::open(&config.sink.posts, &store, posts_spec(line.further_heads())).await?;
    let committed = Committed::default();
    let (out, items) = mpsc::channel(SOURCE_QUEUE);
    let budget = Budget::new(config.limits.memory_bytes);
    let stats = Arc::clone(&line.stats);
    stats.watch().begin(Kind::Kafka, flush_rules(config).age, &budget, &out);
    let parts = KafkaParts {
        resume: resume(reader, prefix.to_string()),
        limits: config.batch_limits(),
        budget,
        out,
        committed: Arc::clone(&committed),
        until_caught_up: until == Until::CaughtUp,
        keys: config.input.deletes.tombstones,
        stats: Arc::clone(&stats),
    };
    let kafka = config.source.kafka.clone();
    let source = blocking(move || KafkaSource::connect(&kafka, parts)).await?;
    let _keeper = deletes::start(config)?;
    let sink = Sink::new(
        prefix.into(),
        tables,
        flush_rules(config),
        Arc::clone(&stats),
        committed,
    );
    let source = move |stop: &Stop| {
        let ended = source.run(stop);
        stats.watch().health.source_ended();
        ended
    };
    flow::run(source, items, line, sink, stop).await?;
    if until == Until::CaughtUp {
        // The next run may be long in coming.
        deletes::apply(config).await?;
    }
    Ok(())
}

/// The topic that dead letters go to as well, where the configuration names one.
async fn letter_topic(config: &Config) -> Result<Option<LetterTopic>, JobError> {
    let (kafka, topic) = (config.source.kafka.clone(), config.sink.dead_letter_topic.topic.clone());
    if topic.is_empty() {
        return Ok(None);
    }
    blocking(move || LetterTopic::connect(&kafka, &topic)).await.map(Some)
}

/// Asks the posts table, from the source's own thread, where partitions go on.
fn resume(reader: TableWriter, prefix: String) -> Resume {
    let runtime = tokio::runtime::Handle::current();
    Box::new(move |wanted: &[TopicPartition]| {
        let ids: Vec<String> = wanted.iter().map(|at| app_id(&prefix, at)).collect();
        let known = runtime
            .block_on(reader.next_offsets(&ids))
            .map_err(|error| chain(&error))?;
        let next = |at: &TopicPartition| known.get(&app_id(&prefix, at)).map(|next| (at.clone(), *next));
        Ok(wanted.iter().filter_map(next).collect::<BTreeMap<_, _>>())
    })
}

/// An error with its causes, in one line. Many libraries repeat their causes in their own words: those are said once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !line.contains(&words) {
            line = format!("{line}: {words}");
        }
        cause = error.source();
    }
    line
}

/// Runs a call of the Kafka client that blocks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, JobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(FlowError::Panicked.into()),
    }
}
