//! What a training set teaches: labels of one head, or what teachers say in several.

use tch::{Kind, Reduction, Tensor};

use crate::train_config::SetConfig;

/// What the texts of a set teach.
pub(crate) enum Lesson {
    /// Hidden words; the texts themselves are all there is.
    Words,
    /// The labels of one head.
    Labels(Labels),
    /// The probabilities of several heads, from teachers.
    Taught(Vec<Taught>),
}

/// A label for every text.
pub(crate) struct Labels {
    head: usize,
    truth: Vec<i64>, // per text, a place among the choices
    /// The labels that the texts are told apart by, as places in the head's list.
    choices: Vec<i64>,
    /// One weight per choice.
    weights: Vec<f32>,
}

/// Probabilities for every text.
pub(crate) struct Taught {
    pub(crate) head: usize,
    pub(crate) labels: usize,
    /// Row by row, `labels` each.
    pub(crate) probabilities: Vec<f32>,
}

impl Labels {
    /// `balance` raises rare labels: 0 not at all, 1 until all weigh the same.
    pub(crate) fn new(config: &SetConfig, (head, label_count): (usize, usize), balance: f64, labels: &[usize]) -> Self {
        let mut counts = vec![0_usize; label_count];
        labels.iter().for_each(|&label| counts[label] += 1);
        let choices: Vec<usize> = (0..label_count)
            .filter(|&label| !config.restrict || counts[label] > 0)
            .collect();
        let occurring = counts.iter().filter(|&&count| count > 0).count().max(1);
        let even = labels.len() as f64 / occurring as f64;
        // A label as frequent as an even share has weight 1; one that never occurs is never a target.
        let weight = |label: &usize| {
            if counts[*label] == 0 {
                1.0
            } else {
                (even / counts[*label] as f64).powf(balance) as f32
            }
        };
        let place = |label: &usize| {
            choices
                .iter()
                .position(|choice| choice == label)
                .map_or(0, |place| place as i64)
        };
        Labels {
            head,
            truth: labels.iter().map(place).collect(),
            weights: choices.iter().map(weight).collect(),
            choices: choices.iter().map(|&choice| choice as i64).collect(),
        }
    }
}

impl Lesson {
    /// The loss of some of the set's texts, the mean over them; `logits` has one `(rows, labels)` per head of the network.
    pub(crate) fn loss(&self, places: &[usize], logits: &[Tensor], label_smoothing: f64) -> Option<Tensor> {
        match self {
            Lesson::Words => None,
            Lesson::Labels(labels) => Some(labels.loss(places, logits, label_smoothing)),
            // Each head counts as much as in a batch of its own.
            Lesson::Taught(heads) => heads
                .iter()
                .map(|head| head.loss(places, logits))
                .reduce(|sum, loss| sum + loss),
        }
    }
}

impl Labels {
    fn loss(&self, places: &[usize], logits: &[Tensor], label_smoothing: f64) -> Tensor {
        let logits = &logits[self.head]; // (b, l)
        let device = logits.device();
        let logits = logits
            .index_select(1, &Tensor::from_slice(&self.choices).to_device(device))
            .to_kind(Kind::Float); // (b, choices)
        let truth: Vec<i64> = places.iter().map(|&place| self.truth[place]).collect();
        let truth = Tensor::from_slice(&truth).to_device(device); // (b)
        let weights = Tensor::from_slice(&self.weights).to_device(device); // (choices)
        logits.cross_entropy_loss(&truth, Some(&weights), Reduction::Mean, -100, label_smoothing)
    }
}

impl Taught {
    /// Cross-entropy against the teachers' probabilities: zero gradient where the two agree.
    fn loss(&self, places: &[usize], logits: &[Tensor]) -> Tensor {
        let logits = logits[self.head].to_kind(Kind::Float); // (b, l)
        let row = |&place: &usize| &self.probabilities[place * self.labels..(place + 1) * self.labels];
        let wanted: Vec<f32> = places.iter().flat_map(row).copied().collect();
        let wanted = Tensor::from_slice(&wanted)
            .view([places.len() as i64, self.labels as i64])
            .to_device(logits.device()); // (b, l)
        let losses = logits.log_softmax(-1, Kind::Float) * wanted; // (b, l)
        -losses.sum_dim_intlist(-1, false, Kind::Float).mean(Kind::Float)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taught_loss_is_least_where_it_agrees_and_its_gradient_is_the_difference() {
        let wanted = Tensor::from_slice(&[0.2_f32, 0.3, 0.5, 1.0, 0.0, 0.0]).view([2, 3]);
        let taught = Taught {
            head: 0,
            labels: 3,
            probabilities: vec![0.2, 0.3, 0.5, 1.0, 0.0, 0.0],
        };
        let logits = Tensor::from_slice(&[0.1_f32, -0.4, 0.9, 2.0, 0.0, -1.0])
            .view([2, 3])
            .set_requires_grad(true);
        let lesson = Lesson::Taught(vec![taught]);
        let loss = lesson.loss(&[0, 1], &[logits.shallow_clone()], 0.1).unwrap();
        loss.backward();
        // (softmax - wanted) / rows
        let expected = (logits.softmax(-1, Kind::Float) - &wanted) / 2.0;
        assert!(logits.grad().allclose(&expected, 1e-5, 1e-6, false));

        let agreeing = wanted.clamp_min(1e-9).log();
        let least = lesson.loss(&[0, 1], &[agreeing], 0.0).unwrap().double_value(&[]);
        let entropy = -(0.2 * 0.2_f64.ln() + 0.3 * 0.3_f64.ln() + 0.5 * 0.5_f64.ln()) / 2.0;
        assert!((least - entropy).abs() < 1e-5, "{least} {entropy}");
    }

    #[test]
    fn rows_of_a_taught_set_keep_their_own_probabilities() {
        let taught = |head, probabilities: &[f32]| Taught {
            head,
            labels: 2,
            probabilities: probabilities.to_vec(),
        };
        let lesson = Lesson::Taught(vec![taught(1, &[1.0, 0.0, 0.0, 1.0]), taught(0, &[0.0, 1.0, 1.0, 0.0])]);
        let logits = |first: f32, second: f32| Tensor::from_slice(&[first, second]).view([1, 2]);
        let sure = [logits(20.0, 0.0), logits(0.0, 20.0)];
        // The second text, of which both heads are sure in the teachers' way.
        assert!(lesson.loss(&[1], &sure, 0.0).unwrap().double_value(&[]) < 1e-6);
        assert!((lesson.loss(&[0], &sure, 0.0).unwrap().double_value(&[]) - 40.0).abs() < 1e-3);
    }
}
