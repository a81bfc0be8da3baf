//! What a training run is: one TOML file, every option with a reason in `configs/base.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checkpoint::{Precision, hex};
use crate::config::{EncoderConfig, HeadLayer, ModelConfig, Pooling, Prepare};
use crate::data::Selection;
use crate::device::DeviceChoice;
use crate::error::ModelError;
use crate::scores::Head;

/// A training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The checkpoint's name.
    pub name: String,
    /// Seeds weights, order and dropout.
    pub seed: u64,
    /// What is to be learnt.
    #[serde(default)]
    pub task: Task,
    /// The checkpoint to start from: a folder, or `owner/name@revision` on the Hugging Face Hub. Tokenizer and encoder are its own
    /// then, but for what `adapt` says; heads that it has too are kept.
    pub from: Option<String>,
    /// What changes in the encoder that `from` names.
    #[serde(default)]
    pub adapt: AdaptConfig,
    /// Checkpoints whose mean probabilities are the labels of the sets that are `taught` (Hinton et al. 2015, arXiv:1503.02531):
    /// folders, or names on the Hub.
    #[serde(default)]
    pub teachers: Vec<String>,
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
    /// The tokenizer; absent with `from`.
    pub tokenizer: Option<TokenizerConfig>,
    /// The encoder's structure; absent with `from`. Its vocabulary stays out: the tokenizer decides.
    pub encoder: Option<EncoderConfig>,
    /// How the weights are moved.
    pub optimizer: OptimizerConfig,
    /// How long, and when to look.
    pub schedule: ScheduleConfig,
    /// What the model is to tell; absent in pre-training.
    #[serde(default)]
    pub heads: Vec<HeadConfig>,
    /// What it learns from.
    pub sets: Vec<SetConfig>,
    /// What it is chosen by.
    pub validation: Vec<ValidationConfig>,
}

/// What a run learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// The heads' labels.
    #[default]
    Classify,
    /// Hidden tokens of unlabelled texts, from what stands around them: teaches an encoder the language of an archive (Devlin et
    /// al. 2018, arXiv:1810.04805). What it gives is a checkpoint without heads, to start from.
    Mlm,
}

impl FromStr for Task {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "classify" => Ok(Task::Classify),
            "mlm" => Ok(Task::Mlm),
            _ => Err(format!("`{name}` is no task: say classify or mlm")),
        }
    }
}

/// What changes in an encoder that is adapted; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptConfig {
    /// Texts are cut to this many tokens; not more than it knows positions.
    pub max_tokens: Option<usize>,
    /// Share of activations dropped in training.
    pub dropout: Option<f64>,
    /// How a sequence becomes one vector.
    pub pooling: Option<Pooling>,
    /// What stands between that vector and a head.
    pub head_layer: Option<HeadLayer>,
    /// What happens to a text first.
    pub prepare: Option<Prepare>,
    /// So many of the commonest symbols that the tokenizer does not know, emoji mostly, become tokens of their own.
    #[serde(default)]
    pub new_tokens: usize,
}

/// The tokenizer, learnt from the texts of the training sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerConfig {
    /// Number of word pieces.
    pub vocabulary: usize,
    /// What happens to a text first.
    pub prepare: Prepare,
}

/// AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) and what keeps a small data set from being learnt by heart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The highest learning rate, reached after the warm-up.
    pub learning_rate: f64,
    /// Pull of every matrix towards zero, per step and learning rate; biases and norms are left alone.
    pub weight_decay: f64,
    /// Gradients longer than this are shortened to it.
    pub clip_norm: f64,
    /// Share of the target's probability spread over all labels.
    #[serde(default)]
    pub label_smoothing: f64,
    /// Share of tokens hidden from the model in training.
    #[serde(default)]
    pub token_dropout: f64,
    /// The learning rate of a block, as a share of that of the block above; the embeddings are below the first block. What a
    /// pre-trained encoder knows about words is general and near its inputs, so it is moved least there (Howard & Ruder 2018,
    /// arXiv:1801.06146).
    #[serde(default = "one")]
    pub layer_decay: f64,
    /// The learning rate of heads and pooling, as a multiple: they start from nothing.
    #[serde(default = "one")]
    pub head_factor: f64,
    /// Compute in 16-bit floats (bfloat16) and keep the weights themselves in 32: about twice as fast on a GPU, and slower on most
    /// CPUs.
    #[serde(default)]
    pub bf16: bool,
}

/// How long to train and when to look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Steps in all; the learning rate falls along a cosine to zero at the last.
    pub steps: usize,
    /// Steps until the highest learning rate.
    pub warmup_steps: usize,
    /// Padded tokens per batch.
    pub batch_tokens: usize,
    /// Batches per step, their gradients added up: a larger step than memory allows at once.
    #[serde(default = "one_batch")]
    pub accumulate: usize,
    /// Steps between looks at the validation sets.
    pub evaluate_every: usize,
    /// Steps between writing all that is needed to go on after a crash; at every look when absent.
    pub save_every: Option<usize>,
    /// Looks without a better figure before the run ends early; never when absent.
    pub patience: Option<usize>,
}

/// A head and how it is learnt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadConfig {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// How much rare labels are raised: 0 not at all, 1 until all labels weigh the same.
    #[serde(default)]
    pub balance: f64,
    /// Learnt for what it teaches the encoder, and not kept in the checkpoint.
    #[serde(default)]
    pub auxiliary: bool,
}

/// A training set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetConfig {
    /// The head it teaches; absent in pre-training and where teachers give the labels.
    #[serde(default)]
    pub head: String,
    /// The file, under the data folder.
    pub path: PathBuf,
    /// Its texts need no labels: they teach every head that all `teachers` have, what these say of them.
    #[serde(default)]
    pub taught: bool,
    /// Its share of the steps, in proportion to the others' shares.
    pub share: f64,
    /// How much its rare labels are raised, where that is not the head's `balance`.
    pub balance: Option<f64>,
    /// Only so many texts, evenly spread over the file.
    pub sample: Option<usize>,
    /// It is used up to this share of all steps: weak labels first, good ones to the end.
    #[serde(default = "one")]
    pub until: f64,
    /// Whether texts of this set are told apart by its own labels only: a set that lacks a label says nothing about it.
    #[serde(default)]
    pub restrict: bool,
    /// Rows that have several labels are left out; without this they are an error.
    #[serde(default)]
    pub single_label: bool,
    /// The file's label to the head's label.
    #[serde(default)]
    pub map: BTreeMap<String, String>,
    /// Fields and the value they must have.
    #[serde(default)]
    pub only: BTreeMap<String, String>,
}

/// A validation set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// What it is called in figures.
    pub name: String,
    /// The head it checks; absent in pre-training.
    #[serde(default)]
    pub head: String,
    /// The file, under the data folder.
    pub path: PathBuf,
    /// Its weight in the figure that the checkpoint is chosen by.
    pub weight: f64,
    /// The figure of it that counts; pre-training counts the share of hidden tokens that were found.
    #[serde(default)]
    pub metric: Metric,
    /// The file's label to the head's label.
    #[serde(default)]
    pub map: BTreeMap<String, String>,
    /// Fields and the value they must have.
    #[serde(default)]
    pub only: BTreeMap<String, String>,
    /// The only labels to choose from; all of the head's when absent.
    #[serde(default)]
    pub among: Vec<String>,
    /// Only so many texts, evenly spread over the file: a quicker look.
    pub sample: Option<usize>,
}

/// The figure that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of right predictions.
    #[default]
    Accuracy,
    /// Mean of the labels' F1.
    MacroF1,
    /// Mean of the labels' recall.
    MacroRecall,
}

fn one() -> f64 {
    1.0
}

fn one_batch() -> usize {
    1
}

impl TrainConfig {
    /// Reads a TOML file. Training checks it.
    ///
    /// # Errors
    /// When the file cannot be read, or has an unknown or missing option.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(|error| ModelError::read(path, error))?;
        toml::from_str(&text).map_err(|error| ModelError::malformed(path, error.to_string().trim()))
    }

    /// The configuration of the model that this trains.
    pub fn model_config(&self, encoder: EncoderConfig, vocabulary: i64, prepare: Prepare) -> ModelConfig {
        ModelConfig {
            format: 1,
            name: self.name.clone(),
            encoder: EncoderConfig { vocabulary, ..encoder },
            heads: self.heads.iter().map(HeadConfig::head).collect(),
            prepare,
        }
    }

    /// The same model with the heads that are kept.
    pub(crate) fn kept(&self, model: &ModelConfig) -> ModelConfig {
        let auxiliary = |head: &Head| {
            self.heads
                .iter()
                .any(|config| config.auxiliary && config.name == head.name)
        };
        let heads = model.heads.iter().filter(|head| !auxiliary(head)).cloned().collect();
        ModelConfig { heads, ..model.clone() }
    }

    /// What the run is, as one hash: a run that was cut short goes on only as the same run, though maybe on another machine.
    pub(crate) fn sha256(&self) -> String {
        let same = TrainConfig {
            data: PathBuf::new(), // the hash of the data itself is compared
            device: DeviceChoice::Auto,
            threads: None,
            ..self.clone()
        };
        hex(&Sha256::digest(serde_json::to_vec(&same).unwrap_or_default()))
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
            among: Vec::new(),
            single_label: self.single_label,
        }
    }
}

impl ValidationConfig {
    pub(crate) fn selection(&self) -> Selection {
        Selection {
            map: self.map.clone(),
            only: self.only.clone(),
            among: self.among.clone(),
            single_label: false,
        }
    }
}
