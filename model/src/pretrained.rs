//! Checkpoints in the layout of Hugging Face's `transformers`: what their `config.json` says, in our words.
//!
//! BERT, DistilBERT, RoBERTa and XLM-R are one network with other names: post-norm blocks, learned positions, and a head with or
//! without a bent layer. So there is no second forward pass, only this translation and that of the weights in [`crate::layout`].
//!
//! Architecture invariant: only `model.safetensors` is read. Pickled weights are programs, and are refused.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::architecture::Architecture;
use crate::checkpoint::read_json;
use crate::config::{
    Activation, EncoderConfig, HeadLayer, Mixing, ModelConfig, NormPlacement, Pooling, Positions, Prepare,
    SENTIMENT_LABELS,
};
use crate::error::ModelError;
use crate::layout::{Family, Layout};
use crate::scores::Head;

/// The head of a checkpoint that does not say what it tells apart.
pub const FOREIGN_HEAD: &str = "classify";

/// What may be said about a folder that does not say it itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// The checkpoint's name; the folder's when absent.
    pub name: Option<String>,
    /// The name and the labels of the one head, in the order of its outputs.
    pub head: Option<Head>,
    /// Texts are cut to this many tokens, where the checkpoint could read more.
    pub max_tokens: Option<usize>,
}

/// The part of a foreign `config.json` that matters; DistilBERT has names of its own.
#[derive(Debug, Deserialize)]
struct Foreign {
    model_type: String,
    architectures: Option<Vec<String>>,
    #[serde(alias = "dim")]
    hidden_size: i64,
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: i64,
    #[serde(alias = "hidden_dim")]
    intermediate_size: i64,
    max_position_embeddings: i64,
    vocab_size: i64,
    #[serde(alias = "activation", default = "gelu")]
    hidden_act: String,
    #[serde(alias = "dropout", default = "tenth")]
    hidden_dropout_prob: f64,
    #[serde(default = "bert_eps")]
    layer_norm_eps: f64,
    type_vocab_size: Option<i64>,
    pad_token_id: Option<i64>,
    id2label: Option<BTreeMap<String, String>>,
    label2id: Option<BTreeMap<String, i64>>,
    problem_type: Option<String>,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn tenth() -> f64 {
    0.1
}

fn bert_eps() -> f64 {
    1e-12
}

/// Whether a `config.json` is one of `transformers`.
pub(crate) fn is_foreign(config: &Path) -> bool {
    #[derive(Deserialize)]
    struct Marked {
        #[serde(rename = "model_type")]
        _model_type: String,
    }
    read_json::<Marked>(config).is_ok()
}

/// Refuses a folder that has weights, but none that can be read without running what is in them.
pub(crate) fn refuse_pickle(dir: &Path) -> Result<(), ModelError> {
    if dir.join("model.safetensors").exists() {
        return Ok(());
    }
    let names = std::fs::read_dir(dir).map_err(|error| ModelError::read(dir, error))?;
    let names: Vec<String> = names
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    if names.iter().any(|name| name == "model.safetensors.index.json") {
        let reason = "its weights are split over several files: join them in one model.safetensors";
        return Err(ModelError::malformed(dir, reason));
    }
    let pickled = |name: &&String| {
        let ends = [".bin", ".pt", ".pth", ".ckpt", ".pkl"];
        ends.iter().any(|end| name.ends_with(end)) && *name != "training_args.bin"
    };
    match names.iter().find(pickled) {
        Some(name) => Err(ModelError::malformed(
            dir,
            format!(
                "its weights are pickled ({name}), and reading a pickle runs what is in it: save them as model.safetensors with \
                 `save_pretrained` of transformers"
            ),
        )),
        None => Ok(()), // the missing file is named when it is read
    }
}

/// Our configuration of a foreign folder.
pub(crate) fn configuration(dir: &Path, reading: &Reading) -> Result<(ModelConfig, Layout), ModelError> {
    let path = dir.join("config.json");
    let foreign: Foreign = read_json(&path)?;
    let wrong = |reason: String| ModelError::malformed(&path, reason);
    let family = foreign.family().map_err(wrong)?;
    foreign.check().map_err(wrong)?;
    let (heads, rows) = foreign.heads(reading).map_err(wrong)?;
    let classifies = !heads.is_empty();
    let config = ModelConfig {
        format: 1,
        name: reading.name.clone().unwrap_or_else(|| name_of(dir)),
        encoder: foreign.encoder(dir, (family, classifies), reading.max_tokens)?,
        heads,
        prepare: Prepare::None,
    };
    config.check().map_err(|error| wrong(error.to_string()))?;
    Ok((config, Layout::Foreign { family, rows }))
}

fn name_of(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    name.replace(['@', '/', ' '], "-")
}

impl Foreign {
    fn family(&self) -> Result<Family, String> {
        match self.model_type.as_str() {
            "bert" => Ok(Family::Bert),
            "distilbert" => Ok(Family::DistilBert),
            "roberta" | "xlm-roberta" | "camembert" => Ok(Family::Roberta),
            other => Err(format!(
                "model_type `{other}` is not supported: bert, distilbert, roberta and xlm-roberta are"
            )),
        }
    }

    fn check(&self) -> Result<(), String> {
        if let Some(kind) = self
            .position_embedding_type
            .as_deref()
            .filter(|&kind| kind != "absolute")
        {
            return Err(format!(
                "position_embedding_type `{kind}` is not supported: absolute is"
            ));
        }
        if self.is_decoder {
            return Err("it is a decoder: an encoder is needed".to_owned());
        }
        match self.problem_type.as_deref() {
            None | Some("single_label_classification") => Ok(()),
            Some(other) => Err(format!(
                "problem_type `{other}` is not supported: a text has exactly one label of each head here"
            )),
        }
    }

    fn activation(&self) -> Result<Activation, String> {
        match self.hidden_act.as_str() {
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            other => Err(format!(
                "activation `{other}` is not supported: gelu, gelu_new and relu are"
            )),
        }
    }

    fn encoder(
        &self,
        dir: &Path,
        (family, classifies): (Family, bool),
        limit: Option<usize>,
    ) -> Result<EncoderConfig, ModelError> {
        let wrong = |reason: String| ModelError::malformed(&dir.join("config.json"), reason);
        let position_padding = (family == Family::Roberta).then(|| self.pad_token_id.unwrap_or(1));
        let positions = self.max_position_embeddings - position_padding.map_or(0, |padding| padding + 1);
        let positions = usize::try_from(positions).map_err(|_| {
            wrong(format!(
                "max_position_embeddings {} leaves no token",
                self.max_position_embeddings
            ))
        })?;
        let limits = [Some(positions), tokenizer_limit(dir), limit];
        let types = self
            .type_vocab_size
            .unwrap_or(if family == Family::Bert { 2 } else { 0 });
        Ok(EncoderConfig {
            architecture: Architecture::Transformer,
            vocabulary: self.vocab_size,
            hidden: self.hidden_size,
            layers: self.num_hidden_layers,
            attention_heads: self.num_attention_heads,
            feed_forward: self.intermediate_size,
            max_tokens: limits.into_iter().flatten().min().unwrap_or(positions),
            dropout: self.hidden_dropout_prob,
            norm: NormPlacement::Post,
            norm_eps: if family == Family::DistilBert {
                bert_eps()
            } else {
                self.layer_norm_eps
            },
            activation: self.activation().map_err(wrong)?,
            positions: Positions::Learned,
            pooling: if classifies { Pooling::Cls } else { bare_pooling(dir)? },
            head_layer: match family {
                _ if !classifies => HeadLayer::None,
                Family::DistilBert => HeadLayer::Relu,
                Family::Bert | Family::Roberta => HeadLayer::Tanh,
            },
            mixing: Mixing::Attention,
            token_types: if family == Family::DistilBert { 0 } else { types },
            position_padding,
        })
    }

    /// The one head of a sequence classifier, none of anything else; and the order of its rows where it is not ours.
    fn heads(&self, reading: &Reading) -> Result<(Vec<Head>, Option<Vec<i64>>), String> {
        let classifies = |name: &String| name.ends_with("ForSequenceClassification");
        if !self.architectures.iter().flatten().any(classifies) {
            return match &reading.head {
                Some(head) => Err(format!(
                    "it has no classification head that could be called `{}`",
                    head.name
                )),
                None => Ok((Vec::new(), None)),
            };
        }
        let labels = self.labels()?;
        if let Some(head) = &reading.head {
            if head.labels.len() != labels.len() {
                return Err(format!(
                    "its head has {} labels ({}), not the {} that are given for it",
                    labels.len(),
                    labels.join(", "),
                    head.labels.len()
                ));
            }
            return Ok((vec![head.clone()], None));
        }
        let place = |ours: &&str| labels.iter().position(|label| label.eq_ignore_ascii_case(ours));
        let rows: Option<Vec<usize>> = SENTIMENT_LABELS.iter().map(place).collect();
        match rows.filter(|_| labels.len() == SENTIMENT_LABELS.len()) {
            Some(rows) => Ok((
                vec![Head::new("sentiment", SENTIMENT_LABELS.map(str::to_owned).to_vec())],
                (rows != [0, 1, 2]).then(|| rows.into_iter().map(|row| row as i64).collect()),
            )),
            None => Ok((vec![Head::new(FOREIGN_HEAD, labels)], None)),
        }
    }

    /// `id2label` as a list; its keys must be 0, 1, 2 …, and `label2id` must say the same.
    fn labels(&self) -> Result<Vec<String>, String> {
        let map = self
            .id2label
            .as_ref()
            .ok_or("it has no id2label: its labels are unknown")?;
        let labels: Vec<String> = (0..map.len())
            .map(|id| map.get(&id.to_string()).cloned())
            .collect::<Option<_>>()
            .ok_or_else(|| format!("id2label must have the keys 0 to {}", map.len().saturating_sub(1)))?;
        for (label, &id) in self.label2id.iter().flatten() {
            if usize::try_from(id).ok().and_then(|id| labels.get(id)) != Some(label) {
                return Err(format!("label2id says {id} is `{label}`, id2label says otherwise"));
            }
        }
        Ok(labels)
    }
}

/// `model_max_length` of the tokenizer, which may be less than the model could read; unset is a number beyond all texts.
fn tokenizer_limit(dir: &Path) -> Option<usize> {
    #[derive(Deserialize)]
    struct TokenizerConfig {
        model_max_length: Option<f64>,
    }
    let config: TokenizerConfig = read_json(&dir.join("tokenizer_config.json")).ok()?;
    config
        .model_max_length
        .filter(|&length| (2.0..1e6).contains(&length))
        .map(|length| length as usize)
}

/// How a bare encoder's tokens become one vector: as its sentence-transformers configuration says, else by the first token.
fn bare_pooling(dir: &Path) -> Result<Pooling, ModelError> {
    #[derive(Deserialize)]
    struct PoolingConfig {
        #[serde(default)]
        pooling_mode_mean_tokens: bool,
    }
    let path = dir.join("1_Pooling").join("config.json");
    if !path.exists() {
        return Ok(Pooling::Cls);
    }
    let config: PoolingConfig = read_json(&path)?;
    Ok(if config.pooling_mode_mean_tokens {
        Pooling::Mean
    } else {
        Pooling::Cls
    })
}
