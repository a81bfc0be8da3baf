//! Runs in which teachers label the texts.

use std::ops::ControlFlow;
use std::path::Path;

use tamiz_model::{Progress, TrainConfig, train};
use tempfile::TempDir;

use super::training::{config, data};

/// The configuration of the tests of training, with its two sets as texts that only the teachers know the labels of.
fn taught(data: &Path, teachers: &[&Path], edit: impl Fn(String) -> String) -> Result<TrainConfig, String> {
    let sets = "[[sets]]\ntaught = true\npath = \"mood.jsonl\"\nshare = 1.0\n[[sets]]\ntaught = true\npath = \"topic.jsonl\"\nshare = 1.0\n";
    let names: Vec<String> = teachers
        .iter()
        .map(|dir| format!("{:?}", dir.display().to_string()))
        .collect();
    let mut config = config(data, |text| {
        let (before, rest) = text.split_once("[[sets]]").unwrap();
        let (_, after) = rest.split_once("[[validation]]").unwrap();
        let (name, before) = before.split_once("seed").unwrap();
        edit(format!(
            "{name}teachers = [{}]\nseed{before}{sets}[[validation]]{after}",
            names.join(", ")
        ))
    })?;
    config.seed = 11;
    Ok(config)
}

fn run(config: &TrainConfig, out: &Path) -> Result<f64, String> {
    train(config, out, &mut |_| ControlFlow::Continue(()))
        .map(|outcome| outcome.score)
        .map_err(|error| error.to_string())
}

#[test]
fn a_student_learns_from_teachers_what_no_label_told_it() {
    let (data, teachers) = (data(), [TempDir::new().unwrap(), TempDir::new().unwrap()]);
    let longer = |text: String| text.replace("steps = 60", "steps = 160");
    let mut teaching = config(data.path(), longer).unwrap();
    for (seed, teacher) in teachers.iter().enumerate() {
        teaching.seed = seed as u64;
        assert_eq!(run(&teaching, teacher.path()).unwrap(), 1.0);
    }
    let dirs: Vec<&Path> = teachers.iter().map(TempDir::path).collect();
    let student = taught(data.path(), &dirs, longer).unwrap();
    let (out, mut asked) = (TempDir::new().unwrap(), Vec::new());
    let outcome = train(&student, out.path(), &mut |progress| {
        if let Progress::Asked { teacher, done, texts } = progress {
            asked.push((teacher.clone(), *done, *texts));
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    // The texts are those that it is judged by, their labels came from the teachers alone.
    assert_eq!(outcome.score, 1.0);
    let told: Vec<_> = asked.iter().map(|(_, done, texts)| (*done, *texts)).collect();
    assert_eq!(told, [(8, 12), (12, 12), (8, 12), (12, 12)]);
    assert_ne!(asked[0].0, asked[2].0);
}

#[test]
fn a_sample_is_as_large_as_was_asked_for() {
    let data = data();
    let mut sampled = config(data.path(), |text| text).unwrap();
    sampled.sets[0].sample = Some(3);
    let mut texts = 0;
    train(&sampled, TempDir::new().unwrap().path(), &mut |progress| {
        if let Progress::Ready { texts: ready, .. } = progress {
            texts = *ready;
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(texts, 3 + 4);
}

#[test]
fn teachers_that_do_not_fit_are_refused() {
    let (data, teacher, out) = (data(), TempDir::new().unwrap(), TempDir::new().unwrap());
    run(&config(data.path(), |text| text).unwrap(), teacher.path()).unwrap();
    let dirs = [teacher.path()];
    let refused = |edit: &dyn Fn(String) -> String| {
        taught(data.path(), &dirs, edit)
            .and_then(|config| run(&config, out.path()))
            .unwrap_err()
    };
    for (from, to, says) in [
        ("taught = true\n", "head = \"topic\"\n", "belong together"),
        (
            "taught = true\n",
            "taught = true\nhead = \"topic\"\n",
            "the teachers decide which heads",
        ),
        ("share = 1.0", "share = 1.0\nsample = 0", "at least one text"),
        (
            "share = 1.0",
            "share = 1.0\nbalance = 0.5",
            "about labels, which it has none of",
        ),
        (
            "[\"business\", \"sports\"]",
            "[\"sports\", \"business\"]",
            "other labels for it, or another order: business, sports",
        ),
    ] {
        let message = refused(&|text| text.replace(from, to));
        assert!(message.contains(says), "{to}: {message}");
    }
    let message = refused(&|text| {
        text.replace("name = \"sentiment\"", "name = \"mood\"")
            .replace("name = \"topic\"\nlabels", "name = \"subject\"\nlabels")
            .replace("head = \"sentiment\"", "head = \"mood\"")
            .replace("head = \"topic\"", "head = \"subject\"")
    });
    assert!(
        message.contains("none of the heads that are left to teach: it has sentiment, topic"),
        "{message}"
    );
}
