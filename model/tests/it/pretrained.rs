//! Checkpoints of others: the same token ids, the same numbers, and one sentence where that cannot be.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use arrow::array::StringArray;
use serde_json::{Value, json};
use tamiz_model::{Checkpoint, DeviceChoice, FOREIGN_HEAD, Head, Precision, Probe, Reading, Scorer};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use super::support::{gap, options, skipped};

const HIDDEN: i64 = 16;
const HEADS: i64 = 4;
const WIDE: i64 = 24;
const POSITIONS: i64 = 20;
const WORDS: [&str; 12] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "day", "##s", "the", "!", "is",
];

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Kindred {
    Bert,
    DistilBert,
    Roberta,
}

const ALL: [Kindred; 3] = [Kindred::Bert, Kindred::DistilBert, Kindred::Roberta];

/// A folder as `transformers` writes it, with random weights.
pub(crate) fn foreign(dir: &Path, kindred: Kindred, edit: impl Fn(&mut Value)) -> HashMap<String, Tensor> {
    let vocabulary: serde_json::Map<String, Value> = WORDS
        .iter()
        .zip(0..)
        .map(|(word, id)| (word.to_string(), json!(id)))
        .collect();
    let special = |id: usize| {
        json!({"id": id, "content": WORDS[id], "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": (0..5).map(special).collect::<Vec<_>>(),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
                       "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary},
    });
    std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let labels = json!({"0": "negative", "1": "neutral", "2": "positive"});
    let mut config = match kindred {
        Kindred::DistilBert => json!({
            "model_type": "distilbert", "architectures": ["DistilBertForSequenceClassification"], "dim": HIDDEN,
            "n_layers": 2, "n_heads": HEADS, "hidden_dim": WIDE, "activation": "gelu", "dropout": 0.1}),
        _ => json!({
            "model_type": if kindred == Kindred::Bert { "bert" } else { "roberta" },
            "architectures": [if kindred == Kindred::Bert { "BertForSequenceClassification" } else { "RobertaForSequenceClassification" }],
            "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": WIDE,
            "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "layer_norm_eps": 1e-12, "type_vocab_size": 2}),
    };
    config["max_position_embeddings"] = json!(POSITIONS);
    config["vocab_size"] = json!(WORDS.len());
    config["pad_token_id"] = json!(0);
    config["id2label"] = labels;
    edit(&mut config);
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let weights = weights(kindred);
    let list: Vec<(&String, &Tensor)> = weights.iter().collect();
    Tensor::write_safetensors(&list, dir.join("model.safetensors")).unwrap();
    weights
}

fn weights(kindred: Kindred) -> HashMap<String, Tensor> {
    let mut weights = HashMap::new();
    let mut add = |name: String, shape: &[i64]| {
        weights.insert(name, Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.5);
    };
    let (prefix, layers, names, head) = names(kindred);
    let embeddings = format!("{prefix}embeddings.");
    add(
        format!("{embeddings}word_embeddings.weight"),
        &[WORDS.len() as i64, HIDDEN],
    );
    add(format!("{embeddings}position_embeddings.weight"), &[POSITIONS, HIDDEN]);
    if kindred != Kindred::DistilBert {
        add(format!("{embeddings}token_type_embeddings.weight"), &[2, HIDDEN]);
    }
    let mut linear = |name: String, to: i64, from: i64| {
        add(format!("{name}.weight"), &[to, from][..if from == 0 { 1 } else { 2 }]);
        add(format!("{name}.bias"), &[to]);
    };
    linear(format!("{embeddings}LayerNorm"), HIDDEN, 0);
    for layer in 0..2 {
        for (place, name) in names.iter().enumerate() {
            let (to, from) = match place {
                4 | 7 => (HIDDEN, 0),
                5 => (WIDE, HIDDEN),
                6 => (HIDDEN, WIDE),
                _ => (HIDDEN, HIDDEN),
            };
            linear(format!("{prefix}{layers}.{layer}.{name}"), to, from);
        }
    }
    linear(head[0].to_owned(), HIDDEN, HIDDEN);
    linear(head[1].to_owned(), 3, HIDDEN);
    weights
}

/// Prefix, the layers' name, and within a layer: query, key, value, output, norm, wide, narrow, norm; then the head's two layers.
fn names(kindred: Kindred) -> (&'static str, &'static str, [&'static str; 8], [&'static str; 2]) {
    let bert = [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    ];
    match kindred {
        Kindred::Bert => ("bert.", "encoder.layer", bert, ["bert.pooler.dense", "classifier"]),
        Kindred::Roberta => (
            "roberta.",
            "encoder.layer",
            bert,
            ["classifier.dense", "classifier.out_proj"],
        ),
        Kindred::DistilBert => (
            "distilbert.",
            "transformer.layer",
            [
                "attention.q_lin",
                "attention.k_lin",
                "attention.v_lin",
                "attention.out_lin",
                "sa_layer_norm",
                "ffn.lin1",
                "ffn.lin2",
                "output_layer_norm",
            ],
            ["pre_classifier", "classifier"],
        ),
    }
}

/// The same network, written down once more as plainly as can be, one text and one attention head at a time.
fn by_hand(kindred: Kindred, weights: &HashMap<String, Tensor>, ids: &[u32]) -> Vec<f32> {
    let (prefix, layers, names, head) = names(kindred);
    let linear = |x: &Tensor, name: &str| {
        x.linear(
            &weights[&format!("{name}.weight")],
            Some(&weights[&format!("{name}.bias")]),
        )
    };
    let norm = |x: &Tensor, name: &str| {
        let (mean, variance) = (
            x.mean_dim([-1].as_slice(), true, None),
            x.var_dim([-1].as_slice(), false, true),
        );
        (x - mean) / (variance + 1e-12).sqrt() * &weights[&format!("{name}.weight")] + &weights[&format!("{name}.bias")]
    };
    let embeddings = format!("{prefix}embeddings.");
    let rows: Vec<Tensor> = ids
        .iter()
        .enumerate()
        .map(|(place, &id)| {
            let counted = ids[..=place].iter().filter(|&&id| id != 0).count() as i64;
            let place = match kindred {
                Kindred::Roberta if id == 0 => 0,
                Kindred::Roberta => counted,
                _ => place as i64,
            };
            let row = weights[&format!("{embeddings}word_embeddings.weight")].get(i64::from(id))
                + weights[&format!("{embeddings}position_embeddings.weight")].get(place);
            match weights.get(&format!("{embeddings}token_type_embeddings.weight")) {
                Some(types) => row + types.get(0),
                None => row,
            }
        })
        .collect();
    let mut x = norm(&Tensor::stack(&rows, 0), &format!("{embeddings}LayerNorm"));
    for layer in 0..2 {
        let name = |place: usize| format!("{prefix}{layers}.{layer}.{}", names[place]);
        let [q, k, v] = [0, 1, 2].map(|place| linear(&x, &name(place)));
        let width = HIDDEN / HEADS;
        let mixed: Vec<Tensor> = (0..HEADS)
            .map(|head| {
                let [q, k, v] = [&q, &k, &v].map(|tensor| tensor.narrow(1, head * width, width));
                (q.matmul(&k.tr()) / (width as f64).sqrt()).softmax(-1, None).matmul(&v)
            })
            .collect();
        x = norm(&(&x + linear(&Tensor::cat(&mixed, 1), &name(3))), &name(4));
        let wide = linear(&x, &name(5)).gelu("none");
        x = norm(&(&x + linear(&wide, &name(6))), &name(7));
    }
    let bent = linear(&x.get(0), head[0]);
    let bent = if kindred == Kindred::DistilBert {
        bent.relu()
    } else {
        bent.tanh()
    };
    Vec::<f32>::try_from(linear(&bent, head[1])).unwrap()
}

fn texts() -> StringArray {
    StringArray::from(vec![
        "The day is good!",
        "",
        "bad days",
        "日本 😀 مرحبا",
        "the [PAD] day [MASK] is",
        "good bad good bad good bad good bad good bad good bad good bad good bad good bad good bad good bad",
    ])
}

fn refusal(dir: &Path) -> String {
    let error = Probe::open(dir, DeviceChoice::Cpu)
        .expect_err("the folder must be refused")
        .to_string();
    assert!(!error.contains('\n'), "one sentence, one line: {error}");
    error
}

#[test]
fn foreign_checkpoints_give_the_numbers_of_a_plain_second_implementation() {
    for kindred in ALL {
        let dir = TempDir::new().unwrap();
        let weights = foreign(dir.path(), kindred, |_| ());
        let probe = Probe::open(dir.path(), DeviceChoice::Cpu).unwrap();
        let texts = texts();
        for (row, seen) in probe.score(&texts).unwrap().into_iter().enumerate() {
            let seen = seen.unwrap();
            assert!(seen.token_ids.len() as i64 <= POSITIONS);
            let expected = by_hand(kindred, &weights, &seen.token_ids);
            let gap = gap(&seen.heads[0].logits, &expected);
            assert!(gap < 1e-4, "{kindred:?}, {}: {gap}", texts.value(row));
        }
        assert_eq!(probe.score(&texts).unwrap()[1].as_ref().unwrap().token_ids, [2, 3]);
        let scorer = Scorer::open(dir.path(), options()).unwrap();
        assert_eq!(scorer.identity().heads[0].name, "sentiment");
    }
}

#[test]
fn reference_checkpoints_give_the_same_ids_and_logits() {
    let Some(data) = std::env::var_os("TAMIZ_DATA").map(PathBuf::from) else {
        return skipped("TAMIZ_DATA is not set");
    };
    let reference = data.join("../reference");
    for name in ["bert-tiny", "distilbert-tiny", "roberta-tiny"] {
        let probe = Probe::open(&reference.join(name), DeviceChoice::Cpu).unwrap();
        let lines = std::fs::read_to_string(reference.join(format!("{name}.jsonl"))).unwrap();
        let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len(), 500);
        let texts = StringArray::from_iter_values(rows.iter().map(|row| row["text"].as_str().unwrap()));
        for (row, seen) in rows.iter().zip(probe.score(&texts).unwrap()) {
            let seen = seen.unwrap();
            let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
            assert_eq!(seen.token_ids, ids, "{name}, text {} ({})", row["i"], row["kind"]);
            let logits: Vec<f32> = serde_json::from_value(row["logits"].clone()).unwrap();
            let gap = gap(&seen.heads[0].logits, &logits);
            assert!(gap < 1e-4, "{name}, text {} ({}): {gap}", row["i"], row["kind"]);
        }
    }
}

#[test]
fn label_maps_are_checked_and_put_in_order() {
    let plain = TempDir::new().unwrap();
    let weights = foreign(plain.path(), Kindred::Bert, |_| ());
    let turned = TempDir::new().unwrap();
    foreign(turned.path(), Kindred::Bert, |config| {
        config["id2label"] = json!({"0": "POSITIVE", "1": "Negative", "2": "neutral"});
        config["label2id"] = json!({"POSITIVE": 0, "Negative": 1, "neutral": 2});
    });
    std::fs::copy(
        plain.path().join("model.safetensors"),
        turned.path().join("model.safetensors"),
    )
    .unwrap();
    let probe = Probe::open(turned.path(), DeviceChoice::Cpu).unwrap();
    let seen = probe
        .score(&StringArray::from(vec!["good day"]))
        .unwrap()
        .remove(0)
        .unwrap();
    let theirs = by_hand(Kindred::Bert, &weights, &seen.token_ids);
    assert_eq!(seen.heads[0].labels, ["negative", "neutral", "positive"]);
    assert!(gap(&seen.heads[0].logits, &[theirs[1], theirs[2], theirs[0]]) < 1e-4);

    for (edit, says) in [
        (json!({"id2label": {"0": "a", "2": "b"}}), "keys 0 to 1"),
        (
            json!({"id2label": {"0": "a", "1": "b", "2": "c", "3": "d"}}),
            "asks for [4",
        ),
        (json!({"label2id": {"negative": 2}}), "label2id says 2 is `negative`"),
        (
            json!({"id2label": {"0": "a", "1": "a", "2": "c"}}),
            "`a` is there twice",
        ),
        (json!({"id2label": null}), "no id2label"),
        (
            json!({"problem_type": "multi_label_classification"}),
            "multi_label_classification",
        ),
        (json!({"model_type": "gpt2"}), "`gpt2` is not supported"),
        (json!({"hidden_act": "mish"}), "`mish` is not supported"),
        (json!({"position_embedding_type": "relative_key"}), "relative_key"),
        (json!({"num_hidden_layers": 1}), "has no place"),
        (json!({"num_hidden_layers": 3}), "`blocks.2."),
        (json!({"vocab_size": 5}), "the model's embedding has 5 rows"),
        (json!({"hidden_size": 15}), "multiple of attention_heads"),
    ] {
        let dir = TempDir::new().unwrap();
        foreign(dir.path(), Kindred::Bert, |config| {
            edit.as_object()
                .unwrap()
                .iter()
                .for_each(|(key, value)| config[key] = value.clone());
        });
        let message = refusal(dir.path());
        assert!(message.contains(says), "{edit}: {message}");
    }
}

#[test]
fn a_head_may_be_named_by_who_opens_it() {
    let dir = TempDir::new().unwrap();
    foreign(dir.path(), Kindred::Roberta, |config| {
        config["id2label"] = json!({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"});
    });
    assert_eq!(Checkpoint::open(dir.path()).unwrap().config.heads[0].name, FOREIGN_HEAD);
    let called = |labels: &[&str]| Reading {
        head: Some(Head::new("mood", labels.iter().map(|&label| label.into()).collect())),
        name: Some("theirs".into()),
        max_tokens: Some(8),
    };
    let checkpoint = Checkpoint::open_as(dir.path(), &called(&["bad", "so-so", "good"])).unwrap();
    assert_eq!(checkpoint.config.heads[0].labels, ["bad", "so-so", "good"]);
    assert_eq!(
        (checkpoint.config.name.as_str(), checkpoint.config.encoder.max_tokens),
        ("theirs", 8)
    );
    let error = Checkpoint::open_as(dir.path(), &called(&["bad", "good"]))
        .unwrap_err()
        .to_string();
    assert!(error.contains("3 labels"), "{error}");
}

#[test]
fn what_was_read_from_elsewhere_can_be_kept_in_our_own_layout() {
    let (theirs, ours) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    foreign(theirs.path(), Kindred::Roberta, |_| ());
    let checkpoint = Checkpoint::open(theirs.path()).unwrap();
    checkpoint.convert(ours.path(), Precision::Fp32).unwrap();
    assert!(ours.path().join("manifest.json").exists());
    let score = |dir: &Path| Probe::open(dir, DeviceChoice::Cpu).unwrap().score(&texts()).unwrap();
    assert_eq!(score(theirs.path()), score(ours.path()));
}

#[test]
fn bare_encoders_open_but_do_not_score() {
    let dir = TempDir::new().unwrap();
    foreign(dir.path(), Kindred::Bert, |config| {
        config["architectures"] = json!(["BertForMaskedLM"])
    });
    assert!(Checkpoint::open(dir.path()).unwrap().config.heads.is_empty());
    let error = Scorer::open(dir.path(), options()).unwrap_err().to_string();
    assert!(error.contains("without heads"), "{error}");
}

#[test]
fn pickles_are_refused_whatever_they_are_called() {
    let dir = TempDir::new().unwrap();
    foreign(dir.path(), Kindred::Bert, |_| ());
    let weights = dir.path().join("model.safetensors");
    for bytes in [b"\x80\x02}q\x00.".as_slice(), b"PK\x03\x04 and so on"] {
        std::fs::write(&weights, bytes).unwrap();
        let message = refusal(dir.path());
        assert!(
            message.contains("model.safetensors") && message.contains("pickle"),
            "{message}"
        );
    }
    std::fs::write(&weights, [0xff; 64]).unwrap();
    assert!(refusal(dir.path()).contains("not a readable safetensors file"));
    std::fs::rename(&weights, dir.path().join("pytorch_model.bin")).unwrap();
    let message = refusal(dir.path());
    assert!(message.contains("pickled (pytorch_model.bin)"), "{message}");
    std::fs::remove_file(dir.path().join("pytorch_model.bin")).unwrap();
    assert!(refusal(dir.path()).contains("cannot read"));
}
