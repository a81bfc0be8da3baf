//! Measuring a checkpoint: calibration, restricted choices, explanations, comparison, audit.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use arrow::array::StringArray;
use tamiz_model::testing::{tiny_checkpoint_with, tiny_heads};
use tamiz_model::{
    AuditTask, CalibrateOptions, Checkpoint, CompareConfig, DeviceChoice, FaithfulTask, Fit, Head, Method, Precision,
    Probe, Progress, Scorer, Selection, audit, average, calibrate, compare, eval, faithfulness,
};
use tempfile::TempDir;

use super::support::{checkpoint, here, options, scorer, texts};

/// A file of labelled texts; every text's label is the next of `labels`.
fn labelled(dir: &Path, rows: usize, labels: &[&str]) -> std::path::PathBuf {
    let texts = texts(rows);
    let lines: String = (0..rows)
        .map(|row| {
            let label = labels[row % labels.len()];
            serde_json::json!({"text": texts.value(row), "label": label}).to_string() + "\n"
        })
        .collect();
    let path = dir.join("labelled.jsonl");
    std::fs::write(&path, lines).unwrap();
    path
}

fn calibration(fit: Fit) -> CalibrateOptions {
    CalibrateOptions {
        head: "sentiment".to_owned(),
        device: DeviceChoice::Cpu,
        fit,
        ..CalibrateOptions::default()
    }
}

#[test]
fn fitted_shares_are_kept_in_the_weights_and_labels_are_predicted_as_often_as_they_occur() {
    let dir = checkpoint();
    let file = labelled(
        dir.path(),
        60,
        &["negative", "neutral", "positive", "positive", "positive", "positive"],
    );
    let before = std::fs::metadata(dir.path().join("model.safetensors")).unwrap().len();
    let fitted = calibrate(dir.path(), &file, &calibration(Fit::TemperatureAndShares)).unwrap();
    assert!(
        fitted.shift.iter().sum::<f32>().abs() < 1e-3 && fitted.shift[2] > 0.0,
        "{:?}",
        fitted.shift
    );
    assert!(fitted.after.log_loss < fitted.before.log_loss);
    let after = eval(dir.path(), &file, "sentiment", &Selection::default(), options()).unwrap();
    assert_eq!(after.model, fitted.model);
    assert!((after.calibration.log_loss - fitted.after.log_loss).abs() < 1e-3);
    assert_eq!(
        std::fs::metadata(dir.path().join("model.safetensors")).unwrap().len(),
        before
    );
    // What is right already stays.
    let again = calibrate(dir.path(), &file, &calibration(Fit::TemperatureAndShares)).unwrap();
    assert!(again.shift.iter().all(|by| by.abs() < 0.01), "{:?}", again.shift);
    let none_is_positive = labelled(dir.path(), 60, &["negative", "neutral"]);
    let message = calibrate(dir.path(), &none_is_positive, &calibration(Fit::TemperatureAndShares))
        .unwrap_err()
        .to_string();
    assert!(message.contains("none of these is `positive`"), "{message}");
}

#[test]
fn a_fitted_temperature_is_kept_and_changes_the_identity_but_no_label() {
    let dir = checkpoint();
    let file = labelled(dir.path(), 60, &["negative", "neutral", "positive"]);
    let measure = || eval(dir.path(), &file, "sentiment", &Selection::default(), options()).unwrap();
    let before = measure();
    let fitted = calibrate(dir.path(), &file, &calibration(Fit::Temperature)).unwrap();
    assert!(fitted.shift.is_empty());
    let after = measure();
    assert_eq!(
        Checkpoint::open(dir.path()).unwrap().config.heads[0].temperature,
        fitted.temperature
    );
    assert!(
        fitted.temperature > 1.5,
        "random labels leave no room for confidence: {}",
        fitted.temperature
    );
    assert_ne!(before.model, after.model);
    assert_eq!(after.model, fitted.model);
    assert_eq!(before.metrics, after.metrics);
    assert!(after.calibration.log_loss < before.calibration.log_loss);
    assert!((after.calibration.log_loss - fitted.after.log_loss).abs() < 1e-4);
    let probe = Probe::open(dir.path(), DeviceChoice::Cpu).unwrap();
    let scores = Scorer::open(dir.path(), options())
        .unwrap()
        .score_blocking(&texts(3))
        .unwrap();
    let seen = probe.score(&texts(3)).unwrap()[2].clone().unwrap();
    assert!((seen.heads[0].confidence - scores.heads[0].best(2).unwrap().1).abs() < 1e-5);
}

#[test]
fn a_restricted_choice_predicts_nothing_else() {
    let dir = checkpoint();
    let file = labelled(dir.path(), 40, &["sports", "business"]);
    let selection = Selection {
        among: vec!["sports".into(), "business".into()],
        ..Selection::default()
    };
    let found = eval(dir.path(), &file, "topic", &selection, options()).unwrap();
    assert_eq!(found.among, ["business", "sports"]);
    assert_eq!(found.metrics.confusion.iter().flatten().sum::<u64>(), 40);
    assert!(found.calibration.mean_confidence >= 0.5 && found.speed.texts_per_second > 0.0);
    let whole = eval(dir.path(), &file, "topic", &Selection::default(), options()).unwrap();
    assert!(found.metrics.accuracy >= whole.metrics.accuracy);
}

#[test]
fn the_scorer_explains_as_the_probe_does() {
    let dir = checkpoint();
    let texts = StringArray::from(vec![Some("the team played a great match"), None, Some("")]);
    let probe = Probe::open(dir.path(), DeviceChoice::Cpu).unwrap();
    let one = probe.explain(&texts, "topic", Method::default()).unwrap();
    let other = Scorer::open(dir.path(), options())
        .unwrap()
        .explain_blocking(&texts, "topic")
        .unwrap();
    assert_eq!((one.len(), one[1].is_none(), other[1].is_none()), (3, true, true));
    let (one, other) = (one[0].as_ref().unwrap(), other[0].as_ref().unwrap());
    assert_eq!((&one.label, one.tokens.len()), (&other.label, 7));
    for (a, b) in one.tokens.iter().zip(&other.tokens) {
        assert!(a.token == b.token && (a.weight - b.weight).abs() < 1e-4);
    }
    let error = scorer(options())
        .explain_blocking(&texts, "mood")
        .unwrap_err()
        .to_string();
    assert!(error.contains("choose one of sentiment, topic"), "{error}");
}

#[test]
fn faithfulness_measures_every_order_on_the_same_texts() {
    let dir = checkpoint();
    let mut task = FaithfulTask {
        data: labelled(dir.path(), 30, &["sports"]),
        head: "topic".into(),
        selection: Selection::default(),
        texts: 8,
        seed: 1,
    };
    let found = faithfulness(dir.path(), &task, DeviceChoice::Cpu).unwrap();
    let orders: Vec<&str> = found.orders.iter().map(|order| order.order.as_str()).collect();
    assert_eq!(
        orders,
        [
            "integrated gradients",
            "gradient x input",
            "attention rollout",
            "random"
        ]
    );
    assert!(found.orders.iter().all(|order| order.comprehensiveness.n == 8));
    assert!(
        found.orders[0].over_random.mean > 0.0,
        "weights beat chance on a random network too"
    );
    assert_eq!(found.orders[3].over_random.mean, 0.0);
    std::fs::write(&task.data, "{\"text\":\"a\",\"label\":\"sports\"}\n").unwrap();
    task.texts = 1;
    let error = faithfulness(dir.path(), &task, DeviceChoice::Cpu)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no text of 5 tokens"), "{error}");
}

#[test]
fn an_audit_of_own_templates_needs_no_data() {
    let dir = checkpoint();
    let mut task = AuditTask {
        sets: None,
        watts: 100.0,
        price_per_kwh: 0.5,
        price_per_hour: 1.0,
    };
    let found = audit(dir.path(), &task, options()).unwrap();
    assert!(found.categories.iter().any(|category| category.category == "religion"));
    for category in &found.categories {
        let sum: f64 = category.groups.iter().map(|group| group.gap.mean).sum();
        assert!(sum.abs() < 1e-6, "gaps are differences to the mean: {sum}");
    }
    let cost = &found.cost;
    let expected = cost.hours_per_million * (0.1 * 0.5 + 1.0);
    assert!((cost.price_per_million - expected).abs() < 1e-9);
    task.sets = Some(dir.path().join("nowhere"));
    let error = audit(dir.path(), &task, options()).unwrap_err().to_string();
    assert!(
        error.contains("eec.jsonl.zst"),
        "a set that is missing is named: {error}"
    );
}

const COMPARISON: &str = r#"
name = "compared"
seed = 1
threads = 1
device = "cpu"
overlap = true
[tokenizer]
vocabulary = 120
prepare = "social"
[encoder]
hidden = 16
layers = 1
attention_heads = 2
feed_forward = 16
max_tokens = 32
dropout = 0.0
norm = "pre"
norm_eps = 1e-5
activation = "gelu"
positions = "learned"
pooling = "mean"
[optimizer]
learning_rate = 5e-3
weight_decay = 0.0
clip_norm = 1.0
[schedule]
steps = 4
warmup_steps = 1
batch_tokens = 256
evaluate_every = 2
[[heads]]
name = "sentiment"
labels = ["negative", "neutral", "positive"]
[[sets]]
head = "sentiment"
path = "labelled.jsonl"
share = 1.0
[[validation]]
name = "mood"
head = "sentiment"
path = "labelled.jsonl"
metric = "macro_f1"
weight = 1.0
[compare]
seeds = [1, 2]
lengths = [4, 4096]
probes = [{ name = "again", head = "sentiment", path = "labelled.jsonl" }]
[[contenders]]
name = "transformer"
[[contenders]]
name = "ngrams"
encoder = { architecture = { ngrams = { longest = 2, buckets = 64 } } }
optimizer = { learning_rate = 1e-2 }
"#;

#[test]
fn a_comparison_trains_once_and_measures_all_alike() {
    let (data, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    labelled(data.path(), 40, &["negative", "positive"]);
    let path = data.path().join("compare.toml");
    std::fs::write(&path, COMPARISON).unwrap();
    let config = CompareConfig::read(&path, data.path()).unwrap();
    let run = || {
        let mut trained = 0;
        let found = compare(&config, out.path(), &mut |_, event| {
            trained += usize::from(matches!(event, Progress::Ready { .. }));
            ControlFlow::Continue(())
        });
        (found.unwrap(), trained)
    };
    let (found, trained) = run();
    assert_eq!(trained, 4, "two networks, two seeds");
    let names: Vec<&str> = found.contenders.iter().map(|one| one.architecture.as_str()).collect();
    assert_eq!(names, ["transformer", "ngrams"]);
    for contender in &found.contenders {
        assert_eq!(contender.sets["mood"].rows, 40);
        assert_eq!(contender.sets["mood"].accuracy, contender.sets["again"].accuracy);
        assert!(
            contender.speed.len() == 1 && contender.speed[0].tokens == 4,
            "4096 tokens are too many"
        );
        assert!(contender.parameters > 0 && contender.training_seconds > 0.0);
    }
    assert_eq!(run().1, 0, "what was trained is loaded");
    let other = COMPARISON.replace("steps = 4", "steps = 5");
    std::fs::write(&path, other).unwrap();
    let config = CompareConfig::read(&path, data.path()).unwrap();
    let error = compare(&config, out.path(), &mut |_, _| ControlFlow::Continue(()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("another configuration"), "{error}");
}

#[test]
fn the_committed_comparisons_are_usable() {
    let path = here().join("configs/compare.toml");
    CompareConfig::read(&path, Path::new("/data")).unwrap();
}

#[test]
fn an_average_is_the_mean_of_the_weights() {
    let dir = TempDir::new().unwrap();
    let folder = |name: &str| dir.path().join(name);
    let heads = tiny_heads();
    for seed in 1..=3 {
        tiny_checkpoint_with(&folder(&seed.to_string()), seed, &heads).unwrap();
    }
    let (one, two, three) = (folder("1"), folder("2"), folder("3"));
    average(&[&one, &two, &three], &folder("mean"), Precision::Fp32).unwrap();
    let read = |dir: &Path| -> BTreeMap<String, tch::Tensor> {
        let weights = tch::Tensor::read_safetensors(dir.join("model.safetensors")).unwrap();
        weights
            .into_iter()
            .map(|(name, weight)| (name, weight.to_kind(tch::Kind::Double)))
            .collect()
    };
    let (mean, parts) = (read(&folder("mean")), [&one, &two, &three].map(|dir| read(dir)));
    assert!(mean.keys().eq(parts[0].keys()));
    for (name, weight) in &mean {
        let expected = (&parts[0][name] + &parts[1][name] + &parts[2][name]) / 3.0;
        assert!((weight - expected).abs().max().double_value(&[]) < 1e-6, "{name}");
    }
    Checkpoint::open(&folder("mean")).unwrap();
}

#[test]
fn models_that_differ_have_no_average() {
    let dir = TempDir::new().unwrap();
    let (one, two) = (dir.path().join("1"), dir.path().join("2"));
    tiny_checkpoint_with(&one, 1, &tiny_heads()).unwrap();
    tiny_checkpoint_with(&two, 2, &[Head::new("mood", vec!["bad".into(), "good".into()])]).unwrap();
    let error = average(&[&one, &two], &dir.path().join("mean"), Precision::Fp16)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("heads or labels") && error.contains("only runs from one start"),
        "{error}"
    );
    assert!(average(&[&one], &dir.path().join("mean"), Precision::Fp16).is_err());
}
