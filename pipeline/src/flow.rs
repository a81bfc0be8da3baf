//! The straight line: source → stages → duplicates → score → finish → sink. Start reading here.
//!
//! ```text
//! source thread ──▶ stages (rayon, several batches at once, order kept) ──▶ duplicates (one at a time)
//!               ──▶ score (tokenized on rayon, one owner thread per device) ──▶ finish ──▶ sink task ──▶ commit
//! ```
//!
//! Order is kept all the way, so a commit covers a prefix of each partition and its logic stays trivial. Queues are
//! bounded; one byte budget covers all that is in flight, and the source waits when it is spent.

#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};

use crate::batch::{Batch, Item};
use crate::line::Line;
use crate::registry::{Registry, RegistryError};
use crate::sink::{Sink, SinkError, SinkItem};
use crate::source::{SourceError, Stop};
use crate::stage::{StageError, apply_one};
use crate::stages::finish::{Finished, finish};
use crate::stats::Stats;

/// Batches between source and stages.
pub const SOURCE_QUEUE: usize = 8;
/// Batches between finish and sink.
const SINK_QUEUE: usize = 4;
/// Batches that wait for the model at once, so that it never waits for tokens.
const SCORING: usize = 3;
/// How long a line that failed waits for its source: leaving a group takes some answers of the broker.
const SOURCE_LEAVES: Duration = Duration::from_secs(30);

/// Why the line stopped.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A stage.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The schema registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The sink.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A defect in a stage.
    #[error("a stage panicked; nothing of its batch was committed; report this as a defect")]
    Panicked,
}

impl FlowError {
    /// Another writer took the partitions over: start again from the tables' offsets.
    pub fn is_fenced(&self) -> bool {
        matches!(self, FlowError::Sink(SinkError::Fenced(_)))
    }
}

/// Runs a source through the line into the sink, until the source ends.
///
/// The source is a closure run on a thread of its own; it is told to stop when anything further down fails.
///
/// # Errors
/// The first failure; what was not committed is read again at the next start. Unless it hangs, the source has ended then
/// too: it must not change what a line shows that starts again.
pub async fn run<S>(source: S, items: mpsc::Receiver<Item>, line: Line, sink: Sink, stop: Stop) -> Result<(), FlowError>
where
    S: FnOnce(&Stop) -> Result<(), SourceError> + Send + 'static,
{
    let (to_sink, from_line) = mpsc::channel(SINK_QUEUE);
    line.stats.watch().gauges.queue("sink", &to_sink);
    let source_stop = stop.clone();
    let (ended, source_end) = oneshot::channel();
    std::thread::Builder::new()
        .name("source".into())
        .spawn(move || drop(ended.send(source(&source_stop))))
        .map_err(|error| SourceError::File {
            path: "source thread".into(),
            cause: error.to_string(),
        })?;
    let mut sink = tokio::spawn(sink.run(from_line));
    let (worked, sunk) = {
        let work = pump(items, line, to_sink, stop.clone());
        tokio::pin!(work);
        tokio::select! {
            worked = &mut work => (worked, None),
            // The sink ends first only by failing; the line then has no one to send to.
            sunk = &mut sink => (Ok(()), Some(sunk)),
        }
    };
    // Nobody takes the source's items any more, so it does not hang for want of room.
    stop.set();
    let sunk = match sunk {
        Some(sunk) => sunk,
        None => sink.await,
    };
    let sunk = sunk.unwrap_or(Err(SinkError::Abandoned));
    if let Err(error) = worked.and(sunk.map_err(FlowError::from)) {
        if tokio::time::timeout(SOURCE_LEAVES, source_end).await.is_err() {
            tracing::warn!("the source does not end, though the line has failed");
        }
        return Err(error);
    }
    match source_end.await {
        Ok(result) => Ok(result?),
        Err(_) => Err(FlowError::Panicked),
    }
}

async fn pump(
    items: mpsc::Receiver<Item>,
    line: Line,
    to_sink: mpsc::Sender<SinkItem>,
    stop: Stop,
) -> Result<(), FlowError> {
    let mut finished = std::pin::pin!(enriched(items, line, stop));
    while let Some(item) = finished.next().await {
        if to_sink.send(item?).await.is_err() {
            // The sink has failed and says why.
            return Ok(());
        }
    }
    Ok(())
}

/// One batch through the same line, by itself: for rows that no source delivers.
pub(crate) async fn alone(line: &Line, batch: Batch, stop: &Stop) -> Result<Finished, FlowError> {
    fetch_schemas(line.registry.as_deref(), &batch, stop, &line.stats).await?;
    let chain = line.chain.clone();
    let batch = on_rayon(move || chain.apply(batch)).await?;
    let batch = apply_one(line.duplicates.as_ref(), batch, &line.stats)?;
    let batch = line.scoring.apply(batch, &line.stats).await?;
    Ok(finish(batch, &line.rules, &line.stats)?)
}

/// The line as one expression.
fn enriched(items: mpsc::Receiver<Item>, line: Line, stop: Stop) -> impl Stream<Item = Result<SinkItem, FlowError>> {
    let Line {
        chain,
        duplicates,
        scoring,
        registry,
        rules,
        stats,
    } = line;
    let width = rayon::current_num_threads() + 1;
    let (read_stats, scoring_stats) = (Arc::clone(&stats), Arc::clone(&stats));
    let (registry_stats, finish_stats) = (Arc::clone(&stats), Arc::clone(&stats));
    stream::unfold(items, |mut items| async {
        items.recv().await.map(|item| (item, items))
    })
    .inspect(move |item| {
        if let Item::Batch(batch) = item {
            read_stats.read(batch);
        }
    })
    .map(move |item| {
        let (chain, registry, stop) = (chain.clone(), registry.clone(), stop.clone());
        let stats = Arc::clone(&registry_stats);
        async move {
            each(item, async |batch| {
                fetch_schemas(registry.as_deref(), &batch, &stop, &stats).await?;
                on_rayon(move || chain.apply(batch)).await
            })
            .await
        }
    })
    .buffered(width)
    .map(move |item| map(item?, |batch| Ok(apply_one(duplicates.as_ref(), batch, &stats)?)))
    .map(move |item| {
        let (scoring, stats) = (scoring.clone(), Arc::clone(&scoring_stats));
        async move { each(item?, async |batch| Ok(scoring.apply(batch, &stats).await?)).await }
    })
    .buffered(SCORING)
    .map(move |item| {
        Ok(match item? {
            Item::Batch(batch) => SinkItem::Rows(Box::new(finish(*batch, &rules, &finish_stats)?)),
            Item::Flush(done) => SinkItem::Flush(done),
        })
    })
}

async fn each<F, Fut>(item: Item, work: F) -> Result<Item, FlowError>
where
    F: FnOnce(Batch) -> Fut,
    Fut: Future<Output = Result<Batch, FlowError>>,
{
    match item {
        Item::Batch(batch) => Ok(Item::Batch(Box::new(work(*batch).await?))),
        flush => Ok(flush),
    }
}

fn map(item: Item, work: impl FnOnce(Batch) -> Result<Batch, FlowError>) -> Result<Item, FlowError> {
    match item {
        Item::Batch(batch) => Ok(Item::Batch(Box::new(work(*batch)?))),
        flush => Ok(flush),
    }
}

/// Has the schemas at hand that the batch's payloads name: stages do no I/O.
async fn fetch_schemas(
    registry: Option<&Registry>,
    batch: &Batch,
    stop: &Stop,
    stats: &Stats,
) -> Result<(), FlowError> {
    let Some(registry) = registry else { return Ok(()) };
    let _waits = stats.watch().health.asks_registry();
    Ok(registry.prepare(&batch.rows, stop).await?)
}

/// Runs the stages on a rayon thread; this thread goes on with other batches meanwhile.
async fn on_rayon(work: impl FnOnce() -> Result<Batch, StageError> + Send + 'static) -> Result<Batch, FlowError> {
    let (done, result) = oneshot::channel();
    rayon::spawn(move || {
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(work));
        // Nobody waits any more when the line has failed elsewhere.
        let _ = done.send(outcome);
    });
    match result.await {
        Ok(Ok(result)) => Ok(result?),
        _ => Err(FlowError::Panicked),
    }
}
