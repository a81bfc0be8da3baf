//! Whether token weights tell what the model did: take the heaviest tokens out and see what the model says then.
//!
//! *Comprehensiveness* is what the label's probability loses without them (high is good), *sufficiency* what it loses when only they
//! are left (low is good); both as in DeYoung et al. 2020 (ERASER, arXiv:1911.03429), averaged over several shares of tokens, and
//! beside a random order, without which the figures mean nothing.

use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::data::{Selection, read_labelled};
use crate::device::DeviceChoice;
use crate::error::ModelError;
use crate::eval::Probe;
use crate::explain::{Method, Reading, weigh};
use crate::scores::{best_of, softmax};
use crate::stats::Estimate;

/// Shares of a text's tokens that are taken out.
const SHARES: [f64; 3] = [0.1, 0.2, 0.5];

/// Random orders per text, averaged.
const RANDOM_ORDERS: usize = 5;

/// Texts with fewer tokens are left out: there is nothing to rank.
const FEWEST_TOKENS: usize = 5;

/// What to measure on.
#[derive(Debug, Clone)]
pub struct FaithfulTask {
    /// Labelled texts; the labels only have to fit.
    pub data: PathBuf,
    /// The head.
    pub head: String,
    /// Which rows and labels.
    pub selection: Selection,
    /// Texts to draw.
    pub texts: usize,
    /// Seeds the draw and the random orders.
    pub seed: u64,
}

/// What [`faithfulness`] found.
#[derive(Debug, Clone, Serialize)]
pub struct Faithfulness {
    /// The model, as `name@sha`.
    pub model: String,
    /// The head.
    pub head: String,
    /// Texts measured on.
    pub texts: usize,
    /// Shares of tokens taken out.
    pub shares: Vec<f64>,
    /// Seed of the draw.
    pub seed: u64,
    /// Order by order; `random` is the last.
    pub orders: Vec<OrderFigures>,
}

/// How well one order of tokens does.
#[derive(Debug, Clone, Serialize)]
pub struct OrderFigures {
    /// What gave the order.
    pub order: String,
    /// Loss of probability without the heaviest tokens; higher is better.
    pub comprehensiveness: Estimate,
    /// Loss of probability with the heaviest tokens alone; lower is better.
    pub sufficiency: Estimate,
    /// Comprehensiveness less that of random orders, text by text.
    pub over_random: Estimate,
}

/// Measures token weights, attention rollout and random orders on texts of a file.
///
/// # Errors
/// When the checkpoint, the head or the file cannot be used, no text is long enough, or a pass fails.
pub fn faithfulness(dir: &Path, task: &FaithfulTask, device: DeviceChoice) -> Result<Faithfulness, ModelError> {
    let probe = Probe::open(dir, device)?;
    let head = probe.checkpoint().head_index(&task.head)?;
    let labelled = read_labelled(&task.data, &probe.checkpoint().config.heads[head], &task.selection)?;
    let tokenizer = &probe.checkpoint().tokenizer;
    let encoded = tokenizer.encode(&labelled.texts)?;
    let mut random = StdRng::seed_from_u64(task.seed);
    let mut rows: Vec<usize> = (0..encoded.len()).collect();
    rows.shuffle(&mut random);
    let readings = rows.iter().map(|&row| Reading::new(tokenizer, encoded.row(row)));
    let readings: Vec<Reading> = readings
        .filter(|reading| reading.markers.iter().filter(|&&marker| !marker).count() >= FEWEST_TOKENS)
        .take(task.texts)
        .collect();
    if readings.is_empty() {
        let reason = format!("it has no text of {FEWEST_TOKENS} tokens or more to take tokens out of");
        return Err(ModelError::malformed(&task.data, reason));
    }
    let mut found: Vec<(String, Vec<Loss>)> = Vec::new();
    for reading in &readings {
        for (order, loss) in measure(&probe, reading, head, &mut random)? {
            match found.iter_mut().find(|(name, _)| *name == order) {
                Some((_, losses)) => losses.push(loss),
                None => found.push((order, vec![loss])),
            }
        }
    }
    Ok(Faithfulness {
        model: probe.checkpoint().identity().to_string(),
        head: task.head.clone(),
        texts: readings.len(),
        shares: SHARES.to_vec(),
        seed: task.seed,
        orders: figures(&found),
    })
}

/// Comprehensiveness and sufficiency of one order on one text.
type Loss = (f64, f64);

fn figures(found: &[(String, Vec<Loss>)]) -> Vec<OrderFigures> {
    let random: Vec<f64> = found
        .iter()
        .find(|(order, _)| order == "random")
        .map(|(_, losses)| losses.iter().map(|loss| loss.0).collect())
        .unwrap_or_default();
    let of = |(order, losses): &(String, Vec<Loss>)| {
        let column = |pick: fn(&Loss) -> f64| losses.iter().map(pick).collect::<Vec<f64>>();
        let over: Vec<f64> = losses
            .iter()
            .zip(&random)
            .map(|(loss, random)| loss.0 - random)
            .collect();
        OrderFigures {
            order: order.clone(),
            comprehensiveness: Estimate::of(&column(|loss| loss.0)),
            sufficiency: Estimate::of(&column(|loss| loss.1)),
            over_random: Estimate::of(&over),
        }
    };
    found.iter().map(of).collect()
}

fn measure(
    probe: &Probe,
    reading: &Reading,
    head: usize,
    random: &mut StdRng,
) -> Result<Vec<(String, Loss)>, ModelError> {
    let network = probe.network();
    let temperature = probe.checkpoint().config.heads[head].temperature;
    let places: Vec<usize> = (0..reading.ids.len())
        .filter(|&place| !reading.markers[place])
        .collect();
    let by = |weights: &[f32]| {
        let mut order = places.clone();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
        order
    };
    let mut orders: Vec<(&str, Vec<usize>)> = Vec::new();
    let integrated = weigh(network, reading, (head, temperature), Method::IntegratedGradients)?;
    orders.push(("integrated gradients", by(&integrated.weights)));
    let gradient = weigh(network, reading, (head, temperature), Method::GradientTimesInput)?;
    orders.push(("gradient x input", by(&gradient.weights)));
    if let Some(rollout) = &integrated.rollout {
        orders.push(("attention rollout", by(rollout)));
    }
    for _ in 0..RANDOM_ORDERS {
        let mut order = places.clone();
        order.shuffle(random);
        orders.push(("random", order));
    }
    let mut rows: Vec<Vec<u32>> = vec![reading.ids.clone()];
    for (_, order) in &orders {
        for share in SHARES {
            let count = ((places.len() as f64 * share).ceil() as usize).clamp(1, places.len() - 1);
            let top = &order[..count];
            rows.push(keep(reading, |place| !top.contains(&place)));
            rows.push(keep(reading, |place| reading.markers[place] || top.contains(&place)));
        }
    }
    let probabilities = probabilities(probe, &rows, (head, temperature))?;
    let (label, whole) = best_of(&probabilities[0]);
    let loss = |row: usize| f64::from(whole - probabilities[row][label]);
    let mut losses: Vec<(String, Loss)> = Vec::new();
    for (place, (name, _)) in orders.iter().enumerate() {
        let start = 1 + place * 2 * SHARES.len();
        let mean = |offset: usize| {
            (0..SHARES.len())
                .map(|share| loss(start + 2 * share + offset))
                .sum::<f64>()
                / SHARES.len() as f64
        };
        losses.push(((*name).to_owned(), (mean(0), mean(1))));
    }
    Ok(merge_random(losses))
}

/// The random orders of a text as one, their mean.
fn merge_random(losses: Vec<(String, Loss)>) -> Vec<(String, Loss)> {
    let (random, mut others): (Vec<_>, Vec<_>) = losses.into_iter().partition(|(name, _)| name == "random");
    let count = random.len().max(1) as f64;
    let sum = random
        .iter()
        .fold((0.0, 0.0), |sum, (_, loss)| (sum.0 + loss.0, sum.1 + loss.1));
    others.push(("random".to_owned(), (sum.0 / count, sum.1 / count)));
    others
}

/// The ids at some places.
fn keep(reading: &Reading, wanted: impl Fn(usize) -> bool) -> Vec<u32> {
    let ids: Vec<u32> = (0..reading.ids.len())
        .filter(|&place| wanted(place))
        .map(|place| reading.ids[place])
        .collect();
    // A model without marks of its own still needs a token to look at.
    if ids.is_empty() { reading.ids[..1].to_vec() } else { ids }
}

fn probabilities(
    probe: &Probe,
    rows: &[Vec<u32>],
    (head, temperature): (usize, f32),
) -> Result<Vec<Vec<f32>>, ModelError> {
    let labels = probe.checkpoint().config.heads[head].labels.len();
    let ids: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let mut logits = probe.network().logits(&ids)?.swap_remove(head);
    Ok(logits
        .chunks_exact_mut(labels)
        .map(|row| {
            softmax(row, temperature);
            row.to_vec()
        })
        .collect())
}
