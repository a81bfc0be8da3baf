//! The scorer: one thread owns the model; everyone else holds a cheap handle and sends it columns of texts.
//!
//! A call tokenizes on rayon, waits for room in the queue, and awaits its result. Rows of all callers, of the stream and of every
//! SQL partition, meet in that queue and share batches, so that an accelerator sees full ones.
//! Who is full: the caller waits, in [`Scorer::score`] without holding a thread.
//! A caller that hangs up is normal: its rows are skipped if they have not been computed yet.
//!
//! Architecture invariant: no tensor leaves the owner thread and its lanes, and no post text enters them.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use arrow::array::{Array, Int32Array, Int32Builder, ListArray, ListBuilder, StringArray, StringBuilder};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot};

use crate::checkpoint::Checkpoint;
use crate::device::DeviceChoice;
use crate::error::{ModelError, ScoreError};
use crate::network::Network;
use crate::owner::{self, Job, Work};
use crate::scores::{FailedRow, Head, ModelIdentity, Scored, Scores};
use crate::tokenizer::{Encoded, Tokenizer};

/// How a scorer runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScorerOptions {
    /// Where the model runs.
    pub device: DeviceChoice,
    /// Padded tokens (rows × longest row) in forward passes at a time: more is faster until memory runs out.
    pub batch_tokens: usize,
    /// Rows that may wait or be in work, of all callers together; beyond that callers wait.
    pub queue_rows: usize,
    /// Processor threads of the model, each of which works on batches of its own; one per core when absent.
    pub threads: Option<usize>,
    /// A text that an accelerator cannot do alone is scored on the processor, which takes long; otherwise it has no scores.
    pub cpu_fallback: bool,
}

impl Default for ScorerOptions {
    fn default() -> Self {
        ScorerOptions {
            device: DeviceChoice::Auto,
            batch_tokens: 4096,
            queue_rows: 16_384,
            threads: None,
            cpu_fallback: false,
        }
    }
}

/// What a scorer has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ScorerStats {
    /// Texts scored.
    pub rows: u64,
    /// Tokens in them.
    pub tokens: u64,
    /// Places in the rectangles that were computed; what exceeds `tokens` is padding.
    pub padded_tokens: u64,
    /// Forward passes.
    pub batches: u64,
    /// Seconds in forward passes.
    pub model_seconds: f64,
    /// Seconds in tokenization, summed over calls.
    pub tokenize_seconds: f64,
    /// Forward passes that failed and were done again in pieces.
    pub split_batches: u64,
    /// Texts that only the processor could do, where that is allowed.
    pub spared_rows: u64,
    /// Texts that failed alone.
    pub failed_rows: u64,
    /// Rows that wait or are in work now.
    pub queued_rows: u64,
}

/// The counters behind [`ScorerStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) rows: AtomicU64,
    pub(crate) tokens: AtomicU64,
    pub(crate) padded_tokens: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) model_nanos: AtomicU64,
    pub(crate) tokenize_nanos: AtomicU64,
    pub(crate) split_batches: AtomicU64,
    pub(crate) spared_rows: AtomicU64,
    pub(crate) failed_rows: AtomicU64,
}

/// A handle to a loaded model. Clones share one owner thread, which ends when the last of them is dropped.
#[derive(Clone)]
pub struct Scorer {
    jobs: mpsc::Sender<Work>,
    shared: Arc<Shared>,
}

struct Shared {
    identity: ModelIdentity,
    tokenizer: Tokenizer,
    room: Arc<Semaphore>,
    queue_rows: usize,
    counters: Arc<Counters>,
}

impl std::fmt::Debug for Scorer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scorer")
            .field("model", &self.shared.identity.to_string())
            .finish_non_exhaustive()
    }
}

impl Scorer {
    /// Checks the checkpoint, loads it and starts the thread that owns it. Takes as long as reading the weights does.
    ///
    /// # Errors
    /// When the checkpoint, the device or an option cannot be used.
    pub fn open(dir: &Path, options: ScorerOptions) -> Result<Scorer, ModelError> {
        for (name, value) in [
            ("batch_tokens", options.batch_tokens),
            ("queue_rows", options.queue_rows),
            ("threads", options.threads.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(ModelError::Config(format!("{name} must be at least 1")));
            }
        }
        let checkpoint = Checkpoint::open(dir)?;
        let queue_rows = options.queue_rows.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        let counters = Arc::new(Counters::default());
        let shared = Shared {
            identity: checkpoint.identity(),
            tokenizer: checkpoint.tokenizer.clone(),
            room: Arc::new(Semaphore::new(queue_rows)),
            queue_rows,
            counters: counters.clone(),
        };
        let jobs = owner::start(checkpoint, options, counters)?;
        tracing::debug!(model = %shared.identity, "scorer opened");
        Ok(Scorer {
            jobs,
            shared: Arc::new(shared),
        })
    }

    /// Which model this is.
    pub fn identity(&self) -> &ModelIdentity {
        &self.shared.identity
    }

    /// The head of that name.
    pub fn head(&self, name: &str) -> Option<&Arc<Head>> {
        self.shared.identity.heads.iter().find(|head| head.name == name)
    }

    /// Scores a column; results come in its order. Dropping the future gives the work up.
    ///
    /// # Errors
    /// When a text fails, or the model, for this call only.
    pub async fn score(&self, texts: &StringArray) -> Result<Scores, ScoreError> {
        all(self.score_each(texts).await?)
    }

    /// As [`Scorer::score`], where single texts may fail: they have no scores, and are named.
    ///
    /// # Errors
    /// Only when no text is to blame: the device is gone, or the scorer has stopped.
    pub async fn score_each(&self, texts: &StringArray) -> Result<Scored, ScoreError> {
        let permit = self.reserve(texts.len()).await?;
        let (reply, result) = oneshot::channel();
        let (scorer, texts) = (self.clone(), texts.clone());
        rayon::spawn(move || {
            if !reply.is_closed() {
                scorer.submit(&texts, permit, reply);
            }
        });
        result.await.map_err(|_| ScoreError::Stopped)?
    }

    /// Scores a column and blocks until the result is there. It may be called anywhere, on a tokio worker too (whose thread it
    /// then holds).
    ///
    /// # Errors
    /// As [`Scorer::score`].
    pub fn score_blocking(&self, texts: &StringArray) -> Result<Scores, ScoreError> {
        let permit = wait(self.reserve(texts.len()))?;
        let (reply, result) = oneshot::channel();
        self.submit(texts, permit, reply);
        all(wait(result).map_err(|_| ScoreError::Stopped)??)
    }

    /// The tokens the model reads of every text, its own markers included; NULL for NULL.
    ///
    /// # Errors
    /// When the tokenizer refuses a text.
    pub fn tokens(&self, texts: &StringArray) -> Result<ListArray, ScoreError> {
        let tokenizer = &self.shared.tokenizer;
        let encoded = tokenizer.encode(texts)?;
        let mut lists = ListBuilder::new(StringBuilder::new());
        for row in 0..texts.len() {
            for &id in encoded.row(row) {
                lists.values().append_value(tokenizer.token(id));
            }
            lists.append(texts.is_valid(row));
        }
        Ok(lists.finish())
    }

    /// How many tokens the model reads of every text: the lengths of [`Scorer::tokens`], and the `n_tokens` of its scores.
    ///
    /// # Errors
    /// When the tokenizer refuses a text.
    pub fn token_counts(&self, texts: &StringArray) -> Result<Int32Array, ScoreError> {
        let encoded = self.shared.tokenizer.encode(texts)?;
        let mut counts = Int32Builder::with_capacity(texts.len());
        for row in 0..texts.len() {
            counts.append_option(texts.is_valid(row).then(|| encoded.row(row).len() as i32));
        }
        Ok(counts.finish())
    }

    /// Runs `work` on the model, on the thread that owns it, and blocks until it is done.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Network) -> T + Send + 'static,
    ) -> Result<T, ScoreError> {
        let (reply, result) = oneshot::channel();
        // A caller that has hung up and an owner that has stopped look the same from here: nobody waits for the answer.
        let work = Work::Ask(Box::new(move |network| drop(reply.send(work(network)))));
        self.jobs.send(work).map_err(|_| ScoreError::Stopped)?;
        wait(result).map_err(|_| ScoreError::Stopped)
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    /// What this scorer has done so far, for all callers together.
    pub fn stats(&self) -> ScorerStats {
        let counters = &self.shared.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ScorerStats {
            rows: get(&counters.rows),
            tokens: get(&counters.tokens),
            padded_tokens: get(&counters.padded_tokens),
            batches: get(&counters.batches),
            model_seconds: get(&counters.model_nanos) as f64 / 1e9,
            tokenize_seconds: get(&counters.tokenize_nanos) as f64 / 1e9,
            split_batches: get(&counters.split_batches),
            spared_rows: get(&counters.spared_rows),
            failed_rows: get(&counters.failed_rows),
            queued_rows: (self.shared.queue_rows - self.shared.room.available_permits()) as u64,
        }
    }

    /// Waits for room in the queue. A call with more rows than the queue holds takes it all, so that it runs alone.
    async fn reserve(&self, rows: usize) -> Result<Permit, ScoreError> {
        let rows = rows.min(self.shared.queue_rows) as u32;
        let permit = self.shared.room.clone().acquire_many_owned(rows).await;
        permit.map_err(|_| ScoreError::Stopped)
    }

    /// Tokenizes on the current thread and rayon's, and hands over to the owner.
    fn submit(&self, texts: &StringArray, permit: Permit, reply: Reply) {
        let started = Instant::now();
        let encoded = encode(&self.shared.tokenizer, texts);
        self.shared
            .counters
            .tokenize_nanos
            .fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        match encoded {
            // A caller that has hung up and an owner that has stopped look the same from here: nobody waits for the answer.
            Err(error) => drop(reply.send(Err(error))),
            Ok(encoded) => drop(self.jobs.send(Work::Score(Job::new(encoded, permit, reply)))),
        }
    }
}

pub(crate) type Permit = tokio::sync::OwnedSemaphorePermit;
pub(crate) type Reply = oneshot::Sender<Result<Scored, ScoreError>>;

/// The scores of all texts, or the error of the first that has none.
fn all(scored: Scored) -> Result<Scores, ScoreError> {
    match scored.failed.first() {
        None => Ok(scored.scores),
        Some(first) => Err(ScoreError::Rows {
            failed: scored.failed.len(),
            rows: scored.scores.n_tokens.len(),
            reason: first.reason.clone(),
        }),
    }
}

/// Tokenizes a column. Texts that the tokenizer refuses are left out and named; where it refuses all, it is not the texts.
fn encode(tokenizer: &Tokenizer, texts: &StringArray) -> Result<(Encoded, Vec<FailedRow>), ScoreError> {
    let error = match tokenizer.encode(texts) {
        Ok(encoded) => return Ok((encoded, Vec::new())),
        Err(error) => error,
    };
    let refused = |row: &usize| tokenizer.encode(&texts.slice(*row, 1)).is_err();
    let refused: Vec<usize> = (0..texts.len()).filter(refused).collect();
    if refused.len() == texts.len() - texts.null_count() {
        return Err(error);
    }
    let kept = |row| (texts.is_valid(row) && !refused.contains(&row)).then(|| texts.value(row));
    let kept: StringArray = (0..texts.len()).map(kept).collect();
    // Not the tokenizer's words: they may be those of the text.
    let reason: Arc<str> = "the tokenizer refused the text".into();
    let failed = refused.iter().map(|&row| FailedRow {
        row,
        reason: reason.clone(),
    });
    Ok((tokenizer.encode(&kept)?, failed.collect()))
}

/// Polls a future on this thread, parked in between. Unlike tokio's own blocking calls this works inside a runtime too;
/// `unconstrained` keeps the caller task's budget from starving it there.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = std::pin::pin!(tokio::task::unconstrained(future));
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
