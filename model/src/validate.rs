//! The look at the validation sets, during training.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::batching::cut;
use crate::error::ModelError;
use crate::feed::{Hidden, Noise};
use crate::learner::Learner;
use crate::metrics::Metrics;
use crate::progress::Figures;
use crate::scores::best_of;
use crate::sets::ValidationSet;
use crate::tokenizer::Tokenizer;
use crate::train_config::{Metric, Task, TrainConfig};

/// Share of tokens that are hidden in pre-training, as in BERT.
pub(crate) const HIDDEN_SHARE: f64 = 0.15;

/// The figure that the checkpoint is chosen by, the weighted mean over the sets, and all figures.
pub(crate) fn look(
    config: &TrainConfig,
    learner: &Learner,
    (sets, tokenizer): (&[ValidationSet], &Tokenizer),
) -> Result<(f64, Figures), ModelError> {
    let (mut score, mut weights) = (0.0, 0.0);
    let mut figures = Figures::new();
    for (set, wanted) in sets.iter().zip(&config.validation) {
        let (counts, values) = match config.task {
            Task::Classify => labels(config, learner, set, wanted.metric)?,
            Task::Mlm => hidden_tokens(config, learner, (set, tokenizer))?,
        };
        score += wanted.weight * counts;
        weights += wanted.weight;
        figures.insert(wanted.name.clone(), values);
    }
    Ok((score / weights, figures))
}

type Values = BTreeMap<String, f64>;

fn named<const N: usize>(values: [(&str, f64); N]) -> Values {
    values
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn labels(
    config: &TrainConfig,
    learner: &Learner,
    set: &ValidationSet,
    metric: Metric,
) -> Result<(f64, Values), ModelError> {
    let logits = learner.network.all_logits(&set.encoded, config.schedule.batch_tokens)?;
    let labels = config.heads[set.head].labels.len();
    let choose = |row: &[f32]| best_of(&set.choices.iter().map(|&choice| row[choice]).collect::<Vec<_>>()).0;
    let predicted: Vec<usize> = logits[set.head].chunks_exact(labels).map(choose).collect();
    let metrics = Metrics::new(&set.names, &set.labels, &predicted);
    let counts = match metric {
        Metric::Accuracy => metrics.accuracy,
        Metric::MacroF1 => metrics.macro_f1,
        Metric::MacroRecall => metrics.macro_recall,
    };
    let values = named([
        ("accuracy", metrics.accuracy),
        ("macro_f1", metrics.macro_f1),
        ("macro_recall", metrics.macro_recall),
    ]);
    Ok((counts, values))
}

/// How many hidden tokens are found. The same ones are hidden at every look, and all become the hidden token.
fn hidden_tokens(
    config: &TrainConfig,
    learner: &Learner,
    (set, tokenizer): (&ValidationSet, &Tokenizer),
) -> Result<(f64, Values), ModelError> {
    let mut random = StdRng::seed_from_u64(config.seed);
    let noise = Noise::Hide {
        share: HIDDEN_SHARE,
        hidden: tokenizer.hidden_id().unwrap_or_else(|| tokenizer.padding_id()),
        vocabulary: tokenizer.vocabulary() as u32,
        special: tokenizer.special_ids(),
    };
    let mut rows: Vec<Vec<u32>> = (0..set.encoded.len())
        .map(|row| set.encoded.row(row).to_vec())
        .collect();
    rows.sort_by_key(Vec::len);
    let hidden = noise.apply(&mut rows, &mut random);
    let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
    let (mut loss, mut found) = (0.0, 0);
    for batch in cut(&lengths, config.schedule.batch_tokens) {
        let here: Vec<Hidden> = hidden
            .iter()
            .filter(|hidden| batch.contains(&hidden.row))
            .map(|hidden| Hidden {
                row: hidden.row - batch.start,
                ..*hidden
            })
            .collect();
        let rows: Vec<&[u32]> = rows[batch].iter().map(Vec::as_slice).collect();
        let (batch_loss, batch_found) = learner.check_hidden(&rows, &here)?;
        loss += batch_loss;
        found += batch_found;
    }
    let all = hidden.len().max(1) as f64;
    let accuracy = found as f64 / all;
    Ok((accuracy, named([("accuracy", accuracy), ("loss", loss / all)])))
}
