//! Counts by size, for quantiles. A batch or a commit is one call, whatever its number of rows.

use std::sync::{Mutex, PoisonError};

/// Values counted by buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    inner: Mutex<Inner>,
}

#[derive(Debug, Clone)]
struct Inner {
    counts: Vec<u64>,
    sum: f64,
}

/// What a histogram holds at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distribution {
    /// Upper bound and number of values in each bucket; the last bound is infinity.
    pub buckets: Vec<(f64, u64)>,
    /// Number of values.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

impl Histogram {
    /// Empty, with these upper bounds and one without end.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = vec![0; bounds.len() + 1];
        Histogram {
            bounds,
            inner: Mutex::new(Inner { counts, sum: 0.0 }),
        }
    }

    /// Counts a value.
    pub fn observe(&self, value: f64) {
        self.observe_all([value]);
    }

    /// Counts values, all under one lock.
    pub fn observe_all(&self, values: impl IntoIterator<Item = f64>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for value in values {
            inner.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
            inner.sum += value;
        }
    }

    /// What it holds now.
    pub fn read(&self) -> Distribution {
        let Inner { counts, sum } = self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        Distribution {
            count: counts.iter().sum(),
            buckets: bounds.zip(counts).collect(),
            sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::buckets::{BYTES, COMMIT_SECONDS, EVENT_SECONDS, ROWS};

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&[1.0, 10.0]);
        histogram.observe_all([0.0, 1.0, 1.5, 10.0, 11.0, 1e9]);
        let read = histogram.read();
        assert_eq!(read.buckets, [(1.0, 2), (10.0, 2), (f64::INFINITY, 2)]);
        assert_eq!((read.count, read.sum), (6, 1e9 + 23.5));
    }

    #[test]
    fn bounds_grow() {
        for bounds in [COMMIT_SECONDS, ROWS, BYTES, EVENT_SECONDS] {
            assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]), "{bounds:?}");
        }
    }
}
