//! The mean of several fine-tuned models, weight by weight.
//!
//! Runs that began with the same weights and differ in seed or schedule end in the same valley; the middle of them is usually
//! better than each, and costs no more than one when it scores (Wortsman et al. 2022, arXiv:2203.05482). Of runs that began with
//! different weights it is worth nothing: measure before use.

use std::path::Path;

use tch::Device;

use crate::checkpoint::{Checkpoint, Manifest, Origin, Precision, save};
use crate::error::ModelError;
use crate::start::commit;

/// Writes the mean of two or more checkpoints to a folder. Its heads have no temperature: fit them anew.
///
/// # Errors
/// When there are fewer than two, one cannot be read, or they differ in structure, labels or tokenizer.
pub fn average(dirs: &[&Path], to: &Path, precision: Precision) -> Result<Manifest, ModelError> {
    let [first, others @ ..] = dirs else {
        return Err(ModelError::Config("an average needs at least two models".to_owned()));
    };
    if others.is_empty() {
        return Err(ModelError::Config("an average needs at least two models".to_owned()));
    }
    let mut model = Checkpoint::open(first)?;
    for head in &mut model.config.heads {
        head.temperature = 1.0;
    }
    let mean = model.load(Device::Cpu)?;
    for (seen, dir) in (1_i64..).zip(others) {
        let other = Checkpoint::open(dir)?;
        check_alike(&model, &other, (first, dir))?;
        let weights = other.load(Device::Cpu)?.store.variables();
        for (name, mut variable) in mean.store.variables() {
            // The running mean: it stays near the weights, where a sum would grow and be rounded more.
            let share = 1.0 / (seen + 1) as f64;
            tch::no_grad(|| variable.f_lerp_(&weights[&name], share).map(drop))?;
        }
    }
    let origin = Origin {
        commit: commit(),
        metrics: Default::default(), // those of the parts are not those of the mean
        ..model.manifest.origin
    };
    save(to, &model.config, &model.tokenizer, (&mean, precision), origin)
}

fn check_alike(one: &Checkpoint, other: &Checkpoint, (first, dir): (&Path, &Path)) -> Result<(), ModelError> {
    let heads = |model: &Checkpoint| {
        let pair = |head: &crate::scores::Head| (head.name.clone(), head.labels.clone());
        model.config.heads.iter().map(pair).collect::<Vec<_>>()
    };
    let tokenizers = |model: &Checkpoint| model.manifest.files.get("tokenizer.json").cloned();
    let differs = if one.config.encoder != other.config.encoder {
        "structure"
    } else if heads(one) != heads(other) {
        "heads or labels"
    } else if tokenizers(one) != tokenizers(other) || one.config.prepare != other.config.prepare {
        "tokenizer"
    } else {
        return Ok(());
    };
    Err(ModelError::Config(format!(
        "`{}` and `{}` differ in their {differs}: only runs from one start have a mean",
        first.display(),
        dir.display()
    )))
}
