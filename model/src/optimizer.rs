//! AdamW with a learning rate per layer, and with its state in our hands, so that a run can go on exactly where it stopped.
//!
//! Loshchilov & Hutter 2019, arXiv:1711.05101: every weight moves along the running mean of its gradients, divided by the root of the
//! running mean of their squares, and is pulled towards zero apart from that.

use std::collections::{BTreeMap, HashMap};

use tch::nn::VarStore;
use tch::{Kind, TchError, Tensor};

use crate::train_config::{OptimizerConfig, ScheduleConfig};

/// Memory of the mean of gradients.
const BETA1: f64 = 0.9;

/// Memory of the mean of their squares. Shorter than the usual 0.999: runs are of thousands of steps, and the batches differ.
const BETA2: f64 = 0.98;

/// Added to the root, against division by zero.
const EPSILON: f64 = 1e-8;

/// Weights that are worked on together: four such pieces fit into a core's cache, so that each is fetched from memory once a step.
const PIECE: i64 = 1 << 17;

/// The optimiser over all weights of a network.
#[derive(Debug)]
pub(crate) struct AdamW {
    slots: Vec<Slot>,
    clip_norm: f64,
}

/// One weight and what is remembered about it.
#[derive(Debug)]
struct Slot {
    name: String,
    /// What is moved, in 32 bits.
    weight: Tensor,
    /// What computes and gathers gradients: the same tensor, or its 16-bit copy.
    computing: Tensor,
    mean: Tensor,
    square: Tensor,
    steps: i64,
    /// Share of the learning rate.
    rate: f64,
    decay: f64,
}

impl AdamW {
    /// Moves the weights of `masters` by the gradients of `computing`, which has the same names; it may be the same store.
    pub(crate) fn new(
        masters: &VarStore,
        computing: &VarStore,
        config: &OptimizerConfig,
        layers: usize,
    ) -> Result<Self, TchError> {
        let computing = computing.variables();
        let mut slots = masters
            .variables()
            .into_iter()
            .filter_map(|(name, weight)| Some((computing.get(&name)?.shallow_clone(), name, weight)))
            .map(|(computing, name, weight)| {
                Ok(Slot {
                    mean: weight.f_zeros_like()?.f_detach()?,
                    square: weight.f_zeros_like()?.f_detach()?,
                    rate: rate(&name, layers, config),
                    // Biases and norms only shift and scale: pulling them to zero would forbid what they are for.
                    decay: if weight.dim() > 1 { config.weight_decay } else { 0.0 },
                    steps: 0,
                    name,
                    weight,
                    computing,
                })
            })
            .collect::<Result<Vec<_>, TchError>>()?;
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(AdamW {
            slots,
            clip_norm: config.clip_norm,
        })
    }

    /// One step along the gathered gradients, which are then cleared. A head that gathered none stays where it is.
    pub(crate) fn step(&mut self, learning_rate: f64) -> Result<(), TchError> {
        let _no_gradients = tch::no_grad_guard();
        let mut moved: Vec<(&mut Slot, Tensor)> = Vec::with_capacity(self.slots.len());
        let mut norm = 0.0;
        for slot in &mut self.slots {
            let gradient = slot.computing.f_grad()?;
            if !gradient.defined() {
                continue;
            }
            let length = gradient.f_to_kind(Kind::Float)?.f_norm()?.double_value(&[]);
            if length > 0.0 {
                norm += length * length;
                moved.push((slot, gradient));
            }
        }
        let norm = norm.sqrt();
        let shrink = if norm > self.clip_norm {
            self.clip_norm / norm
        } else {
            1.0
        };
        for (slot, mut gradient) in moved {
            slot.apply(&gradient, shrink, learning_rate)?;
            let _ = gradient.f_zero_()?;
        }
        Ok(())
    }

    /// What has to be kept to go on later: tensors and, per weight, its number of steps.
    pub(crate) fn state(&self) -> (Vec<(String, Tensor)>, BTreeMap<String, i64>) {
        let tensors = self.slots.iter().flat_map(|slot| {
            [("weight", &slot.weight), ("mean", &slot.mean), ("square", &slot.square)]
                .map(|(kind, tensor)| (format!("{kind}.{}", slot.name), tensor.detach()))
        });
        let steps = self.slots.iter().map(|slot| (slot.name.clone(), slot.steps));
        (tensors.collect(), steps.collect())
    }

    /// Puts back what [`AdamW::state`] gave; says which tensor is missing or has another shape.
    pub(crate) fn restore(
        &mut self,
        tensors: &HashMap<String, Tensor>,
        steps: &BTreeMap<String, i64>,
    ) -> Result<(), String> {
        let _no_gradients = tch::no_grad_guard();
        for slot in &mut self.slots {
            for (kind, tensor) in [
                ("weight", &mut slot.weight),
                ("mean", &mut slot.mean),
                ("square", &mut slot.square),
            ] {
                let name = format!("{kind}.{}", slot.name);
                let saved = tensors.get(&name).filter(|saved| saved.size() == tensor.size());
                let saved = saved.ok_or_else(|| format!("tensor `{name}` is missing or has another shape"))?;
                tensor.f_copy_(saved).map_err(|error| error.to_string())?;
            }
            slot.computing
                .f_copy_(&slot.weight)
                .map_err(|error| error.to_string())?;
            slot.steps = *steps
                .get(&slot.name)
                .ok_or_else(|| format!("the number of steps of `{}` is missing", slot.name))?;
        }
        Ok(())
    }
}

impl Slot {
    fn apply(&mut self, gradient: &Tensor, shrink: f64, learning_rate: f64) -> Result<(), TchError> {
        self.steps += 1;
        let rate = learning_rate * self.rate;
        // Both means start at zero; the first steps would be too small without this.
        let (mean_share, square_share) = (1.0 - BETA1.powf(self.steps as f64), 1.0 - BETA2.powf(self.steps as f64));
        let whole = [&self.weight, gradient, &self.mean, &self.square].map(|tensor| tensor.f_view([-1]));
        let [weight, gradient, mean, square] = whole;
        let (weight, gradient, mean, square) = (weight?, gradient?, mean?, square?);
        let length = weight.size()[0];
        for start in (0..length).step_by(PIECE as usize) {
            let piece = |tensor: &Tensor| tensor.f_narrow(0, start, PIECE.min(length - start));
            let gradient = piece(&gradient)?.f_to_kind(Kind::Float)?;
            let (mut weight, mut mean, mut square) = (piece(&weight)?, piece(&mean)?, piece(&square)?);
            let _ = mean
                .f_mul_scalar_(BETA1)?
                .f_add_(&gradient.f_mul_scalar(shrink * (1.0 - BETA1))?)?;
            let scaled = gradient.f_mul_scalar(shrink * (1.0 - BETA2).sqrt())?;
            let _ = square.f_mul_scalar_(BETA2)?.f_addcmul_(&scaled, &scaled)?;
            let root = (square.f_sqrt()?.f_mul_scalar_(square_share.powf(-0.5))?).f_add_scalar_(EPSILON)?;
            let _ = weight
                .f_mul_scalar_(1.0 - rate * self.decay)?
                .f_addcdiv_(&mean.f_mul_scalar(-rate / mean_share)?, &root)?;
        }
        if self.computing.kind() != self.weight.kind() {
            self.computing.f_copy_(&self.weight)?;
        }
        Ok(())
    }
}

/// The share of the learning rate that a weight gets: the last block all of it, every block below a share of that.
fn rate(name: &str, layers: usize, config: &OptimizerConfig) -> f64 {
    let mut parts = name.split('.');
    match (
        parts.next(),
        parts.next().and_then(|number| number.parse::<usize>().ok()),
    ) {
        (Some("embeddings"), _) => config.layer_decay.powf(layers as f64),
        (Some("blocks"), Some(block)) => config.layer_decay.powf(layers.saturating_sub(block + 1) as f64),
        (Some("heads" | "pooling"), _) => config.head_factor,
        _ => 1.0,
    }
}

/// Share of the highest learning rate at a step: a straight rise, then half a cosine down to zero.
pub(crate) fn rate_at(step: usize, schedule: &ScheduleConfig) -> f64 {
    if step < schedule.warmup_steps {
        return (step + 1) as f64 / schedule.warmup_steps as f64;
    }
    let left = schedule.steps.saturating_sub(schedule.warmup_steps).max(1);
    let done = (step - schedule.warmup_steps) as f64 / left as f64;
    0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::nn::{self, OptimizerConfig as _};
    use tch::{Device, Kind};

    fn config() -> OptimizerConfig {
        toml::from_str(
            "learning_rate = 1e-2\nweight_decay = 0.1\nclip_norm = 0.5\nlayer_decay = 0.5\nhead_factor = 3.0",
        )
        .unwrap()
    }

    #[test]
    fn lower_layers_move_less() {
        let rates = [
            "embeddings.tokens.weight",
            "blocks.0.x.weight",
            "blocks.3.x.weight",
            "final_norm.bias",
            "heads.a.bias",
        ]
        .map(|name| rate(name, 4, &config()));
        assert_eq!(rates, [0.0625, 0.125, 1.0, 1.0, 3.0]);
    }

    #[test]
    fn it_moves_as_libtorchs_own_does() {
        let store = || {
            let store = nn::VarStore::new(Device::Cpu);
            let weight = store.root().var("final", &[3, 400], nn::Init::Const(0.5));
            (store, weight)
        };
        let ((ours, our_weight), (theirs, their_weight)) = (store(), store());
        let config = config();
        let mut our_adam = AdamW::new(&ours, &ours, &config, 1).unwrap();
        let adam = nn::AdamW {
            beta2: BETA2,
            wd: 0.1,
            ..Default::default()
        };
        let mut their_adam = adam.build(&theirs, 1e-2).unwrap();
        let goal = Tensor::linspace(-1, 1, 1200, (Kind::Float, Device::Cpu)).view([3, 400]);
        let loss = |weight: &Tensor| (weight - &goal).square().sum(Kind::Float);
        for _ in 0..20 {
            loss(&our_weight).backward();
            our_adam.step(1e-2).unwrap();
            their_adam.backward_step_clip_norm(&loss(&their_weight), 0.5);
        }
        let gap = (our_weight - their_weight).abs().max().double_value(&[]);
        assert!(gap < 1e-5, "they differ by {gap}");
    }

    #[test]
    fn weights_without_a_gradient_stay_where_they_are() {
        let store = nn::VarStore::new(Device::Cpu);
        let used = store.root().var("used", &[4, 4], nn::Init::Const(1.0));
        let unused = store.root().var("unused", &[4, 4], nn::Init::Const(1.0));
        let mut adam = AdamW::new(&store, &store, &config(), 1).unwrap();
        for _ in 0..3 {
            (used.sum(Kind::Float) + unused.sum(Kind::Float) * 0.0).backward();
            adam.step(1e-2).unwrap();
        }
        assert!(used.mean(Kind::Float).double_value(&[]) < 1.0);
        assert_eq!(unused.mean(Kind::Float).double_value(&[]), 1.0);
    }
}
