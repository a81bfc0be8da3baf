//! Models that cannot be used: told in one sentence, before anything is written.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tamiz_model::testing::tiny_checkpoint;

use crate::support::Folder;

/// A batch that would score, were the model any good.
fn call(model: &str) -> [&str; 7] {
    ["batch", "--from", "posts.jsonl", "--to", "posts", "--model", model]
}

fn folder() -> Folder {
    let folder = Folder::new();
    let post = json!({"id": "1", "source": "t", "created_at": "2026-01-02T03:04:05Z", "text": "a fine day"});
    folder.write("posts.jsonl", post.to_string());
    tiny_checkpoint(&folder.path("model")).unwrap();
    folder
}

/// Changes a file of the model, and the manifest's hash with it.
fn change(folder: &Folder, name: &str, edit: impl Fn(Vec<u8>) -> Vec<u8>) {
    let path = folder.path("model").join(name);
    let bytes = edit(std::fs::read(&path).unwrap());
    std::fs::write(&path, &bytes).unwrap();
    let hash: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    edit_json(&folder.path("model/manifest.json"), |manifest| {
        manifest["files"][name] = hash.clone().into()
    });
}

fn edit_json(path: &Path, edit: impl Fn(&mut Value)) {
    let mut value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

fn relabel(bytes: Vec<u8>, edit: impl Fn(&mut Value)) -> Vec<u8> {
    let mut config = serde_json::from_slice(&bytes).unwrap();
    edit(&mut config);
    config.to_string().into_bytes()
}

fn refused(folder: &Folder, words: &[&str]) {
    folder.run(&call("model")).refused(1, words);
    assert!(
        !folder.path("posts").exists() && !folder.path("posts_dead_letters").exists(),
        "tables were made: {words:?}"
    );
}

#[test]
fn a_sound_model_is_taken() {
    let folder = folder();
    folder.run(&call("model")).done();
}

#[test]
fn a_missing_model_folder_is_told() {
    let folder = folder();
    std::fs::remove_dir_all(folder.path("model")).unwrap();
    // A name that could be one on the Hub is looked for there, so what is missing is a wrong configuration.
    let words = ["`model` is neither a folder nor a name on the Hugging Face Hub"];
    folder.run(&call("model")).refused(2, &words);
    assert!(!folder.path("posts").exists());
    std::fs::create_dir(folder.path("model")).unwrap();
    refused(&folder, &["model/manifest.json", "a model folder holds"]);
}

#[test]
fn a_wrong_label_map_is_told() {
    let fewer = |config: &mut Value| config["heads"][0]["labels"] = json!(["negative", "positive"]);
    let twice = |config: &mut Value| config["heads"][1]["labels"][0] = config["heads"][1]["labels"][1].clone();
    let other_order = |config: &mut Value| config["heads"][0]["labels"] = json!(["positive", "neutral", "negative"]);
    let none = |config: &mut Value| config["heads"] = json!([]);
    let only_topic = |config: &mut Value| drop(config["heads"].as_array_mut().unwrap().remove(0));
    type Edit<'e> = &'e dyn Fn(&mut Value);
    let edits: [(Edit, &[&str]); 5] = [
        (&fewer, &["sentiment"]),
        (&twice, &["topic"]),
        (&other_order, &["sentiment"]),
        (&none, &["head"]),
        (&only_topic, &["sentiment"]),
    ];
    for (edit, words) in edits {
        let folder = folder();
        change(&folder, "config.json", |bytes| relabel(bytes, edit));
        // Whether it fits the heads or the manifest is looked at first is the model's business.
        refused(&folder, &[]);
        edit_json(&folder.path("model/manifest.json"), edit);
        refused(&folder, words);
    }
}

#[test]
fn damaged_weights_are_told() {
    let weights = "model.safetensors";
    let flipped = |mut bytes: Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        bytes
    };
    let folder = folder();
    let path = folder.path("model").join(weights);
    let sound = std::fs::read(&path).unwrap();
    std::fs::write(&path, flipped(sound.clone())).unwrap();
    refused(
        &folder,
        &[weights, "does not match its manifest", "fetch the model folder again"],
    );
    std::fs::remove_file(&path).unwrap();
    refused(&folder, &[weights, "a model folder holds"]);
    // Also where the hash is right: cut short, no safetensors at all, and a header that claims to be huge.
    let cut = sound[..sound.len() / 2].to_vec();
    let huge = [&u64::MAX.to_le_bytes()[..], &sound[8..]].concat();
    for damaged in [cut, b"not weights".to_vec(), Vec::new(), huge] {
        std::fs::write(&path, &sound).unwrap();
        change(&folder, weights, |_| damaged.clone());
        refused(&folder, &[weights]);
    }
}

#[test]
fn a_damaged_tokenizer_manifest_or_configuration_is_told() {
    for (name, damaged) in [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "not json"),
        ("config.json", "{\"format\": 1}"),
        ("config.json", ""),
    ] {
        let folder = folder();
        change(&folder, name, |_| damaged.into());
        refused(&folder, &[name]);
    }
    let folder = folder();
    std::fs::write(folder.path("model/manifest.json"), "{").unwrap();
    refused(&folder, &["manifest.json"]);
}

#[test]
fn a_device_that_is_not_there_is_no_silent_cpu() {
    let folder = folder();
    let arguments = [&call("model")[..], &["--device", "cuda:77"]].concat();
    folder.run(&arguments).refused(1, &["cuda:77"]);
    let arguments = [&call("model")[..], &["--device", "abacus"]].concat();
    folder.run(&arguments).refused(2, &["model.device", "abacus"]);
}
