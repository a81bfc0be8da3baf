//! The model that ships is what its card says; single texts can be looked at.

use std::path::PathBuf;

use arrow::array::StringArray;
use serde_json::Value;
use tamiz_model::testing::TOPIC_LABELS;
use tamiz_model::{Checkpoint, DeviceChoice, Probe, Scorer, default_weights, eval};

use super::support::{checkpoint, gap, here, options, skipped, texts};

#[test]
fn a_probe_shows_what_the_scorer_computes() {
    let dir = checkpoint();
    let texts = texts(20);
    let scores = Scorer::open(dir.path(), options())
        .unwrap()
        .score_blocking(&texts)
        .unwrap();
    let probe = Probe::open(dir.path(), DeviceChoice::Cpu).unwrap();
    for (row, seen) in probe.score(&texts).unwrap().into_iter().enumerate() {
        let seen = seen.unwrap();
        assert_eq!(
            (seen.token_ids.len(), seen.tokens.len()),
            (scores.n_tokens.value(row) as usize, seen.token_ids.len())
        );
        assert_eq!(seen.tokens[0], "[CLS]");
        for (head, scores) in seen.heads.iter().zip(&scores.heads) {
            assert!(gap(&head.probabilities, scores.row(row).unwrap()) < 1e-5);
            assert_eq!(head.label, head.labels[scores.best(row).unwrap().0]);
        }
    }
    assert_eq!(probe.score(&StringArray::new_null(1)).unwrap(), [None]);
}

#[test]
fn asking_for_a_head_that_is_not_there_lists_those_that_are() {
    let dir = checkpoint();
    let file = dir.path().join("x.jsonl");
    std::fs::write(&file, "{\"text\":\"a\",\"label\":\"b\"}\n").unwrap();
    let error = eval(dir.path(), &file, "emotion", &Default::default(), options())
        .unwrap_err()
        .to_string();
    assert!(error.contains("choose one of sentiment, topic"), "{error}");
    let error = eval(dir.path(), &file, "topic", &Default::default(), options())
        .unwrap_err()
        .to_string();
    assert!(error.contains("line 1: unknown label `b`"), "{error}");
}

#[test]
fn the_model_that_ships_loads_and_tells_plain_cases_apart() {
    let dir = default_weights().unwrap();
    let info = Checkpoint::open(&dir).unwrap().info().unwrap();
    assert!(info.weights_bytes <= 60_000_000, "{} bytes", info.weights_bytes);
    let scorer = Scorer::open(&dir, options()).unwrap();
    assert_eq!(scorer.head("topic").unwrap().labels, TOPIC_LABELS);
    let heads: Vec<String> = info.config.heads.into_iter().map(|head| head.name).collect();
    assert_eq!(heads, ["sentiment", "topic", "emotion", "offensive", "finance_topic"]);
    let texts = StringArray::from(vec![
        "I love this, what a wonderful day! 😍",
        "This is awful, I hate it so much",
        "The team won the match with a late goal in the final",
        "Shares of the bank fell after weak quarterly earnings",
    ]);
    let scores = scorer.score_blocking(&texts).unwrap();
    let label = |head: &str, row: usize| {
        let scores = scores.head(head).unwrap();
        scores.head.labels[scores.best(row).unwrap().0].clone()
    };
    let told = [
        label("sentiment", 0),
        label("sentiment", 1),
        label("topic", 2),
        label("topic", 3),
    ];
    assert_eq!(told, ["positive", "negative", "sports", "business"]);
}

/// What `scripts/card` measured of the model that ships.
fn measured(set: &str) -> Value {
    let name = default_weights().unwrap().file_name().unwrap().to_owned();
    let results = here().join("../benchmarks/results/models").join(name);
    let path = results.join(format!("eval_{set}.json"));
    serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}

#[test]
fn the_figures_in_the_repository_are_those_of_the_model_that_ships() {
    let identity = Checkpoint::open(&default_weights().unwrap())
        .unwrap()
        .identity()
        .to_string();
    for set in ["tweeteval_sentiment", "tweeteval_emotion", "ag_news", "negation"] {
        assert_eq!(measured(set)["model"], identity, "{set}: run scripts/card again");
    }
}

#[test]
fn the_model_that_ships_reaches_its_figures() {
    let Some(data) = std::env::var_os("TAMIZ_DATA").map(PathBuf::from) else {
        return skipped("TAMIZ_DATA is not set");
    };
    let dir = default_weights().unwrap();
    for (set, file, head) in [
        ("tweeteval_sentiment", "val.jsonl.zst", "sentiment"),
        ("tweeteval_emotion", "val.jsonl", "emotion"),
    ] {
        let found = eval(&dir, &data.join(set).join(file), head, &Default::default(), options()).unwrap();
        let (found, claimed) = (
            found.metrics.macro_recall,
            measured(set)["macro_recall"].as_f64().unwrap(),
        );
        assert!(
            (found - claimed).abs() < 0.005,
            "{set}: {claimed} is claimed, {found} was measured"
        );
    }
}
