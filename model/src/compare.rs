//! Several networks, one run: the same tokenizer, data, training loop and measurements, one table.
//!
//! A comparison is a training configuration with `[[contenders]]` behind it, each of which changes what it must. What has been
//! trained before is loaded. Speeds are measured in turns, so that a busy minute of the machine falls on all alike.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::checkpoint::Checkpoint;
use crate::compare_speed::{self, LengthSpeed, Memory};
use crate::error::ModelError;
use crate::eval::eval;
use crate::progress::Progress;
use crate::scorer::ScorerOptions;
use crate::train::train;
use crate::train_config::TrainConfig;

/// What is compared.
#[derive(Debug, Clone)]
pub struct CompareConfig {
    /// A training run per contender and seed.
    runs: Vec<(String, Vec<TrainConfig>)>,
    options: Options,
    folder: PathBuf, // that the probes' paths start from
}

/// The table `[compare]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Every contender is trained once per seed.
    seeds: Vec<u64>,
    /// Tokens per text at which speed is measured.
    #[serde(default = "usual_lengths")]
    lengths: Vec<usize>,
    /// Further labelled texts to measure, beside this file; never trained on.
    #[serde(default)]
    probes: Vec<Probe>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Probe {
    name: String,
    head: String,
    path: PathBuf,
}

fn usual_lengths() -> Vec<usize> {
    vec![32, 128, 512]
}

impl CompareConfig {
    /// Reads and checks a TOML file; its data folder is `data`.
    ///
    /// # Errors
    /// When the file cannot be read, or a contender's run cannot work.
    pub fn read(path: &Path, data: &Path) -> Result<Self, ModelError> {
        let wrong = |reason: String| ModelError::malformed(path, reason.trim());
        let text = std::fs::read_to_string(path).map_err(|error| ModelError::read(path, error))?;
        let mut base: toml::Table = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let mut take = |key: &str| {
            base.remove(key)
                .ok_or_else(|| wrong(format!("it has no `{key}`: see model/configs/compare.toml")))
        };
        let options: Options = take("compare")?
            .try_into()
            .map_err(|error: toml::de::Error| wrong(error.to_string()))?;
        let contenders: Vec<toml::Table> = take("contenders")?
            .try_into()
            .map_err(|error: toml::de::Error| wrong(error.to_string()))?;
        if options.seeds.is_empty() || contenders.is_empty() || options.lengths.is_empty() {
            return Err(wrong(
                "seeds, lengths and contenders need at least one entry each".to_owned(),
            ));
        }
        let mut runs = Vec::new();
        for contender in contenders {
            let mut table = base.clone();
            merge(&mut table, contender);
            let mut config: TrainConfig = table
                .try_into()
                .map_err(|error: toml::de::Error| wrong(error.to_string()))?;
            config.data = data.to_owned();
            config.check()?;
            let name = config.name.clone();
            let seeded = options.seeds.iter().map(|&seed| TrainConfig { seed, ..config.clone() });
            runs.push((name, seeded.collect()));
        }
        let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
        Ok(CompareConfig { runs, options, folder })
    }
}

/// Puts the values of `over` into `table`, table by table; arrays are replaced.
fn merge(table: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            // An architecture is a choice: its options do not mix with another's.
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) if key != "architecture" => {
                merge(inner, value)
            }
            (_, value) => drop(table.insert(key, value)),
        }
    }
}

/// What [`compare`] found.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Processor threads per operation.
    pub threads: i32,
    /// The machine, as the system names its processor.
    pub machine: String,
    /// Where the models ran.
    pub device: String,
    /// Seeds, the same for all.
    pub seeds: Vec<u64>,
    /// One entry per contender.
    pub contenders: Vec<Contender>,
}

/// One network and its figures; means over seeds.
#[derive(Debug, Clone, Serialize)]
pub struct Contender {
    /// What it is called in the configuration.
    pub name: String,
    /// Which network it is.
    pub architecture: String,
    /// Number of weights.
    pub parameters: usize,
    /// Steps taken, of the last seed.
    pub steps: u64,
    /// Seconds of training.
    pub training_seconds: f64,
    /// Figures per set: the validation sets, then the probes.
    pub sets: BTreeMap<String, SetFigures>,
    /// Speed per length of text.
    pub speed: Vec<LengthSpeed>,
    /// Memory of scoring at the largest length.
    pub memory: Memory,
}

/// Figures of one set.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SetFigures {
    /// Number of texts.
    pub rows: usize,
    /// Share of right predictions.
    pub accuracy: f64,
    /// Mean of the labels' F1.
    pub macro_f1: f64,
    /// Mean of the labels' recall.
    pub macro_recall: f64,
    /// Expected calibration error, without a fitted temperature.
    pub ece: f64,
    /// Largest less smallest macro-F1 over the seeds.
    pub macro_f1_range: f64,
}

/// Trains or loads every contender and measures them all.
///
/// `progress` hears of every training run, with the contender's name; [`ControlFlow::Break`] ends the comparison.
///
/// # Errors
/// When data or folder cannot be used, libtorch fails, or it was interrupted.
pub fn compare(
    config: &CompareConfig,
    out: &Path,
    progress: &mut dyn FnMut(&str, &Progress) -> ControlFlow<()>,
) -> Result<Comparison, ModelError> {
    let mut contenders = Vec::new();
    let mut folders = Vec::new();
    for (name, runs) in &config.runs {
        let mut measured = Vec::new();
        for run in runs {
            let dir = out.join(format!("{name}-{}", run.seed));
            measured.push((trained(run, &dir, progress)?, dir));
        }
        contenders.push(contender(config, (name, runs), &measured)?);
        folders.extend(measured.into_iter().next_back().map(|(_, dir)| dir));
    }
    let first = &config.runs[0].1[0];
    let speeds = compare_speed::measure(&folders, &config.options.lengths, first)?;
    for (contender, (speed, memory)) in contenders.iter_mut().zip(speeds) {
        (contender.speed, contender.memory) = (speed, memory);
    }
    Ok(Comparison {
        threads: tch::get_num_threads(),
        machine: compare_speed::machine(),
        device: first.device.to_string(),
        seeds: config.options.seeds.clone(),
        contenders,
    })
}

/// Steps and seconds of a training run.
type Effort = (u64, f64);

/// Trains, unless the folder holds the result of the same run.
fn trained(
    run: &TrainConfig,
    dir: &Path,
    progress: &mut dyn FnMut(&str, &Progress) -> ControlFlow<()>,
) -> Result<Effort, ModelError> {
    let done = dir.join("run.json");
    let described = format!("{run:?}");
    if let Ok(bytes) = std::fs::read(&done) {
        let kept: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|error| ModelError::malformed(&done, error))?;
        if kept["run"] == described.as_str() {
            return Ok((
                kept["steps"].as_u64().unwrap_or(0),
                kept["seconds"].as_f64().unwrap_or(0.0),
            ));
        }
        let reason = "it is of another configuration: give another folder, or remove this one";
        return Err(ModelError::malformed(&done, reason));
    }
    let mut interrupted = false;
    let outcome = train(run, dir, &mut |event| {
        let answer = progress(&run.name, event);
        interrupted |= answer.is_break();
        answer
    })?;
    if interrupted {
        return Err(ModelError::Config(
            "the comparison was interrupted: start it again with the same folder to go on".to_owned(),
        ));
    }
    let kept = json!({"run": described, "steps": outcome.steps, "seconds": outcome.seconds});
    std::fs::write(&done, format!("{kept}\n")).map_err(|error| ModelError::write(&done, error))?;
    Ok((outcome.steps as u64, outcome.seconds))
}

fn contender(
    config: &CompareConfig,
    (name, runs): (&str, &[TrainConfig]),
    measured: &[(Effort, PathBuf)],
) -> Result<Contender, ModelError> {
    let mut sets: BTreeMap<String, SetFigures> = BTreeMap::new();
    let mut ranges: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (run, (_, dir)) in runs.iter().zip(measured) {
        for (set, head, path, selection) in sets_of(config, run) {
            let options = ScorerOptions {
                device: run.device,
                threads: run.threads,
                ..ScorerOptions::default()
            };
            let found = eval(dir, &path, &head, &selection, options)?;
            let figures = sets.entry(set.clone()).or_default();
            let share = 1.0 / measured.len() as f64;
            figures.rows = found.metrics.rows;
            figures.accuracy += share * found.metrics.accuracy;
            figures.macro_f1 += share * found.metrics.macro_f1;
            figures.macro_recall += share * found.metrics.macro_recall;
            figures.ece += share * found.calibration.ece;
            let range = ranges.entry(set).or_insert((f64::INFINITY, f64::NEG_INFINITY));
            *range = (range.0.min(found.metrics.macro_f1), range.1.max(found.metrics.macro_f1));
        }
    }
    for (set, (low, high)) in ranges {
        sets.entry(set).or_default().macro_f1_range = high - low;
    }
    let mean = |pick: fn(&Effort) -> f64| {
        measured.iter().map(|(effort, _)| pick(effort)).sum::<f64>() / measured.len().max(1) as f64
    };
    let checkpoint = Checkpoint::open(&measured[measured.len() - 1].1)?;
    Ok(Contender {
        name: name.to_owned(),
        architecture: checkpoint.config.encoder.architecture.name().to_owned(),
        parameters: checkpoint.info()?.parameters,
        steps: mean(|effort| effort.0 as f64).round() as u64,
        training_seconds: mean(|effort| effort.1),
        sets,
        speed: Vec::new(),
        memory: Memory::default(),
    })
}

type SetToMeasure = (String, String, PathBuf, crate::data::Selection);

fn sets_of(config: &CompareConfig, run: &TrainConfig) -> Vec<SetToMeasure> {
    let validation = run.validation.iter().map(|set| {
        let path = run.data.join(&set.path);
        (set.name.clone(), set.head.clone(), path, set.selection())
    });
    let probes = config.options.probes.iter().map(|probe| {
        let path = config.folder.join(&probe.path);
        (probe.name.clone(), probe.head.clone(), path, Default::default())
    });
    validation.chain(probes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_change_what_they_name_and_nothing_else() {
        let mut base: toml::Table = toml::from_str("name = 'a'\n[encoder]\nhidden = 4\nlayers = 2\n").unwrap();
        let over = toml::from_str("name = 'b'\n[encoder]\nlayers = 1\narchitecture = { ngrams = { longest = 2 } }\n");
        merge(&mut base, over.unwrap());
        let over = "[encoder]\narchitecture = { bilstm = { width = 3 } }\n";
        merge(&mut base, toml::from_str(over).unwrap());
        let expected = "name = 'b'\n[encoder]\nhidden = 4\nlayers = 1\narchitecture = { bilstm = { width = 3 } }\n";
        assert_eq!(base, toml::from_str(expected).unwrap());
    }
}
