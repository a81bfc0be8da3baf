//! What the benchmarks share: the posts they read, the machine they ran on, the scenarios, and the reports.
//!
//! Two programs measure. `benches/stages.rs` times every stage and kernel on one batch, `benches/end_to_end.rs` runs
//! whole jobs, each in a process of its own. `make bench` runs both and leaves their figures in `results/`.
//!
//! Architecture invariant: nothing here changes what is measured. Scenarios call the same jobs as the binary, with the
//! default configuration but for the addresses of tables and the input mapping.

pub mod machine;
pub mod posts;
pub mod report;
pub mod scenario;
pub mod topic;

use std::path::PathBuf;

/// This crate's folder, as cargo says when it runs a benchmark; clones may share what is compiled.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// Where figures are kept.
pub fn results() -> PathBuf {
    folder().join("results")
}
