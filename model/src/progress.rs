//! What a training run tells, while it goes on and at its end.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

/// What a run tells while it goes on.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Progress {
    /// A teacher was asked about texts without labels.
    Asked {
        /// The teacher, as `name@sha`.
        teacher: String,
        /// Texts that it has answered for.
        done: usize,
        /// Texts in all.
        texts: usize,
    },
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
    /// A run that was cut short goes on.
    Resumed {
        /// Steps made before.
        step: usize,
    },
    /// One more step is done; told after every one.
    Moved {
        /// Steps so far.
        step: usize,
        /// Steps in all.
        steps: usize,
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
