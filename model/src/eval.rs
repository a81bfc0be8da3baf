//! Measuring a checkpoint on labelled texts, and looking at what it says of single ones.

use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow::array::{Array, StringArray};
use serde::Serialize;

use crate::checkpoint::{Checkpoint, sha256_of};
use crate::data::{Selection, read_labelled};
use crate::device::DeviceChoice;
use crate::error::ModelError;
use crate::metrics::Metrics;
use crate::network::Network;
use crate::scorer::{Scorer, ScorerOptions};
use crate::scores::{best_of, softmax};

/// Rows handed to the scorer at once.
const CHUNK_ROWS: usize = 8192;

/// What [`eval`] found.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// The model, as `name@sha`.
    pub model: String,
    /// The head that was checked.
    pub head: String,
    /// The file of labelled texts.
    pub data: PathBuf,
    /// Its hash.
    pub data_sha256: String,
    /// The figures.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Tokens read.
    pub tokens: u64,
    /// Texts that were longer than the model reads.
    pub truncated: usize,
    /// Share of computed places that were padding.
    pub padding: f64,
    /// Seconds for tokenization and model together, without opening it.
    pub seconds: f64,
    /// Texts per second.
    pub texts_per_second: f64,
}

/// Scores a file of labelled texts with one head of a checkpoint and compares, through the same scorer that serves the stream.
///
/// # Errors
/// When the checkpoint, the head, the file or the label map cannot be used, or scoring fails.
pub fn eval(
    dir: &Path,
    data: &Path,
    head: &str,
    selection: &Selection,
    options: ScorerOptions,
) -> Result<Evaluation, ModelError> {
    let checkpoint = Checkpoint::open(dir)?;
    let place = checkpoint.head_index(head)?;
    let labelled = read_labelled(data, &checkpoint.config.heads[place], selection)?;
    let scorer = Scorer::open(dir, options)?;
    let started = Instant::now();
    let mut predicted = Vec::with_capacity(labelled.labels.len());
    let mut truncated = 0;
    for start in (0..labelled.texts.len()).step_by(CHUNK_ROWS) {
        let chunk = labelled
            .texts
            .slice(start, CHUNK_ROWS.min(labelled.texts.len() - start));
        let scores = scorer.score_blocking(&chunk)?;
        truncated += scores.truncated.true_count();
        predicted.extend((0..chunk.len()).map(|row| scores.heads[place].best(row).map_or(0, |(label, _)| label)));
    }
    let seconds = started.elapsed().as_secs_f64();
    let stats = scorer.stats();
    Ok(Evaluation {
        model: scorer.identity().to_string(),
        head: head.to_owned(),
        data: data.to_owned(),
        data_sha256: sha256_of(data)?,
        metrics: Metrics::new(&checkpoint.config.heads[place].labels, &labelled.labels, &predicted),
        tokens: stats.tokens,
        truncated,
        padding: 1.0 - stats.tokens as f64 / stats.padded_tokens.max(1) as f64,
        seconds,
        texts_per_second: labelled.labels.len() as f64 / seconds,
    })
}

/// A checkpoint opened to look at single texts, down to token ids and logits.
#[derive(Debug)]
pub struct Probe {
    checkpoint: Checkpoint,
    network: Network,
}

/// What a checkpoint makes of one text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextScores {
    /// The ids the model reads.
    pub token_ids: Vec<u32>,
    /// Their tokens.
    pub tokens: Vec<String>,
    /// Whether the text was longer than that.
    pub truncated: bool,
    /// Head by head.
    pub heads: Vec<HeadLogits>,
}

/// What one head makes of one text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeadLogits {
    /// The head.
    pub head: String,
    /// The likeliest label.
    pub label: String,
    /// Its probability.
    pub confidence: f32,
    /// The head's labels, in the order of the figures below.
    pub labels: Vec<String>,
    /// What the head puts out.
    pub logits: Vec<f32>,
    /// Its softmax.
    pub probabilities: Vec<f32>,
}

impl Probe {
    /// Checks and loads a checkpoint.
    ///
    /// # Errors
    /// When the checkpoint or the device cannot be used.
    pub fn open(dir: &Path, device: DeviceChoice) -> Result<Self, ModelError> {
        let checkpoint = Checkpoint::open(dir)?;
        let network = checkpoint.load(device.resolve()?)?;
        Ok(Probe { checkpoint, network })
    }

    /// The checkpoint.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Scores texts one by one, so that nothing but the text itself plays a part; `None` for NULL.
    ///
    /// # Errors
    /// When tokenization or the forward pass fails.
    pub fn score(&self, texts: &StringArray) -> Result<Vec<Option<TextScores>>, ModelError> {
        let encoded = self.checkpoint.tokenizer.encode(texts)?;
        (0..texts.len())
            .map(|row| {
                if texts.is_null(row) {
                    return Ok(None);
                }
                self.score_row(encoded.row(row), encoded.truncated(row)).map(Some)
            })
            .collect()
    }

    fn score_row(&self, ids: &[u32], truncated: bool) -> Result<TextScores, ModelError> {
        let logits = self.network.logits(&[ids])?;
        let heads = self.checkpoint.config.heads.iter().zip(logits).map(|(head, logits)| {
            let mut probabilities = logits.clone();
            softmax(&mut probabilities, head.temperature);
            let (best, confidence) = best_of(&probabilities);
            HeadLogits {
                head: head.name.clone(),
                label: head.labels[best].clone(),
                confidence,
                labels: head.labels.clone(),
                logits,
                probabilities,
            }
        });
        Ok(TextScores {
            token_ids: ids.to_vec(),
            tokens: ids.iter().map(|&id| self.checkpoint.tokenizer.token(id)).collect(),
            truncated,
            heads: heads.collect(),
        })
    }
}
