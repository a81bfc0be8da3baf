//! The training loop: several heads, several sets, one encoder.
//!
//! Every step takes a batch of one set, and moves the encoder and that set's head. Now and then the validation sets are scored, and
//! the weights are written when they are the best so far: what is on disk is the best of the run, whenever it ends.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use tch::nn::{AdamW, Optimizer, OptimizerConfig as _};
use tch::{Kind, Reduction, Tensor};

use crate::batching::pad;
use crate::checkpoint::{self, Origin};
use crate::config::ModelConfig;
use crate::error::{ModelError, guard};
use crate::feed::{Batch, Feed, TrainingSet};
use crate::metrics::Metrics;
use crate::network::Network;
use crate::scores::best_of;
use crate::sets::{self, ValidationSet};
use crate::tokenizer::{HIDDEN, Tokenizer};
use crate::train_config::{Metric, ScheduleConfig, TrainConfig};
use crate::transformer::Mode;

/// Steps between reports of the loss.
const REPORT_EVERY: usize = 50;

/// What a run tells while it goes on.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Progress {
    /// Data and tokenizer are ready.
    Ready {
        /// Number of training texts.
        texts: usize,
        /// Further ones, left out because a validation set has them too.
        left_out: usize,
        /// Tokens in them.
        tokens: usize,
        /// Number of weights.
        parameters: usize,
    },
    /// Some steps are done.
    Step {
        /// Steps so far.
        step: usize,
        /// Steps in all.
        steps: usize,
        /// Mean loss since the last report.
        loss: f64,
        /// Padded tokens per second since the last report.
        tokens_per_second: f64,
    },
    /// The validation sets were scored.
    Evaluated {
        /// Steps so far.
        step: usize,
        /// The figure the checkpoint is chosen by.
        score: f64,
        /// Whether it is the best so far; the weights were then written.
        best: bool,
        /// Set to metric to value.
        figures: Figures,
    },
}

/// Set to metric to value.
pub type Figures = BTreeMap<String, BTreeMap<String, f64>>;

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// All steps were made.
    Completed,
    /// The validation figure had stopped rising.
    Early,
    /// The caller asked for it.
    Interrupted,
}

/// What a run gave.
#[derive(Debug, Clone, Serialize)]
pub struct TrainOutcome {
    /// The folder of the checkpoint.
    pub folder: PathBuf,
    /// The step its weights are from.
    pub best_step: usize,
    /// Its figure.
    pub score: f64,
    /// Its figures, set by set.
    pub figures: Figures,
    /// Steps made.
    pub steps: usize,
    /// Seconds taken.
    pub seconds: f64,
    /// Why it ended.
    pub ended: Ended,
}

/// Trains a model and writes the best of it to `out`, with the course of its figures in `history.csv`.
///
/// `progress` hears how it goes; when it answers [`ControlFlow::Break`], the run ends with what is best so far.
///
/// # Errors
/// When the configuration or the data cannot be used, libtorch fails, `out` cannot be written, or the run was interrupted before
/// there was anything to keep.
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
    let mut run = Run::new(config, out)?;
    run.go(progress)
}

struct Run<'a> {
    config: &'a TrainConfig,
    out: &'a Path,
    model_config: ModelConfig,
    tokenizer: Tokenizer,
    network: Network,
    optimizer: Optimizer,
    feed: Feed,
    validation: Vec<ValidationSet>,
    left_out: usize,
    origin: Origin,
    history: String,
    started: Instant,
    best: Option<(usize, f64, Figures)>,
}

impl<'a> Run<'a> {
    fn new(config: &'a TrainConfig, out: &'a Path) -> Result<Self, ModelError> {
        let sets = sets::load(config)?;
        let model_config = config.model_config(sets.tokenizer.vocabulary() as i64);
        let device = config.device.resolve()?;
        let network = Network::new(&model_config, sets.tokenizer.padding_id(), device, config.seed)?;
        let adam = AdamW {
            wd: config.optimizer.weight_decay,
            beta2: 0.98,
            ..AdamW::default()
        };
        let optimizer = adam.build(&network.store, config.optimizer.learning_rate)?;
        let hidden = sets
            .tokenizer
            .id_of(HIDDEN)
            .unwrap_or_else(|| sets.tokenizer.padding_id());
        let (batch_tokens, token_dropout) = (config.schedule.batch_tokens, config.optimizer.token_dropout);
        let feed = Feed::new(sets.training, batch_tokens, token_dropout, hidden, config.seed);
        let origin = Origin {
            commit: commit(),
            data_sha256: sets.data_sha256,
            seed: config.seed,
            metrics: Figures::new(),
        };
        Ok(Run {
            config,
            out,
            model_config,
            tokenizer: sets.tokenizer,
            network,
            optimizer,
            feed,
            validation: sets.validation,
            left_out: sets.left_out,
            origin,
            history: String::from("step,seconds,set,metric,value\n"),
            started: Instant::now(),
            best: None,
        })
    }

    fn go(&mut self, progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>) -> Result<TrainOutcome, ModelError> {
        let mut ended = Ended::Completed;
        if progress(&self.ready()).is_break() {
            return Err(interrupted_too_early());
        }
        let mut window = Window::new();
        let schedule = &self.config.schedule;
        let mut looks_without_gain = 0;
        let mut step = 0;
        while step < schedule.steps {
            self.optimizer
                .set_lr(self.config.optimizer.learning_rate * rate(step, schedule));
            let batch = self.feed.next(step as f64 / schedule.steps as f64);
            window.add(self.step(&batch)?, &batch);
            step += 1;
            let mut go_on = ControlFlow::Continue(());
            if step % REPORT_EVERY == 0 || step == schedule.steps {
                let report = window.report(step, schedule.steps);
                self.record(step, "train", &BTreeMap::from([("loss".to_owned(), window.loss())]))?;
                window = Window::new();
                go_on = progress(&report);
            }
            if step % schedule.evaluate_every == 0 || step == schedule.steps {
                let (event, best) = self.look(step)?;
                looks_without_gain = if best { 0 } else { looks_without_gain + 1 };
                go_on = if go_on.is_break() { go_on } else { progress(&event) };
            }
            if go_on.is_break() {
                ended = Ended::Interrupted;
                break;
            }
            if schedule.patience.is_some_and(|patience| looks_without_gain >= patience) {
                ended = Ended::Early;
                break;
            }
        }
        self.outcome(step, ended)
    }

    fn ready(&self) -> Progress {
        Progress::Ready {
            texts: self.feed.sets.iter().map(|set| set.labels.len()).sum(),
            left_out: self.left_out,
            tokens: self.feed.sets.iter().map(TrainingSet::tokens).sum(),
            parameters: self.network.parameters(),
        }
    }

    /// One step down the gradient; returns the loss.
    fn step(&mut self, batch: &Batch) -> Result<f64, ModelError> {
        let set = &self.feed.sets[batch.set];
        let device = self.network.store.device();
        let rows: Vec<&[u32]> = batch.rows.iter().map(Vec::as_slice).collect();
        let tokens = pad(&rows, self.tokenizer.padding_id(), device)?;
        let smoothing = self.config.optimizer.label_smoothing;
        let loss = guard("taking a training step", || {
            let logits = &self.network.classifier.forward(&tokens, Mode::Train)[set.head]; // (b, l)
            let choices: Vec<i64> = set.choices.iter().map(|&choice| choice as i64).collect();
            let logits = logits.index_select(1, &Tensor::from_slice(&choices).to_device(device)); // (b, choices)
            let place = |label: &usize| {
                set.choices
                    .iter()
                    .position(|choice| choice == label)
                    .map_or(0, |place| place as i64)
            };
            let truth: Vec<i64> = batch.labels.iter().map(place).collect();
            let truth = Tensor::from_slice(&truth).to_device(device); // (b)
            let weights = Tensor::from_slice(&set.weights).to_device(device); // (choices)
            let loss = logits.cross_entropy_loss(&truth, Some(&weights), Reduction::Mean, -100, smoothing);
            self.optimizer
                .backward_step_clip_norm(&loss, self.config.optimizer.clip_norm);
            loss.to_kind(Kind::Double).double_value(&[])
        })?;
        if !loss.is_finite() {
            return Err(ModelError::Config(format!(
                "the loss became {loss}: lower learning_rate or raise warmup_steps"
            )));
        }
        Ok(loss)
    }

    /// Scores the validation sets and keeps the weights when they are the best so far.
    fn look(&mut self, step: usize) -> Result<(Progress, bool), ModelError> {
        let (mut score, mut weights) = (0.0, 0.0);
        let mut figures = Figures::new();
        for (set, config) in self.validation.iter().zip(&self.config.validation) {
            let labels = &self.model_config.heads[set.head].labels;
            let logits = self
                .network
                .all_logits(&set.encoded, self.config.schedule.batch_tokens)?;
            let predicted: Vec<usize> = logits[set.head]
                .chunks_exact(labels.len())
                .map(|row| best_of(row).0)
                .collect();
            let metrics = Metrics::new(labels, &set.labels, &predicted);
            score += config.weight * figure(&metrics, config.metric);
            weights += config.weight;
            figures.insert(config.name.clone(), summary(&metrics));
        }
        let score = score / weights;
        for (set, values) in &figures {
            self.record(step, set, values)?;
        }
        let best = self.best.as_ref().is_none_or(|(_, so_far, _)| score > *so_far);
        if best {
            self.best = Some((step, score, figures.clone()));
            self.origin.metrics = figures.clone();
            let weights = (&self.network, self.config.precision);
            checkpoint::save(
                self.out,
                &self.model_config,
                &self.tokenizer,
                weights,
                self.origin.clone(),
            )?;
        }
        Ok((
            Progress::Evaluated {
                step,
                score,
                best,
                figures,
            },
            best,
        ))
    }

    /// Adds lines to the history, and writes it, so that a run can be watched and survives its end.
    fn record(&mut self, step: usize, set: &str, values: &BTreeMap<String, f64>) -> Result<(), ModelError> {
        let seconds = self.started.elapsed().as_secs_f64();
        for (metric, value) in values {
            // Writing to a string cannot fail.
            let _ = writeln!(self.history, "{step},{seconds:.1},{set},{metric},{value:.5}");
        }
        let path = self.out.join("history.csv");
        std::fs::write(&path, &self.history).map_err(|error| ModelError::write(&path, error))
    }

    fn outcome(&mut self, steps: usize, ended: Ended) -> Result<TrainOutcome, ModelError> {
        let (best_step, score, figures) = self.best.take().ok_or_else(interrupted_too_early)?;
        let seconds = self.started.elapsed().as_secs_f64();
        Ok(TrainOutcome {
            folder: self.out.to_owned(),
            best_step,
            score,
            figures,
            steps,
            seconds,
            ended,
        })
    }
}

fn interrupted_too_early() -> ModelError {
    ModelError::Config(
        "training was interrupted before its first look at the validation sets: there is nothing to keep".to_owned(),
    )
}

/// Share of the highest learning rate at a step: a straight rise, then half a cosine down to zero.
fn rate(step: usize, schedule: &ScheduleConfig) -> f64 {
    if step < schedule.warmup_steps {
        return (step + 1) as f64 / schedule.warmup_steps as f64;
    }
    let left = schedule.steps.saturating_sub(schedule.warmup_steps).max(1);
    let done = (step - schedule.warmup_steps) as f64 / left as f64;
    0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
}

fn figure(metrics: &Metrics, metric: Metric) -> f64 {
    match metric {
        Metric::Accuracy => metrics.accuracy,
        Metric::MacroF1 => metrics.macro_f1,
        Metric::MacroRecall => metrics.macro_recall,
    }
}

fn summary(metrics: &Metrics) -> BTreeMap<String, f64> {
    [
        ("accuracy", metrics.accuracy),
        ("macro_f1", metrics.macro_f1),
        ("macro_recall", metrics.macro_recall),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// The commit of the source tree this was built from; `unknown` outside one.
fn commit() -> String {
    std::process::Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map_or_else(
            || "unknown".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
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
