//! Upper bounds of the histograms. A change breaks the quantiles of dashboards across it.

/// Seconds of a commit: a local disk takes tenths, a store that refuses takes a minute.
pub(crate) const COMMIT_SECONDS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// Rows of a batch or a commit.
pub(crate) const ROWS: &[f64] = &[1e1, 1e2, 5e2, 1e3, 2.5e3, 5e3, 1e4, 2.5e4, 5e4, 1e5, 2.5e5, 1e6];
/// Bytes of a commit's files.
pub(crate) const BYTES: &[f64] = &[1e4, 1e5, 1e6, 4e6, 16e6, 64e6, 256e6];
/// Seconds from a post's own time to its commit: a live stream takes one flush, a backlog days.
pub(crate) const EVENT_SECONDS: &[f64] = &[
    1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0,
];
