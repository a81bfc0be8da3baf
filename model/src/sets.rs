//! The sets of a training run: read, kept apart from what the run is judged by, and tokenized.

use std::collections::HashSet;

use arrow::array::StringArray;
use sha2::{Digest, Sha256};

use crate::checkpoint::{hex, sha256_of};
use crate::data::{Labelled, read_labelled};
use crate::error::ModelError;
use crate::feed::TrainingSet;
use crate::prepare::prepare;
use crate::tokenizer::{Encoded, Tokenizer};
use crate::train_config::TrainConfig;

/// Texts with fewer letters and digits than this say nothing about where they come from: "thanks" is in every set.
const TELLING_LETTERS: usize = 12;

/// Everything a run learns from and is judged by.
pub(crate) struct Sets {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) training: Vec<TrainingSet>,
    pub(crate) validation: Vec<ValidationSet>,
    /// Training texts that were left out because a validation set has them too.
    pub(crate) left_out: usize,
    /// One hash over the training files, in the order of the configuration.
    pub(crate) data_sha256: String,
}

/// A validation set, tokenized.
pub(crate) struct ValidationSet {
    pub(crate) head: usize,
    pub(crate) labels: Vec<usize>,
    pub(crate) encoded: Encoded,
}

pub(crate) fn load(config: &TrainConfig) -> Result<Sets, ModelError> {
    let judged: Vec<(usize, Labelled)> = config
        .validation
        .iter()
        .map(|set| {
            let head = config.head(&set.head)?;
            let path = config.data.join(&set.path);
            Ok((
                head,
                read_labelled(&path, &config.heads[head].head(), &set.selection())?,
            ))
        })
        .collect::<Result<_, ModelError>>()?;
    let mut training = read_training(config)?;
    let mut left_out = 0;
    if !config.overlap {
        let judged: HashSet<String> = judged
            .iter()
            .flat_map(|(_, data)| &data.texts)
            .flatten()
            .map(gist)
            .collect();
        left_out = training.iter_mut().map(|data| leave_out(data, &judged)).sum();
    }
    for (set, data) in config.sets.iter().zip(&training) {
        if data.labels.is_empty() {
            let reason = "all its texts are validation texts: name other sets, or set overlap = true";
            return Err(ModelError::malformed(&config.data.join(&set.path), reason));
        }
    }
    let texts = training.iter().flat_map(|data| data.texts.iter().flatten());
    let shape = &config.tokenizer;
    let tokenizer = Tokenizer::train(texts, shape.vocabulary, shape.prepare, config.encoder.max_tokens)?;
    let validation = judged
        .into_iter()
        .map(|(head, data)| {
            Ok(ValidationSet {
                head,
                encoded: tokenizer.encode(&data.texts)?,
                labels: data.labels,
            })
        })
        .collect::<Result<_, ModelError>>()?;
    let training = (config.sets.iter().zip(training))
        .map(|(set, data)| {
            let place = config.head(&set.head)?;
            let head = &config.heads[place];
            let encoded = tokenizer.encode(&data.texts)?;
            Ok(TrainingSet::new(
                set,
                (place, head.labels.len()),
                head.balance,
                data.labels,
                encoded,
            ))
        })
        .collect::<Result<_, ModelError>>()?;
    Ok(Sets {
        tokenizer,
        training,
        validation,
        left_out,
        data_sha256: data_hash(config)?,
    })
}

fn read_training(config: &TrainConfig) -> Result<Vec<Labelled>, ModelError> {
    config
        .sets
        .iter()
        .map(|set| {
            let head = config.heads[config.head(&set.head)?].head();
            read_labelled(&config.data.join(&set.path), &head, &set.selection())
        })
        .collect()
}

/// What stays of a text when case, punctuation, mentions and links are ignored.
fn gist(text: &str) -> String {
    let prepared = prepare(text, crate::config::Prepare::Social);
    let words = prepared
        .split_whitespace()
        .filter(|word| !word.starts_with('@') && *word != "http");
    words
        .flat_map(str::chars)
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// Takes out the texts that are judged by; returns how many.
fn leave_out(data: &mut Labelled, judged: &HashSet<String>) -> usize {
    let known = |text: &str| {
        let gist = gist(text);
        gist.chars().count() >= TELLING_LETTERS && judged.contains(&gist)
    };
    let kept: Vec<(&str, usize)> = data
        .texts
        .iter()
        .flatten()
        .zip(data.labels.iter().copied())
        .filter(|(text, _)| !known(text))
        .collect();
    let left_out = data.labels.len() - kept.len();
    let (texts, labels): (Vec<&str>, Vec<usize>) = kept.into_iter().unzip();
    *data = Labelled {
        texts: StringArray::from(texts),
        labels,
    };
    left_out
}

fn data_hash(config: &TrainConfig) -> Result<String, ModelError> {
    let mut hasher = Sha256::new();
    for set in &config.sets {
        hasher.update(sha256_of(&config.data.join(&set.path))?);
    }
    Ok(hex(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_texts_that_are_judged_by_are_left_out() {
        let judged = HashSet::from([gist("What a lovely day at the lake! https://x.example"), gist("thanks")]);
        let texts = vec![
            "@ada what a LOVELY day, at the lake",
            "thanks",
            "what a lovely day at the sea",
        ];
        let mut data = Labelled {
            texts: StringArray::from(texts),
            labels: vec![0, 1, 2],
        };
        assert_eq!(leave_out(&mut data, &judged), 1);
        assert_eq!(
            data.texts,
            StringArray::from(vec!["thanks", "what a lovely day at the sea"])
        );
        assert_eq!(data.labels, [1, 2]);
    }
}
