//! Means that say how sure they are.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Resamples behind an interval: its ends then vary by about a tenth of its width at most.
const RESAMPLES: usize = 1000;

/// A mean with the interval that 95 of 100 such samples would put around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// 2.5 % of resampled means are below.
    pub low: f64,
    /// 2.5 % are above.
    pub high: f64,
    /// Number of values.
    pub n: usize,
}

impl Estimate {
    /// The mean of values that are independent of each other, by bootstrap (Efron 1979); the same for the same values.
    pub fn of(values: &[f64]) -> Self {
        Self::of_sample(values.len(), |sample| {
            sample.iter().map(|&place| values[place]).sum::<f64>() / sample.len() as f64
        })
    }

    /// Any figure of a sample: `figure` gets the places of the rows that were drawn, of `n`.
    pub fn of_sample(n: usize, figure: impl Fn(&[usize]) -> f64) -> Self {
        if n == 0 {
            return Estimate {
                mean: 0.0,
                low: 0.0,
                high: 0.0,
                n,
            };
        }
        let mut random = StdRng::seed_from_u64(n as u64);
        let mut drawn: Vec<f64> = (0..RESAMPLES)
            .map(|_| figure(&(0..n).map(|_| random.random_range(0..n)).collect::<Vec<_>>()))
            .filter(|value| value.is_finite())
            .collect();
        drawn.sort_by(f64::total_cmp);
        let mean = figure(&(0..n).collect::<Vec<_>>());
        let at = |share: f64| {
            drawn
                .get((drawn.len() as f64 * share) as usize)
                .copied()
                .unwrap_or(mean)
        };
        Estimate {
            mean,
            low: at(0.025),
            high: at(0.975),
            n,
        }
    }

    /// Whether zero lies outside of the interval.
    pub fn differs_from_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// The chance that a text that should score high scores higher than one that should not; equals count half. `None` without both.
pub fn auc(high: &[f64], low: &[f64]) -> Option<f64> {
    if high.is_empty() || low.is_empty() {
        return None;
    }
    let mut all: Vec<(f64, bool)> = high.iter().map(|&score| (score, true)).collect();
    all.extend(low.iter().map(|&score| (score, false)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut won, mut below, mut start) = (0.0, 0.0, 0);
    while start < all.len() {
        let end = start + all[start..].iter().take_while(|row| row.0 == all[start].0).count();
        let highs = all[start..end].iter().filter(|row| row.1).count() as f64;
        let lows = (end - start) as f64 - highs;
        won += highs * (below + lows / 2.0);
        below += lows;
        start = end;
    }
    Some(won / (high.len() as f64 * low.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_the_mean_and_shrink_with_more_values() {
        let values: Vec<f64> = (0..400).map(|i| f64::from((i * 7919) % 101) / 100.0).collect();
        let (few, many) = (Estimate::of(&values[..40]), Estimate::of(&values));
        for estimate in [few, many] {
            assert!(estimate.low < estimate.mean && estimate.mean < estimate.high);
            assert!(estimate.differs_from_zero());
        }
        assert!(many.high - many.low < few.high - few.low);
        assert_eq!(Estimate::of(&values), many);
        assert!(!Estimate::of(&[-1.0, 1.0, -1.0, 1.0]).differs_from_zero());
        assert_eq!(Estimate::of(&[]).n, 0);
    }

    #[test]
    fn auc_counts_pairs() {
        assert_eq!(auc(&[3.0, 2.0], &[1.0, 0.0]), Some(1.0));
        assert_eq!(auc(&[1.0], &[1.0]), Some(0.5));
        assert_eq!(auc(&[2.0, 0.0], &[1.0]), Some(0.5));
        assert_eq!(auc(&[], &[1.0]), None);
    }
}
