//! What commits and data files say of themselves in the log, beyond what Delta asks for.
//!
//! Never a word of a person: identifiers, counts, hashes and offsets only.

use serde_json::{Value, json};

use super::writer::Txns;

/// Key of a commit's identifier.
pub(super) const COMMIT_ID: &str = "tamizCommit";
/// Key of the number of actions beside the commit's own line: an entry that was cut at a line's end shows by it.
pub(super) const ACTIONS: &str = "tamizActions";
/// Key of the offsets at which the commit's transactions begin, in their order. A transaction itself says where it ends:
/// with both, a version that lost its content shows as a gap.
pub(super) const FIRSTS: &str = "tamizFirst";

/// Tag of a data file: SHA-256 of its bytes, hexadecimal, as `sha256sum` prints it.
pub(super) const SHA256: &str = "tamiz.sha256";
/// Tag of a data file: where its rows came from.
pub(super) const OFFSETS: &str = "tamiz.offsets";
/// Tag of a data file that was packed from smaller ones: the size that was aimed at, in bytes.
pub(super) const PACKED: &str = "tamiz.packed";

/// The marks of a commit with `files` actions about files, and these transactions.
pub(super) fn of_commit(id: &str, files: usize, txns: &Txns) -> Vec<(String, Value)> {
    let mut marks = vec![
        (COMMIT_ID.to_owned(), json!(id)),
        (ACTIONS.to_owned(), json!(files + txns.len())),
    ];
    if !txns.is_empty() {
        let firsts: Vec<i64> = txns.values().map(|range| range.first).collect();
        marks.push((FIRSTS.to_owned(), json!(firsts)));
    }
    marks
}
