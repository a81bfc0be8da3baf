//! Small checkpoints for tests, of this crate and of others: random weights, the same for the same seed.

use std::path::Path;

use crate::architecture::Architecture;
use crate::checkpoint::{Origin, Precision, save};
use crate::config::{
    Activation, EncoderConfig, HeadLayer, Mixing, ModelConfig, NormPlacement, Pooling, Positions, Prepare,
    SENTIMENT_LABELS,
};
use crate::error::ModelError;
use crate::network::Network;
use crate::scores::{Head, ModelIdentity};
use crate::tokenizer::Tokenizer;

/// The labels of the head `topic`.
pub const TOPIC_LABELS: [&str; 7] = [
    "arts_culture",
    "business",
    "entertainment",
    "daily_life",
    "sports",
    "science_tech",
    "world_news",
];

/// Longest text, in tokens, of a tiny checkpoint.
pub const TINY_MAX_TOKENS: usize = 32;

/// What the tiny tokenizer learns its words from.
const WORDS: [&str; 8] = [
    "the match was great and the team played well @user",
    "the market fell today and shares lost ground http",
    "a new phone with a better camera and a faster chip",
    "what a terrible day nothing works and it rains",
    "the film is a joy and the songs are lovely",
    "parliament votes on the new law this week",
    "the the and and a a is is was was to to of of in in it it on on",
    "abcdefghijklmnopqrstuvwxyz 0123456789 .,!?:;'\"()-#$% 😀 日本",
];

/// Writes a small random checkpoint with the heads `sentiment` and `topic` to `dir`, always the same, and tells its identity.
///
/// # Errors
/// When the folder cannot be written.
pub fn tiny_checkpoint(dir: &Path) -> Result<ModelIdentity, ModelError> {
    tiny_checkpoint_with(dir, 7, &tiny_heads())
}

/// As [`tiny_checkpoint`], with a seed and heads of one's own.
///
/// # Errors
/// When the folder cannot be written or the heads are wrong.
pub fn tiny_checkpoint_with(dir: &Path, seed: u64, heads: &[Head]) -> Result<ModelIdentity, ModelError> {
    let texts = WORDS.iter().flat_map(|text| [*text, *text]);
    let tokenizer = Tokenizer::train(texts, 300, Prepare::Social, TINY_MAX_TOKENS)?;
    let config = tiny_config(tokenizer.vocabulary() as i64, heads);
    config.check()?;
    let network = Network::new(&config, tokenizer.padding_id(), tch::Device::Cpu, seed)?;
    // Fresh weights give every text nearly the same scores; tests want to tell texts apart.
    tch::no_grad(|| {
        network
            .store
            .trainable_variables()
            .iter_mut()
            .try_for_each(|weight| weight.f_mul_scalar_(8.0).map(drop))
    })?;
    save(
        dir,
        &config,
        &tokenizer,
        (&network, Precision::Fp32),
        Origin {
            commit: "test".into(),
            ..Origin::default()
        },
    )?;
    Ok(crate::checkpoint::Checkpoint::open(dir)?.identity())
}

/// The heads of a tiny checkpoint.
pub fn tiny_heads() -> Vec<Head> {
    let head = |name: &str, labels: &[&str]| Head::new(name, labels.iter().map(|&label| label.into()).collect());
    vec![head("sentiment", &SENTIMENT_LABELS), head("topic", &TOPIC_LABELS)]
}

pub(crate) fn tiny_config(vocabulary: i64, heads: &[Head]) -> ModelConfig {
    ModelConfig {
        format: 1,
        name: "tiny".to_owned(),
        encoder: EncoderConfig {
            architecture: Architecture::Transformer,
            vocabulary,
            hidden: 16,
            layers: 2,
            attention_heads: 2,
            feed_forward: 32,
            max_tokens: TINY_MAX_TOKENS,
            dropout: 0.1,
            norm: NormPlacement::Pre,
            norm_eps: 1e-5,
            activation: Activation::Gelu,
            positions: Positions::Learned,
            pooling: Pooling::Mean,
            head_layer: HeadLayer::None,
            mixing: Mixing::Attention,
            token_types: 0,
            position_padding: None,
        },
        heads: heads.to_vec(),
        prepare: Prepare::Social,
    }
}
