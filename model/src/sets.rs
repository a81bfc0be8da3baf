//! The sets of a training run: read, kept apart from what the run is judged by, and tokenized.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;

use arrow::array::StringArray;
use sha2::{Digest, Sha256};

use crate::checkpoint::{hex, sha256_of};
use crate::data::{Labelled, Selection, read_labelled, read_texts};
use crate::error::ModelError;
use crate::feed::TrainingSet;
use crate::lesson::{Labels, Lesson};
use crate::prepare::prepare;
use crate::progress::Progress;
use crate::teachers::Teachers;
use crate::tokenizer::{Encoded, Tokenizer};
use crate::train_config::{SetConfig, Task, TrainConfig, ValidationConfig};

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
    /// The labels to choose from, and their places in the head's list.
    pub(crate) names: Vec<String>,
    pub(crate) choices: Vec<usize>,
    /// Places among the choices.
    pub(crate) labels: Vec<usize>,
    pub(crate) encoded: Encoded,
}

/// Reads the sets, and asks teachers where there are any; `base` is the tokenizer of the checkpoint that the run starts from.
pub(crate) fn load(
    config: &TrainConfig,
    base: Option<Tokenizer>,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Sets, ModelError> {
    let judged: Vec<Labelled> = config
        .validation
        .iter()
        .map(|set| {
            let path = config.data.join(&set.path);
            read(config, &path, (&set.head, &set.selection()))
        })
        .collect::<Result<_, ModelError>>()?;
    let mut training: Vec<Labelled> = config
        .sets
        .iter()
        .map(|set| read_training(config, set))
        .collect::<Result<_, ModelError>>()?;
    let left_out = if config.overlap {
        0
    } else {
        keep_apart(&mut training, &judged)
    };
    for (set, data) in config.sets.iter().zip(&mut training) {
        if data.labels.is_empty() {
            let reason = "all its texts are validation texts: name other sets, or set overlap = true";
            return Err(ModelError::malformed(&config.data.join(&set.path), reason));
        }
        if let Some(wanted) = set.sample {
            *data = spread(data, wanted);
        }
    }
    let tokenizer = tokenizer(config, base, &training)?;
    // Only now: what is kept out of training is all of it.
    let sampled = |set: &ValidationConfig, data: Labelled| match set.sample {
        Some(wanted) => spread(&data, wanted),
        None => data,
    };
    let validation = (config.validation.iter().zip(judged))
        .map(|(set, data)| validation_set(config, set, sampled(set, data), &tokenizer))
        .collect::<Result<_, ModelError>>()?;
    let mut teachers = Teachers::new(config);
    let taught: Vec<&StringArray> = (config.sets.iter().zip(&training))
        .filter(|(set, _)| set.taught)
        .map(|(_, data)| &data.texts)
        .collect();
    let mut said = teachers.ask(&taught, progress)?.into_iter();
    let training = (config.sets.iter().zip(&training))
        .map(|(set, data)| {
            let lesson = match config.task {
                Task::Mlm => Lesson::Words,
                Task::Classify if set.taught => Lesson::Taught(said.next().unwrap_or_default()),
                Task::Classify => {
                    let place = config.head(&set.head)?;
                    let head = &config.heads[place];
                    let balance = set.balance.unwrap_or(head.balance);
                    Lesson::Labels(Labels::new(set, (place, head.labels.len()), balance, &data.labels))
                }
            };
            Ok(TrainingSet::new(set, lesson, tokenizer.encode(&data.texts)?))
        })
        .collect::<Result<_, ModelError>>()?;
    Ok(Sets {
        tokenizer,
        training,
        validation,
        left_out,
        data_sha256: data_hash(config, &teachers.identities)?,
    })
}

/// At most `wanted` texts, evenly spread: files are often sorted.
fn spread(data: &Labelled, wanted: usize) -> Labelled {
    let all = data.labels.len();
    let wanted = wanted.min(all);
    let rows = || (0..wanted).map(|row| row * all / wanted);
    Labelled {
        texts: rows().map(|row| Some(data.texts.value(row))).collect(),
        labels: rows().map(|row| data.labels[row]).collect(),
    }
}

/// The rows of one file: with labels for a head, or, in pre-training, texts alone.
fn read(config: &TrainConfig, path: &Path, (head, selection): (&str, &Selection)) -> Result<Labelled, ModelError> {
    match config.task {
        Task::Mlm => read_texts(path, selection),
        Task::Classify => read_labelled(path, &config.heads[config.head(head)?].head(), selection),
    }
}

fn read_training(config: &TrainConfig, set: &SetConfig) -> Result<Labelled, ModelError> {
    let path = config.data.join(&set.path);
    if set.taught {
        return read_texts(&path, &set.selection());
    }
    read(config, &path, (&set.head, &set.selection()))
}

fn tokenizer(config: &TrainConfig, base: Option<Tokenizer>, training: &[Labelled]) -> Result<Tokenizer, ModelError> {
    let texts = training.iter().flat_map(|data| data.texts.iter().flatten());
    match (base, &config.tokenizer, &config.encoder) {
        (Some(base), ..) if config.adapt.new_tokens == 0 => Ok(base),
        (Some(base), ..) => base.with_unknown_symbols(texts, config.adapt.new_tokens),
        (None, Some(shape), Some(encoder)) => {
            Tokenizer::train(texts, shape.vocabulary, shape.prepare, encoder.max_tokens)
        }
        // The run's own check has already refused this.
        _ => Err(ModelError::Config(
            "there is neither a tokenizer nor a checkpoint that has one".to_owned(),
        )),
    }
}

fn validation_set(
    config: &TrainConfig,
    set: &ValidationConfig,
    data: Labelled,
    tokenizer: &Tokenizer,
) -> Result<ValidationSet, ModelError> {
    let encoded = tokenizer.encode(&data.texts)?;
    let (head, names, choices) = match config.task {
        Task::Mlm => (0, Vec::new(), Vec::new()),
        Task::Classify => {
            let place = config.head(&set.head)?;
            let (head, choices) = set.selection().choices(&config.heads[place].head())?;
            (place, head.labels, choices)
        }
    };
    Ok(ValidationSet {
        head,
        names,
        choices,
        labels: data.labels,
        encoded,
    })
}

/// Takes the texts that are judged by out of the training sets; returns how many.
fn keep_apart(training: &mut [Labelled], judged: &[Labelled]) -> usize {
    let judged: HashSet<String> = judged.iter().flat_map(|data| &data.texts).flatten().map(gist).collect();
    training.iter_mut().map(|data| leave_out(data, &judged)).sum()
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

/// What a run learns from: its files, and who taught it.
fn data_hash(config: &TrainConfig, teachers: &[String]) -> Result<String, ModelError> {
    let mut hasher = Sha256::new();
    teachers.iter().for_each(|teacher| hasher.update(teacher));
    for set in &config.sets {
        hasher.update(sha256_of(&config.data.join(&set.path))?);
    }
    Ok(hex(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_over_the_file() {
        let data = Labelled {
            texts: StringArray::from(vec!["a", "b", "c", "d", "e"]),
            labels: vec![0, 0, 1, 1, 2],
        };
        let three = spread(&data, 3);
        assert_eq!(
            (three.texts, three.labels),
            (StringArray::from(vec!["a", "b", "d"]), vec![0, 0, 1])
        );
        assert_eq!(spread(&data, 9).labels, data.labels);
    }

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
