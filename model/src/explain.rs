//! Which tokens a label rests on: weights by gradients, and where attention looked beside them.
//!
//! The weight of a token is its share in the log-odds of the label, found by integrated gradients (Sundararajan et al. 2017,
//! arXiv:1703.01365) from a text of hidden tokens to the text itself, or by gradient × input, which is one step of it and three
//! times as fast. Attention rollout (Abnar & Zuidema 2020, arXiv:2005.00928) says how much of each token's vector arrives in the
//! vector of the text; it is the same for every label, and is no explanation of one. [`crate::faithfulness`] measures both.

use arrow::array::{Array, StringArray};
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::batching::pad;
use crate::error::{ModelError, guard};
use crate::eval::Probe;
use crate::network::Network;
use crate::scorer::Scorer;
use crate::scores::{Head, best_of, softmax};
use crate::tokenizer::{HIDDEN, Tokenizer};
use crate::trace::Trace;
use crate::transformer::{Mode, TokenBatch};

/// How token weights are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Gradients averaged over steps from a text of hidden tokens to the text; the weights sum to the difference in log-odds.
    #[default]
    IntegratedGradients,
    /// The gradient at the text itself.
    GradientTimesInput,
}

/// Points between the hidden text and the text: enough that the weights' sum is right to about one in a hundred.
const STEPS: i64 = 24;

/// What stood in the way of a label and what spoke for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The head.
    pub head: String,
    /// The label that is explained: the likeliest.
    pub label: String,
    /// Its probability.
    pub probability: f32,
    /// How the weights were computed.
    pub method: Method,
    /// Log-odds of the label for the text.
    pub log_odds: f32,
    /// Log-odds of the label when all tokens are hidden: where the weights start from.
    pub log_odds_hidden: f32,
    /// The tokens that the model read.
    pub tokens: Vec<TokenWeight>,
    /// Whether the text was longer than that.
    pub truncated: bool,
}

/// One token and what it did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenWeight {
    /// The token as the tokenizer spells it.
    pub token: String,
    /// Whether it is a mark of the model's own, such as `[CLS]`.
    pub marker: bool,
    /// What it adds to the log-odds of the label; below zero it speaks against it.
    pub weight: f32,
    /// Its share in what attention brought to the vector of the text; they sum to one. `None` for networks without attention.
    pub rollout: Option<f32>,
}

impl Probe {
    /// Explains one head's likeliest label, text by text; `None` for NULL.
    ///
    /// # Errors
    /// When the model has no such head, or tokenization or a pass fails.
    pub fn explain(
        &self,
        texts: &StringArray,
        head: &str,
        method: Method,
    ) -> Result<Vec<Option<Explanation>>, ModelError> {
        let place = self.checkpoint().head_index(head)?;
        let head = &self.checkpoint().config.heads[place];
        let tokenizer = &self.checkpoint().tokenizer;
        let encoded = tokenizer.encode(texts)?;
        (0..texts.len())
            .map(|row| {
                if texts.is_null(row) {
                    return Ok(None);
                }
                let reading = Reading::new(tokenizer, encoded.row(row));
                let weights = weigh(self.network(), &reading, (place, head.temperature), method)?;
                Ok(Some(weights.tell(head, &reading, encoded.truncated(row))))
            })
            .collect()
    }
}

impl Scorer {
    /// Explains one head's likeliest label, text by text, by integrated gradients, on the model's own thread; `None` for NULL.
    /// Costs about fifty times a score; texts of other callers are scored between two texts of this one.
    ///
    /// # Errors
    /// When the model has no such head, or tokenization or a pass fails.
    pub fn explain_blocking(&self, texts: &StringArray, head: &str) -> Result<Vec<Option<Explanation>>, ModelError> {
        let heads = &self.identity().heads;
        let place = heads.iter().position(|known| known.name == head);
        let place = place.ok_or_else(|| ModelError::UnknownHead {
            head: head.to_owned(),
            known: heads
                .iter()
                .map(|head| head.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        })?;
        let head = heads[place].clone();
        let encoded = self.tokenizer().encode(texts)?;
        (0..texts.len())
            .map(|row| {
                if texts.is_null(row) {
                    return Ok(None);
                }
                let reading = Reading::new(self.tokenizer(), encoded.row(row));
                let (temperature, asked) = (head.temperature, reading.clone());
                let weights =
                    self.ask(move |network| weigh(network, &asked, (place, temperature), Method::default()))??;
                Ok(Some(weights.tell(&head, &reading, encoded.truncated(row))))
            })
            .collect()
    }
}

/// A text as the model reads it, and the same with everything hidden but the marks.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) ids: Vec<u32>,
    tokens: Vec<String>,
    pub(crate) markers: Vec<bool>,
    hidden: Vec<u32>,
}

impl Reading {
    pub(crate) fn new(tokenizer: &Tokenizer, ids: &[u32]) -> Self {
        let tokens: Vec<String> = ids.iter().map(|&id| tokenizer.token(id)).collect();
        let markers: Vec<bool> = tokens
            .iter()
            .map(|token| matches!(token.as_str(), "[CLS]" | "[SEP]" | "[PAD]" | "<s>" | "</s>" | "<pad>"))
            .collect();
        let hide = tokenizer.id_of(HIDDEN).or_else(|| tokenizer.id_of("<mask>"));
        let hide = hide.unwrap_or_else(|| tokenizer.padding_id());
        let hidden = (ids.iter().zip(&markers))
            .map(|(&id, &marker)| if marker { id } else { hide })
            .collect();
        Reading {
            ids: ids.to_vec(),
            tokens,
            markers,
            hidden,
        }
    }
}

/// What [`weigh`] finds, before it is put into words.
#[derive(Debug)]
pub(crate) struct Weights {
    label: usize,
    probability: f32,
    method: Method,
    log_odds: f32,
    log_odds_hidden: f32,
    pub(crate) weights: Vec<f32>,
    pub(crate) rollout: Option<Vec<f32>>,
}

impl Weights {
    fn tell(self, head: &Head, reading: &Reading, truncated: bool) -> Explanation {
        let tokens = (0..reading.ids.len()).map(|place| TokenWeight {
            token: reading.tokens[place].clone(),
            marker: reading.markers[place],
            weight: self.weights[place],
            rollout: self.rollout.as_ref().map(|rollout| rollout[place]),
        });
        Explanation {
            head: head.name.clone(),
            label: head.labels[self.label].clone(),
            probability: self.probability,
            method: self.method,
            log_odds: self.log_odds,
            log_odds_hidden: self.log_odds_hidden,
            tokens: tokens.collect(),
            truncated,
        }
    }
}

/// Weighs the tokens of one text for the likeliest label of a head (its place and temperature).
pub(crate) fn weigh(
    network: &Network,
    reading: &Reading,
    (head, temperature): (usize, f32),
    method: Method,
) -> Result<Weights, ModelError> {
    let (text, attention, logits) = look(network, &reading.ids, head)?;
    let (hidden, _, hidden_logits) = look(network, &reading.hidden, head)?;
    let mut probabilities = logits.clone();
    softmax(&mut probabilities, temperature);
    let (label, probability) = best_of(&probabilities);
    guard("explaining a text", || {
        let weights = match method {
            Method::IntegratedGradients => {
                let way = &text - &hidden; // (1, t, d)
                let like = (text.kind(), text.device());
                let shares = (Tensor::arange(STEPS, like) + 0.5) / STEPS as f64; // (s)
                let points = &hidden + shares.view([STEPS, 1, 1]) * &way; // (s, t, d)
                let slopes = gradients(network, &reading.ids, &points, (head, label)); // (s, t, d)
                (slopes.mean_dim([0_i64].as_slice(), true, None) * way).sum_dim_intlist([2_i64].as_slice(), false, None)
            }
            Method::GradientTimesInput => {
                let slopes = gradients(network, &reading.ids, &text, (head, label)); // (1, t, d)
                (slopes * &text).sum_dim_intlist([2_i64].as_slice(), false, None)
            }
        }; // (1, t)
        Weights {
            label,
            probability,
            method,
            log_odds: log_odds(&logits, label),
            log_odds_hidden: log_odds(&hidden_logits, label),
            weights: floats(&weights),
            rollout: rollout(network, &attention).map(|shares| floats(&shares)),
        }
    })
}

/// Token vectors, attention weights and the logits of a head, in one pass without gradients.
fn look(network: &Network, ids: &[u32], head: usize) -> Result<(Tensor, Vec<Tensor>, Vec<f32>), ModelError> {
    let _no_gradients = tch::no_grad_guard();
    let batch = pad(&[ids], 0, network.store.device())?;
    let trace = Trace::default();
    let logits = guard("looking at a text", || {
        floats(&network.classifier.forward(&batch, Mode::Observe(&trace))[head])
    })?;
    let vectors = trace
        .token_vectors()
        .ok_or_else(|| ModelError::Config("this network has no token vectors to explain by".to_owned()))?;
    Ok((vectors, trace.attention(), logits))
}

/// The gradient of the label's log-odds with respect to token vectors put in the place of the text's own. `(s, t, d)`
fn gradients(network: &Network, ids: &[u32], vectors: &Tensor, (head, label): (usize, usize)) -> Tensor {
    let vectors = vectors.detach().set_requires_grad(true); // (s, t, d)
    let row: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    let batch = TokenBatch {
        ids: Tensor::from_slice(&row)
            .to_device(vectors.device())
            .expand([vectors.size()[0], row.len() as i64], false),
        padding: None,
    };
    let trace = Trace::with_vectors(vectors.shallow_clone());
    let logits = &network.classifier.forward(&batch, Mode::Observe(&trace))[head]; // (s, l)
    let others: Vec<i64> = (0..logits.size()[1]).filter(|&place| place != label as i64).collect();
    let others = logits.index_select(1, &Tensor::from_slice(&others).to_device(logits.device())); // (s, l - 1)
    let odds = logits.select(1, label as i64) - others.logsumexp([1_i64].as_slice(), false); // (s)
    Tensor::run_backward(&[odds.sum(odds.kind())], &[&vectors], false, false).swap_remove(0)
}

/// ln(p / (1 - p)) of a label, from logits.
fn log_odds(logits: &[f32], label: usize) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let others: f32 = (logits.iter().enumerate())
        .filter(|&(place, _)| place != label)
        .map(|(_, logit)| (logit - max).exp())
        .sum();
    logits[label] - max - others.ln()
}

/// Attention followed through the blocks: each passes on half of what it got (the residual) and half of what its heads, on average,
/// took from others. `(1, t)`
fn rollout(network: &Network, attention: &[Tensor]) -> Option<Tensor> {
    let transformer = network.classifier.transformer()?;
    let mut flow: Option<Tensor> = None;
    for weights in attention {
        let heads = weights.mean_dim([1_i64].as_slice(), false, None); // (1, t, t)
        let step = (&heads + Tensor::eye(heads.size()[1], (heads.kind(), heads.device()))) / 2.0; // (1, t, t)
        flow = Some(match flow {
            None => step,
            Some(flow) => step.matmul(&flow),
        });
    }
    let flow = flow?;
    Some(if transformer.reads_first_token() {
        flow.select(1, 0)
    } else {
        flow.mean_dim([1_i64].as_slice(), false, None)
    })
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor
        .detach()
        .to_kind(Kind::Float)
        .to_device(tch::Device::Cpu)
        .contiguous();
    let mut out = vec![0.0_f32; flat.numel()];
    flat.copy_data(&mut out, flat.numel());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;
    use crate::testing::{tiny_config, tiny_heads};
    use tch::Device;

    fn network(architecture: Architecture) -> Network {
        let mut config = tiny_config(50, &tiny_heads());
        config.encoder.architecture = architecture;
        let network = Network::new(&config, 0, Device::Cpu, 3).unwrap();
        tch::no_grad(|| {
            let mut random = network.store.trainable_variables();
            random.iter_mut().for_each(|weight| drop(weight.uniform_(-0.4, 0.4)));
        });
        network
    }

    fn reading() -> Reading {
        Reading {
            ids: vec![2, 7, 9, 7, 11],
            tokens: vec![String::new(); 5],
            markers: vec![true, false, false, false, false],
            hidden: vec![2, 3, 3, 3, 3],
        }
    }

    #[test]
    fn integrated_gradients_sum_to_the_change_in_log_odds() {
        let linear = Architecture::Ngrams { longest: 1, buckets: 8 };
        let bilstm = Architecture::Bilstm { width: 5, layers: 1 };
        for architecture in [Architecture::Transformer, bilstm, linear] {
            let network = network(architecture.clone());
            let found = weigh(&network, &reading(), (1, 1.0), Method::IntegratedGradients).unwrap();
            let (sum, change): (f32, f32) = (found.weights.iter().sum(), found.log_odds - found.log_odds_hidden);
            assert!(
                (sum - change).abs() < 0.02 + 0.02 * change.abs(),
                "{architecture:?}: {sum} for {change}"
            );
            assert!(
                found.weights[0].abs() < 1e-6,
                "a mark that both texts have has no weight"
            );
        }
    }

    #[test]
    fn rollout_is_a_share_and_explaining_leaves_no_gradients() {
        let network = network(Architecture::Transformer);
        for method in [Method::IntegratedGradients, Method::GradientTimesInput] {
            let found = weigh(&network, &reading(), (0, 1.0), method).unwrap();
            let rollout = found.rollout.unwrap();
            assert!((rollout.iter().sum::<f32>() - 1.0).abs() < 1e-5 && rollout.iter().all(|share| *share >= 0.0));
            assert_eq!(found.weights.len(), 5);
        }
        assert!(
            network
                .store
                .trainable_variables()
                .iter()
                .all(|weight| !weight.grad().defined())
        );
    }

    #[test]
    fn log_odds_are_those_of_the_softmax() {
        let logits = [0.3_f32, -1.0, 2.0];
        let mut p = logits;
        softmax(&mut p, 1.0);
        assert!((log_odds(&logits, 2) - (p[2] / (1.0 - p[2])).ln()).abs() < 1e-5);
    }
}
