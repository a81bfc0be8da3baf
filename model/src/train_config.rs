//! What a training run is: one TOML file, every option with a reason in `configs/default.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::architecture::Architecture;
use crate::checkpoint::Precision;
use crate::config::{Activation, EncoderConfig, ModelConfig, NormPlacement, Pooling, Positions, Prepare};
use crate::data::Selection;
use crate::device::DeviceChoice;
use crate::error::ModelError;
use crate::scores::Head;

/// A training run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The checkpoint's name.
    pub name: String,
    /// Seeds weights, order and dropout.
    pub seed: u64,
    /// The folder that the paths of the sets start from.
    #[serde(default)]
    pub data: PathBuf,
    /// Where to train.
    #[serde(default)]
    pub device: DeviceChoice,
    /// libtorch's threads inside an operation; its own choice when absent.
    pub threads: Option<usize>,
    /// Precision of the weights on disk.
    #[serde(default)]
    pub precision: Precision,
    /// Whether training texts may be validation texts too. Without it they are left out, because figures on texts that were
    /// learnt by heart say nothing.
    #[serde(default)]
    pub overlap: bool,
    /// The tokenizer.
    pub tokenizer: TokenizerConfig,
    /// The encoder's structure.
    pub encoder: EncoderShape,
    /// How the weights are moved.
    pub optimizer: OptimizerConfig,
    /// How long, and when to look.
    pub schedule: ScheduleConfig,
    /// What the model is to tell.
    pub heads: Vec<HeadConfig>,
    /// What it learns from.
    pub sets: Vec<SetConfig>,
    /// What it is chosen by.
    pub validation: Vec<ValidationConfig>,
}

/// The tokenizer, learnt from the texts of the training sets.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerConfig {
    /// Number of word pieces.
    pub vocabulary: usize,
    /// What happens to a text first.
    pub prepare: Prepare,
}

/// [`EncoderConfig`] without the vocabulary, which the tokenizer decides.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct EncoderShape {
    #[serde(default)]
    pub architecture: Architecture,
    pub hidden: i64,
    pub layers: usize,
    pub attention_heads: i64,
    pub feed_forward: i64,
    pub max_tokens: usize,
    pub dropout: f64,
    pub norm: NormPlacement,
    pub norm_eps: f64,
    pub activation: Activation,
    pub positions: Positions,
    pub pooling: Pooling,
}

/// AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) and what keeps a small data set from being learnt by heart.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The highest learning rate, reached after the warm-up.
    pub learning_rate: f64,
    /// Pull of every weight towards zero, per step and learning rate.
    pub weight_decay: f64,
    /// Gradients longer than this are shortened to it.
    pub clip_norm: f64,
    /// Share of the target's probability spread over all labels.
    #[serde(default)]
    pub label_smoothing: f64,
    /// Share of tokens hidden from the model in training.
    #[serde(default)]
    pub token_dropout: f64,
}

/// How long to train and when to look.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Steps in all; the learning rate falls along a cosine to zero at the last.
    pub steps: usize,
    /// Steps until the highest learning rate.
    pub warmup_steps: usize,
    /// Padded tokens per step.
    pub batch_tokens: usize,
    /// Steps between looks at the validation sets.
    pub evaluate_every: usize,
    /// Looks without a better figure before the run ends early; never when absent.
    pub patience: Option<usize>,
}

/// A head and how it is learnt.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadConfig {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// How much rare labels are raised: 0 not at all, 1 until all labels weigh the same.
    #[serde(default)]
    pub balance: f64,
}

/// A training set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetConfig {
    /// The head it teaches.
    pub head: String,
    /// The file, under the data folder.
    pub path: PathBuf,
    /// Its share of the steps, in proportion to the others' shares.
    pub share: f64,
    /// It is used up to this share of all steps: weak labels first, good ones to the end.
    #[serde(default = "one")]
    pub until: f64,
    /// Whether texts of this set are told apart by its own labels only: a set that lacks a label says nothing about it.
    #[serde(default)]
    pub restrict: bool,
    /// The file's label to the head's label.
    #[serde(default)]
    pub map: BTreeMap<String, String>,
    /// Fields and the value they must have.
    #[serde(default)]
    pub only: BTreeMap<String, String>,
}

/// A validation set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// What it is called in figures.
    pub name: String,
    /// The head it checks.
    pub head: String,
    /// The file, under the data folder.
    pub path: PathBuf,
    /// Its weight in the figure that the checkpoint is chosen by.
    pub weight: f64,
    /// The figure of it that counts.
    pub metric: Metric,
    /// The file's label to the head's label.
    #[serde(default)]
    pub map: BTreeMap<String, String>,
    /// Fields and the value they must have.
    #[serde(default)]
    pub only: BTreeMap<String, String>,
}

/// The figure that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of right predictions.
    Accuracy,
    /// Mean of the labels' F1.
    MacroF1,
    /// Mean of the labels' recall.
    MacroRecall,
}

fn one() -> f64 {
    1.0
}

impl TrainConfig {
    /// Reads and checks a TOML file.
    ///
    /// # Errors
    /// When the file cannot be read, has an unknown or missing option, or one that cannot work.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(|error| ModelError::read(path, error))?;
        let config: TrainConfig =
            toml::from_str(&text).map_err(|error| ModelError::malformed(path, error.to_string().trim()))?;
        config.check()?;
        Ok(config)
    }

    /// Checks what can be checked without the data.
    ///
    /// # Errors
    /// One sentence about the first option that cannot work.
    pub fn check(&self) -> Result<(), ModelError> {
        self.model_config(self.tokenizer.vocabulary as i64).check()?;
        let wrong = |reason: String| Err(ModelError::Config(format!("training `{}`: {reason}", self.name)));
        let schedule = &self.schedule;
        if schedule.steps == 0 || schedule.evaluate_every == 0 || schedule.batch_tokens == 0 {
            return wrong("steps, evaluate_every and batch_tokens must be at least 1".to_owned());
        }
        if self.optimizer.learning_rate <= 0.0 || self.optimizer.clip_norm <= 0.0 {
            return wrong("learning_rate and clip_norm must be above 0".to_owned());
        }
        let heads = self
            .sets
            .iter()
            .map(|set| &set.head)
            .chain(self.validation.iter().map(|set| &set.head));
        for head in heads {
            self.head(head)?;
        }
        for head in &self.heads {
            if !self
                .sets
                .iter()
                .any(|set| set.head == head.name && set.share > 0.0 && set.until >= 1.0)
            {
                return wrong(format!(
                    "head `{}` has no set with a share above 0 to the end",
                    head.name
                ));
            }
        }
        if !self.validation.iter().any(|set| set.weight > 0.0) {
            return wrong("it needs a validation set with a weight above 0 to choose by".to_owned());
        }
        Ok(())
    }

    /// The configuration of the model that this trains.
    pub fn model_config(&self, vocabulary: i64) -> ModelConfig {
        let shape = &self.encoder;
        ModelConfig {
            format: 1,
            name: self.name.clone(),
            encoder: EncoderConfig {
                architecture: shape.architecture.clone(),
                vocabulary,
                hidden: shape.hidden,
                layers: shape.layers,
                attention_heads: shape.attention_heads,
                feed_forward: shape.feed_forward,
                max_tokens: shape.max_tokens,
                dropout: shape.dropout,
                norm: shape.norm,
                norm_eps: shape.norm_eps,
                activation: shape.activation,
                positions: shape.positions,
                pooling: shape.pooling,
            },
            heads: self.heads.iter().map(HeadConfig::head).collect(),
            prepare: self.tokenizer.prepare,
        }
    }

    /// The place of a head.
    pub(crate) fn head(&self, name: &str) -> Result<usize, ModelError> {
        self.heads
            .iter()
            .position(|head| head.name == name)
            .ok_or_else(|| ModelError::UnknownHead {
                head: name.to_owned(),
                known: self
                    .heads
                    .iter()
                    .map(|head| head.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }
}

impl HeadConfig {
    pub(crate) fn head(&self) -> Head {
        Head::new(&self.name, self.labels.clone())
    }
}

impl SetConfig {
    pub(crate) fn selection(&self) -> Selection {
        Selection {
            map: self.map.clone(),
            only: self.only.clone(),
            ..Selection::default()
        }
    }
}

impl ValidationConfig {
    pub(crate) fn selection(&self) -> Selection {
        Selection {
            map: self.map.clone(),
            only: self.only.clone(),
            ..Selection::default()
        }
    }
}
