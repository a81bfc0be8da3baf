//! A model with its weights on one device, and the way from token ids to logits.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::architecture::{self, Classifier};
use crate::batching::{cut, pad};
use crate::config::ModelConfig;
use crate::error::{ModelError, guard};
use crate::layout::Layout;
use crate::scores::Head;
use crate::tokenizer::Encoded;
use crate::transformer::Mode;

/// The weights and the structure that uses them. It stays with one thread: tensors are never shared.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) store: VarStore,
    pub(crate) classifier: Box<dyn Classifier>,
    padding_id: u32,
    labels: Vec<usize>, // per head
}

impl Network {
    /// Freshly initialised weights, the same for the same seed.
    pub(crate) fn new(config: &ModelConfig, padding_id: u32, device: Device, seed: u64) -> Result<Self, ModelError> {
        // libtorch has one random generator per process: seeding it and drawing from it must not be interleaved.
        static DRAWING: Mutex<()> = Mutex::new(());
        let _alone = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
        guard("making the model", || {
            tch::manual_seed(seed as i64);
            let store = VarStore::new(device);
            let classifier = architecture::build(&store.root(), config);
            let labels = config.heads.iter().map(|head| head.labels.len()).collect();
            Network {
                store,
                classifier,
                padding_id,
                labels,
            }
        })
    }

    /// A network over weights that live elsewhere: none is copied, and none may be written.
    pub(crate) fn sharing(
        config: &ModelConfig,
        padding_id: u32,
        weights: &HashMap<String, Tensor>,
    ) -> Result<Self, ModelError> {
        let device = weights.values().next().map_or(Device::Cpu, Tensor::device);
        let network = Network::new(config, padding_id, device, 0)?;
        for (name, mut variable) in network.store.variables() {
            let weight = weights
                .get(&name)
                .ok_or_else(|| ModelError::Config(format!("weight `{name}` is missing")))?;
            tch::no_grad(|| variable.f_set_data(weight))?;
        }
        Ok(network)
    }

    /// Reads weights from a safetensors file: every name and shape must be there, and no others.
    pub(crate) fn read(&mut self, path: &Path, layout: &Layout) -> Result<(), ModelError> {
        let wrong = |reason: String| ModelError::Weights {
            path: path.to_owned(),
            reason,
        };
        let mut found = layout.translate(read_safetensors(path)?, &self.store.variables())?;
        for (name, mut variable) in self.store.variables() {
            let tensor = found.remove(&name).ok_or_else(|| {
                wrong(format!(
                    "weight `{name}` is missing: config.json describes another model"
                ))
            })?;
            let (expected, shape) = (variable.size(), tensor.size());
            if expected != shape {
                return Err(wrong(format!(
                    "weight `{name}` has shape {shape:?} where config.json, with its labels, asks for {expected:?}"
                )));
            }
            tch::no_grad(|| variable.f_copy_(&tensor))?;
        }
        match found.keys().min() {
            None => Ok(()),
            Some(name) => Err(wrong(format!(
                "weight `{name}` has no place in the model that config.json describes"
            ))),
        }
    }

    /// Takes the encoder of another network, and its heads where they have the same name and as many labels; other heads stay
    /// fresh. Learned positions that are too many are cut off, tokens that are too few leave the last ones fresh.
    pub(crate) fn adopt(&mut self, other: &Network) -> Result<(), ModelError> {
        let others = other.store.variables();
        for (name, variable) in self.store.variables() {
            let Some(weight) = others.get(&name) else {
                if name.starts_with("heads.") || name.starts_with("pooling.") || name.starts_with("mlm.") {
                    continue;
                }
                return Err(ModelError::Config(format!(
                    "the checkpoint to start from has no weight `{name}`: it is another kind of encoder"
                )));
            };
            let (from, to) = (weight.size(), variable.size());
            let cut = name.starts_with("embeddings.") && from[1..] == to[1..];
            if from != to && !cut && name.starts_with("heads.") {
                continue;
            }
            if from != to && !cut {
                return Err(ModelError::Config(format!(
                    "weight `{name}` of the checkpoint to start from has shape {from:?}, not {to:?}"
                )));
            }
            let rows = from[0].min(to[0]);
            tch::no_grad(|| variable.f_narrow(0, 0, rows)?.f_copy_(&weight.f_narrow(0, 0, rows)?))?;
            if name == "embeddings.tokens.weight" && to[0] > rows {
                // New tokens start in the middle of the known ones, each a little aside.
                let middle = weight.f_mean_dim([0_i64].as_slice(), true, Kind::Float)?;
                tch::no_grad(|| variable.f_narrow(0, rows, to[0] - rows)?.f_add_(&middle).map(drop))?;
            }
        }
        Ok(())
    }

    /// Adds to the logits of a head, one number per label; returns the precision in which `path` holds them.
    pub(crate) fn shift(&self, head: &str, by: &[f32], path: &Path) -> Result<Kind, ModelError> {
        let name = format!("heads.{head}.bias");
        let stored = read_safetensors(path)?.into_iter().find(|(stored, _)| *stored == name);
        let (Some((_, stored)), Some(mut bias)) = (stored, self.store.variables().remove(&name)) else {
            return Err(ModelError::Config(format!(
                "there is no `{name}` to shift in `{}`",
                path.display()
            )));
        };
        let by = Tensor::from_slice(by).to_device(bias.device()).to_kind(bias.kind());
        tch::no_grad(|| bias.f_add_(&by).map(drop))?;
        Ok(stored.kind())
    }

    /// Writes the weights as a safetensors file of the given precision, with those of the heads in `kept` only.
    pub(crate) fn write(&self, path: &Path, kind: Kind, kept: &[Head]) -> Result<(), ModelError> {
        let goes = |name: &str| match name.split('.').collect::<Vec<_>>()[..] {
            ["mlm", ..] => false, // serves pre-training only
            ["heads", head, ..] => kept.iter().any(|kept| kept.name == head),
            _ => true,
        };
        let mut tensors: Vec<(String, Tensor)> = self
            .store
            .variables()
            .into_iter()
            .filter(|(name, _)| goes(name))
            .map(|(name, tensor)| {
                Ok((
                    name,
                    tch::no_grad(|| tensor.f_to_device(Device::Cpu)?.f_to_kind(kind)?.f_contiguous())?,
                ))
            })
            .collect::<Result<_, tch::TchError>>()?;
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        Tensor::write_safetensors(&tensors, path)
            .map_err(|error| ModelError::write(path, std::io::Error::other(error.to_string())))
    }

    /// Takes the values of a network of the same names and shapes.
    pub(crate) fn copy_from(&mut self, other: &Network) -> Result<(), ModelError> {
        let others = other.store.variables();
        for (name, mut variable) in self.store.variables() {
            if let Some(weight) = others.get(&name) {
                tch::no_grad(|| variable.f_copy_(weight))?;
            }
        }
        Ok(())
    }

    /// The id that fills up short rows.
    pub(crate) fn padding_id(&self) -> u32 {
        self.padding_id
    }

    /// Number of weights.
    pub(crate) fn parameters(&self) -> usize {
        self.store.variables().values().map(Tensor::numel).sum()
    }

    /// The logits of one batch, per head, row-major.
    pub(crate) fn logits(&self, rows: &[&[u32]]) -> Result<Vec<Vec<f32>>, ModelError> {
        if rows.is_empty() {
            return Err(ModelError::Config("a batch needs at least one row".to_owned()));
        }
        #[cfg(feature = "failpoints")]
        if let Some(error) = crate::failpoint::injected(rows) {
            return Err(error);
        }
        let _no_gradients = tch::no_grad_guard();
        let batch = pad(rows, self.padding_id, self.store.device())?;
        let heads = guard("scoring a batch", || self.classifier.forward(&batch, Mode::Infer))?;
        heads.iter().map(to_floats).collect()
    }

    /// The logits of a column, per head, row-major, in its order. Rows without tokens (NULL texts) have zeros.
    pub(crate) fn all_logits(&self, encoded: &Encoded, batch_tokens: usize) -> Result<Vec<Vec<f32>>, ModelError> {
        let mut rows: Vec<usize> = (0..encoded.len()).filter(|&row| !encoded.row(row).is_empty()).collect();
        rows.sort_by_key(|&row| encoded.row(row).len());
        let lengths: Vec<usize> = rows.iter().map(|&row| encoded.row(row).len()).collect();
        let mut all: Vec<Vec<f32>> = self
            .labels
            .iter()
            .map(|labels| vec![0.0; labels * encoded.len()])
            .collect();
        for batch in cut(&lengths, batch_tokens) {
            let rows = &rows[batch];
            let ids: Vec<&[u32]> = rows.iter().map(|&row| encoded.row(row)).collect();
            for ((all, &labels), logits) in all.iter_mut().zip(&self.labels).zip(self.logits(&ids)?) {
                for (&row, logits) in rows.iter().zip(logits.chunks_exact(labels)) {
                    all[row * labels..(row + 1) * labels].copy_from_slice(logits);
                }
            }
        }
        Ok(all)
    }
}

/// Every tensor of a safetensors file. A pickle or a zip archive, whatever it is called, is told apart from a damaged file.
pub(crate) fn read_safetensors(path: &Path) -> Result<HashMap<String, Tensor>, ModelError> {
    let wrong = |reason: String| ModelError::Weights {
        path: path.to_owned(),
        reason,
    };
    let mut start = [0_u8; 4];
    let read = File::open(path)
        .and_then(|mut file| file.read(&mut start))
        .map_err(|error| ModelError::read(path, error))?;
    if read >= 2 && (start[..2] == [0x80, 0x02] || start == *b"PK\x03\x04") {
        return Err(wrong(
            "it is not a readable safetensors file but a pickle, and reading a pickle runs what is in it: save the weights as \
             safetensors"
                .to_owned(),
        ));
    }
    let tensors = Tensor::read_safetensors(path).map_err(|error| {
        wrong(format!(
            "it is not a readable safetensors file ({error}): fetch it again"
        ))
    })?;
    Ok(tensors.into_iter().collect())
}

fn to_floats(logits: &Tensor) -> Result<Vec<f32>, ModelError> {
    let logits = logits
        .f_to_device(Device::Cpu)?
        .f_to_kind(Kind::Float)?
        .f_contiguous()?;
    let mut out = vec![0.0_f32; logits.numel()];
    logits.f_copy_data(&mut out, logits.numel())?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{tiny_config, tiny_heads};

    #[test]
    fn a_failing_batch_is_an_error_and_the_next_one_works() {
        let network = Network::new(&tiny_config(10, &tiny_heads()), 0, Device::Cpu, 1).unwrap();
        let error = network.logits(&[&[3, 99]]).unwrap_err().to_string();
        assert!(
            error.contains("libtorch failed while scoring a batch") && !error.contains('\n'),
            "{error}"
        );
        assert_eq!(network.logits(&[&[3, 9]]).unwrap()[1].len(), 7);
    }
}
