//! How well predictions fit the truth: one confusion matrix, and what follows from it.

use serde::Serialize;

/// Figures of one head on one set. Means over labels ("macro") take the labels that occur in the truth, each counting the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metrics {
    /// Number of texts.
    pub rows: usize,
    /// Share of right predictions.
    pub accuracy: f64,
    /// Mean over labels of the harmonic mean of precision and recall.
    pub macro_f1: f64,
    /// F1 of all decisions of all labels counted together; with one label per text it equals the accuracy.
    pub micro_f1: f64,
    /// Mean over labels of the share of their texts that were found; a constant guess gives one over the number of labels.
    pub macro_recall: f64,
    /// Figures label by label, in the head's order.
    pub labels: Vec<LabelMetrics>,
    /// Rows: true label; columns: predicted label.
    pub confusion: Vec<Vec<u64>>,
}

/// Figures of one label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelMetrics {
    /// The label.
    pub label: String,
    /// Share of its predictions that are right; 0 when it was never predicted.
    pub precision: f64,
    /// Share of its texts that were found; 0 when there are none.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// Number of texts that have it.
    pub support: u64,
}

impl Metrics {
    /// Compares predictions with the truth, both as places in `labels`.
    ///
    /// # Panics
    /// When a place is not in `labels`.
    pub fn new(labels: &[String], truth: &[usize], predicted: &[usize]) -> Self {
        let mut confusion = vec![vec![0_u64; labels.len()]; labels.len()];
        for (&truth, &predicted) in truth.iter().zip(predicted) {
            confusion[truth][predicted] += 1;
        }
        let per_label: Vec<LabelMetrics> = labels
            .iter()
            .enumerate()
            .map(|(place, label)| LabelMetrics::new(label, place, &confusion))
            .collect();
        let right: u64 = (0..labels.len()).map(|place| confusion[place][place]).sum();
        let occurring: Vec<&LabelMetrics> = per_label.iter().filter(|metrics| metrics.support > 0).collect();
        let mean = |figure: fn(&LabelMetrics) -> f64| {
            share(
                occurring.iter().map(|&label| figure(label)).sum(),
                occurring.len() as f64,
            )
        };
        Metrics {
            rows: truth.len(),
            accuracy: share(right as f64, truth.len() as f64),
            macro_f1: mean(|label| label.f1),
            // A wrong text is one decision too many for a label and one too few for another.
            micro_f1: share(right as f64, truth.len() as f64),
            macro_recall: mean(|label| label.recall),
            labels: per_label,
            confusion,
        }
    }
}

impl LabelMetrics {
    fn new(label: &str, place: usize, confusion: &[Vec<u64>]) -> Self {
        let hits = confusion[place][place] as f64;
        let support: u64 = confusion[place].iter().sum();
        let predicted: u64 = confusion.iter().map(|row| row[place]).sum();
        let (precision, recall) = (share(hits, predicted as f64), share(hits, support as f64));
        LabelMetrics {
            label: label.to_owned(),
            precision,
            recall,
            f1: share(2.0 * precision * recall, precision + recall),
            support,
        }
    }
}

fn share(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_from_the_confusion_matrix() {
        let labels = ["a", "b", "c"].map(String::from);
        let metrics = Metrics::new(&labels, &[0, 0, 0, 1, 1, 2], &[0, 0, 1, 1, 2, 2]);
        assert_eq!(metrics.confusion, [[2, 1, 0], [0, 1, 1], [0, 0, 1]]);
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        close(metrics.accuracy, 4.0 / 6.0);
        close(metrics.macro_recall, (2.0 / 3.0 + 0.5 + 1.0) / 3.0);
        close(metrics.macro_f1, (0.8 + 0.5 + 2.0 / 3.0) / 3.0);
        close(metrics.labels[2].precision, 0.5);
    }

    #[test]
    fn labels_that_do_not_occur_do_not_count_in_means() {
        let labels = ["a", "b", "c"].map(String::from);
        let metrics = Metrics::new(&labels, &[0, 1], &[0, 1]);
        assert_eq!(
            (metrics.macro_recall, metrics.macro_f1, metrics.accuracy),
            (1.0, 1.0, 1.0)
        );
        assert_eq!(Metrics::new(&labels, &[], &[]).macro_f1, 0.0);
    }

    #[test]
    fn a_constant_guess_has_a_macro_recall_of_one_over_the_labels() {
        let labels = ["a", "b", "c"].map(String::from);
        let metrics = Metrics::new(&labels, &[0, 0, 0, 0, 1, 2], &[0; 6]);
        assert!((metrics.macro_recall - 1.0 / 3.0).abs() < 1e-12);
    }
}
