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

/// The structure of the encoder. Fields with a default describe what checkpoints of others have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// What the encoder is; the options below that it does not have are ignored.
    #[serde(default, skip_serializing_if = "Architecture::is_transformer")]
    pub architecture: Architecture,
    /// Rows of the token embedding; at least as many as the tokenizer has tokens. A training configuration leaves it out: the
    /// tokenizer decides.
    #[serde(default)]
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
    /// What stands between the pooled vector and a head's last layer.
    #[serde(default, skip_serializing_if = "is_default")]
    pub head_layer: HeadLayer,
    /// What the tokens of a text tell each other.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mixing: Mixing,
    /// Rows of a token-type embedding, of which the first is added to every token. BERT tells the two sentences of a pair apart by
    /// it; with single texts it is a constant, but one that its weights have learnt to expect. 0 where there is none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub token_types: i64,
    /// RoBERTa's way of numbering learned positions: tokens other than this padding id are counted, from this id plus one. `None`
    /// counts all tokens from zero.
    #[serde(default, skip_serializing_if = "is_default")]
    pub position_padding: Option<i64>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Where the layer normalisation stands in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormPlacement {
    /// Before attention and feed-forward, and once at the end: gradients reach the first block unscaled, so that training
    /// needs little care (Xiong et al. 2020, arXiv:2002.04745). The choice for training from scratch.
    Pre,
    /// After each residual sum, as in the first Transformer and in BERT. Deep stacks need a warm-up to train at all; it is here
    /// because the weights of the BERT family are made for it.
    Post,
}

/// The feed-forward layer's non-linearity. Without one, two linear layers would be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x·Φ(x): smooth at zero and never quite dead, where a ReLU unit can stop learning (Hendrycks & Gimpel 2016,
    /// arXiv:1606.08415). BERT's choice and the usual one since.
    Gelu,
    /// GELU by its tanh approximation: differs in the fourth digit, and checkpoints that were trained with it expect it.
    GeluTanh,
    /// max(0, x): the cheapest, the first Transformer's choice.
    Relu,
    /// silu(x W) ⊙ (x V): one half of the layer decides how much of the other passes. Often a little better for the same number of
    /// weights, for which `feed_forward` is to be two thirds of what it would be, since there are three matrices (Shazeer 2020,
    /// arXiv:2002.05202).
    Swiglu,
}

/// How the encoder knows the order of tokens; attention alone does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// One trained vector per position, added to the token's. Simple, and right for short texts; knows nothing beyond `max_tokens`.
    Learned,
    /// Sines and cosines of falling frequency, added to the token's vector (Vaswani et al. 2017, section 3.5): nothing to learn,
    /// which small data sets reward, and defined for any length.
    Sinusoidal,
    /// Queries and keys are turned by an angle that grows with the position, so that their product depends on the distance only
    /// (Su et al. 2021, arXiv:2104.09864): order is seen by every block anew.
    Rotary,
}

/// How a sequence becomes one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean over real tokens: every token has a say, which small data sets reward.
    Mean,
    /// The vector of the first token, as in BERT: right where the encoder was pre-trained to gather the text there.
    Cls,
    /// A mean with learned weights: one trained query asks every token how much it matters. Costs `hidden` weights, and can ignore
    /// filler words, which the plain mean cannot.
    Attention,
}

/// What stands between the pooled vector and a head's last layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadLayer {
    /// Nothing: a linear layer decides. Enough where the encoder is trained with the head.
    #[default]
    None,
    /// A layer as wide as the encoder with tanh, as BERT's pooler and RoBERTa's classifier have it.
    Tanh,
    /// The same with ReLU, as DistilBERT has it.
    Relu,
}

/// What the tokens of a text tell each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mixing {
    /// Each token takes most of what fits it best.
    #[default]
    Attention,
    /// Each token takes the same of all: what attention is compared with, to see what the choosing is worth. Never better.
    Average,
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
    /// Rows of the table of learned positions.
    pub(crate) fn position_rows(&self) -> i64 {
        self.max_tokens as i64 + self.position_padding.map_or(0, |padding| padding + 1)
    }

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
        self.architecture.check()?;
        self.architecture.check()?;
        self.check_positions()
    }

    fn check_positions(&self) -> Result<(), String> {
        let (pairs, why) = match self.positions {
            Positions::Learned => (2, ""),
            Positions::Sinusoidal => (self.hidden, "hidden, for sinusoidal positions"),
            Positions::Rotary => (
                self.hidden / self.attention_heads,
                "hidden / attention_heads, for rotary positions",
            ),
        };
        if pairs % 2 != 0 {
            return Err(format!("{why}, must be even: they work on pairs"));
        }
        if self.position_padding.is_some() && self.positions != Positions::Learned {
            return Err("position_padding numbers learned positions: leave it out for others".to_owned());
        }
        if self.position_padding.is_some_and(|id| id < 0 || id >= self.vocabulary) || self.token_types < 0 {
            return Err("position_padding must be a token id and token_types must not be negative".to_owned());
        }
        Ok(())
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
    if head.name.is_empty()
        || head
            .name
            .contains(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
    {
        return wrong("its name must be of letters, digits, `_` and `-`".to_owned());
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
