//! Measuring a checkpoint on labelled texts, and looking at what it says of single ones.

use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow::array::{Array, StringArray};
use serde::Serialize;

use crate::calibrate::Calibration;
use crate::checkpoint::{Checkpoint, sha256_of};
use crate::data::{Selection, read_labelled};
use crate::device::DeviceChoice;
use crate::error::ModelError;
use crate::metrics::Metrics;
use crate::network::Network;
use crate::scorer::{Scorer, ScorerOptions, ScorerStats};
use crate::scores::{best_of, softmax};

/// Rows handed to the scorer at once: enough to find rows of equal length, few enough that tokenizing the next ones can overlap.
const CHUNK_ROWS: usize = 4096;

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
    /// The labels that it could choose from.
    pub among: Vec<String>,
    /// The figures.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// What the logits were divided by.
    pub temperature: f32,
    /// How well the probabilities fit what is right.
    pub calibration: Calibration,
    /// Time and tokens.
    pub speed: Speed,
    /// Texts that were longer than the model reads.
    pub truncated: usize,
}

/// How fast a file was scored.
#[derive(Debug, Clone, Serialize)]
pub struct Speed {
    /// Tokens read.
    pub tokens: u64,
    /// Share of computed places that were padding.
    pub padding: f64,
    /// Seconds for tokenization and model together, without opening the model and its first pass.
    pub seconds: f64,
    /// Seconds of them in the model.
    pub model_seconds: f64,
    /// Texts per second.
    pub texts_per_second: f64,
    /// Tokens per second.
    pub tokens_per_second: f64,
    /// Processor threads of the model.
    pub threads: usize,
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
    let whole = &checkpoint.config.heads[place];
    let (among, choices) = selection.choices(whole)?;
    let labelled = read_labelled(data, whole, selection)?;
    let threads = options.threads.unwrap_or_else(cores);
    let scorer = Scorer::open(dir, options)?;
    warm_up(&scorer)?;
    let before = scorer.stats();
    let started = Instant::now();
    let mut probabilities: Vec<f32> = Vec::with_capacity(labelled.labels.len() * choices.len());
    let mut truncated = 0;
    for start in (0..labelled.texts.len()).step_by(CHUNK_ROWS) {
        let rows = CHUNK_ROWS.min(labelled.texts.len() - start);
        let scores = scorer.score_blocking(&labelled.texts.slice(start, rows))?;
        truncated += scores.truncated.true_count();
        for row in (0..rows).filter_map(|row| scores.heads[place].row(row)) {
            restrict(row, &choices, &mut probabilities);
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let predicted: Vec<usize> = probabilities
        .chunks_exact(choices.len())
        .map(|row| best_of(row).0)
        .collect();
    Ok(Evaluation {
        model: scorer.identity().to_string(),
        head: head.to_owned(),
        data: data.to_owned(),
        data_sha256: sha256_of(data)?,
        metrics: Metrics::new(&among.labels, &labelled.labels, &predicted),
        temperature: whole.temperature,
        calibration: Calibration::new(&probabilities, choices.len(), &labelled.labels),
        among: among.labels,
        speed: Speed::new((before, scorer.stats()), labelled.labels.len(), (seconds, threads)),
        truncated,
    })
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The first passes choose kernels and fill libtorch's memory pool; they are no part of a speed.
fn warm_up(scorer: &Scorer) -> Result<(), ModelError> {
    let texts: Vec<String> = (1..=64).map(|words| "warm ".repeat(words)).collect();
    for _ in 0..2 {
        scorer.score_blocking(&StringArray::from_iter_values(&texts))?;
    }
    Ok(())
}

/// The probabilities of some labels, summing to one again: what the softmax over their logits alone would give.
fn restrict(row: &[f32], choices: &[usize], into: &mut Vec<f32>) {
    if choices.len() == row.len() {
        return into.extend_from_slice(row);
    }
    let sum: f32 = choices.iter().map(|&choice| row[choice]).sum();
    let sum = sum.max(f32::MIN_POSITIVE);
    into.extend(choices.iter().map(|&choice| row[choice] / sum));
}

impl Speed {
    fn new((before, after): (ScorerStats, ScorerStats), rows: usize, (seconds, threads): (f64, usize)) -> Self {
        let tokens = after.tokens - before.tokens;
        let padded = after.padded_tokens - before.padded_tokens;
        Speed {
            tokens,
            padding: 1.0 - tokens as f64 / padded.max(1) as f64,
            seconds,
            model_seconds: after.model_seconds - before.model_seconds,
            texts_per_second: rows as f64 / seconds,
            tokens_per_second: tokens as f64 / seconds,
            threads,
        }
    }
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

    pub(crate) fn network(&self) -> &Network {
        &self.network
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
