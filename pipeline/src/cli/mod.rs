//! The command line. Names are a contract.

mod model;
mod replay;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use tamiz::config::{self, Config, Draft, LogConfig, LogFormat};
use tamiz::jobs::demo::DemoOptions;
use tamiz::jobs::produce::ProduceOptions;
use tamiz::jobs::progress::{Progress, summary};
use tamiz::jobs::run::Until;
use tamiz::jobs::sql::{Format, NamedTable, Session};
use tamiz::jobs::{self, JobError};
use tamiz::line::Line;
use tamiz::observe::traces::Traces;
use tamiz::observe::{Server, logs};
use tamiz::source::Stop;
use tamiz::stages::decode::Origin;
use tamiz::stats::Stats;
use tamiz_model::Scorer;

/// Kafka → the sieve → a Transformer → a Delta table, and SQL over it.
#[derive(Debug, Parser)]
#[command(name = "tamiz", version, about, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Embedded broker, made-up posts, the whole pipeline, a table, and SQL answers on screen.
    Demo {
        /// Posts to make.
        #[arg(long, default_value_t = 5_000)]
        posts: u64,
        /// Folder for the tables; a new one below data/demo unless given.
        #[arg(long)]
        dir: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Check configuration, stages, model, broker and tables; tell all problems at once. Touches nothing.
    Check {
        #[command(flatten)]
        common: Common,
    },
    /// Kafka to tables, until a signal: then drain, commit, exit 0.
    Run {
        /// Stop once every partition was read to its end.
        #[arg(long)]
        until_caught_up: bool,
        #[command(flatten)]
        common: Common,
    },
    /// JSON-lines or Parquet files through the same stages into a table; goes on where it stopped.
    Batch {
        /// File or folder: .jsonl, .jsonl.zst, .parquet.
        #[arg(long)]
        from: PathBuf,
        /// Address of the posts table; dead letters go beside it, to TO_dead_letters.
        #[arg(long)]
        to: String,
        #[command(flatten)]
        common: Common,
    },
    /// Dead letters through the same stages again; what passes goes into the posts table.
    Replay {
        #[command(flatten)]
        arguments: replay::Arguments,
        #[command(flatten)]
        common: Common,
    },
    /// SQL over tables, with the model as functions: one query, a file, or a prompt.
    Sql {
        /// A table: a Delta folder or s3:// address, or a .parquet, .csv or .jsonl file.
        #[arg(short, long = "table", value_name = "NAME=PATH")]
        tables: Vec<NamedTable>,
        /// Run the statements of a file.
        #[arg(short, long, conflicts_with = "query")]
        file: Option<PathBuf>,
        /// How answers are written.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        /// The query; without it and without --file, a prompt.
        query: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// JSON lines to a Kafka topic.
    Produce {
        /// The topic.
        #[arg(long)]
        topic: String,
        /// Messages per second; unlimited unless given.
        #[arg(long)]
        rate: Option<f64>,
        /// .jsonl or .jsonl.zst files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Take care of a table: pack, clear away, look back, forget an author, find and mend damage.
    Table {
        #[command(subcommand)]
        command: table::Command,
    },
    /// Train, measure and look at models.
    Model {
        /// Fetch nothing from the Hugging Face Hub: what was fetched before, or nothing (as HF_HUB_OFFLINE=1).
        #[arg(long, global = true)]
        offline: bool,
        #[command(subcommand)]
        command: model::Command,
    },
}

/// Options of every command that reads the configuration.
#[derive(Debug, Args)]
struct Common {
    /// Configuration file; the defaults otherwise.
    #[arg(short, long)]
    config: Option<PathBuf>,
    /// Folder of the model, instead of the configured one.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Do without a model.
    #[arg(long, conflicts_with = "model")]
    no_model: bool,
    /// auto, cpu, cuda or cuda:N, instead of the configured device.
    #[arg(long)]
    device: Option<String>,
}

impl Common {
    fn load(&self) -> Result<Config, JobError> {
        Ok(self.draft()?.finish()?)
    }

    /// As far as it can be used.
    fn draft(&self) -> Result<Draft, JobError> {
        let mut draft = config::draft(self.config.as_deref(), std::env::vars_os())?;
        let model = &mut draft.config.model;
        if let Some(path) = &self.model {
            model.path = path.display().to_string();
        }
        if let Some(device) = &self.device {
            model.device.clone_from(device);
        }
        model.enabled &= !self.no_model;
        Ok(draft)
    }
}

/// Runs the command.
///
/// # Errors
/// As its job's.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let command = match arguments.command {
        Command::Model { offline, command } => {
            let stop = Stop::default();
            let work = async {
                model::run(
                    command,
                    offline,
                    &on_signal(&stop, "the step in hand is finished first"),
                )
            };
            return logged(&plain_log(), None, work);
        }
        Command::Table { command } => {
            let config = command.config()?;
            return logged(&config.log, None, table::run(command, &config));
        }
        Command::Check { common } => {
            let draft = common.draft()?;
            let mut out = io::stdout();
            return logged(&draft.config.log, None, jobs::check::check(&draft, &mut out));
        }
        other => other,
    };
    let common = match &command {
        Command::Demo { common, .. }
        | Command::Run { common, .. }
        | Command::Batch { common, .. }
        | Command::Replay { common, .. }
        | Command::Sql { common, .. }
        | Command::Produce { common, .. } => common,
        Command::Check { .. } | Command::Model { .. } | Command::Table { .. } => return Ok(()),
    };
    let mut config = common.load()?;
    if matches!(command, Command::Demo { .. }) && config.log.level == "info" {
        // What an operator wants to know would only break into the demo's picture.
        config.log.level = "warn".into();
    }
    let traces = match command {
        Command::Run { .. } | Command::Batch { .. } => Traces::new(&config).map_err(JobError::from)?,
        _ => None,
    };
    logged(&config.log.clone(), traces, work(command, config))
}

/// Does the work on a runtime of its own, and writes logs and traces of it.
fn logged(
    config: &LogConfig,
    traces: Option<Traces>,
    work: impl Future<Output = Result<(), JobError>>,
) -> anyhow::Result<()> {
    let logs = logs::start(config, traces);
    let runtime = runtime()?;
    logs.tell_left_out(runtime.handle());
    let result = runtime.block_on(work);
    logs.finish();
    Ok(result?)
}

/// Training tells of each step, and all of it is wanted.
fn plain_log() -> LogConfig {
    LogConfig {
        level: "info".into(),
        format: LogFormat::Human,
        repeats_per_minute: 0,
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, JobError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| JobError::Io {
            what: "cannot start the runtime".into(),
            source,
        })
}

async fn work(command: Command, config: Config) -> Result<(), JobError> {
    let mut out = io::stdout();
    match command {
        Command::Demo { posts, dir, .. } => jobs::demo::demo(config, &DemoOptions { posts, dir }, &mut out).await,
        Command::Run { until_caught_up, .. } => {
            let until = if until_caught_up {
                Until::CaughtUp
            } else {
                Until::Stopped
            };
            stream(&config, until).await
        }
        Command::Batch { from, to, .. } => batch(config, from, to).await,
        Command::Replay { arguments, .. } => replay::run(&config, &arguments).await,
        Command::Sql {
            tables,
            file,
            format,
            query,
            ..
        } => {
            let session = Session::new(&config, jobs::scorer(&config)?)?;
            for table in &tables {
                session.table(&table.name, &table.path).await?;
            }
            match (query, file) {
                (Some(query), _) => session.script(&query, format, &mut out).await,
                (None, Some(file)) => {
                    let script = std::fs::read_to_string(&file).map_err(|source| JobError::Io {
                        what: format!("cannot read `{}`", file.display()),
                        source,
                    })?;
                    session.script(&script, format, &mut out).await
                }
                (None, None) => session.prompt(format, &mut out).await,
            }
        }
        Command::Produce { topic, rate, files, .. } => produce(config, ProduceOptions { topic, rate, files }).await,
        Command::Check { .. } | Command::Model { .. } | Command::Table { .. } => Ok(()),
    }
}

async fn stream(config: &Config, until: Until) -> Result<(), JobError> {
    config.check()?;
    let stats = Arc::new(Stats::default());
    let server = Server::start(config, &stats)?;
    let scorer = jobs::scorer(config)?;
    let steps = Line::new(config, scorer.clone(), Origin::Kafka, Arc::clone(&stats))?.steps();
    let stop = on_signal(&Stop::default(), COMMITTED_FIRST);
    show(server.as_ref(), scorer.as_ref(), &stop);
    let progress = Progress::follow(Arc::clone(&stats), steps.clone(), None);
    let result = jobs::run::run(config, scorer, until, Arc::clone(&stats), stop).await;
    sum_up(progress, (&steps, &stats), result)
}

async fn batch(mut config: Config, from: PathBuf, to: String) -> Result<(), JobError> {
    config.sink.dead_letters = format!("{}_dead_letters", to.trim_end_matches('/'));
    config.sink.posts = to;
    config.check()?;
    let stats = Arc::new(Stats::default());
    let server = Server::start(&config, &stats)?;
    let scorer = jobs::scorer(&config)?;
    let steps = Line::new(&config, scorer.clone(), Origin::File, Arc::clone(&stats))?.steps();
    let stop = on_signal(&Stop::default(), COMMITTED_FIRST);
    show(server.as_ref(), scorer.as_ref(), &stop);
    let progress = Progress::follow(Arc::clone(&stats), steps.clone(), jobs::batch::known_rows(&from));
    let result = jobs::batch::batch(&config, &from, scorer, Arc::clone(&stats), stop).await;
    sum_up(progress, (&steps, &stats), result)
}

/// Tells the metrics' server what it could not know before the model was there.
fn show(server: Option<&Server>, scorer: Option<&Scorer>, stop: &Stop) {
    let Some(server) = server else { return };
    server.heed(stop);
    if let Some(scorer) = scorer {
        server.show_model(scorer);
    }
}

/// Ends the progress bar and tells what was done; a job that failed before it read anything has nothing to tell.
fn sum_up(
    progress: Progress,
    (steps, stats): (&[&'static str], &Stats),
    result: Result<(), JobError>,
) -> Result<(), JobError> {
    let took = progress.finish();
    let done = stats.snapshot();
    if result.is_ok() || done.read > 0 {
        tell(&summary(steps, &done, took));
    }
    result
}

async fn produce(config: Config, options: ProduceOptions) -> Result<(), JobError> {
    let stop = on_signal(&Stop::default(), COMMITTED_FIRST);
    let topic = options.topic.clone();
    let started = std::time::Instant::now();
    let work = tokio::task::spawn_blocking(move || jobs::produce::produce(&config, &options, &stop));
    let produced = work
        .await
        .map_err(|_| JobError::Failed("the producer panicked".into()))??;
    let seconds = started.elapsed().as_secs_f64();
    let rate = produced.acknowledged as f64 / seconds.max(1e-9);
    tell(&format!(
        "{} messages, {:.1} MB to {topic} in {seconds:.1} s ({rate:.0}/s)\n",
        produced.acknowledged,
        produced.bytes as f64 / 1e6
    ));
    Ok(())
}

/// What a person should know, on standard error: standard output belongs to answers.
fn tell(text: &str) {
    // A closed standard error is no reason to fail.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// What a job that delivers does before it ends.
const COMMITTED_FIRST: &str = "what was read is committed first";

/// SIGTERM and SIGINT ask to drain and commit; a second one ends the process at once.
fn on_signal(stop: &Stop, first: &'static str) -> Stop {
    let (own, theirs) = (stop.clone(), stop.clone());
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::warn!("signals cannot be heard: end the process with SIGKILL, nothing is lost");
            return;
        };
        for round in 0.. {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            if round > 0 {
                tracing::warn!("stopped at once; what was not finished is done again at the next start");
                std::process::abort();
            }
            tracing::info!("stopping: {first}");
            theirs.set();
        }
    });
    own
}
