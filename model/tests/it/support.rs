//! What the tests share.

use std::path::PathBuf;

use arrow::array::StringArray;
use tamiz_model::testing::tiny_checkpoint;
use tamiz_model::{DeviceChoice, Scorer, ScorerOptions};
use tempfile::TempDir;

/// This crate's folder, as cargo says when it runs this: clones may share what is compiled.
pub(crate) fn here() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap())
}

pub(crate) fn options() -> ScorerOptions {
    ScorerOptions {
        device: DeviceChoice::Cpu,
        threads: Some(1),
        ..ScorerOptions::default()
    }
}

pub(crate) fn checkpoint() -> TempDir {
    let dir = TempDir::new().unwrap();
    tiny_checkpoint(dir.path()).unwrap();
    dir
}

pub(crate) fn scorer(options: ScorerOptions) -> Scorer {
    Scorer::open(checkpoint().path(), options).unwrap()
}

/// Texts of many lengths, all different.
pub(crate) fn texts(rows: usize) -> StringArray {
    const WORDS: [&str; 12] = [
        "the",
        "team",
        "played",
        "great",
        "market",
        "fell",
        "terrible",
        "day",
        "@ada",
        "https://x.example/1",
        "😀",
        "film",
    ];
    let text = |row: usize| -> String {
        (0..(row * 7919) % 23)
            .map(|place| WORDS[(row * 31 + place * place) % WORDS.len()])
            .collect::<Vec<_>>()
            .join(" ")
            + &format!(" {row}")
    };
    StringArray::from_iter_values((0..rows).map(text))
}

/// Largest difference between two rows of scores.
pub(crate) fn gap(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Says on the terminal that a test did not run; there is no other way to tell.
#[allow(clippy::print_stderr)]
pub(crate) fn skipped(reason: &str) {
    eprintln!("skipped: {reason}");
}
