//! What a run leaves behind so that it can go on after a crash, exactly as if there had been none.
//!
//! Weights and the optimiser's memory are written; everything random is drawn anew from the seed and the number of the step, so that
//! there is no generator to save. The folder `resume` inside the run's folder holds tensors under the number of their step, and
//! `state.json`, which is put in place last, by renaming: whenever the program dies, the state it names is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::checkpoint::{read_json, write_json};
use crate::error::ModelError;
use crate::learner::Learner;
use crate::network::read_safetensors;
use crate::train::Best;

const FOLDER: &str = "resume";
const STATE: &str = "state.json";

/// Where a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// Hash of the configuration.
    pub(crate) config_sha256: String,
    /// Hash of the training data.
    pub(crate) data_sha256: String,
    /// Steps made.
    pub(crate) step: usize,
    /// Seconds taken.
    pub(crate) seconds: f64,
    /// Looks since the best.
    pub(crate) looks_without_gain: usize,
    /// What is on disk.
    pub(crate) best: Option<Best>,
    /// Sum of the losses since the last report, and their number.
    pub(crate) losses: (f64, usize),
    /// Steps made with each weight.
    #[serde(default)]
    pub(crate) weight_steps: BTreeMap<String, i64>,
}

/// The folder of a run's state.
#[derive(Debug)]
pub(crate) struct Resume {
    dir: PathBuf,
}

impl Resume {
    pub(crate) fn new(out: &Path) -> Self {
        Resume { dir: out.join(FOLDER) }
    }

    fn tensors(&self, step: usize) -> PathBuf {
        self.dir.join(format!("step-{step}.safetensors"))
    }

    /// Writes the state, then takes away the one before.
    pub(crate) fn save(&self, mut state: State, learner: &Learner) -> Result<(), ModelError> {
        let (tensors, weight_steps) = learner.state();
        state.weight_steps = weight_steps;
        std::fs::create_dir_all(&self.dir).map_err(|error| ModelError::write(&self.dir, error))?;
        let path = self.tensors(state.step);
        let tensors: Vec<(String, Tensor)> = tensors
            .into_iter()
            .map(|(name, tensor)| Ok((name, tensor.f_to_device(tch::Device::Cpu)?)))
            .collect::<Result<_, tch::TchError>>()?;
        Tensor::write_safetensors(&tensors, &path)
            .map_err(|error| ModelError::write(&path, std::io::Error::other(error.to_string())))?;
        let synced = std::fs::File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|error| ModelError::write(&path, error))?;
        let (written, place) = (self.dir.join("state.json.new"), self.dir.join(STATE));
        write_json(&written, &state)?;
        std::fs::rename(&written, &place).map_err(|error| ModelError::write(&place, error))?;
        self.remove_all_but(&path);
        Ok(())
    }

    /// The state of the run that was cut short here, if there is one; its weights are put into `learner`.
    ///
    /// Another run's state is an error: it is neither thrown away nor mixed up with this one.
    pub(crate) fn load(
        &self,
        (config_sha256, data_sha256): (&str, &str),
        learner: &mut Learner,
    ) -> Result<Option<State>, ModelError> {
        let path = self.dir.join(STATE);
        if !path.exists() {
            return Ok(None);
        }
        let state: State = read_json(&path)?;
        let differs = if state.config_sha256 != config_sha256 {
            Some("configuration")
        } else if state.data_sha256 != data_sha256 {
            Some("data")
        } else {
            None
        };
        if let Some(what) = differs {
            let reason = format!(
                "it holds an unfinished run with another {what}: choose another folder, or remove this one to start anew"
            );
            return Err(ModelError::malformed(&self.dir, reason));
        }
        let tensors = read_safetensors(&self.tensors(state.step))?;
        learner
            .restore(&tensors, &state.weight_steps)
            .map_err(|reason| ModelError::malformed(&self.dir, reason))?;
        Ok(Some(state))
    }

    /// The run is over.
    pub(crate) fn clear(&self) -> Result<(), ModelError> {
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ModelError::write(&self.dir, error)),
            _ => Ok(()),
        }
    }

    /// States that are no longer named only take room: one that cannot be removed harms nothing.
    fn remove_all_but(&self, kept: &Path) {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "safetensors") && path != kept {
                drop(std::fs::remove_file(path));
            }
        }
    }
}
