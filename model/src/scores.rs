//! What the scorer returns: probabilities per head, row by row, in the order of the texts.

use std::fmt;
use std::sync::Arc;

use arrow::array::{BooleanArray, Int32Array};
use arrow::buffer::NullBuffer;
use serde::{Deserialize, Serialize};

/// One classification head: its name and its labels, in the order of its outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// For instance `sentiment`.
    pub name: String,
    /// For instance `negative, neutral, positive`.
    pub labels: Vec<String>,
    /// Logits are divided by this before the softmax: above 1 the model is surer than it is right, and this takes it back
    /// (Guo et al. 2017, arXiv:1706.04599). It changes no label. `tamiz model calibrate` fits it.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub temperature: f32,
}

/// A temperature is never NaN: the check of the configuration refuses it.
impl Eq for Head {}

impl Head {
    /// A head that has not been calibrated.
    pub fn new(name: impl Into<String>, labels: Vec<String>) -> Self {
        Head {
            name: name.into(),
            labels,
            temperature: 1.0,
        }
    }
}

fn one() -> f32 {
    1.0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_one(temperature: &f32) -> bool {
    *temperature == 1.0
}

/// Which model gave a score; stored with every row that it scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelIdentity {
    /// The checkpoint's name.
    pub name: String,
    /// The first twelve hexadecimal digits of the sha256 of its weights.
    pub sha: String,
    /// All heads, in the order of [`Scores::heads`].
    pub heads: Vec<Arc<Head>>,
    /// Texts are cut to this many tokens.
    pub max_tokens: usize,
}

impl fmt::Display for ModelIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.sha)
    }
}

/// The result of one forward pass over a column of texts: every head, in the order of the texts.
#[derive(Debug, Clone)]
pub struct Scores {
    /// Tokens the model read, its own markers included; NULL where the text was NULL.
    pub n_tokens: Int32Array,
    /// Whether the text was longer than the model reads; NULL where the text was NULL.
    pub truncated: BooleanArray,
    /// One entry per head of the model.
    pub heads: Vec<HeadScores>,
}

/// A text that has no scores although the model works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedRow {
    /// Its place in the column.
    pub row: usize,
    /// Why; never words of the text.
    pub reason: Arc<str>,
}

/// Scores of a column of which single texts may have failed.
#[derive(Debug, Clone)]
pub struct Scored {
    /// As for a column in which the texts that failed are NULL.
    pub scores: Scores,
    /// Those texts, in order.
    pub failed: Vec<FailedRow>,
}

impl Scores {
    /// The scores of the head of that name.
    pub fn head(&self, name: &str) -> Option<&HeadScores> {
        self.heads.iter().find(|scores| scores.head.name == name)
    }
}

/// The probabilities of one head.
#[derive(Debug, Clone)]
pub struct HeadScores {
    /// The head that these are of.
    pub head: Arc<Head>,
    probabilities: Vec<f32>, // (rows, labels), row-major; zeros where the text was NULL
    nulls: Option<NullBuffer>,
}

impl HeadScores {
    pub(crate) fn new(head: Arc<Head>, probabilities: Vec<f32>, nulls: Option<NullBuffer>) -> Self {
        debug_assert_eq!(probabilities.len() % head.labels.len(), 0);
        HeadScores {
            head,
            probabilities,
            nulls,
        }
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.probabilities.len() / self.head.labels.len()
    }

    /// Whether there was no text.
    pub fn is_empty(&self) -> bool {
        self.probabilities.is_empty()
    }

    /// The probabilities of text `i`, one per label, summing to one; `None` where the text was NULL.
    ///
    /// # Panics
    /// When `i` is not below [`HeadScores::len`].
    pub fn row(&self, i: usize) -> Option<&[f32]> {
        let labels = self.head.labels.len();
        let row = &self.probabilities[i * labels..(i + 1) * labels];
        self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(i)).then_some(row)
    }

    /// The likeliest label of text `i` (its place in [`Head::labels`]) and its probability; `None` where the text was NULL.
    ///
    /// # Panics
    /// When `i` is not below [`HeadScores::len`].
    pub fn best(&self, i: usize) -> Option<(usize, f32)> {
        self.row(i).map(best_of)
    }
}

/// Place and value of the largest number; the first of equals.
pub(crate) fn best_of(row: &[f32]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (place, &value) in row.iter().enumerate() {
        if value > best.1 {
            best = (place, value);
        }
    }
    best
}

/// Turns a row of logits into probabilities, in place. Subtracting the maximum first keeps `exp` from overflowing.
pub(crate) fn softmax(row: &mut [f32], temperature: f32) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for value in row.iter_mut() {
        *value = ((*value - max) / temperature).exp();
        sum += *value;
    }
    for value in row.iter_mut() {
        *value /= sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_sums_to_one_even_for_large_logits() {
        for logits in [[0.0_f32, 0.0, 0.0], [1e4, -1e4, 3.0], [-80.0, -81.0, -79.0]] {
            let mut row = logits;
            softmax(&mut row, 1.0);
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{row:?}");
            assert_eq!(best_of(&row).0, best_of(&logits).0);
        }
    }

    #[test]
    fn rows_of_null_texts_have_no_scores() {
        let head = Arc::new(Head::new("h", vec!["a".into(), "b".into()]));
        let scores = HeadScores::new(
            head,
            vec![0.25, 0.75, 0.0, 0.0],
            Some(NullBuffer::from(vec![true, false])),
        );
        assert_eq!(scores.len(), 2);
        assert_eq!(scores.row(0), Some([0.25, 0.75].as_slice()));
        assert_eq!(scores.best(0), Some((1, 0.75)));
        assert_eq!((scores.row(1), scores.best(1)), (None, None));
    }
}
