//! The thread that owns the model: it takes what is queued, orders it by length, computes, and answers.
//!
//! A batch that fails takes no other down: it is done again in pieces ([`crate::rescue`]), and the batches after it are smaller.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use arrow::array::{BooleanArray, Int32Array};
use arrow::buffer::NullBuffer;
use tch::Device;

use crate::batching::cut;
use crate::checkpoint::Checkpoint;
use crate::error::{ModelError, ScoreError};
use crate::lanes::Lanes;
use crate::network::Network;
use crate::rescue::{Fault, Spare, Way, Ways, rescue};
use crate::scorer::{Counters, Permit, Reply, ScorerOptions};
use crate::scores::{FailedRow, Head, HeadScores, Scored, Scores, softmax};
use crate::tokenizer::Encoded;

/// Batches' worth of tokens taken from the queue at once: enough that rows of equal length find each other, not so many that a
/// small request waits long for a large one.
const WINDOW_BATCHES: usize = 4;

/// After memory ran out, so many batches must pass before larger ones are tried again. Each try that fails costs a pass.
const CALM_BATCHES: usize = 256;

/// What the thread is asked for.
pub(crate) enum Work {
    /// Scores of a column.
    Score(Job),
    /// Anything else that needs the model; such work waits for its turn, and is made to be rare and short.
    Ask(Box<dyn FnOnce(&Network) + Send>),
}

/// One caller's column.
pub(crate) struct Job {
    encoded: Encoded,
    refused: Vec<FailedRow>, // by the tokenizer
    reply: Reply,
    _permit: Permit, // gives the queue's room back when the job is answered or dropped
}

impl Job {
    pub(crate) fn new((encoded, refused): (Encoded, Vec<FailedRow>), permit: Permit, reply: Reply) -> Self {
        Job {
            encoded,
            refused,
            reply,
            _permit: permit,
        }
    }
}

/// Starts the thread; returns once the model is loaded.
pub(crate) fn start(
    checkpoint: Checkpoint,
    options: ScorerOptions,
    counters: Arc<Counters>,
) -> Result<mpsc::Sender<Work>, ModelError> {
    let (jobs, queue) = mpsc::channel();
    let (ready, loaded) = mpsc::channel();
    let run = move || {
        let owner = match Owner::new(checkpoint, &options, counters) {
            Ok(owner) => owner,
            Err(error) => return drop(ready.send(Err(error))),
        };
        if ready.send(Ok(())).is_ok() {
            owner.serve(&queue);
        }
    };
    std::thread::Builder::new()
        .name("tamiz-scorer".to_owned())
        .spawn(run)
        .map_err(|error| {
            ModelError::Config(format!(
                "cannot start the scorer's thread ({error}): raise the thread limit"
            ))
        })?;
    loaded.recv().map_err(|_| ScoreError::Stopped)??;
    Ok(jobs)
}

struct Owner {
    network: Network,
    lanes: Lanes,
    heads: Vec<Arc<Head>>,
    batch_tokens: usize,
    limit: Cell<Limit>,
    spare: Option<Spare>,
    counters: Arc<Counters>,
}

/// What one batch may hold. It shrinks when memory runs out.
#[derive(Debug, Clone, Copy)]
struct Limit {
    tokens: usize,
    calm: usize, // batches since it last changed
}

/// A row in the window: which job, which row of it.
type Place = (usize, usize);

/// A job in work.
struct Open {
    job: Job,
    probabilities: Vec<Vec<f32>>, // per head (rows, labels)
    refused: Vec<FailedRow>,
    failed: Option<ScoreError>,
}

impl Owner {
    fn new(checkpoint: Checkpoint, options: &ScorerOptions, counters: Arc<Counters>) -> Result<Self, ModelError> {
        let heads = checkpoint.identity().heads;
        if heads.is_empty() {
            return Err(ModelError::Config(format!(
                "model `{}` is an encoder without heads: fine-tune it with `tamiz model train --from` before scoring",
                checkpoint.config.name
            )));
        }
        let device = options.device.resolve()?;
        let network = checkpoint.load(device)?;
        let lanes = Lanes::new(&network, &checkpoint.config, options.threads)?;
        let limit = Limit {
            tokens: lanes.share_of(options.batch_tokens),
            calm: 0,
        };
        Ok(Owner {
            network,
            lanes,
            heads,
            batch_tokens: options.batch_tokens,
            limit: Cell::new(limit),
            spare: (options.cpu_fallback && device != Device::Cpu).then(|| Spare::new(checkpoint)),
            counters,
        })
    }

    fn serve(&self, queue: &mpsc::Receiver<Work>) {
        while let Ok(mut next) = queue.recv() {
            let (mut tokens, mut jobs) = (0, Vec::new());
            let asked = loop {
                match next {
                    Work::Ask(work) => break Some(work),
                    Work::Score(job) => {
                        tokens += job.encoded.tokens();
                        jobs.push(job);
                    }
                }
                if tokens >= WINDOW_BATCHES * self.batch_tokens {
                    break None;
                }
                let Ok(job) = queue.try_recv() else { break None };
                next = job;
            };
            jobs.retain(|job| !job.reply.is_closed());
            self.compute(jobs);
            if let Some(work) = asked {
                work(&self.network);
            }
        }
    }

    fn compute(&self, jobs: Vec<Job>) {
        let mut open: Vec<Open> = jobs.into_iter().map(|job| self.open(job)).collect();
        let mut places: Vec<Place> = Vec::new();
        for (job, entry) in open.iter().enumerate() {
            let encoded = &entry.job.encoded;
            places.extend(
                (0..encoded.len())
                    .filter(|&row| !encoded.row(row).is_empty())
                    .map(|row| (job, row)),
            );
        }
        let length = |&(job, row): &Place| open[job].job.encoded.row(row).len();
        places.sort_by_key(length); // stable: equal lengths keep their order, so that memory is read forwards
        let lengths: Vec<usize> = places.iter().map(length).collect();
        let mut done = 0;
        while done < places.len() {
            // Cut anew for each wave: a batch that failed in the last one made the limit smaller.
            let batches = cut(&lengths[done..], self.limit.get().tokens);
            let wave = &batches[..batches.len().min(self.lanes.at_once())];
            let here = &places[done..];
            self.run(&mut open, wave.iter().map(|batch| &here[batch.clone()]));
            done += wave.last().map_or(here.len(), |batch| batch.end);
        }
        for entry in open {
            self.answer(entry);
        }
    }

    fn open(&self, mut job: Job) -> Open {
        let rows = job.encoded.len();
        let probabilities = self
            .heads
            .iter()
            .map(|head| vec![0.0; rows * head.labels.len()])
            .collect();
        Open {
            refused: std::mem::take(&mut job.refused),
            job,
            probabilities,
            failed: None,
        }
    }

    /// A forward pass per batch; jobs that have failed or whose caller has hung up are left out.
    fn run<'a>(&self, open: &mut [Open], batches: impl Iterator<Item = &'a [Place]>) {
        let wanted: Vec<bool> = open
            .iter()
            .map(|entry| entry.failed.is_none() && !entry.job.reply.is_closed())
            .collect();
        let batches: Vec<Vec<Place>> = batches
            .map(|places| places.iter().copied().filter(|&(job, _)| wanted[job]).collect())
            .filter(|places: &Vec<Place>| !places.is_empty())
            .collect();
        let rows_of = |places: &Vec<Place>| -> Vec<&[u32]> {
            let row = |&(job, row): &Place| open[job].job.encoded.row(row);
            places.iter().map(row).collect()
        };
        let rows: Vec<Vec<&[u32]>> = batches.iter().map(rows_of).collect();
        rows.iter().for_each(|rows| self.count(rows));
        let started = Instant::now();
        let results = self.lanes.logits(&self.network, &rows);
        add(&self.counters.model_nanos, started.elapsed().as_nanos() as usize);
        let failures: Vec<(usize, ModelError)> = (0..)
            .zip(results)
            .filter_map(|(batch, result)| match result {
                Ok(logits) => {
                    self.distribute(open, &batches[batch], logits);
                    None
                }
                Err(error) => Some((batch, error)),
            })
            .collect();
        self.breathe(batches.len() - failures.len());
        // After the others: their memory is free again.
        for (batch, error) in failures {
            self.save(open, &batches[batch], error);
        }
    }

    /// Does a failed batch again in pieces. What cannot be saved fails for its own job only, unless no row is to blame.
    fn save(&self, open: &mut [Open], places: &[Place], error: ModelError) {
        self.shrink(open, places, &error);
        let row = |&(job, row): &Place| open[job].job.encoded.row(row);
        let rows: Vec<&[u32]> = places.iter().map(row).collect();
        let spare = self.spare.as_ref().map(|spare| |rows: &[&[u32]]| spare.logits(rows));
        let ways = Ways {
            model: &|rows| self.network.logits(rows),
            spare: spare.as_ref().map(|spare| spare as Way),
        };
        let started = Instant::now();
        let rescued = rescue(&ways, &rows, error);
        add(&self.counters.model_nanos, started.elapsed().as_nanos() as usize);
        add(&self.counters.split_batches, 1);
        match rescued {
            Ok(rescued) => {
                add(&self.counters.spared_rows, rescued.spared);
                add(&self.counters.failed_rows, rescued.failed.len());
                for (piece, logits) in rescued.pieces {
                    self.distribute(open, &places[piece], logits);
                }
                for (place, reason) in rescued.failed {
                    let (job, row) = places[place];
                    let reason = reason.into();
                    open[job].refused.push(FailedRow { row, reason });
                }
            }
            Err(error) => {
                let error = ScoreError::Broken(error.to_string().into());
                let jobs = places.iter().map(|&(job, _)| job);
                jobs.for_each(|job| open[job].failed = Some(error.clone()));
            }
        }
    }

    /// Makes the next batches smaller where memory ran out.
    fn shrink(&self, open: &[Open], places: &[Place], error: &ModelError) {
        if Fault::of(error) != Fault::Memory || places.len() < 2 {
            return;
        }
        let length = |&(job, row): &Place| open[job].job.encoded.row(row).len();
        let tokens = places.iter().map(length).max().unwrap_or(0) * places.len();
        let limit = (tokens / 2).clamp(1, self.limit.get().tokens);
        self.limit.set(Limit { tokens: limit, calm: 0 });
        tracing::warn!(
            tokens,
            limit,
            "the model ran out of memory on a batch: it is done in pieces, and the next batches are smaller; a lower \
             `batch_tokens` avoids this"
        );
    }

    /// Lets batches grow again when many have passed.
    fn breathe(&self, batches: usize) {
        let Limit { tokens, calm } = self.limit.get();
        let most = self.lanes.share_of(self.batch_tokens);
        if tokens >= most {
            return;
        }
        let calm = calm + batches;
        self.limit.set(match calm >= CALM_BATCHES {
            true => Limit {
                tokens: (tokens * 2).min(most),
                calm: 0,
            },
            false => Limit { tokens, calm },
        });
    }

    fn count(&self, rows: &[&[u32]]) {
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        add(&self.counters.rows, rows.len());
        add(&self.counters.tokens, rows.iter().map(|row| row.len()).sum());
        add(&self.counters.padded_tokens, longest * rows.len());
        add(&self.counters.batches, 1);
    }

    fn distribute(&self, open: &mut [Open], places: &[Place], logits: Vec<Vec<f32>>) {
        for (head, mut logits) in logits.into_iter().enumerate() {
            let labels = self.heads[head].labels.len();
            for (&(job, row), logits) in places.iter().zip(logits.chunks_exact_mut(labels)) {
                softmax(logits, self.heads[head].temperature);
                open[job].probabilities[head][row * labels..(row + 1) * labels].copy_from_slice(logits);
            }
        }
    }

    fn answer(&self, entry: Open) {
        let Open {
            job,
            probabilities,
            mut refused,
            failed,
        } = entry;
        let encoded = &job.encoded;
        refused.sort_by_key(|failed| failed.row);
        let nulls = without(encoded.nulls(), encoded.len(), &refused);
        let scores = || Scores {
            n_tokens: Int32Array::new(
                (0..encoded.len()).map(|row| encoded.row(row).len() as i32).collect(),
                nulls.clone(),
            ),
            truncated: BooleanArray::new(
                (0..encoded.len()).map(|row| encoded.truncated(row)).collect(),
                nulls.clone(),
            ),
            heads: (self.heads.iter().zip(probabilities))
                .map(|(head, probabilities)| HeadScores::new(head.clone(), probabilities, nulls.clone()))
                .collect(),
        };
        let result = match failed {
            Some(error) => Err(error),
            None => Ok(Scored {
                scores: scores(),
                failed: refused,
            }),
        };
        // The caller may have hung up meanwhile; then nobody wants the answer.
        drop(job.reply.send(result));
    }
}

/// Rows that failed have no scores, as NULL texts have none.
fn without(nulls: Option<&NullBuffer>, rows: usize, failed: &[FailedRow]) -> Option<NullBuffer> {
    if failed.is_empty() {
        return nulls.cloned();
    }
    let mut valid: Vec<bool> = (0..rows)
        .map(|row| nulls.is_none_or(|nulls| nulls.is_valid(row)))
        .collect();
    failed.iter().for_each(|failed| valid[failed.row] = false);
    Some(valid.into())
}

fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::Relaxed);
}

#[cfg(test)]
#[path = "owner_tests.rs"]
mod tests;
