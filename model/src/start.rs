//! What a training run begins with.

use crate::checkpoint::{Checkpoint, source_tree};
use crate::config::EncoderConfig;
use crate::error::ModelError;
use crate::feed::Noise;
use crate::hub::{HubOptions, locate};
use crate::network::Network;
use crate::tokenizer::Tokenizer;
use crate::train_config::{Task, TrainConfig};
use crate::validate;

/// The network, the structure and the tokenizer that the run starts from, where it does not start from nothing.
pub(crate) fn starting_point(config: &TrainConfig) -> Result<Option<(Network, EncoderConfig, Tokenizer)>, ModelError> {
    let Some(from) = &config.from else {
        return Ok(None);
    };
    let checkpoint = Checkpoint::open(&locate(from, &HubOptions::from_environment())?)?;
    let network = checkpoint.load(tch::Device::Cpu)?;
    let (adapt, mut encoder) = (&config.adapt, checkpoint.config.encoder);
    if let Some(tokens) = adapt.max_tokens {
        if tokens > encoder.max_tokens {
            return Err(ModelError::Config(format!(
                "`{from}` reads {} tokens at most: max_tokens cannot be {tokens}",
                encoder.max_tokens
            )));
        }
        encoder.max_tokens = tokens;
    }
    encoder.dropout = adapt.dropout.unwrap_or(encoder.dropout);
    encoder.pooling = adapt.pooling.unwrap_or(encoder.pooling);
    encoder.head_layer = adapt.head_layer.unwrap_or(encoder.head_layer);
    let prepare = adapt.prepare.unwrap_or(checkpoint.config.prepare);
    let tokenizer = checkpoint.tokenizer.adapted(prepare, encoder.max_tokens)?;
    Ok(Some((network, encoder, tokenizer)))
}

/// What happens to the tokens of a training text.
pub(crate) fn noise(config: &TrainConfig, tokenizer: &Tokenizer) -> Result<Noise, ModelError> {
    let hidden = tokenizer.hidden_id();
    Ok(match config.task {
        Task::Classify => Noise::Drop {
            share: config.optimizer.token_dropout,
            hidden: hidden.unwrap_or_else(|| tokenizer.padding_id()),
        },
        Task::Mlm => Noise::Hide {
            share: validate::HIDDEN_SHARE,
            hidden: hidden.ok_or_else(|| {
                ModelError::Config("the tokenizer has no mask token, which task `mlm` needs".to_owned())
            })?,
            vocabulary: tokenizer.vocabulary() as u32,
            special: tokenizer.special_ids(),
        },
    })
}

/// The commit of the source tree this was built from; `unknown` outside one.
pub(crate) fn commit() -> String {
    std::process::Command::new("git")
        .arg("-C")
        .arg(source_tree())
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map_or_else(
            || "unknown".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
}
