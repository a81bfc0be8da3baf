//! What a model is made of: the `config.json` of a checkpoint.
//!
//! Every choice of structure is a field here, so that one forward pass ([`crate::transformer`]) serves all of them.

use serde::{Deserialize, Serialize};

use crate::architecture::Architecture;
use crate::error::ModelError;
use crate::scores::Head;

/// The labels that a head named `sentiment` must have; readers of tables and SQL rely on them.
pub const SENTIMENT_LABELS: [&str; 3] = ["negative", "neutral", "positive"];

/// The whole `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Version of this file's format; 1 today.
    pub format: u32,
    /// The checkpoint's name, part of every scored row.
    pub name: String,
    /// The encoder's structure.
    pub encoder: EncoderConfig,
    /// The heads on top of it, computed in the same pass.
    pub heads: Vec<Head>,
    /// What happens to a text before its tokens are looked up.
    pub prepare: Prepare,
}

/// The structure of the encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// What the encoder is; the options below that it does not have are ignored.
    #[serde(default, skip_serializing_if = "Architecture::is_transformer")]
    pub architecture: Architecture,
    /// Rows of the token embedding; at least as many as the tokenizer has tokens.
    pub vocabulary: i64,
    /// Width of the residual stream.
    pub hidden: i64,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads per block; divides `hidden`.
    pub attention_heads: i64,
    /// Width of the feed-forward layer inside a block; 2 to 4 times `hidden` is usual.
    pub feed_forward: i64,
    /// Texts are cut to this many tokens; attention's cost grows with its square.
    pub max_tokens: usize,
    /// Share of activations dropped in training; off in inference.
    pub dropout: f64,
    /// Where the normalisation stands.
    pub norm: NormPlacement,
    /// Added to the variance in a normalisation, against division by zero.
    pub norm_eps: f64,
    /// The feed-forward layer's non-linearity.
    pub activation: Activation,
    /// How the encoder knows the order of tokens.
    pub positions: Positions,
    /// How a sequence becomes one vector.
    pub pooling: Pooling,
}

/// Where the layer normalisation stands in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormPlacement {
    /// Before attention and feed-forward, and once at the end: gradients reach the first block unscaled, so that training
    /// needs little care (Xiong et al. 2020, arXiv:2002.04745).
    Pre,
    /// After each residual sum, as in the first Transformer and in BERT.
    Post,
}

/// The feed-forward layer's non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x·Φ(x), smooth at zero (Hendrycks & Gimpel 2016, arXiv:1606.08415).
    Gelu,
    /// max(0, x).
    Relu,
}

/// How the encoder knows the order of tokens; attention alone does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// One trained vector per position, added to the token's.
    Learned,
}

/// How a sequence becomes one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean over real tokens: every token has a say, which small data sets reward.
    Mean,
    /// The vector of the first token, as in BERT.
    Cls,
}

/// What happens to a text before its tokens are looked up. Part of the checkpoint, so that every caller gets the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prepare {
    /// Nothing: for checkpoints made elsewhere.
    None,
    /// Mentions become `@user`, links become `http`, as in the posts the model was trained on.
    Social,
}

impl ModelConfig {
    /// Checks what can be checked without the weights.
    ///
    /// # Errors
    /// One sentence about the first thing that is wrong.
    pub fn check(&self) -> Result<(), ModelError> {
        let wrong = |reason: String| Err(ModelError::Config(format!("model `{}`: {reason}", self.name)));
        if self.format != 1 {
            return wrong(format!(
                "config.json has format {}, this program reads format 1: update it",
                self.format
            ));
        }
        if self.name.is_empty() || self.name.contains(['@', '/', ' ']) {
            return wrong("its name must not be empty or hold `@`, `/` or blanks".to_owned());
        }
        self.encoder.check().or_else(wrong)?;
        if self.heads.is_empty() {
            return wrong("it has no heads: name at least one".to_owned());
        }
        for (place, head) in self.heads.iter().enumerate() {
            check_head(head)?;
            if self.heads[..place].iter().any(|other| other.name == head.name) {
                return wrong(format!("head `{}` is there twice", head.name));
            }
        }
        Ok(())
    }
}

impl EncoderConfig {
    fn check(&self) -> Result<(), String> {
        if self.vocabulary < 1
            || self.hidden < 1
            || self.layers < 1
            || self.attention_heads < 1
            || self.feed_forward < 1
        {
            return Err("vocabulary, hidden, layers, attention_heads and feed_forward must be at least 1".to_owned());
        }
        if self.hidden % self.attention_heads != 0 {
            return Err(format!(
                "hidden ({}) must be a multiple of attention_heads ({})",
                self.hidden, self.attention_heads
            ));
        }
        if self.max_tokens < 2 {
            return Err("max_tokens must be at least 2".to_owned());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(format!("dropout must be from 0 to below 1, not {}", self.dropout));
        }
        self.architecture.check()
    }
}

/// Labels must be there, not empty, different; those of `sentiment` are fixed.
pub(crate) fn check_head(head: &Head) -> Result<(), ModelError> {
    let wrong = |reason: String| {
        Err(ModelError::Labels {
            head: head.name.clone(),
            reason,
        })
    };
    if head.name.is_empty() {
        return wrong("a head needs a name".to_owned());
    }
    if head.labels.len() < 2 {
        return wrong(format!(
            "it has {} label(s), at least two are needed",
            head.labels.len()
        ));
    }
    for (place, label) in head.labels.iter().enumerate() {
        if label.trim().is_empty() {
            return wrong(format!("label {place} is empty"));
        }
        if head.labels[..place].contains(label) {
            return wrong(format!("`{label}` is there twice"));
        }
    }
    if !(head.temperature > 0.0 && head.temperature.is_finite()) {
        return wrong(format!("its temperature is {}, it must be above 0", head.temperature));
    }
    if head.name == "sentiment" && head.labels != SENTIMENT_LABELS {
        return wrong(format!(
            "it must have exactly {}, in this order, not {}",
            SENTIMENT_LABELS.join(", "),
            head.labels.join(", ")
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(name: &str, labels: &[&str]) -> Head {
        Head::new(name, labels.iter().map(|&label| label.into()).collect())
    }

    #[test]
    fn wrong_label_maps_are_named() {
        for (head, says) in [
            (
                head("sentiment", &["LABEL_0", "LABEL_1", "LABEL_2"]),
                "negative, neutral, positive",
            ),
            (head("sentiment", &["positive", "neutral", "negative"]), "in this order"),
            (head("topic", &["sports", "sports"]), "`sports` is there twice"),
            (head("topic", &["sports", " "]), "label 1 is empty"),
            (head("topic", &["sports"]), "at least two"),
        ] {
            let message = check_head(&head).unwrap_err().to_string();
            assert!(message.contains(says) && message.contains(&head.name), "{message}");
        }
        assert!(check_head(&head("sentiment", &SENTIMENT_LABELS)).is_ok());
    }
}
