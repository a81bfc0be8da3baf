//! The training loop: several heads, several sets, one encoder; or hidden words, and no head at all.
//!
//! Every batch is of one set, and moves the encoder and that set's head. Now and then the validation sets are scored, and
//! the weights are written when they are the best so far: what is on disk is the best of the run, whenever it ends. A run that was
//! cut short goes on when it is started again with the same configuration, data and folder, and ends with the same weights.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, Origin};
use crate::config::ModelConfig;
use crate::curves::History;
use crate::error::ModelError;
use crate::feed::{Batch, Feed, TrainingSet};
use crate::learner::Learner;
use crate::optimizer::rate_at;
use crate::progress::{Ended, Figures, Progress, TrainOutcome};
use crate::resume::{Resume, State};
use crate::sets::{self, ValidationSet};
use crate::start::{commit, noise, starting_point};
use crate::tokenizer::Tokenizer;
use crate::train_config::TrainConfig;
use crate::validate;

/// Steps between reports of the loss.
const REPORT_EVERY: usize = 50;

/// The weights that are on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    pub(crate) step: usize,
    pub(crate) score: f64,
    pub(crate) figures: Figures,
}

/// Trains a model and writes the best of it to `out`, with the course of its figures in `history.csv` and `history.svg`.
///
/// `progress` hears how it goes; when it answers [`ControlFlow::Break`], the run ends with what is best so far, and can go on later.
///
/// # Errors
/// When the configuration or the data cannot be used, libtorch fails, `out` cannot be written or holds another unfinished run, or the
/// run was interrupted before there was anything to keep.
pub fn train(
    config: &TrainConfig,
    out: &Path,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<TrainOutcome, ModelError> {
    config.check()?;
    if let Some(threads) = config.threads {
        tch::set_num_threads(threads.try_into().unwrap_or(i32::MAX));
    }
    std::fs::create_dir_all(out).map_err(|error| ModelError::write(out, error))?;
    let _alone = alone_in(out)?;
    let mut run = Run::new(config, out, progress).inspect_err(|_| {
        // A run that never began leaves no folder; one that has anything in it stays.
        let _ = std::fs::remove_dir(out);
    })?;
    run.go(progress)
}

/// Keeps other runs out of the folder for as long as it is held; a process that dies gives it back.
fn alone_in(out: &Path) -> Result<File, ModelError> {
    let folder = File::open(out).map_err(|error| ModelError::write(out, error))?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => Err(ModelError::Config(format!(
            "another run is writing to `{}`: wait for it, or name another folder",
            out.display()
        ))),
        Err(TryLockError::Error(error)) => Err(ModelError::write(out, error)),
    }
}

struct Run<'a> {
    config: &'a TrainConfig,
    out: &'a Path,
    model_config: ModelConfig,
    tokenizer: Tokenizer,
    learner: Learner,
    feed: Feed,
    validation: Vec<ValidationSet>,
    left_out: usize,
    origin: Origin,
    history: History,
    resume: Resume,
    started: Instant,
    seconds_before: f64, // of the run before it was cut short
    looks_without_gain: usize,
    window: Window,
    best: Option<Best>,
}

impl<'a> Run<'a> {
    fn new(
        config: &'a TrainConfig,
        out: &'a Path,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Self, ModelError> {
        let (start, base) = match starting_point(config)? {
            Some((network, encoder, tokenizer)) => (Some((network, encoder)), Some(tokenizer)),
            None => (None, None),
        };
        let sets = sets::load(config, base, progress)?;
        let tokenizer = sets.tokenizer;
        let encoder = start.as_ref().map(|(_, encoder)| encoder).or(config.encoder.as_ref());
        let encoder = encoder
            .cloned()
            .ok_or_else(|| ModelError::Config("there is no encoder to train".to_owned()))?;
        let vocabulary = (tokenizer.vocabulary() as i64).max(encoder.vocabulary);
        let model_config = config.model_config(encoder, vocabulary, tokenizer.prepare());
        model_config.check()?;
        let start = start.as_ref().map(|(network, _)| network);
        let learner = Learner::new(config, &model_config, tokenizer.padding_id(), start)?;
        let feed = Feed::new(
            sets.training,
            config.schedule.batch_tokens,
            noise(config, &tokenizer)?,
            config.seed,
        );
        Ok(Run {
            config,
            out,
            model_config,
            tokenizer,
            learner,
            feed,
            validation: sets.validation,
            left_out: sets.left_out,
            origin: Origin {
                commit: commit(),
                data_sha256: sets.data_sha256,
                seed: config.seed,
                metrics: Figures::new(),
            },
            history: History::new(out),
            resume: Resume::new(out),
            started: Instant::now(),
            seconds_before: 0.0,
            looks_without_gain: 0,
            window: Window::new(),
            best: None,
        })
    }

    fn go(&mut self, progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>) -> Result<TrainOutcome, ModelError> {
        let schedule = &self.config.schedule;
        let steps = schedule.steps;
        let mut tell = |go_on: ControlFlow<()>, event: Progress| match go_on {
            ControlFlow::Continue(()) => progress(&event),
            stopped => stopped,
        };
        let mut step = self.pick_up()?;
        let mut go_on = tell(ControlFlow::Continue(()), self.ready());
        if step > 0 {
            go_on = tell(go_on, Progress::Resumed { step });
        }
        while go_on.is_continue() && step < schedule.steps && !self.is_stuck() {
            self.step(step)?;
            step += 1;
            go_on = tell(go_on, Progress::Moved { step, steps });
            let last = step == steps;
            if step % REPORT_EVERY == 0 || last {
                go_on = tell(go_on, self.report(step)?);
            }
            let look = step % schedule.evaluate_every == 0 || last;
            if look {
                go_on = tell(go_on, self.look(step)?);
            }
            let due = schedule.save_every.map_or(look, |every| step % every == 0);
            if (due || go_on.is_break()) && !last {
                self.save(step)?;
            }
        }
        let ended = match go_on {
            ControlFlow::Break(()) if step < schedule.steps => Ended::Interrupted,
            _ if step < schedule.steps => Ended::Early,
            _ => Ended::Completed,
        };
        let outcome = self.outcome(step, ended)?;
        if ended != Ended::Interrupted {
            self.resume.clear()?;
        }
        Ok(outcome)
    }

    /// Goes to where a run that was cut short had got; returns the number of its steps.
    fn pick_up(&mut self) -> Result<usize, ModelError> {
        let hashes = (self.config.sha256(), self.origin.data_sha256.clone());
        let Some(state) = self.resume.load((&hashes.0, &hashes.1), &mut self.learner)? else {
            return Ok(0);
        };
        let (steps, batches) = (self.config.schedule.steps, self.config.schedule.accumulate);
        let done = (0..state.step).flat_map(|step| std::iter::repeat_n(step as f64 / steps as f64, batches));
        self.feed.replay(done);
        self.history.pick_up(state.step)?;
        self.seconds_before = state.seconds;
        self.looks_without_gain = state.looks_without_gain;
        (self.window.losses, self.window.batches) = state.losses;
        self.origin.metrics = state.best.as_ref().map(|best| best.figures.clone()).unwrap_or_default();
        self.best = state.best;
        Ok(state.step)
    }

    fn save(&self, step: usize) -> Result<(), ModelError> {
        let state = State {
            config_sha256: self.config.sha256(),
            data_sha256: self.origin.data_sha256.clone(),
            step,
            seconds: self.seconds(),
            looks_without_gain: self.looks_without_gain,
            best: self.best.clone(),
            losses: (self.window.losses, self.window.batches),
            weight_steps: BTreeMap::new(),
        };
        self.resume.save(state, &self.learner)
    }

    fn is_stuck(&self) -> bool {
        let patience = self.config.schedule.patience;
        patience.is_some_and(|patience| self.looks_without_gain >= patience)
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    fn ready(&self) -> Progress {
        Progress::Ready {
            texts: self.feed.sets.iter().map(TrainingSet::texts).sum(),
            left_out: self.left_out,
            tokens: self.feed.sets.iter().map(TrainingSet::tokens).sum(),
            parameters: self.learner.network.parameters(),
        }
    }

    /// One step down the gradient.
    fn step(&mut self, step: usize) -> Result<(), ModelError> {
        let schedule = &self.config.schedule;
        // Dropout depends on the seed and the step alone, so that a run that goes on after a crash draws the same.
        tch::manual_seed((self.config.seed ^ (step as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)) as i64);
        for _ in 0..schedule.accumulate {
            let batch = self.feed.next(step as f64 / schedule.steps as f64);
            let loss = self.learner.add(&batch, &self.feed.sets[batch.set])?;
            self.window.add(loss, &batch);
        }
        self.learner
            .step(self.config.optimizer.learning_rate * rate_at(step, schedule))
    }

    fn report(&mut self, step: usize) -> Result<Progress, ModelError> {
        let window = std::mem::replace(&mut self.window, Window::new());
        let loss = BTreeMap::from([("loss".to_owned(), window.loss())]);
        self.history.record((step, self.seconds()), "train", &loss)?;
        Ok(window.report(step, self.config.schedule.steps))
    }

    /// Scores the validation sets and keeps the weights when they are the best so far.
    fn look(&mut self, step: usize) -> Result<Progress, ModelError> {
        let (score, figures) = validate::look(self.config, &self.learner, (&self.validation, &self.tokenizer))?;
        for (set, values) in &figures {
            self.history.record((step, self.seconds()), set, values)?;
        }
        let best = self.best.as_ref().is_none_or(|best| score > best.score);
        self.looks_without_gain = if best { 0 } else { self.looks_without_gain + 1 };
        if best {
            self.best = Some(Best {
                step,
                score,
                figures: figures.clone(),
            });
            self.origin.metrics = figures.clone();
            let weights = (&self.learner.network, self.config.precision);
            checkpoint::save(
                self.out,
                &self.config.kept(&self.model_config),
                &self.tokenizer,
                weights,
                self.origin.clone(),
            )?;
        }
        Ok(Progress::Evaluated {
            step,
            score,
            best,
            figures,
        })
    }

    fn outcome(&mut self, steps: usize, ended: Ended) -> Result<TrainOutcome, ModelError> {
        let best = self.best.take().ok_or_else(interrupted_too_early)?;
        Ok(TrainOutcome {
            folder: self.out.to_owned(),
            best_step: best.step,
            score: best.score,
            figures: best.figures,
            steps,
            seconds: self.seconds(),
            ended,
        })
    }
}

fn interrupted_too_early() -> ModelError {
    ModelError::Config(
        "training was interrupted before its first look at the validation sets, so there is nothing to keep: start it again to go on"
            .to_owned(),
    )
}

/// Means since the last report.
struct Window {
    losses: f64,
    batches: usize,
    padded_tokens: usize,
    started: Instant,
}

impl Window {
    fn new() -> Self {
        Window {
            losses: 0.0,
            batches: 0,
            padded_tokens: 0,
            started: Instant::now(),
        }
    }

    fn add(&mut self, loss: f64, batch: &Batch) {
        self.losses += loss;
        self.batches += 1;
        self.padded_tokens += batch.rows.iter().map(Vec::len).max().unwrap_or(0) * batch.rows.len();
    }

    fn loss(&self) -> f64 {
        self.losses / self.batches.max(1) as f64
    }

    fn report(&self, step: usize, steps: usize) -> Progress {
        let tokens_per_second = self.padded_tokens as f64 / self.started.elapsed().as_secs_f64();
        Progress::Step {
            step,
            steps,
            loss: self.loss(),
            tokens_per_second,
        }
    }
}
