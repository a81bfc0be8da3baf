//! Failures on demand, for tests of what stands above the model. Compiled only with the feature `failpoints`.
//!
//! `FAILPOINTS='model::forward=return(memory>200)'` in the environment makes every batch of more than 200 padded tokens run out
//! of memory; `device` takes the device away, and `token=N` fails each batch that holds the token N.

use crate::error::ModelError;

/// What stands in for libtorch's error, where this batch is to fail.
pub(crate) fn injected(rows: &[&[u32]]) -> Option<ModelError> {
    fail::fail_point!("model::forward", |what: Option<String>| judge(
        &what.unwrap_or_default(),
        rows
    ));
    None
}

fn judge(what: &str, rows: &[&[u32]]) -> Option<ModelError> {
    let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let number = |text: &str| text.parse::<usize>().ok();
    let reason = if let Some(most) = what.strip_prefix("memory>").and_then(number) {
        (longest * rows.len() > most).then_some("CUDA out of memory. Tried to allocate 2.00 GiB.")
    } else if let Some(token) = what.strip_prefix("token=").and_then(number) {
        let holds = |row: &&[u32]| row.iter().any(|id| *id as usize == token);
        rows.iter().any(holds).then_some("index out of range in self")
    } else {
        (what == "device").then_some("CUDA error: unspecified launch failure")
    };
    reason.map(|reason| ModelError::Torch {
        doing: "scoring a batch",
        reason: reason.to_owned(),
    })
}
