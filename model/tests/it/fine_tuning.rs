//! Runs that start from a checkpoint, learn hidden words, compute in 16 bits, or go on after a crash.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use tamiz_model::{Checkpoint, Progress, TrainConfig, TrainOutcome, train};
use tempfile::TempDir;

use super::pretrained::{Kindred, foreign};
use super::training::{CONFIG, config, data};

/// [`CONFIG`] without tokenizer and encoder, which a checkpoint brings.
fn from_checkpoint(text: String) -> String {
    let (start, rest) = text.split_once("[tokenizer]").unwrap();
    let (_, end) = rest.split_once("[optimizer]").unwrap();
    format!("{start}from = \"FROM\"\n[adapt]\nmax_tokens = 16\ndropout = 0.0\npooling = \"mean\"\n[optimizer]\n{end}")
}

fn last_loss(config: &TrainConfig, out: &Path) -> (TrainOutcome, f64) {
    let mut last = f64::NAN;
    let outcome = train(config, out, &mut |progress| {
        if let Progress::Step { loss, .. } = progress {
            last = *loss;
        }
        ControlFlow::Continue(())
    });
    (outcome.unwrap(), last)
}

#[test]
fn a_foreign_encoder_is_fine_tuned_and_its_heads_are_kept_where_they_fit() {
    for kindred in [Kindred::Bert, Kindred::DistilBert, Kindred::Roberta] {
        let (data, base, out) = (data(), TempDir::new().unwrap(), TempDir::new().unwrap());
        foreign(base.path(), kindred, |_| ());
        let mut config = config(data.path(), from_checkpoint).unwrap();
        config.from = Some(base.path().to_str().unwrap().to_owned());
        config.optimizer.layer_decay = 0.9;
        config.optimizer.head_factor = 2.0;
        train(&config, out.path(), &mut |_| ControlFlow::Continue(())).unwrap();
        let made = Checkpoint::open(out.path()).unwrap();
        let names: Vec<&str> = made.config.heads.iter().map(|head| head.name.as_str()).collect();
        assert_eq!(
            (names, made.config.encoder.max_tokens),
            (vec!["sentiment", "topic"], 16)
        );
        // What was made is a checkpoint to start from as any other.
        let again = TempDir::new().unwrap();
        config.from = Some(out.path().to_str().unwrap().to_owned());
        train(&config, again.path(), &mut |_| ControlFlow::Continue(())).unwrap();
    }
}

#[test]
fn symbols_that_the_tokenizer_does_not_know_become_tokens() {
    let (data, base, out) = (data(), TempDir::new().unwrap(), TempDir::new().unwrap());
    foreign(base.path(), Kindred::Bert, |_| ());
    let path = data.path().join("mood.jsonl");
    let rows = std::fs::read_to_string(&path)
        .unwrap()
        .replace("good", "😀")
        .replace("bad", "😡");
    std::fs::write(path, rows).unwrap();
    let mut config = config(data.path(), from_checkpoint).unwrap();
    config.from = Some(base.path().to_str().unwrap().to_owned());
    config.adapt.new_tokens = 10;
    train(&config, out.path(), &mut |_| ControlFlow::Continue(())).unwrap();
    let made = Checkpoint::open(out.path()).unwrap();
    assert_eq!(made.tokenizer.vocabulary(), 14, "two symbols beside twelve words");
    let ids = made
        .tokenizer
        .encode(&arrow::array::StringArray::from(vec!["the day is 😀"]))
        .unwrap();
    let tokens: Vec<String> = ids.row(0).iter().map(|&id| made.tokenizer.token(id)).collect();
    assert_eq!(tokens, ["[CLS]", "the", "day", "is", "😀", "[SEP]"]);
}

#[test]
fn starting_points_that_cannot_be_are_refused() {
    let (data, base) = (data(), TempDir::new().unwrap());
    foreign(base.path(), Kindred::Bert, |_| ());
    let both = config(data.path(), |text| {
        text.replace("[tokenizer]", "from = \"x\"\n[tokenizer]")
    })
    .unwrap_err();
    assert!(
        both.contains("unknown field `from`") || both.contains("either with a checkpoint"),
        "{both}"
    );
    let adapt = config(data.path(), |text| {
        text.replace("[optimizer]", "[adapt]\nmax_tokens = 8\n[optimizer]")
    })
    .unwrap_err();
    assert!(adapt.contains("without one, say it in [encoder]"), "{adapt}");
    let mut config = config(data.path(), from_checkpoint).unwrap();
    config.from = Some(base.path().to_str().unwrap().to_owned());
    config.adapt.max_tokens = Some(21);
    let refuse = |config: &TrainConfig| {
        let out = TempDir::new().unwrap();
        train(config, out.path(), &mut |_| ControlFlow::Continue(()))
            .unwrap_err()
            .to_string()
    };
    assert!(refuse(&config).contains("reads 20 tokens at most"));
    config.from = Some("/nowhere/at/all".into());
    assert!(refuse(&config).contains("neither a folder nor a name"));
}

#[test]
fn sixteen_bits_learn_too() {
    let (data, out) = (data(), TempDir::new().unwrap());
    let config = config(data.path(), |text| {
        text.replace("clip_norm = 1.0", "clip_norm = 1.0\nbf16 = true")
    })
    .unwrap();
    let (outcome, loss) = last_loss(&config, out.path());
    assert!(loss < 0.2, "the loss is still {loss}");
    assert_eq!(outcome.figures["topic"]["accuracy"], 1.0);
}

#[test]
fn gradients_of_several_batches_make_one_step() {
    let (data, out) = (data(), TempDir::new().unwrap());
    let config = config(data.path(), |text| {
        text.replace("batch_tokens = 512", "batch_tokens = 32\naccumulate = 4")
    })
    .unwrap();
    let (outcome, loss) = last_loss(&config, out.path());
    assert!(loss < 0.2 && outcome.steps == 60, "the loss is still {loss}");
}

#[test]
fn hidden_words_are_learnt_and_what_was_learnt_is_a_start() {
    let (data, out) = (data(), TempDir::new().unwrap());
    let mlm = |text: String| {
        let (start, rest) = text.split_once("[[heads]]").unwrap();
        let (_, _) = rest.split_once("[[sets]]").unwrap();
        let start = start
            .replace("overlap = true", "overlap = true\ntask = \"mlm\"")
            .replace("steps = 60", "steps = 150");
        format!(
            "{start}[[sets]]\npath = \"mood.jsonl\"\nshare = 1.0\n[[validation]]\nname = \"mood\"\npath = \"mood.jsonl\"\nweight = 1.0\n"
        )
    };
    let mlm = config(data.path(), mlm).unwrap();
    let mut figures = Vec::new();
    train(&mlm, out.path(), &mut |progress| {
        if let Progress::Evaluated { figures: found, .. } = progress {
            figures.push(found["mood"].clone());
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let (first, last) = (&figures[0], &figures[figures.len() - 1]);
    assert!(last["loss"] < 0.7 * first["loss"], "{first:?} to {last:?}");
    assert!(Checkpoint::open(out.path()).unwrap().config.heads.is_empty());

    let mut config = config(data.path(), from_checkpoint).unwrap();
    config.from = Some(out.path().to_str().unwrap().to_owned());
    let tuned = TempDir::new().unwrap();
    let (outcome, _) = last_loss(&config, tuned.path());
    assert_eq!(outcome.figures["mood"]["accuracy"], 1.0);
}

const CHILD: &str = "TAMIZ_TEST_TRAINING_CHILD";

/// What the test below runs in a process of its own, to be killed there.
#[test]
fn child() {
    let Ok(job) = std::env::var(CHILD) else { return };
    let [data, out, kill_at]: [&str; 3] = job.split('|').collect::<Vec<_>>().try_into().unwrap();
    let kill_at: usize = kill_at.parse().unwrap();
    let config = config(Path::new(data), crashing).unwrap();
    train(&config, Path::new(out), &mut |progress| {
        let now = match progress {
            Progress::Step { step, .. } | Progress::Evaluated { step, .. } => *step,
            _ => 0,
        };
        if now == kill_at {
            let myself = std::process::id().to_string();
            Command::new("kill").args(["-9", &myself]).status().unwrap();
        }
        ControlFlow::Continue(())
    })
    .unwrap();
}

/// Everything random is on: dropout, hidden tokens, shuffling, several sets.
fn crashing(_: String) -> String {
    CONFIG
        .replace("dropout = 0.0", "dropout = 0.2")
        .replace(
            "clip_norm = 1.0",
            "clip_norm = 1.0\ntoken_dropout = 0.1\nlabel_smoothing = 0.1\nlayer_decay = 0.9",
        )
        .replace(
            "batch_tokens = 512",
            "batch_tokens = 40\naccumulate = 2\nsave_every = 7",
        )
        .replace("steps = 60", "steps = 110")
}

#[test]
fn a_run_that_is_killed_goes_on_and_ends_with_the_same_weights() {
    let data = data();
    let run = |out: &Path, kill_at: usize| {
        let job = format!("{}|{}|{kill_at}", data.path().display(), out.display());
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "it::fine_tuning::child", "--nocapture"])
            .env(CHILD, job)
            .output()
            .unwrap();
        assert_eq!(
            status.status.success(),
            kill_at == 999,
            "{}",
            String::from_utf8_lossy(&status.stderr)
        );
    };
    let (whole, killed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    run(whole.path(), 999);
    run(killed.path(), 20); // at the first look, the best so far just written, its state not yet
    run(killed.path(), 50); // between two states
    run(killed.path(), 80);
    assert!(killed.path().join("resume/state.json").exists());
    run(killed.path(), 999);
    assert!(!killed.path().join("resume").exists());
    for file in ["model.safetensors", "manifest.json", "config.json", "tokenizer.json"] {
        let [a, b] = [&whole, &killed].map(|dir| std::fs::read(dir.path().join(file)).unwrap());
        assert!(a == b, "{file} differs");
    }
    let history = |dir: &TempDir| -> Vec<String> {
        let text = std::fs::read_to_string(dir.path().join("history.csv")).unwrap();
        let cut = |line: &str| {
            let parts: Vec<&str> = line.split(',').collect();
            [&parts[..1], &parts[2..]].concat().join(",") // all but the seconds
        };
        text.lines().map(cut).collect()
    };
    assert_eq!(history(&whole), history(&killed));
}

#[test]
fn an_unfinished_run_goes_on_as_the_same_run_only() {
    let (data, out) = (data(), TempDir::new().unwrap());
    let mut config = config(data.path(), |text| text).unwrap();
    let stop_at = |stop: usize| {
        move |progress: &Progress| match progress {
            Progress::Evaluated { step, .. } if *step == stop => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    };
    train(&config, out.path(), &mut stop_at(20)).unwrap();
    config.seed += 1;
    let error = train(&config, out.path(), &mut stop_at(20)).unwrap_err().to_string();
    assert!(error.contains("unfinished run with another configuration"), "{error}");
    config.seed -= 1;
    let mut resumed = None;
    let outcome = train(&config, out.path(), &mut |progress| {
        if let Progress::Resumed { step } = progress {
            resumed = Some(*step);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!((resumed, outcome.steps), (Some(20), 60));
}
