//! `tamiz model eval | calibrate | compare`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use tamiz_model::{
    CalibrateOptions, CompareConfig, Comparison, DeviceChoice, Evaluation, Fit, ScorerOptions, Selection,
    compare as run, plot,
};

use super::course::Course;
use super::{put, to_json};
use crate::jobs::JobError;
use crate::jobs::sql::harmless;
use crate::source::Stop;

/// How figures are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Answer {
    /// For people.
    #[default]
    Table,
    /// For programs; everything that was measured.
    Json,
}

/// What to evaluate.
#[derive(Debug, Clone)]
pub struct EvalOptions {
    /// JSON lines with `text` and `label`, plain or zstd.
    pub data: PathBuf,
    /// The head.
    pub head: String,
    /// Labels and rows to take.
    pub selection: Selection,
    /// How it is written.
    pub answer: Answer,
    /// A folder for `confusion.svg` and `reliability.svg`.
    pub plots: Option<PathBuf>,
}

/// Measures a head on labelled texts.
///
/// # Errors
/// An unknown head or label, a file that cannot be read, or a model that failed.
pub fn eval(dir: &Path, options: &EvalOptions, scorer: ScorerOptions, out: &mut dyn Write) -> Result<(), JobError> {
    let found = tamiz_model::eval(dir, &options.data, &options.head, &options.selection, scorer)?;
    if let Some(folder) = &options.plots {
        let title = format!("{} {} {}", found.model, found.head, found.data.display());
        let labels: Vec<String> = found.metrics.labels.iter().map(|label| label.label.clone()).collect();
        let confusion = plot::confusion(&title, &labels, &found.metrics.confusion);
        save(&folder.join("confusion.svg"), &confusion)?;
        let title = format!("{title}: calibration error {:.3}", found.calibration.ece);
        save(
            &folder.join("reliability.svg"),
            &plot::reliability(&title, &found.calibration.bins),
        )?;
    }
    match options.answer {
        Answer::Json => put(out, &to_json(&found)?),
        Answer::Table => table(&found, out),
    }
}

/// Writes a file, with its folder.
pub(super) fn save(path: &Path, text: &str) -> Result<(), JobError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(path, text))
        .map_err(JobError::io(format!("cannot write `{}`", path.display())))
}

fn table(found: &Evaluation, out: &mut dyn Write) -> Result<(), JobError> {
    let (metrics, calibration, speed) = (&found.metrics, &found.calibration, &found.speed);
    let mut lines = vec![
        format!(
            "model {}, head {}, {} rows of {}",
            found.model,
            found.head,
            metrics.rows,
            found.data.display()
        ),
        format!(
            "accuracy {:.4}  macro-F1 {:.4}  micro-F1 {:.4}  macro recall {:.4}",
            metrics.accuracy, metrics.macro_f1, metrics.micro_f1, metrics.macro_recall
        ),
        format!(
            "calibration error {:.4} (15 bins)  mean confidence {:.4}  log loss {:.4}  Brier {:.4}  temperature {}",
            calibration.ece, calibration.mean_confidence, calibration.log_loss, calibration.brier, found.temperature
        ),
        format!(
            "{:.0} texts/s, {:.0} tokens/s with {} threads ({:.2} s, {:.2} of them in the model; padding {:.1} %, {} texts cut)",
            speed.texts_per_second,
            speed.tokens_per_second,
            speed.threads,
            speed.seconds,
            speed.model_seconds,
            speed.padding * 100.0,
            found.truncated
        ),
        format!(
            "{:<24} {:>9} {:>9} {:>9} {:>8}",
            "label", "precision", "recall", "F1", "rows"
        ),
    ];
    for label in &metrics.labels {
        lines.push(format!(
            "{:<24} {:>9.4} {:>9.4} {:>9.4} {:>8}",
            harmless(&label.label),
            label.precision,
            label.recall,
            label.f1,
            label.support
        ));
    }
    lines.push("confusion (rows: truth, columns: prediction)".to_owned());
    for (label, row) in metrics.labels.iter().zip(&metrics.confusion) {
        let cells: Vec<String> = row.iter().map(|count| format!("{count:>7}")).collect();
        lines.push(format!("{:<24} {}", harmless(&label.label), cells.join(" ")));
    }
    lines.iter().try_for_each(|line| put(out, line))
}

/// Fits a head's temperature on labelled texts, and its shares where asked for, and stores it in the checkpoint.
///
/// # Errors
/// As [`eval`], or the folder cannot be written.
pub fn calibrate(
    dir: &Path,
    options: &EvalOptions,
    (device, fit): (DeviceChoice, Fit),
    out: &mut dyn Write,
) -> Result<(), JobError> {
    let wanted = CalibrateOptions {
        head: options.head.clone(),
        selection: options.selection.clone(),
        device,
        fit,
    };
    let found = tamiz_model::calibrate(dir, &options.data, &wanted)?;
    if options.answer == Answer::Json {
        return put(out, &to_json(&found)?);
    }
    put(
        out,
        &format!(
            "head {}: temperature {} (was {}); calibration error {:.4} (was {:.4}), log loss {:.4} (was {:.4}); the model is now {}",
            found.head,
            found.temperature,
            found.temperature_before,
            found.after.ece,
            found.before.ece,
            found.after.log_loss,
            found.before.log_loss,
            found.model
        ),
    )?;
    if found.shift.is_empty() {
        return Ok(());
    }
    let labels = tamiz_model::Checkpoint::open(dir)?.config.heads;
    let labels = labels
        .iter()
        .find(|head| head.name == found.head)
        .map(|head| head.labels.clone());
    let shifts = labels.unwrap_or_default().into_iter().zip(&found.shift);
    let shifts: Vec<String> = shifts
        .map(|(label, by)| format!("{} {by:+.2}", harmless(&label)))
        .collect();
    put(out, &format!("added to the logits: {}", shifts.join(", ")))
}

/// What to compare.
#[derive(Debug, Clone)]
pub struct CompareOptions {
    /// The comparison, as model/configs/compare.toml.
    pub config: PathBuf,
    /// The folder that its data paths start from.
    pub data: PathBuf,
    /// Checkpoints, and `compare.json`, `compare.csv` and `compare.svg`.
    pub out: PathBuf,
    /// How the answer is written.
    pub answer: Answer,
}

/// Trains or loads all contenders, measures them, writes and prints one table.
///
/// # Errors
/// A configuration, data or folder that cannot be used, libtorch's own, or an interruption.
pub fn compare(options: &CompareOptions, stop: &Stop, out: &mut dyn Write) -> Result<(), JobError> {
    let config = CompareConfig::read(&options.config, &options.data)?;
    let mut course = Course::new(stop, options.answer != Answer::Json);
    let found = run(&config, &options.out, &mut |name, progress| {
        course.tell(out, name, progress)
    });
    course.finish()?;
    let found = found?;
    save(&options.out.join("compare.json"), &(to_json(&found)? + "\n"))?;
    save(&options.out.join("compare.csv"), &csv(&found))?;
    save(&options.out.join("compare.svg"), &drawing(&found))?;
    match options.answer {
        Answer::Json => put(out, &to_json(&found)?),
        Answer::Table => columns(&found).iter().try_for_each(|line| put(out, line)),
    }
}

/// Every figure of every contender: contender, figure, value.
fn figures(found: &Comparison) -> Vec<(String, Vec<f64>)> {
    let of = |name: String, pick: &dyn Fn(&tamiz_model::Contender) -> f64| {
        (name, found.contenders.iter().map(pick).collect::<Vec<f64>>())
    };
    let mut all = Vec::new();
    let sets: Vec<&String> = found.contenders.iter().flat_map(|one| one.sets.keys()).collect();
    let mut sets: Vec<&String> = sets
        .into_iter()
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    sets.sort();
    for set in sets {
        type Pick = fn(&tamiz_model::SetFigures) -> f64;
        let picks: [(&str, Pick); 4] = [
            ("accuracy", |set| set.accuracy),
            ("macro-F1", |set| set.macro_f1),
            ("macro recall", |set| set.macro_recall),
            ("calibration error", |set| set.ece),
        ];
        for (figure, pick) in picks {
            all.push(of(format!("{set} {figure}"), &|one| {
                one.sets.get(set).map_or(f64::NAN, pick)
            }));
        }
    }
    all.push(of("parameters (million)".to_owned(), &|one| {
        one.parameters as f64 / 1e6
    }));
    all.push(of("training seconds".to_owned(), &|one| one.training_seconds));
    for place in 0..found.contenders.first().map_or(0, |one| one.speed.len()) {
        let tokens = found.contenders[0].speed[place].tokens;
        all.push(of(format!("texts/s at {tokens} tokens"), &|one| {
            one.speed.get(place).map_or(f64::NAN, |speed| speed.texts_per_second)
        }));
    }
    all.push(of("weights (MiB)".to_owned(), &|one| one.memory.weights_mib));
    all.push(of("memory to score (MiB)".to_owned(), &|one| {
        one.memory.scoring_mib.unwrap_or(f64::NAN)
    }));
    all
}

fn names(found: &Comparison) -> Vec<String> {
    found.contenders.iter().map(|one| harmless(&one.name)).collect()
}

fn columns(found: &Comparison) -> Vec<String> {
    let row = |head: &str, cells: Vec<String>| {
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>14}")).collect();
        format!("{head:<44}{}", cells.join(""))
    };
    let number = |value: &f64| match value.abs() {
        v if v.is_nan() => "-".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    };
    let about = format!(
        "{}, {} with {} threads, seeds {:?}, means over seeds",
        found.machine, found.device, found.threads, found.seeds
    );
    let mut lines = vec![about, row("", names(found))];
    for (figure, values) in figures(found) {
        lines.push(row(&harmless(&figure), values.iter().map(number).collect()));
    }
    lines
}

fn csv(found: &Comparison) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let mut lines = vec!["contender,figure,value".to_owned()];
    for (figure, values) in figures(found) {
        for (name, value) in names(found).iter().zip(values).filter(|(_, value)| !value.is_nan()) {
            lines.push(format!("{},{},{value}", quoted(name), quoted(&figure)));
        }
    }
    lines.join("\n") + "\n"
}

fn drawing(found: &Comparison) -> String {
    let figures: Vec<(String, Vec<f64>)> = figures(found)
        .into_iter()
        .map(|(figure, values)| {
            (
                figure,
                values
                    .into_iter()
                    .map(|value| if value.is_nan() { 0.0 } else { value })
                    .collect(),
            )
        })
        .collect();
    plot::bars("The same data, training loop and measurements", &names(found), &figures)
}
