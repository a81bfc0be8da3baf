//! A checkpoint folder is either right or refused with one sentence.

use std::path::Path;

use sha2::{Digest, Sha256};
use tamiz_model::testing::{tiny_checkpoint, tiny_checkpoint_with, tiny_heads};
use tamiz_model::{Checkpoint, Head, Scorer};
use tempfile::TempDir;

use super::support::{checkpoint, options, texts};

/// The whole error, with its causes, as the program prints it.
fn refusal(dir: &Path) -> String {
    let error = Scorer::open(dir, options()).expect_err("the checkpoint must be refused");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    assert!(!text.contains('\n'), "one sentence, one line: {text}");
    text
}

/// Changes a file and corrects its hash in the manifest, as someone would who means it.
fn edit(dir: &Path, file: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(dir.join(file)).unwrap();
    assert!(text.contains(from), "{file} holds no {from}");
    std::fs::write(dir.join(file), text.replace(from, to)).unwrap();
    rehash(dir, file);
}

fn rehash(dir: &Path, file: &str) {
    let hash: String = Sha256::digest(std::fs::read(dir.join(file)).unwrap())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let path = dir.join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest["files"][file] = hash.into();
    std::fs::write(path, manifest.to_string()).unwrap();
}

#[test]
fn missing_files_are_named() {
    for file in ["config.json", "model.safetensors", "tokenizer.json", "manifest.json"] {
        let dir = checkpoint();
        std::fs::remove_file(dir.path().join(file)).unwrap();
        let message = refusal(dir.path());
        assert!(message.contains("cannot read") && message.contains(file), "{message}");
    }
    assert!(refusal(Path::new("/nowhere/at/all")).contains("/nowhere/at/all/manifest.json"));
}

#[test]
fn one_changed_byte_is_noticed() {
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let dir = checkpoint();
        let path = dir.path().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let message = refusal(dir.path());
        assert!(
            message.contains(file) && message.contains("does not match its manifest"),
            "{message}"
        );
    }
}

#[test]
fn wrong_label_maps_are_refused() {
    let cases = [
        ("\"negative\"", "\"LABEL_0\"", "negative, neutral, positive"),
        ("\"sports\"", "\"business\"", "`business` is there twice"),
        ("\"sports\"", "\" \"", "is empty"),
        ("\"topic\"", "\"sentiment\"", "sentiment"),
    ];
    for (from, to, says) in cases {
        let dir = checkpoint();
        edit(dir.path(), "config.json", from, to);
        let message = refusal(dir.path());
        assert!(message.contains(says), "{message}");
    }
    let dir = checkpoint();
    edit(dir.path(), "config.json", "\"sports\"", "\"games\"");
    assert!(refusal(dir.path()).contains("differ from those of config.json"));
}

#[test]
fn a_head_with_more_labels_than_its_matrix_has_rows_is_refused() {
    let dir = checkpoint();
    let wide = TempDir::new().unwrap();
    let mut heads: Vec<Head> = tiny_heads();
    heads[1].labels.push("weather".into());
    tiny_checkpoint_with(wide.path(), 7, &heads).unwrap();
    std::fs::copy(
        dir.path().join("model.safetensors"),
        wide.path().join("model.safetensors"),
    )
    .unwrap();
    rehash(wide.path(), "model.safetensors");
    let message = refusal(wide.path());
    assert!(
        message.contains("heads.topic.") && message.contains("asks for [8"),
        "{message}"
    );
}

#[test]
fn weights_that_are_no_safetensors_are_refused() {
    for bytes in [b"\x80\x02}q\x00.".as_slice(), b"", &[0xff; 64]] {
        let dir = checkpoint();
        std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        rehash(dir.path(), "model.safetensors");
        let message = refusal(dir.path());
        assert!(message.contains("not a readable safetensors file"), "{message}");
    }
}

#[test]
fn a_tokenizer_larger_than_the_embedding_is_refused() {
    let dir = checkpoint();
    let vocabulary = Checkpoint::open(dir.path()).unwrap().tokenizer.vocabulary();
    edit(
        dir.path(),
        "config.json",
        &format!("\"vocabulary\": {vocabulary}"),
        "\"vocabulary\": 20",
    );
    assert!(refusal(dir.path()).contains("the model's embedding has 20 rows"));
}

#[test]
fn unknown_options_and_later_formats_are_refused() {
    let dir = checkpoint();
    edit(dir.path(), "config.json", "\"pooling\"", "\"pulling\"");
    assert!(refusal(dir.path()).contains("pulling"));
    let dir = checkpoint();
    edit(dir.path(), "config.json", "\"format\": 1", "\"format\": 9");
    assert!(refusal(dir.path()).contains("format 9"));
}

#[test]
fn the_same_seed_gives_the_same_checkpoint() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (first, second) = (tiny_checkpoint(a.path()).unwrap(), tiny_checkpoint(b.path()).unwrap());
    assert_eq!(first, second);
    assert!(
        first.to_string().starts_with("tiny@") && first.sha.len() == 12,
        "{first}"
    );
    let other = tiny_checkpoint_with(b.path(), 8, &tiny_heads()).unwrap();
    assert_ne!(first.sha, other.sha);
}

#[test]
fn tokenizing_in_parallel_gives_what_one_by_one_gives() {
    let dir = checkpoint();
    let tokenizer = Checkpoint::open(dir.path()).unwrap().tokenizer;
    let texts = texts(1000);
    let all = tokenizer.encode(&texts).unwrap();
    assert_eq!(all.len(), 1000);
    for row in 0..1000 {
        let one = tokenizer.encode(&texts.slice(row, 1)).unwrap();
        assert_eq!(
            (all.row(row), all.truncated(row)),
            (one.row(0), one.truncated(0)),
            "row {row}"
        );
    }
}
