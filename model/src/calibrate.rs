//! Whether probabilities mean what they say: of all texts that a model is 80 % sure of, 80 % should be right.

use std::path::Path;

use serde::Serialize;

use crate::checkpoint::{Checkpoint, set_calibration};
use crate::data::{Selection, read_labelled};
use crate::device::DeviceChoice;
use crate::error::ModelError;
use crate::scores::{Head, best_of, softmax};

/// Bins of confidence, equally wide, as in Guo et al. 2017 (arXiv:1706.04599).
pub(crate) const BINS: usize = 15;

/// How well confidences fit what is right.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// Expected calibration error: mean gap between confidence and accuracy over 15 bins, weighted by their texts. 0 to 1
    pub ece: f64,
    /// The largest gap of a bin.
    pub worst_gap: f64,
    /// Mean probability of the label that was chosen.
    pub mean_confidence: f64,
    /// Mean negative logarithm of the probability of the true label.
    pub log_loss: f64,
    /// Mean squared distance between probabilities and truth, summed over labels. 0 to 2
    pub brier: f64,
    /// The bins that have texts.
    pub bins: Vec<Bin>,
}

/// Texts of similar confidence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bin {
    /// Confidences above this …
    pub from: f64,
    /// … up to this.
    pub to: f64,
    /// Number of texts.
    pub rows: usize,
    /// Their mean confidence.
    pub confidence: f64,
    /// Share of them that is right.
    pub accuracy: f64,
}

impl Calibration {
    /// Measures rows of probabilities, `labels` each, against the places of the true labels.
    pub fn new(probabilities: &[f32], labels: usize, truth: &[usize]) -> Self {
        let mut sums = [(0_usize, 0.0_f64, 0_usize); BINS]; // rows, confidence, right
        let (mut log_loss, mut brier, mut confidences) = (0.0, 0.0, 0.0);
        for (row, &truth) in probabilities.chunks_exact(labels).zip(truth) {
            let (best, confidence) = best_of(row);
            let confidence = f64::from(confidence);
            let place = ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
            let bin = &mut sums[place];
            *bin = (bin.0 + 1, bin.1 + confidence, bin.2 + usize::from(best == truth));
            confidences += confidence;
            log_loss -= f64::from(row[truth]).max(f64::MIN_POSITIVE).ln();
            let distance = |(place, &p): (usize, &f32)| (f64::from(p) - f64::from(u8::from(place == truth))).powi(2);
            brier += row.iter().enumerate().map(distance).sum::<f64>();
        }
        let rows = truth.len().max(1) as f64;
        let bins: Vec<Bin> = sums
            .iter()
            .enumerate()
            .filter(|(_, bin)| bin.0 > 0)
            .map(|(place, &(count, confidence, right))| Bin {
                from: place as f64 / BINS as f64,
                to: (place + 1) as f64 / BINS as f64,
                rows: count,
                confidence: confidence / count as f64,
                accuracy: right as f64 / count as f64,
            })
            .collect();
        let gap = |bin: &Bin| (bin.confidence - bin.accuracy).abs();
        Calibration {
            ece: bins.iter().map(|bin| gap(bin) * bin.rows as f64).sum::<f64>() / rows,
            worst_gap: bins.iter().map(gap).fold(0.0, f64::max),
            mean_confidence: confidences / rows,
            log_loss: log_loss / rows,
            brier: brier / rows,
            bins,
        }
    }
}

/// What [`calibrate`] found and wrote.
#[derive(Debug, Clone, Serialize)]
pub struct Calibrated {
    /// The model after it, as `name@sha`: its scores have changed, so its identity has.
    pub model: String,
    /// The head.
    pub head: String,
    /// What its logits were divided by.
    pub temperature_before: f32,
    /// What they are divided by now.
    pub temperature: f32,
    /// What was added to them, label by label; empty where only the temperature was fitted.
    pub shift: Vec<f32>,
    /// How well it was calibrated on these texts.
    pub before: Calibration,
    /// How well it is.
    pub after: Calibration,
}

/// What [`calibrate`] fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fit {
    /// The temperature: no label changes.
    #[default]
    Temperature,
    /// Also what is added to each label's logit, until the mean probability of each label is its share of the texts. A head that was
    /// trained with its rare labels raised predicts them too often, and this takes it back (vector scaling with one temperature, Guo et
    /// al. 2017, section 4.2). Labels change, so fit it on texts like those to come.
    TemperatureAndShares,
}

/// How [`calibrate`] goes about it.
#[derive(Debug, Clone, Default)]
pub struct CalibrateOptions {
    /// The head.
    pub head: String,
    /// Which of the file's rows count and what their labels are called.
    pub selection: Selection,
    /// Where to compute.
    pub device: DeviceChoice,
    /// What to fit.
    pub fit: Fit,
}

/// Fits one head's temperature, and its shares where asked for, on labelled texts, which should be a validation set, and writes it to
/// the checkpoint.
///
/// # Errors
/// When the checkpoint, the head, the file or the label map cannot be used, shares are to be fitted and a label is left out or does
/// not occur, scoring fails, or the folder cannot be written.
pub fn calibrate(dir: &Path, data: &Path, options: &CalibrateOptions) -> Result<Calibrated, ModelError> {
    let CalibrateOptions { head, selection, .. } = options;
    let checkpoint = Checkpoint::open(dir)?;
    let place = checkpoint.head_index(head)?;
    let whole = &checkpoint.config.heads[place];
    let (_, choices) = selection.choices(whole)?;
    let labelled = read_labelled(data, whole, selection)?;
    let shares = match options.fit {
        Fit::Temperature => None,
        Fit::TemperatureAndShares => Some(shares(whole, &labelled.labels, &choices)?),
    };
    let network = checkpoint.load(options.device.resolve()?)?;
    let encoded = checkpoint.tokenizer.encode(&labelled.texts)?;
    let logits = network.all_logits(&encoded, 4096)?.swap_remove(place);
    let logits: Vec<f32> = logits
        .chunks_exact(whole.labels.len())
        .flat_map(|row| choices.iter().map(|&choice| row[choice]))
        .collect();
    let measure = |logits: &[f32], temperature| {
        let probabilities = soft(logits, choices.len(), temperature);
        Calibration::new(&probabilities, choices.len(), &labelled.labels)
    };
    let before = measure(&logits, whole.temperature);
    let mut shifted = logits;
    let shift = shares.map(|shares| fit_shares(&mut shifted, &shares, &labelled.labels));
    let temperature = fit(&shifted, choices.len(), &labelled.labels);
    let changed = set_calibration(dir, place, temperature, shift.as_deref())?;
    Ok(Calibrated {
        model: changed.identity().to_string(),
        head: head.to_owned(),
        temperature_before: whole.temperature,
        temperature,
        before,
        after: measure(&shifted, temperature),
        shift: shift.unwrap_or_default(),
    })
}

/// How often each label occurs.
fn shares(head: &Head, truth: &[usize], choices: &[usize]) -> Result<Vec<f64>, ModelError> {
    let wrong = |reason: String| ModelError::Labels {
        head: head.name.clone(),
        reason,
    };
    if choices.len() < head.labels.len() {
        return Err(wrong("shares are of all labels: leave `--among` out".to_owned()));
    }
    let mut counts = vec![0_usize; head.labels.len()];
    truth.iter().for_each(|&label| counts[label] += 1);
    if let Some(missing) = counts.iter().position(|&count| count == 0) {
        return Err(wrong(format!(
            "shares are of texts like those to come, but none of these is `{}`",
            head.labels[missing]
        )));
    }
    Ok(counts.iter().map(|&count| count as f64 / truth.len() as f64).collect())
}

/// Shifts the logits until, at the best temperature, the mean probability of each label is its share; returns the shift, which sums
/// to zero. Where both hold, the log loss is the least that temperature and shift can reach.
fn fit_shares(logits: &mut [f32], shares: &[f64], truth: &[usize]) -> Vec<f32> {
    let labels = shares.len();
    let mut shift = vec![0.0_f32; labels];
    for _ in 0..100 {
        let temperature = fit(logits, labels, truth);
        let mut means = vec![0.0_f64; labels];
        for row in soft(logits, labels, temperature).chunks_exact(labels) {
            means
                .iter_mut()
                .zip(row)
                .for_each(|(mean, p)| *mean += f64::from(*p) / truth.len() as f64);
        }
        let off = |(share, mean): (&f64, &f64)| (share / mean).ln() * f64::from(temperature);
        let steps: Vec<f64> = shares.iter().zip(&means).map(off).collect();
        let middle = steps.iter().sum::<f64>() / labels as f64;
        let steps: Vec<f32> = steps.iter().map(|step| (step - middle) as f32).collect();
        for row in logits
            .chunks_exact_mut(labels)
            .chain(std::iter::once(shift.as_mut_slice()))
        {
            row.iter_mut().zip(&steps).for_each(|(logit, step)| *logit += step);
        }
        if steps.iter().all(|step| step.abs() < 1e-4) {
            break;
        }
    }
    shift
}

fn soft(logits: &[f32], labels: usize, temperature: f32) -> Vec<f32> {
    let mut rows = logits.to_vec();
    rows.chunks_exact_mut(labels).for_each(|row| softmax(row, temperature));
    rows
}

/// The temperature with the smallest log loss, from 1/20 to 20. The loss has a single minimum in the inverse temperature, so
/// narrowing an interval finds it.
pub(crate) fn fit(logits: &[f32], labels: usize, truth: &[usize]) -> f32 {
    let loss = |log: f64| -> f64 {
        let temperature = log.exp();
        let row_loss = |(row, &truth): (&[f32], &usize)| -> f64 {
            let scaled = row.iter().map(|&logit| f64::from(logit) / temperature);
            let max = scaled.clone().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scaled.map(|logit| (logit - max).exp()).sum();
            sum.ln() + max - f64::from(row[truth]) / temperature
        };
        logits.chunks_exact(labels).zip(truth).map(row_loss).sum()
    };
    let (mut low, mut high) = (-(20_f64.ln()), 20_f64.ln());
    for _ in 0..60 {
        let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        if loss(a) < loss(b) {
            high = b;
        } else {
            low = a;
        }
    }
    // Three decimals: more than the data can tell, and the same on every machine.
    (((low + high) / 2.0).exp() * 1000.0).round() as f32 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    /// Logits of a model that is right as often as it says, made surer by `factor`.
    fn sure(factor: f32) -> (Vec<f32>, Vec<usize>) {
        let mut random = StdRng::seed_from_u64(1);
        let (mut logits, mut truth) = (Vec::new(), Vec::new());
        for _ in 0..4000 {
            let mut row = [0.0_f32; 3].map(|_: f32| random.random_range(-2.0..2.0));
            let mut chances = row;
            softmax(&mut chances, 1.0);
            let dice: f32 = random.random();
            truth.push(if dice < chances[0] {
                0
            } else if dice < chances[0] + chances[1] {
                1
            } else {
                2
            });
            row.iter_mut().for_each(|logit| *logit *= factor);
            logits.extend(row);
        }
        (logits, truth)
    }

    #[test]
    fn the_temperature_that_was_put_in_is_found() {
        for factor in [0.5_f32, 1.0, 3.0] {
            let (logits, truth) = sure(factor);
            let found = fit(&logits, 3, &truth);
            assert!((found / factor - 1.0).abs() < 0.1, "{found} instead of {factor}");
            let ece = |temperature| Calibration::new(&soft(&logits, 3, temperature), 3, &truth).ece;
            assert!(ece(found) < 0.03, "{}", ece(found));
            assert!(factor < 2.0 || ece(1.0) > 0.1, "{}", ece(1.0));
        }
    }

    #[test]
    fn the_shift_that_was_put_in_is_taken_out() {
        let (mut logits, truth) = sure(2.0);
        let put_in = [0.8_f32, -0.5, -0.3];
        for row in logits.chunks_exact_mut(3) {
            row.iter_mut().zip(put_in).for_each(|(logit, by)| *logit += by);
        }
        let share = |label| truth.iter().filter(|&&true_one| true_one == label).count() as f64 / truth.len() as f64;
        let shares = [share(0), share(1), share(2)];
        let found = fit_shares(&mut logits, &shares, &truth);
        for (found, put_in) in found.iter().zip(put_in) {
            assert!((found + put_in).abs() < 0.15, "{found} against {put_in}");
        }
        assert!((fit(&logits, 3, &truth) / 2.0 - 1.0).abs() < 0.1);
        let means = soft(&logits, 3, fit(&logits, 3, &truth))
            .chunks_exact(3)
            .fold([0.0_f64; 3], |sums, row| {
                [0, 1, 2].map(|label| sums[label] + f64::from(row[label]) / truth.len() as f64)
            });
        for (mean, share) in means.iter().zip(shares) {
            assert!((mean - share).abs() < 1e-3, "{mean} {share}");
        }
    }

    #[test]
    fn calibration_is_what_it_is_by_hand() {
        let probabilities = [0.9, 0.1, 0.9, 0.1, 0.4, 0.6];
        let found = Calibration::new(&probabilities, 2, &[0, 1, 1]);
        // Two texts at 0.9 of which one is right, one at 0.6 that is right.
        assert!((found.ece - (2.0 * 0.4 + 0.4) / 3.0).abs() < 1e-6, "{}", found.ece);
        assert_eq!(found.bins.len(), 2);
        assert!(
            (found.brier - (0.02 + 1.62 + 0.32) / 3.0).abs() < 1e-6,
            "{}",
            found.brier
        );
        assert_eq!(Calibration::new(&[], 2, &[]).ece, 0.0);
    }
}
