//! `tamiz model …`: info, score and train here; [`measure`], [`explain`] and [`audit`] beside it.

pub mod audit;
mod course;
pub mod explain;
pub mod measure;

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use arrow::array::StringArray;
use serde_json::json;
use tamiz_model::{Checkpoint, DeviceChoice, Precision, Probe, TrainConfig};

use self::course::Course;
use super::JobError;
use crate::source::Stop;

/// Rows scored at once by [`score`].
const CHUNK_ROWS: usize = 256;

fn put(out: &mut dyn Write, line: &str) -> Result<(), JobError> {
    writeln!(out, "{line}").map_err(JobError::io("cannot write the answer"))
}

fn to_json(value: &impl serde::Serialize) -> Result<String, JobError> {
    serde_json::to_string_pretty(value).map_err(|error| JobError::Failed(format!("cannot write JSON: {error}")))
}

/// Writes what a checkpoint is.
///
/// # Errors
/// The folder is no intact checkpoint.
pub fn info(dir: &Path, out: &mut dyn Write) -> Result<(), JobError> {
    put(out, &to_json(&Checkpoint::open(dir)?.info()?)?)
}

/// Writes, per text, token ids, logits and labels as one JSON object a line. Without texts, reads lines of `input`.
///
/// # Errors
/// The folder is no intact checkpoint, or the model failed.
pub fn score(
    dir: &Path,
    device: DeviceChoice,
    texts: &[String],
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<(), JobError> {
    let probe = Probe::open(dir, device)?;
    let write = |texts: &[String], out: &mut dyn Write| -> Result<(), JobError> {
        let scores = probe.score(&StringArray::from_iter_values(texts))?;
        for (text, scores) in texts.iter().zip(scores) {
            let line = json!({"text": text, "model": probe.checkpoint().identity().to_string(), "scores": scores});
            put(out, &line.to_string())?;
        }
        Ok(())
    };
    if !texts.is_empty() {
        return texts.chunks(CHUNK_ROWS).try_for_each(|chunk| write(chunk, out));
    }
    let mut chunk = Vec::new();
    for line in input.lines() {
        chunk.push(line.map_err(JobError::io("cannot read standard input"))?);
        if chunk.len() == CHUNK_ROWS {
            write(&chunk, out)?;
            chunk.clear();
        }
    }
    if chunk.is_empty() { Ok(()) } else { write(&chunk, out) }
}

/// Writes the mean of several models, in 16-bit floats, and what it is.
///
/// # Errors
/// A folder is no intact checkpoint, they differ, or the new folder cannot be written.
pub fn average(models: &[PathBuf], to: &Path, out: &mut dyn Write) -> Result<(), JobError> {
    let models: Vec<&Path> = models.iter().map(PathBuf::as_path).collect();
    tamiz_model::average(&models, to, Precision::Fp16)?;
    info(to, out)
}

/// Trains a model and writes its progress and outcome.
///
/// # Errors
/// A configuration, data or folder that cannot be used, or libtorch's own.
pub fn train(config: &TrainConfig, to: &Path, stop: &Stop, out: &mut dyn Write) -> Result<(), JobError> {
    let mut course = Course::new(stop, true);
    let outcome = tamiz_model::train(config, to, &mut |progress| course.tell(out, "", progress));
    course.finish()?;
    put(out, &to_json(&outcome?)?)
}
