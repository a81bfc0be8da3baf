//! `tamiz batch`: files → the same stages → tables; goes on where it stopped, by the same protocol as the stream.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tamiz_model::Scorer;
use tokio::sync::mpsc;

use super::{JobError, deletes, flush_rules, open_tables, store};
use crate::batch::{Item, TopicPartition};
use crate::config::Config;
use crate::flow::{self, SOURCE_QUEUE};
use crate::line::Line;
use crate::observe::Kind;
use crate::sink::{Sink, app_id};
use crate::source::files::{self, Format, Input};
use crate::source::kafka::Committed;
use crate::source::{BatchLimits, Budget, SourceError, Stop, parquet};
use crate::stages::decode::Origin;
use crate::stats::Stats;

/// Reads the file or folder at `from` into the configured tables.
///
/// A file is known by its path below `from`; rows that an earlier run committed are not read again, rows appended
/// since are.
///
/// # Errors
/// The first failure; what was committed stays, and the next run goes on from there.
pub async fn batch(
    config: &Config,
    from: &Path,
    scorer: Option<Scorer>,
    stats: Arc<Stats>,
    stop: Stop,
) -> Result<(), JobError> {
    config.check()?;
    let mut inputs = files::inputs(from)?;
    let store = store(config)?;
    let line = Line::new(config, scorer, Origin::File, Arc::clone(&stats))?;
    let tables = open_tables(config, &store, line.further_heads()).await?;
    let prefix = format!("{}/file", config.pipeline.name);
    let ids: Vec<String> = inputs.iter().map(|input| app_id(&prefix, &partition(input))).collect();
    let posts = tables.posts.next_offsets(&ids).await?;
    let dead_letters = tables.dead_letters.next_offsets(&ids).await?;
    let mut sink = Sink::new(
        prefix,
        tables,
        flush_rules(config),
        Arc::clone(&stats),
        Committed::default(),
    );
    for (input, id) in inputs.iter_mut().zip(&ids) {
        input.start = posts.get(id).copied().unwrap_or(0);
        sink.know(
            partition(input),
            0,
            posts.get(id).copied(),
            dead_letters.get(id).copied(),
        );
    }
    let (limits, budget) = (config.batch_limits(), Budget::new(config.limits.memory_bytes));
    let (out, items) = mpsc::channel(SOURCE_QUEUE);
    stats.watch().begin(Kind::Files, flush_rules(config).age, &budget, &out);
    let source = move |stop: &Stop| read_all(&inputs, &limits, &budget, out, stop);
    flow::run(source, items, line, sink, stop).await?;
    deletes::apply(config).await?;
    Ok(())
}

fn partition(input: &Input) -> TopicPartition {
    TopicPartition {
        topic: Arc::clone(&input.topic),
        partition: 0,
    }
}

fn read_all(
    inputs: &[Input],
    limits: &BatchLimits,
    budget: &Budget,
    out: mpsc::Sender<Item>,
    stop: &Stop,
) -> Result<(), SourceError> {
    for input in inputs {
        match input.format {
            Format::Parquet => parquet::read(input, limits, budget, &out, stop)?,
            Format::JsonLines | Format::JsonLinesZstd => files::read(input, limits, budget, &out, stop)?,
        }
        if stop.is_set() {
            break;
        }
    }
    Ok(())
}

/// How many rows the files hold, by format, where that can be told without reading them; for a progress bar.
pub fn known_rows(from: &Path) -> Option<u64> {
    let inputs = files::inputs(from).ok()?;
    let rows: BTreeMap<_, _> = inputs
        .iter()
        .map(|input| {
            let file = std::fs::File::open(&input.path).ok()?;
            let builder = ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).ok()?;
            Some((input.path.clone(), builder.metadata().file_metadata().num_rows() as u64))
        })
        .collect::<Option<_>>()?;
    Some(rows.values().sum())
}
