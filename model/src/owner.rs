//! The thread that owns the model: it takes what is queued, orders it by length, computes, and answers.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use arrow::array::{BooleanArray, Int32Array};

use crate::batching::cut;
use crate::checkpoint::Checkpoint;
use crate::error::{ModelError, ScoreError};
use crate::lanes::Lanes;
use crate::network::Network;
use crate::scorer::{Counters, Permit, Reply, ScorerOptions};
use crate::scores::{Head, HeadScores, Scores, softmax};
use crate::tokenizer::Encoded;

/// Batches' worth of tokens taken from the queue at once: enough that rows of equal length find each other, not so many that a
/// small request waits long for a large one.
const WINDOW_BATCHES: usize = 4;

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
    reply: Reply,
    _permit: Permit, // gives the queue's room back when the job is answered or dropped
}

impl Job {
    pub(crate) fn new(encoded: Encoded, permit: Permit, reply: Reply) -> Self {
        Job {
            encoded,
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
        let owner = match Owner::new(&checkpoint, &options, counters) {
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
    counters: Arc<Counters>,
}

/// A row in the window: which job, which row of it.
type Place = (usize, usize);

/// A job in work.
struct Open {
    job: Job,
    probabilities: Vec<Vec<f32>>, // per head (rows, labels)
    failed: Option<ScoreError>,
}

impl Owner {
    fn new(checkpoint: &Checkpoint, options: &ScorerOptions, counters: Arc<Counters>) -> Result<Self, ModelError> {
        let heads = checkpoint.identity().heads;
        if heads.is_empty() {
            return Err(ModelError::Config(format!(
                "model `{}` is an encoder without heads: fine-tune it with `tamiz model train --from` before scoring",
                checkpoint.config.name
            )));
        }
        let network = checkpoint.load(options.device.resolve()?)?;
        let lanes = Lanes::new(&network, &checkpoint.config, options.threads)?;
        Ok(Owner {
            network,
            lanes,
            heads,
            batch_tokens: options.batch_tokens,
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
        let batches = cut(&lengths, self.lanes.share_of(self.batch_tokens));
        for wave in batches.chunks(self.lanes.at_once()) {
            self.run(&mut open, wave.iter().map(|batch| &places[batch.clone()]));
        }
        for entry in open {
            self.answer(entry);
        }
    }

    fn open(&self, job: Job) -> Open {
        let rows = job.encoded.len();
        let probabilities = self
            .heads
            .iter()
            .map(|head| vec![0.0; rows * head.labels.len()])
            .collect();
        Open {
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
        self.counters
            .model_nanos
            .fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        for (places, result) in batches.iter().zip(results) {
            match result {
                Ok(logits) => self.distribute(open, places, logits),
                Err(error) => {
                    let error = ScoreError::Forward(error.to_string().into());
                    places
                        .iter()
                        .for_each(|&(job, _)| open[job].failed = Some(error.clone()));
                }
            }
        }
    }

    fn count(&self, rows: &[&[u32]]) {
        let add =
            |counter: &std::sync::atomic::AtomicU64, amount: usize| counter.fetch_add(amount as u64, Ordering::Relaxed);
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
            failed,
        } = entry;
        let encoded = &job.encoded;
        let result = match failed {
            Some(error) => Err(error),
            None => Ok(Scores {
                n_tokens: Int32Array::new(
                    (0..encoded.len()).map(|row| encoded.row(row).len() as i32).collect(),
                    encoded.nulls().cloned(),
                ),
                truncated: BooleanArray::new(
                    (0..encoded.len()).map(|row| encoded.truncated(row)).collect(),
                    encoded.nulls().cloned(),
                ),
                heads: (self.heads.iter().zip(probabilities))
                    .map(|(head, probabilities)| HeadScores::new(head.clone(), probabilities, encoded.nulls().cloned()))
                    .collect(),
            }),
        };
        // The caller may have hung up meanwhile; then nobody wants the answer.
        drop(job.reply.send(result));
    }
}
