//! Every stage and kernel on one batch of 4,096 posts, on one thread: posts and bytes of input per second.
//!
//! ```console
//! $ cargo bench --profile dev --workspace --bench stages -- language
//! ```
//!
//! Bytes are those of the payloads for `decode`, those of the texts for all others. `duplicates` starts every time with
//! an empty window. The two commits write the batch into a new table: `commit` as the pipeline does, with every file
//! on disk before it returns, `commit_unsynced` without waiting for the disk, which leaves encoding.
//!
//! A complete run leaves its figures in `results/stages.json`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use arrow::array::{Array, RecordBatch, StringArray};
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use serde_json::{Value, json};
use tamiz::batch::{Batch, Permit};
use tamiz::config::{Config, load};
use tamiz::jobs::posts_spec;
use tamiz::line::Line;
use tamiz::stage::{Stage, apply_one};
use tamiz::stages::decode::{Decode, Origin};
use tamiz::stages::duplicates::Duplicates;
use tamiz::stages::finish::finish;
use tamiz::stages::language::Language;
use tamiz::stages::late::Late;
use tamiz::stages::noise::Noise;
use tamiz::stages::normalize::Normalize;
use tamiz::stages::validate::Validate;
use tamiz::stats::Stats;
use tamiz::table::{Store, StoreOptions, TableWriter, Txns};
use tamiz_benchmarks::machine::Machine;
use tamiz_benchmarks::posts::Feed;
use tamiz_benchmarks::results;
use tamiz_model::{Checkpoint, default_weights};
use tamiz_schemas::columns::{PAYLOAD, TEXT};
use tamiz_udfs::text::pii::Mode;

/// Posts in the batch: as many as the default configuration puts into one.
const POSTS: u64 = 4_096;
/// Name of the group.
const GROUP: &str = "stages";

/// What every benchmark works on.
struct Inputs {
    config: Config,
    stages: Vec<(&'static str, Box<dyn Stage>, RecordBatch)>,
    before_duplicates: RecordBatch,
    posts: RecordBatch,
}

impl Inputs {
    fn new(feed: Feed) -> Result<Self> {
        let config = config(feed)?;
        let mut hashing = config.clone();
        hashing.pii.default = Mode::Hash;
        let scrub = |config: &Config| config.scrub().map_err(anyhow::Error::msg);
        let validate = Validate::new(&config.validate).map_err(anyhow::Error::msg)?;
        let mapping = config.mapping()?;
        let naming = config.naming(&mapping).map_err(anyhow::Error::msg)?;
        let decode = Decode::new(&mapping, config.validate.max_payload_bytes, Origin::File, naming);
        let chain: [(&str, Box<dyn Stage>); 7] = [
            ("decode", Box::new(decode)),
            ("validate", Box::new(validate)),
            ("late", Box::new(Late::new(config.late))),
            ("normalize", Box::new(Normalize)),
            ("language", Box::new(Language::new(config.language.clone()))),
            ("noise", Box::new(Noise::new(config.noise.clone()))),
            ("scrub_mask", Box::new(scrub(&config)?)),
        ];
        let source = feed.batch(POSTS)?;
        let (mut stages, mut rows) = (Vec::new(), source.clone());
        for (name, stage) in chain {
            let output = stage.apply(rows.clone())?.rows;
            stages.push((name, stage, std::mem::replace(&mut rows, output)));
        }
        let before_scrub = stages
            .last()
            .map(|(.., rows)| rows.clone())
            .context("there are stages")?;
        stages.push(("scrub_hash", Box::new(scrub(&hashing)?), before_scrub));
        let posts = finished(&config, &source)?;
        Ok(Inputs {
            config,
            stages,
            before_duplicates: rows,
            posts,
        })
    }
}

/// The defaults, whatever the environment says.
fn config(feed: Feed) -> Result<Config> {
    let mut config = load(None, std::iter::empty())?;
    let key_file = output()?.join("pseudonym.key");
    std::fs::write(&key_file, "a key for benchmarks only, 32 b.")?;
    config.pii.key_file = key_file.display().to_string();
    config.input = feed.input();
    Ok(config)
}

/// The batch as the sink gets it, without scores.
fn finished(config: &Config, source: &RecordBatch) -> Result<RecordBatch> {
    let stats = Arc::new(Stats::default());
    let line = Line::new(config, None, Origin::File, Arc::clone(&stats))?;
    let batch = Batch {
        rows: source.clone(),
        source: source.clone(),
        rejects: Vec::new(),
        deletes: Vec::new(),
        offsets: BTreeMap::new(),
        read_at: Instant::now(),
        trace: tamiz::observe::traces::batch(source.num_rows(), 0, 0),
        permit: Permit::unbounded(0),
    };
    let batch = apply_one(line.duplicates.as_ref(), line.chain.apply(batch)?, &stats)?;
    let batch = runtime()?.block_on(line.scoring.apply(batch, &stats))?;
    Ok(finish(batch, &line.rules, &stats)?.posts)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn main() -> Result<()> {
    let (feed, started) = (Feed::best(), SystemTime::now());
    let date = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let machine = Machine::here(date)?;
    std::fs::create_dir_all(output()?)?;
    let inputs = Inputs::new(feed)?;
    say(&format!("{POSTS} posts: {}\n", feed.name()))?;
    let mut criterion = Criterion::default().configure_from_args().output_directory(&output()?);
    let mut group = criterion.benchmark_group(GROUP);
    stages(&mut group, &inputs)?;
    duplicates(&mut group, &inputs)?;
    tokenize(&mut group, &inputs)?;
    commit(&mut group, "commit", &inputs, StoreOptions::new())?;
    let unsynced = StoreOptions::from([("fsync".to_owned(), "false".to_owned())]);
    commit(&mut group, "commit_unsynced", &inputs, unsynced)?;
    group.finish();
    criterion.final_summary();
    keep(&machine, feed, started)
}

fn stages(group: &mut BenchmarkGroup<WallTime>, inputs: &Inputs) -> Result<()> {
    for (name, stage, rows) in &inputs.stages {
        group.throughput(throughput(rows)?);
        group.bench_function(*name, |bencher| bencher.iter(|| black_box(stage.apply(rows.clone()))));
    }
    Ok(())
}

fn duplicates(group: &mut BenchmarkGroup<WallTime>, inputs: &Inputs) -> Result<()> {
    let rows = &inputs.before_duplicates;
    group.throughput(throughput(rows)?);
    group.bench_function("duplicates", |bencher| {
        let fresh = || (Duplicates::new(inputs.config.noise.clone()), rows.clone());
        bencher.iter_batched(fresh, |(stage, rows)| (stage.apply(rows), stage), BatchSize::SmallInput);
    });
    Ok(())
}

fn tokenize(group: &mut BenchmarkGroup<WallTime>, inputs: &Inputs) -> Result<()> {
    let tokenizer = Checkpoint::open(&default_weights()?)?.tokenizer;
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let texts = texts(&inputs.posts)?;
    group.throughput(throughput(&inputs.posts)?);
    group.bench_function("tokenize", |bencher| {
        bencher.iter(|| black_box(one_thread.install(|| tokenizer.encode(texts))))
    });
    Ok(())
}

fn commit(group: &mut BenchmarkGroup<WallTime>, name: &str, inputs: &Inputs, options: StoreOptions) -> Result<()> {
    let (store, runtime) = (Store::new(&options)?, runtime()?);
    let dir = tempfile::tempdir()?;
    let mut tables = 0;
    let mut fresh = || {
        tables += 1;
        let address = dir.path().join(tables.to_string()).display().to_string();
        runtime.block_on(TableWriter::open(&address, &store, posts_spec(&[])))
    };
    fresh()?;
    group.throughput(throughput(&inputs.posts)?);
    group.bench_function(name, |bencher| {
        let commit = |table: Result<TableWriter, _>| {
            let mut table = table?;
            let done = runtime.block_on(table.commit(vec![inputs.posts.clone()], &Txns::new()));
            done.map(|done| (done, table))
        };
        bencher.iter_batched(&mut fresh, commit, BatchSize::PerIteration);
    });
    Ok(())
}

fn texts(rows: &RecordBatch) -> Result<&StringArray> {
    let column = rows
        .column_by_name(TEXT)
        .and_then(|column| column.as_any().downcast_ref());
    column.context("the stages leave a column of texts")
}

fn throughput(rows: &RecordBatch) -> Result<Throughput> {
    let bytes = match rows.column_by_name(PAYLOAD) {
        Some(payloads) => payloads.to_data().buffers()[1].len(),
        None => texts(rows)?.value_data().len(),
    };
    Ok(Throughput::ElementsAndBytes {
        elements: rows.num_rows() as u64,
        bytes: bytes as u64,
    })
}

/// Criterion's own folder, where it finds the run before.
fn output() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let profile = program
        .ancestors()
        .nth(2)
        .context("cargo puts programs into target/PROFILE/deps")?;
    Ok(profile.join("criterion"))
}

/// Keeps the figures of a run that measured everything; one with a filter has others to compare with.
fn keep(machine: &Machine, feed: Feed, started: SystemTime) -> Result<()> {
    let mut figures = BTreeMap::new();
    for folder in std::fs::read_dir(output()?.join(GROUP)).into_iter().flatten() {
        let folder = folder?.path();
        let estimates = folder.join("new/estimates.json");
        let fresh = estimates
            .metadata()
            .and_then(|file| file.modified())
            .is_ok_and(|at| at >= started);
        if fresh {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            figures.insert(name, figure(&estimates, &folder.join("new/benchmark.json"))?);
        }
    }
    if figures.len() < 11 {
        return Ok(());
    }
    let command = "cargo bench --profile dev --workspace --bench stages";
    let all = json!({"machine": machine, "command": command, "feed": feed, "posts": POSTS, "stages": figures});
    let path = results().join("stages.json");
    std::fs::write(&path, serde_json::to_string_pretty(&all)? + "\n")
        .with_context(|| format!("cannot write `{}`", path.display()))
}

/// Criterion's median with its confidence interval, per post, and both throughputs.
fn figure(estimates: &Path, benchmark: &Path) -> Result<Value> {
    let read = |path: &Path| -> Result<Value> { Ok(serde_json::from_slice(&std::fs::read(path)?)?) };
    let (estimates, benchmark) = (read(estimates)?, read(benchmark)?);
    let median = &estimates["median"];
    let nanos = |value: &Value| value.as_f64().context("criterion writes numbers");
    let size = &benchmark["throughput"]["ElementsAndBytes"];
    let (rows, bytes) = (nanos(&size["elements"])?, nanos(&size["bytes"])?);
    ensure!(rows > 0.0, "a benchmark without rows");
    let point = nanos(&median["point_estimate"])?;
    let interval = &median["confidence_interval"];
    let micros = |nanos: f64| (nanos / rows).round() / 1e3;
    Ok(json!({
        "micros_per_post": micros(point),
        "micros_per_post_95": [micros(nanos(&interval["lower_bound"])?), micros(nanos(&interval["upper_bound"])?)],
        "posts_per_second": (rows * 1e9 / point).round(),
        "megabytes_per_second": (bytes * 1e3 / point).round(),
        "bytes_per_post": (bytes / rows).round(),
    }))
}

fn say(line: &str) -> Result<()> {
    Ok(std::io::stderr().lock().write_all(line.as_bytes())?)
}
