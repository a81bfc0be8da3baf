//! How batches share a processor: each lane works on batches of its own, with weights that are shared.
//!
//! libtorch would rather split every operation over the cores. Its threads then wait for each other a thousand times per batch, and
//! OpenMP waits by spinning: when anything else wants the cores, the spinning takes the very time that the other half of the
//! operation needs. An accelerator has one lane, the owner's thread.
//!
//! Architecture invariant: a lane's network is touched by one thread at a time; lanes share the weights' memory and never write it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use tch::{Device, Tensor};

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::eval::cores;
use crate::network::Network;
use crate::rescue::Logits;

/// A lane costs memory for its batch; with more cores than this, each lane has several.
const MOST_LANES: usize = 8;

/// Batches per lane that are handed out at once: lanes that are done early take what is left.
const BATCHES_PER_LANE: usize = 4;

/// The lanes of one model.
pub(crate) struct Lanes {
    pool: Option<rayon::ThreadPool>, // none: the owner's thread alone
    networks: Vec<Mutex<Lane>>,      // one per thread of the pool
    config: ModelConfig,
    padding_id: u32,
}

/// A lane's network is made when the lane first gets work: a single post needs none.
enum Lane {
    Waiting(HashMap<String, Tensor>),
    Ready(Network),
}

impl Lanes {
    /// Lanes for `network`, which has `config`, on `threads` processor threads; as many as there are cores unless given.
    pub(crate) fn new(network: &Network, config: &ModelConfig, threads: Option<usize>) -> Result<Self, ModelError> {
        if let Some(threads) = threads {
            tch::set_num_threads(threads.try_into().unwrap_or(i32::MAX));
        }
        let threads = threads.unwrap_or_else(cores);
        let count = match network.store.device() {
            Device::Cpu => threads.min(MOST_LANES),
            _ => 1,
        };
        let pool = (count > 1).then(|| pool(count, threads / count)).transpose()?;
        let weights = || {
            let shared = network.store.variables().into_iter();
            Mutex::new(Lane::Waiting(
                shared.map(|(name, weight)| (name, weight.detach())).collect(),
            ))
        };
        Ok(Lanes {
            networks: if pool.is_some() {
                (0..count).map(|_| weights()).collect()
            } else {
                Vec::new()
            },
            pool,
            config: config.clone(),
            padding_id: network.padding_id(),
        })
    }

    /// What one batch may hold when all lanes together may hold `tokens`: memory is that of one large batch.
    pub(crate) fn share_of(&self, tokens: usize) -> usize {
        (tokens / self.networks.len().max(1)).max(1)
    }

    /// Batches to hand out at once.
    pub(crate) fn at_once(&self) -> usize {
        (BATCHES_PER_LANE * self.networks.len()).max(1)
    }

    /// One pass per batch, in the order of the batches. A batch that is alone has all threads.
    pub(crate) fn logits(&self, network: &Network, batches: &[Vec<&[u32]>]) -> Vec<Logits> {
        match &self.pool {
            Some(pool) if batches.len() > 1 => pool.install(|| {
                let lanes = batches.par_iter().with_max_len(1);
                lanes.map(|rows| self.pass(rows)).collect()
            }),
            _ => batches.iter().map(|rows| network.logits(rows)).collect(),
        }
    }

    /// A pass on the lane of the thread that asks.
    fn pass(&self, rows: &[&[u32]]) -> Logits {
        let lane = rayon::current_thread_index().unwrap_or(0) % self.networks.len();
        let mut lane = self.networks[lane].lock().unwrap_or_else(PoisonError::into_inner);
        if let Lane::Waiting(weights) = &*lane {
            *lane = Lane::Ready(Network::sharing(&self.config, self.padding_id, weights)?);
        }
        match &*lane {
            Lane::Ready(network) => network.logits(rows),
            Lane::Waiting(_) => Err(ModelError::Config("a lane was not made ready".to_owned())),
        }
    }
}

/// `count` threads, in each of which libtorch uses `inside` threads.
fn pool(count: usize, inside: usize) -> Result<rayon::ThreadPool, ModelError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(count)
        .thread_name(|lane| format!("tamiz-lane-{lane}"))
        .build()
        .map_err(|error| {
            ModelError::Config(format!(
                "cannot start the model's threads ({error}): raise the thread limit"
            ))
        })?;
    // libtorch keeps the number per thread, and one more for threads to come. A thread takes that one over when it first asks, so
    // each asks here, and then the number of the others is put back.
    let others = tch::get_num_threads();
    pool.broadcast(|_| {
        tch::set_num_threads(inside.max(1).try_into().unwrap_or(i32::MAX));
        tch::get_num_threads()
    });
    tch::set_num_threads(others);
    Ok(pool)
}
