//! Whole jobs on a table on disk: how many posts a second, how much memory, and where the time goes.
//!
//! ```console
//! $ cargo bench --profile dev --workspace --bench end_to_end -- --posts 200000 --repetitions 5
//! ```
//!
//! Every repetition is a process of its own, this program started again. Scenarios take turns, so that a machine that
//! grows slower does so for all of them. Run without `--bench`, as `cargo test --benches` does, it only tries each
//! scenario once on few posts and keeps nothing.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use tamiz_benchmarks::machine::Machine;
use tamiz_benchmarks::posts::Feed;
use tamiz_benchmarks::report::{Report, Scenario};
use tamiz_benchmarks::results;
use tamiz_benchmarks::scenario::{Measured, Spec, Work, measure};
use tamiz_benchmarks::topic::Topic;

/// Environment variable that names a broker's bootstrap servers.
const KAFKA_VARIABLE: &str = "TAMIZ_KAFKA";

/// Measures whole jobs, from an archive or a Kafka topic into a Delta table on disk.
#[derive(Debug, Parser)]
struct Arguments {
    /// Posts per repetition without the model.
    #[arg(long, default_value_t = 200_000)]
    posts: u64,
    /// Posts per repetition with the model, and with the model alone.
    #[arg(long, default_value_t = 10_000)]
    model_posts: u64,
    /// Repetitions of every scenario.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Posts to warm up with, without the model; a tenth of it with the model.
    #[arg(long, default_value_t = 10_000)]
    warm_up: u64,
    /// Only these scenarios.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Only>,
    /// Folder for archives and tables, on the disk to be measured.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Where the figures go.
    #[arg(long, default_value_os_t = results().join("end_to_end.json"))]
    out: PathBuf,
    /// A scenario to run in this process.
    #[arg(long, hide = true)]
    child: Option<String>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    Stages,
    Kafka,
    Model,
}

fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if let Some(spec) = &arguments.child {
        let measured = measure(&serde_json::from_str(spec)?)?;
        return Ok(serde_json::to_writer(std::io::stdout().lock(), &measured)?);
    }
    if !arguments.bench {
        (
            arguments.posts,
            arguments.model_posts,
            arguments.warm_up,
            arguments.repetitions,
        ) = (5_000, 200, 1_000, 1);
    }
    let date = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let machine = Machine::here(date)?;
    let command = format!(
        "cargo bench --profile dev --workspace --bench end_to_end -- {}",
        flags()
    );
    let report = Report::new(
        machine,
        command.trim_end_matches([' ', '-']).to_owned(),
        run(&arguments)?,
    );
    std::io::stdout().lock().write_all(report.table().as_bytes())?;
    if arguments.bench {
        let fail = || format!("cannot write `{}`", arguments.out.display());
        let json = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(&arguments.out, json).with_context(fail)?;
    }
    Ok(())
}

fn flags() -> String {
    let own = std::env::args().skip(1).filter(|flag| flag != "--bench");
    own.collect::<Vec<_>>().join(" ")
}

fn run(arguments: &Arguments) -> Result<Vec<Scenario>> {
    let dir = tempfile::Builder::new()
        .prefix("tamiz-benchmark-")
        .tempdir_in(&arguments.dir)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let (mut specs, topic) = plan(arguments, dir.path(), &runtime)?;
    let mut measured: BTreeMap<usize, Vec<Measured>> = BTreeMap::new();
    for repetition in 0..arguments.repetitions {
        for (number, spec) in specs.iter_mut().enumerate() {
            spec.dir = dir.path().join(format!("run-{repetition}-{number}"));
            let one = child(spec)?;
            say(&format!(
                "{}, {}: {:.0} posts/s\n",
                spec.work.name(),
                spec.feed.name(),
                one.rate()
            ))?;
            measured.entry(number).or_default().push(one);
        }
    }
    if let Some(topic) = topic {
        runtime.block_on(topic.delete())?;
    }
    let scenario = |(number, spec): (usize, &Spec)| {
        let repetitions = measured.remove(&number).unwrap_or_default();
        Scenario::new(spec.work, spec.feed, repetitions)
    };
    Ok(specs.iter().enumerate().map(scenario).collect())
}

/// The scenarios to run, with their archives written and their topic filled.
fn plan(arguments: &Arguments, dir: &Path, runtime: &tokio::runtime::Runtime) -> Result<(Vec<Spec>, Option<Topic>)> {
    let wanted = |what| arguments.only.is_empty() || arguments.only.contains(&what);
    let mut specs = Vec::new();
    let mut topic = None;
    if wanted(Only::Stages) {
        for feed in Feed::available() {
            specs.push(spec(Work::Stages, feed, arguments, dir)?);
        }
    }
    if wanted(Only::Kafka)
        && let Ok(brokers) = std::env::var(KAFKA_VARIABLE)
    {
        let mut spec = spec(Work::Kafka, Feed::MadeUp, arguments, dir)?;
        let filled = runtime.block_on(Topic::fill(&brokers, &spec.archive))?;
        spec.kafka = Some((brokers, filled.name.clone()));
        (specs, topic) = ([specs, vec![spec]].concat(), Some(filled));
    }
    if wanted(Only::Model) {
        for work in [Work::Scored, Work::Model] {
            specs.push(spec(work, Feed::best(), arguments, dir)?);
        }
    }
    Ok((specs, topic))
}

fn spec(work: Work, feed: Feed, arguments: &Arguments, dir: &Path) -> Result<Spec> {
    let with_model = matches!(work, Work::Scored | Work::Model);
    let (posts, warm_up) = if with_model {
        (arguments.model_posts, (arguments.warm_up / 10).max(1))
    } else {
        (arguments.posts, arguments.warm_up)
    };
    let archive = |posts: u64| -> Result<PathBuf> {
        let path = dir.join(format!("{feed:?}-{posts}.jsonl.zst"));
        if !path.exists() {
            let bytes = feed.archive(posts, &path)?;
            let mean = bytes as f64 / posts as f64;
            say(&format!("{}: {posts} posts, {mean:.0} bytes each\n", feed.name()))?;
        }
        Ok(path)
    };
    Ok(Spec {
        work,
        feed,
        archive: archive(posts)?,
        warm_up: archive(warm_up)?,
        dir: dir.into(),
        kafka: None,
    })
}

/// Runs a scenario in a process of its own, and takes its tables away.
fn child(spec: &Spec) -> Result<Measured> {
    std::fs::create_dir_all(&spec.dir)?;
    let program = std::env::current_exe()?;
    let out = Command::new(program)
        .args(["--child", &serde_json::to_string(spec)?])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(
        out.status.success(),
        "the scenario failed (see above): {}",
        spec.work.name()
    );
    std::fs::remove_dir_all(&spec.dir)?;
    Ok(serde_json::from_slice(&out.stdout)?)
}

fn say(line: &str) -> Result<()> {
    Ok(std::io::stderr().lock().write_all(line.as_bytes())?)
}
