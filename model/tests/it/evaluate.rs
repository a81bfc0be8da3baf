//! The model that ships is what its card says; single texts can be looked at.

use std::path::PathBuf;

use arrow::array::StringArray;
use tamiz_model::testing::TOPIC_LABELS;
use tamiz_model::{Checkpoint, DeviceChoice, Probe, Scorer, default_weights, eval};

use super::support::{checkpoint, gap, options, skipped, texts};

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
    assert!(info.weights_bytes <= 20_000_000, "{} bytes", info.weights_bytes);
    let scorer = Scorer::open(&dir, options()).unwrap();
    assert_eq!(scorer.head("topic").unwrap().labels, TOPIC_LABELS);
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

#[test]
fn the_model_that_ships_reaches_the_figures_of_its_manifest() {
    let Some(data) = std::env::var_os("TAMIZ_DATA").map(PathBuf::from) else {
        return skipped("TAMIZ_DATA is not set");
    };
    let dir = default_weights().unwrap();
    let file = data.join("tweeteval_sentiment/val.jsonl.zst");
    let evaluation = eval(&dir, &file, "sentiment", &Default::default(), options()).unwrap();
    let claimed = Checkpoint::open(&dir).unwrap().manifest.origin.metrics["tweeteval_sentiment"]["macro_recall"];
    let found = evaluation.metrics.macro_recall;
    assert!(
        (found - claimed).abs() < 0.003,
        "the manifest claims {claimed}, {found} was measured"
    );
    assert!(found >= 0.55, "macro recall {found}");
}
