//! The training loop learns, keeps the best, and can be told to stop.

use std::ops::ControlFlow;
use std::path::Path;

use arrow::array::StringArray;
use tamiz_model::{Checkpoint, CompareConfig, Ended, Progress, Scorer, TrainConfig, default_weights, eval, train};
use tempfile::TempDir;

use super::support::{here, options};

pub(crate) const CONFIG: &str = r#"
name = "tiny-trained"
seed = 3
threads = 1
device = "cpu"
precision = "fp32"
overlap = true
[tokenizer]
vocabulary = 300
prepare = "social"
[encoder]
hidden = 32
layers = 2
attention_heads = 4
feed_forward = 64
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
steps = 60
warmup_steps = 5
batch_tokens = 512
evaluate_every = 20
[[heads]]
name = "sentiment"
labels = ["negative", "neutral", "positive"]
[[heads]]
name = "topic"
labels = ["business", "sports"]
[[sets]]
head = "sentiment"
path = "mood.jsonl"
share = 1.0
[[sets]]
head = "topic"
path = "topic.jsonl"
share = 1.0
map = { money = "business" }
restrict = true
[[validation]]
name = "mood"
head = "sentiment"
path = "mood.jsonl"
metric = "macro_recall"
weight = 1.0
[[validation]]
name = "topic"
head = "topic"
path = "topic.jsonl"
metric = "accuracy"
weight = 1.0
map = { money = "business" }
"#;

/// Labels that depend on the order of words, so that a bag of words cannot learn them all.
const MOOD: [(&str, &str); 8] = [
    ("not bad but good", "positive"),
    ("not good but bad", "negative"),
    ("the day was good", "positive"),
    ("the day was bad", "negative"),
    ("the shop opens at nine", "neutral"),
    ("nine people at the shop", "neutral"),
    ("what a lovely film", "positive"),
    ("what a dreadful film", "negative"),
];

const TOPIC: [(&str, &str); 4] = [
    ("the team won the match", "sports"),
    ("shares of the firm fell", "money"),
    ("a late goal for the team", "sports"),
    ("the bank raised its rate", "money"),
];

pub(crate) fn data() -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, rows) in [("mood.jsonl", MOOD.as_slice()), ("topic.jsonl", &TOPIC)] {
        let lines: String = rows
            .iter()
            .map(|(text, label)| serde_json::json!({"text": text, "label": label}).to_string() + "\n")
            .collect();
        std::fs::write(dir.path().join(name), lines).unwrap();
    }
    dir
}

pub(crate) fn config(data: &Path, edit: impl Fn(String) -> String) -> Result<TrainConfig, String> {
    let path = data.join("train.toml");
    std::fs::write(&path, edit(CONFIG.to_owned())).unwrap();
    let mut config = TrainConfig::read(&path).map_err(|error| error.to_string())?;
    config.data = data.to_owned();
    config.check().map_err(|error| error.to_string())?;
    Ok(config)
}

#[test]
fn a_handful_of_examples_is_learnt_by_heart() {
    let (data, out) = (data(), TempDir::new().unwrap());
    let config = config(data.path(), |text| text).unwrap();
    let mut last_loss = f64::NAN;
    let outcome = train(&config, out.path(), &mut |progress| {
        if let Progress::Step { loss, .. } = progress {
            last_loss = *loss;
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!((outcome.ended, outcome.steps), (Ended::Completed, 60));
    assert_eq!(outcome.figures["mood"]["accuracy"], 1.0);
    assert_eq!(outcome.figures["topic"]["accuracy"], 1.0);
    assert!(last_loss < 0.1, "the loss is still {last_loss}");

    let evaluation = eval(
        out.path(),
        &data.path().join("mood.jsonl"),
        "sentiment",
        &Default::default(),
        options(),
    )
    .unwrap();
    assert_eq!((evaluation.metrics.accuracy, evaluation.metrics.rows), (1.0, 8));
    let scorer = Scorer::open(out.path(), options()).unwrap();
    let scores = scorer
        .score_blocking(&StringArray::from(vec!["not good but bad", "not bad but good"]))
        .unwrap();
    assert_eq!(
        (scores.heads[0].best(0).unwrap().0, scores.heads[0].best(1).unwrap().0),
        (0, 2)
    );
}

#[test]
fn a_checkpoint_tells_how_it_was_made() {
    let (data, out) = (data(), TempDir::new().unwrap());
    let config = config(data.path(), |text| text.replace("steps = 60", "steps = 20")).unwrap();
    let outcome = train(&config, out.path(), &mut |_| ControlFlow::Continue(())).unwrap();
    let checkpoint = Checkpoint::open(out.path()).unwrap();
    let origin = &checkpoint.manifest.origin;
    assert_eq!((origin.seed, origin.data_sha256.len()), (3, 64));
    assert_eq!(origin.metrics, outcome.figures);
    let history = std::fs::read_to_string(out.path().join("history.csv")).unwrap();
    assert!(history.starts_with("step,seconds,set,metric,value\n"), "{history}");
    assert!(
        history.contains(",train,loss,") && history.contains(",mood,macro_recall,"),
        "{history}"
    );
}

#[test]
fn the_same_seed_trains_the_same_figures() {
    let data = data();
    let config = config(data.path(), |text| text.replace("steps = 60", "steps = 20")).unwrap();
    let figures = |out: &Path| {
        let mut scores = Vec::new();
        train(&config, out, &mut |progress| {
            if let Progress::Evaluated { figures, .. } = progress {
                scores.push(figures.clone());
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        scores
    };
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let first = figures(a.path());
    assert_eq!(first.len(), 1);
    assert_eq!(first, figures(b.path()));
}

#[test]
fn an_interrupted_run_leaves_its_best_weights_or_says_that_there_are_none() {
    let data = data();
    let config = config(data.path(), |text| text).unwrap();
    let out = TempDir::new().unwrap();
    let outcome = train(&config, out.path(), &mut |progress| match progress {
        Progress::Evaluated { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .unwrap();
    assert_eq!(
        (outcome.ended, outcome.steps, outcome.best_step),
        (Ended::Interrupted, 20, 20)
    );
    assert!(Checkpoint::open(out.path()).is_ok());

    let out = TempDir::new().unwrap();
    let error = train(&config, out.path(), &mut |_| ControlFlow::Break(()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("nothing to keep"), "{error}");
    assert!(Checkpoint::open(out.path()).is_err());
}

#[test]
fn one_run_at_a_time_writes_to_a_folder_and_it_ends_at_the_next_step() {
    let (data, out) = (data(), TempDir::new().unwrap());
    let config = config(data.path(), |text| text).unwrap();
    let mut refusal = None;
    let mut moved = 0;
    let ended = train(&config, out.path(), &mut |progress| match progress {
        Progress::Ready { .. } => {
            refusal = train(&config, out.path(), &mut |_| ControlFlow::Continue(())).err();
            ControlFlow::Continue(())
        }
        Progress::Moved { step: 3, .. } => {
            moved = 3;
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    assert!(ended.unwrap_err().to_string().contains("nothing to keep"));
    let refusal = refusal.unwrap().to_string();
    assert!(refusal.contains("another run is writing to"), "{refusal}");
    assert_eq!(moved, 3);
    let mut resumed = 0;
    train(&config, out.path(), &mut |progress| {
        if let Progress::Resumed { step } = progress {
            resumed = *step;
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(resumed, 3);
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let data = data();
    for (from, to, says) in [
        ("steps = 60", "stepps = 60", "stepps"),
        ("hidden = 32", "hidden = 30", "multiple of attention_heads"),
        ("head = \"topic\"", "head = \"topics\"", "no head `topics`"),
        ("\"neutral\", ", "", "negative, neutral, positive"),
        ("weight = 1.0", "weight = 0.0", "to choose by"),
        ("share = 1.0", "share = 0.0", "has no set"),
        ("learning_rate = 5e-3", "learning_rate = 0.0", "learning_rate"),
        ("device = \"cpu\"", "device = \"gpu\"", "unknown device `gpu`"),
    ] {
        let message = config(data.path(), |text| text.replace(from, to)).unwrap_err();
        assert!(message.contains(says), "{from} to {to}: {message}");
    }
    let config = config(data.path(), |text| {
        text.replace("money = \"business\"", "money = \"sports\"")
            .replace("topic.jsonl", "absent.jsonl")
    })
    .unwrap();
    let out = data.path().join("out");
    let error = train(&config, &out, &mut |_| ControlFlow::Continue(()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("absent.jsonl"), "{error}");
    assert!(!out.exists(), "a run that never began left a folder");
}

#[test]
fn validation_texts_are_not_learnt_from() {
    let (data, out) = (data(), TempDir::new().unwrap());
    let apart = |text: String| {
        text.replace("overlap = true", "overlap = false")
            .replace("steps = 60", "steps = 20")
    };
    let config = config(data.path(), apart).unwrap();
    let error = train(&config, out.path(), &mut |_| ControlFlow::Continue(()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("all its texts are validation texts"), "{error}");
    for (name, row) in [
        (
            "mood.jsonl",
            r#"{"text":"a text of its own, and quite long","label":"neutral"}"#,
        ),
        (
            "topic.jsonl",
            r#"{"text":"another text of its own, as long","label":"sports"}"#,
        ),
    ] {
        let path = data.path().join(name);
        let rows = std::fs::read_to_string(&path).unwrap();
        std::fs::write(
            data.path().join(name.replace(".jsonl", "_more.jsonl")),
            format!("{rows}{row}\n"),
        )
        .unwrap();
    }
    let mut config = config;
    config.sets.iter_mut().for_each(|set| {
        set.path = set.path.to_str().unwrap().replace(".jsonl", "_more.jsonl").into();
    });
    // A sample is a quicker look; what is kept out of training is the whole file.
    config.validation.iter_mut().for_each(|set| set.sample = Some(1));
    let mut ready = None;
    train(&config, out.path(), &mut |progress| {
        if let Progress::Ready { texts, left_out, .. } = progress {
            ready = Some((*texts, *left_out));
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(ready, Some((2, 12)));
}

#[test]
fn the_committed_configurations_are_usable() {
    let mut seen = 0;
    for entry in std::fs::read_dir(here().join("configs")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        if text.contains("[[contenders]]") {
            CompareConfig::read(&path, Path::new("data")).unwrap();
        } else if text.contains("[[sets]]") {
            TrainConfig::read(&path).unwrap().check().unwrap();
        } else {
            continue;
        }
        seen += 1;
    }
    assert!(seen >= 4, "{seen} configurations");
}

#[test]
fn the_model_that_ships_has_the_heads_of_its_configuration() {
    let config = TrainConfig::read(&here().join("configs/minilm.toml")).unwrap();
    let heads = Checkpoint::open(&default_weights().unwrap()).unwrap().manifest.heads;
    let kept = config.heads.iter().filter(|head| !head.auxiliary);
    let labels = |name: &str, labels: &[String]| (name.to_owned(), labels.to_vec());
    assert!(
        kept.map(|head| labels(&head.name, &head.labels))
            .eq(heads.iter().map(|head| labels(&head.name, &head.labels)))
    );
    assert_eq!(heads[1].labels, tamiz_model::testing::TOPIC_LABELS);
}
