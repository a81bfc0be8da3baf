//! What a batch teaches: its loss, the gradients, and the step that follows.

use std::collections::{BTreeMap, HashMap};

use tch::{Device, Kind, Reduction, Tensor};

use crate::batching::pad;
use crate::config::ModelConfig;
use crate::error::{ModelError, guard};
use crate::feed::{Batch, Hidden, TrainingSet};
use crate::heads::MaskedHead;
use crate::network::Network;
use crate::optimizer::AdamW;
use crate::train_config::{OptimizerConfig, Task, TrainConfig};
use crate::transformer::{Mode, TokenBatch};

/// A network that is being trained.
pub(crate) struct Learner {
    /// The weights as they are kept, in 32 bits.
    pub(crate) network: Network,
    /// The 16-bit copy that computes, where there is one.
    half: Option<Network>,
    masked: Option<MaskedHead>, // of the network that computes
    optimizer: AdamW,
    config: OptimizerConfig,
    batches: usize, // per step
}

impl Learner {
    /// Fresh weights, but for those that `start` has.
    pub(crate) fn new(
        config: &TrainConfig,
        model: &ModelConfig,
        padding_id: u32,
        start: Option<&Network>,
    ) -> Result<Self, ModelError> {
        let device = config.device.resolve()?;
        let make = || -> Result<(Network, Option<MaskedHead>), ModelError> {
            let network = Network::new(model, padding_id, device, config.seed)?;
            let masked = (config.task == Task::Mlm).then(|| {
                guard("making the model", || {
                    MaskedHead::new(&(network.store.root() / "mlm"), &model.encoder)
                })
            });
            Ok((network, masked.transpose()?))
        };
        let (mut network, mut masked) = make()?;
        if let Some(start) = start {
            network.adopt(start)?;
        }
        let mut half = None;
        if config.optimizer.bf16 {
            let (mut copy, copy_masked) = make()?;
            copy.store.bfloat16();
            copy.copy_from(&network)?;
            (half, masked) = (Some(copy), copy_masked);
        }
        let computing = half.as_ref().unwrap_or(&network);
        let optimizer = AdamW::new(
            &network.store,
            &computing.store,
            &config.optimizer,
            model.encoder.layers,
        )?;
        Ok(Learner {
            network,
            half,
            masked,
            optimizer,
            config: config.optimizer.clone(),
            batches: config.schedule.accumulate,
        })
    }

    fn computing(&self) -> &Network {
        self.half.as_ref().unwrap_or(&self.network)
    }

    /// Adds a batch's gradients to those that wait for the next step; returns its loss.
    pub(crate) fn add(&self, batch: &Batch, set: &TrainingSet) -> Result<f64, ModelError> {
        let network = self.computing();
        let device = network.store.device();
        let rows: Vec<&[u32]> = batch.rows.iter().map(Vec::as_slice).collect();
        let tokens = pad(&rows, network.padding_id(), device)?;
        let loss = guard("taking a training step", || {
            let loss = match &self.masked {
                Some(head) => self
                    .masked_logits(head, &tokens, (&batch.hidden, Mode::Train))
                    .map(|logits| {
                        logits.cross_entropy_for_logits(&truth(&batch.hidden, device)) // mean over hidden tokens
                    }),
                None => {
                    let logits = network.classifier.forward(&tokens, Mode::Train);
                    set.lesson.loss(&batch.places, &logits, self.config.label_smoothing)
                }
            }?;
            (&loss / self.batches as f64).backward();
            Some(loss.to_kind(Kind::Double).double_value(&[]))
        })?;
        let loss = loss.unwrap_or(0.0); // nothing was hidden in a batch of very short texts
        if !loss.is_finite() {
            return Err(ModelError::Config(format!(
                "the loss became {loss}: lower learning_rate or raise warmup_steps"
            )));
        }
        Ok(loss)
    }

    /// The logits of hidden tokens, `(n, vocabulary)`; `None` where there are none.
    fn masked_logits(
        &self,
        head: &MaskedHead,
        tokens: &TokenBatch,
        (hidden, mode): (&[Hidden], Mode),
    ) -> Option<Tensor> {
        let transformer = self
            .computing()
            .classifier
            .transformer()
            .filter(|_| !hidden.is_empty())?;
        let width = tokens.ids.size()[1];
        let places: Vec<i64> = hidden
            .iter()
            .map(|hidden| hidden.row as i64 * width + hidden.place as i64)
            .collect();
        let places = Tensor::from_slice(&places).to_device(tokens.ids.device()); // (n)
        let vectors = transformer.encode(tokens, mode).flatten(0, 1).index_select(0, &places); // (n, d)
        Some(head.forward(&vectors, transformer.token_vectors()))
    }

    /// The loss and the number of hidden tokens that were found, of one batch.
    pub(crate) fn check_hidden(&self, rows: &[&[u32]], hidden: &[Hidden]) -> Result<(f64, usize), ModelError> {
        let network = self.computing();
        let device = network.store.device();
        let tokens = pad(rows, network.padding_id(), device)?;
        let _no_gradients = tch::no_grad_guard();
        guard("looking at hidden tokens", || {
            let head = self.masked.as_ref()?;
            let logits = self.masked_logits(head, &tokens, (hidden, Mode::Infer))?; // (n, vocabulary)
            let truth = truth(hidden, device);
            let loss = logits.cross_entropy_loss::<Tensor>(&truth, None, Reduction::Sum, -100, 0.0);
            let found = logits.argmax(-1, false).eq_tensor(&truth).sum(Kind::Int64);
            Some((loss.double_value(&[]), found.int64_value(&[]) as usize))
        })
        .map(|checked| checked.unwrap_or((0.0, 0)))
    }

    /// Moves the weights along the gathered gradients.
    pub(crate) fn step(&mut self, learning_rate: f64) -> Result<(), ModelError> {
        Ok(self.optimizer.step(learning_rate)?)
    }

    /// What has to be kept to go on later.
    pub(crate) fn state(&self) -> (Vec<(String, Tensor)>, BTreeMap<String, i64>) {
        self.optimizer.state()
    }

    /// Puts back what [`Learner::state`] gave.
    pub(crate) fn restore(
        &mut self,
        tensors: &HashMap<String, Tensor>,
        steps: &BTreeMap<String, i64>,
    ) -> Result<(), String> {
        self.optimizer.restore(tensors, steps)
    }
}

/// The tokens that were hidden. `(n)`
fn truth(hidden: &[Hidden], device: Device) -> Tensor {
    let ids: Vec<i64> = hidden.iter().map(|hidden| i64::from(hidden.id)).collect();
    Tensor::from_slice(&ids).to_device(device)
}
