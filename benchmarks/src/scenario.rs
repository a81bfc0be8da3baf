//! One job, measured in a process of its own, so that its peak memory is its own too.
//!
//! A scenario warms up first with a small archive and another table: pages, tables of words and the model's kernels are
//! in place when the clock starts. The clock covers the whole job: opening the tables, reading, all commits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use arrow::array::{Array, StringArray};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tamiz::batch::Item;
use tamiz::config::{Config, load};
use tamiz::flow::SOURCE_QUEUE;
use tamiz::jobs::run::{Until, run};
use tamiz::jobs::{batch::batch, scorer};
use tamiz::line::Line;
use tamiz::source::{Budget, Stop, files};
use tamiz::stages::decode::Origin;
use tamiz::stats::{Snapshot, Stats};
use tamiz_model::{Scorer, ScorerStats};
use tamiz_schemas::columns::TEXT;
use tokio::sync::mpsc;

use crate::machine::{Processor, peak_memory_bytes};
use crate::posts::Feed;

/// Batches that wait for the model at once when it is measured alone, as many as in the line.
const SCORING: usize = 3;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// An archive through every stage but the model, into a table.
    Stages,
    /// A Kafka topic through every stage but the model, into a table.
    Kafka,
    /// An archive through every stage and the model, into a table.
    Scored,
    /// The model alone, on the texts and batches that [`Work::Scored`] gives it.
    Model,
}

impl Work {
    /// For a table of results.
    pub fn name(self) -> &'static str {
        match self {
            Work::Stages => "archive -> table, no model",
            Work::Kafka => "Kafka -> table, no model",
            Work::Scored => "archive -> table, with model",
            Work::Model => "model alone",
        }
    }
}

/// A scenario as its process is told it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// What is measured.
    pub work: Work,
    /// On which posts.
    pub feed: Feed,
    /// Their archive.
    pub archive: PathBuf,
    /// The first few of them.
    pub warm_up: PathBuf,
    /// An empty folder for tables and key.
    pub dir: PathBuf,
    /// Bootstrap servers and topic, for [`Work::Kafka`].
    pub kafka: Option<(String, String)>,
}

/// Rows and seconds of a stage.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct StageTime {
    /// Rows given to it.
    pub rows: u64,
    /// Seconds of one thread.
    pub seconds: f64,
}

/// What the model did.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ModelTime {
    /// Texts scored.
    pub rows: u64,
    /// Tokens in them.
    pub tokens: u64,
    /// Tokens computed, padding included.
    pub padded_tokens: u64,
    /// Seconds in forward passes.
    pub forward_seconds: f64,
    /// Seconds of tokenization, summed over calls.
    pub tokenize_seconds: f64,
}

/// One repetition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Posts read (for [`Work::Model`]: scored).
    pub posts: u64,
    /// Posts in the table.
    pub stored: u64,
    /// Dead letters in theirs.
    pub dead_letters: u64,
    /// Seconds of the job; from Kafka, since the first message.
    pub seconds: f64,
    /// Seconds before the first message: joining the consumer group.
    pub waited_seconds: f64,
    /// Processor time within `seconds`.
    pub processor: Processor,
    /// The most memory the process ever held, warm-up included.
    pub peak_memory_bytes: u64,
    /// By name.
    pub stages: BTreeMap<String, StageTime>,
    /// Commits of both tables.
    pub commits: u64,
    /// Seconds of encoding and committing, beside the stages.
    pub commit_seconds: f64,
    /// Parquet files.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// With a model only.
    pub model: Option<ModelTime>,
}

impl Measured {
    /// Posts per second.
    pub fn rate(&self) -> f64 {
        self.posts as f64 / self.seconds
    }
}

/// Runs a scenario in this process.
///
/// # Errors
/// The job fails, or loses posts.
pub fn measure(spec: &Spec) -> Result<Measured> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match spec.work {
            Work::Stages => archive(spec, None).await,
            Work::Kafka => kafka(spec).await,
            Work::Scored => archive(spec, Some(model(spec)?)).await,
            Work::Model => alone(spec, &model(spec)?).await,
        }
    })
}

/// The defaults, whatever the environment says, with tables named after `run`.
fn config(spec: &Spec, run: &str) -> Result<Config> {
    let mut config = load(None, std::iter::empty())?;
    let key_file = spec.dir.join("pseudonym.key");
    std::fs::write(&key_file, "a key for benchmarks only, 32 b.")?;
    let path = |name: &str| spec.dir.join(format!("{run}-{name}")).display().to_string();
    config.pii.key_file = key_file.display().to_string();
    config.sink.posts = path("posts");
    config.sink.dead_letters = path("dead_letters");
    config.input = spec.feed.input();
    Ok(config)
}

fn model(spec: &Spec) -> Result<Scorer> {
    scorer(&config(spec, "model")?)?.context("the default configuration has a model")
}

async fn archive(spec: &Spec, scorer: Option<Scorer>) -> Result<Measured> {
    warm_up(spec, scorer.clone()).await?;
    let (config, stats) = (config(spec, "measured")?, Arc::new(Stats::default()));
    let before = scorer.as_ref().map(Scorer::stats);
    let clock = Clock::start()?;
    batch(
        &config,
        &spec.archive,
        scorer.clone(),
        Arc::clone(&stats),
        Stop::default(),
    )
    .await?;
    let mut measured = clock.stop(&stats.snapshot())?;
    measured.model = before
        .zip(scorer)
        .map(|(before, scorer)| model_time(before, scorer.stats()));
    complete(measured)
}

async fn warm_up(spec: &Spec, scorer: Option<Scorer>) -> Result<()> {
    let config = config(spec, "warm-up")?;
    Ok(batch(&config, &spec.warm_up, scorer, Arc::default(), Stop::default()).await?)
}

async fn kafka(spec: &Spec) -> Result<Measured> {
    warm_up(spec, None).await?;
    let (brokers, topic) = spec.kafka.clone().context("a broker and a topic are needed")?;
    let (mut config, stats) = (config(spec, "measured")?, Arc::new(Stats::default()));
    config.source.kafka.brokers = brokers;
    config.source.kafka.group = format!("{topic}-{}", std::process::id());
    config.source.kafka.topics = vec![topic];
    let opened = Instant::now();
    let first = tokio::spawn(first_row(Arc::clone(&stats)));
    run(&config, None, Until::CaughtUp, Arc::clone(&stats), Stop::default()).await?;
    let clock = first.await??;
    let waited = clock.started - opened;
    let mut measured = clock.stop(&stats.snapshot())?;
    measured.waited_seconds = waited.as_secs_f64();
    complete(measured)
}

/// Starts the clock with the first message.
async fn first_row(stats: Arc<Stats>) -> Result<Clock> {
    while stats.snapshot().read == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Clock::start()
}

async fn alone(spec: &Spec, scorer: &Scorer) -> Result<Measured> {
    for texts in texts(spec, &spec.warm_up)? {
        scorer.score(&texts).await?;
    }
    let batches = texts(spec, &spec.archive)?;
    let (before, clock) = (scorer.stats(), Clock::start()?);
    let scored: Vec<usize> = stream::iter(&batches)
        .map(|texts| async { Ok::<_, anyhow::Error>(scorer.score(texts).await?.n_tokens.len()) })
        .buffered(SCORING)
        .try_collect()
        .await?;
    let mut measured = clock.stop(&Snapshot::default())?;
    measured.posts = scored.into_iter().sum::<usize>() as u64;
    measured.model = Some(model_time(before, scorer.stats()));
    Ok(measured)
}

/// The texts of an archive, batch by batch, as the line hands them to the model.
fn texts(spec: &Spec, archive: &Path) -> Result<Vec<StringArray>> {
    let config = config(spec, "texts")?;
    let line = Line::new(&config, None, Origin::File, Arc::default())?;
    let inputs = files::inputs(archive)?;
    let (limits, budget) = (config.batch_limits(), Budget::new(config.limits.memory_bytes));
    let (out, mut items) = mpsc::channel(SOURCE_QUEUE);
    let source = std::thread::spawn(move || {
        let mut inputs = inputs.iter();
        inputs.try_for_each(|input| files::read(input, &limits, &budget, &out, &Stop::default()))
    });
    let mut batches = Vec::new();
    while let Some(item) = tokio::task::block_in_place(|| items.blocking_recv()) {
        let Item::Batch(batch) = item else { continue };
        let rows = line.chain.apply(*batch)?.rows;
        let texts = rows
            .column_by_name(TEXT)
            .and_then(|column| column.as_any().downcast_ref());
        batches.push(StringArray::clone(texts.context("the stages leave a column of texts")?));
    }
    source.join().map_err(|_| anyhow!("the source panicked"))??;
    Ok(batches)
}

fn model_time(before: ScorerStats, after: ScorerStats) -> ModelTime {
    ModelTime {
        rows: after.rows - before.rows,
        tokens: after.tokens - before.tokens,
        padded_tokens: after.padded_tokens - before.padded_tokens,
        forward_seconds: after.model_seconds - before.model_seconds,
        tokenize_seconds: after.tokenize_seconds - before.tokenize_seconds,
    }
}

/// A figure of a job that lost posts would be worth nothing.
fn complete(measured: Measured) -> Result<Measured> {
    let Measured {
        posts,
        stored,
        dead_letters,
        ..
    } = measured;
    ensure!(
        posts == stored + dead_letters,
        "{posts} posts were read, {stored} stored, {dead_letters} refused"
    );
    Ok(measured)
}

struct Clock {
    started: Instant,
    processor: Processor,
}

impl Clock {
    fn start() -> Result<Self> {
        Ok(Clock {
            processor: Processor::now()?,
            started: Instant::now(),
        })
    }

    fn stop(self, done: &Snapshot) -> Result<Measured> {
        let seconds = self.started.elapsed().as_secs_f64();
        let stage = |(name, count): (&&str, &tamiz::stats::StageCount)| {
            let time = StageTime {
                rows: count.rows,
                seconds: count.seconds,
            };
            ((*name).to_owned(), time)
        };
        Ok(Measured {
            posts: done.read,
            stored: done.posts,
            dead_letters: done.dead_letters + done.ignored,
            seconds,
            waited_seconds: 0.0,
            processor: Processor::now()?.since(self.processor),
            peak_memory_bytes: peak_memory_bytes()?,
            stages: done.stages.iter().map(stage).collect(),
            commits: done.commits,
            commit_seconds: done.commit_seconds,
            files: done.files,
            file_bytes: done.file_bytes,
            model: None,
        })
    }
}
