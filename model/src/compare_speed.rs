//! Speed and memory of networks at given text lengths, measured in turns in one process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::error::ModelError;
use crate::network::Network;
use crate::train_config::TrainConfig;

/// Every network is measured this often; the median counts.
const ROUNDS: usize = 5;

/// A measurement goes on for at least this long.
const MEASURE: Duration = Duration::from_millis(700);

/// Padded tokens per pass, as in serving.
const BATCH_TOKENS: usize = 4096;

/// Speed at one length.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LengthSpeed {
    /// Tokens per text.
    pub tokens: usize,
    /// Texts per second in the model, without tokenization: the median of the rounds.
    pub texts_per_second: f64,
    /// The slowest round.
    pub slowest: f64,
    /// The fastest round.
    pub fastest: f64,
}

/// Memory of a network, in MiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Its weights, at 32 bits.
    pub weights_mib: f64,
    /// What the process grew by at its peak while scoring the longest texts; `None` where the system does not tell.
    pub scoring_mib: Option<f64>,
}

/// Measures checkpoints at lengths; a length that a network cannot read is left out of its list.
pub(crate) fn measure(
    folders: &[PathBuf],
    lengths: &[usize],
    run: &TrainConfig,
) -> Result<Vec<(Vec<LengthSpeed>, Memory)>, ModelError> {
    if let Some(threads) = run.threads {
        tch::set_num_threads(threads.try_into().unwrap_or(i32::MAX));
    }
    let device = run.device.resolve()?;
    let mut subjects = Vec::new();
    for folder in folders {
        let checkpoint = Checkpoint::open(folder)?;
        let encoder = &checkpoint.config.encoder;
        subjects.push(Subject {
            network: checkpoint.load(device)?,
            vocabulary: encoder.vocabulary as u32,
            lengths: lengths
                .iter()
                .copied()
                .filter(|&length| length <= encoder.max_tokens)
                .collect(),
            rounds: BTreeMap::new(),
        });
    }
    for _ in 0..ROUNDS {
        for subject in &mut subjects {
            for length in subject.lengths.clone() {
                let speed = subject.texts_per_second(length)?;
                subject.rounds.entry(length).or_default().push(speed);
            }
        }
    }
    subjects
        .iter()
        .map(|subject| Ok((subject.speeds(), subject.memory()?)))
        .collect()
}

/// A network under measurement.
struct Subject {
    network: Network,
    vocabulary: u32,
    lengths: Vec<usize>,
    rounds: BTreeMap<usize, Vec<f64>>, // length to texts per second
}

impl Subject {
    fn speeds(&self) -> Vec<LengthSpeed> {
        let one = |(&tokens, rounds): (&usize, &Vec<f64>)| {
            let mut rounds = rounds.clone();
            rounds.sort_by(f64::total_cmp);
            LengthSpeed {
                tokens,
                texts_per_second: rounds[rounds.len() / 2],
                slowest: rounds[0],
                fastest: rounds[rounds.len() - 1],
            }
        };
        self.rounds.iter().map(one).collect()
    }

    fn texts(&self, length: usize) -> Vec<Vec<u32>> {
        let mut random = StdRng::seed_from_u64(length as u64);
        let rows = (BATCH_TOKENS / length.max(1)).max(1);
        (0..rows)
            .map(|_| (0..length).map(|_| random.random_range(0..self.vocabulary)).collect())
            .collect()
    }

    fn texts_per_second(&self, length: usize) -> Result<f64, ModelError> {
        let rows = self.texts(length);
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        self.network.logits(&rows)?; // fills caches; not measured
        let (started, mut scored) = (Instant::now(), 0);
        while started.elapsed() < MEASURE {
            self.network.logits(&rows)?;
            scored += rows.len();
        }
        Ok(scored as f64 / started.elapsed().as_secs_f64())
    }

    fn memory(&self) -> Result<Memory, ModelError> {
        let weights_mib = self.network.parameters() as f64 * 4.0 / MIB;
        // SAFETY: malloc_trim gives freed memory back to the system and touches nothing in use.
        unsafe { libc::malloc_trim(0) };
        let (before, resets) = (resident("VmRSS:"), std::fs::write("/proc/self/clear_refs", "5").is_ok());
        if let Some(&length) = self.lengths.iter().max() {
            let rows = self.texts(length);
            self.network
                .logits(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        }
        let peak = resident("VmHWM:");
        let grew = |before: f64, peak: f64| (peak - before).max(0.0);
        Ok(Memory {
            weights_mib,
            scoring_mib: before
                .zip(peak)
                .filter(|_| resets)
                .map(|(before, peak)| grew(before, peak)),
        })
    }
}

const MIB: f64 = 1024.0 * 1024.0;

/// A line of `/proc/self/status`, in MiB.
fn resident(field: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1024.0)
}

/// The processor's name and the number of its cores.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |name| name.trim_start_matches([' ', '\t', ':']));
    format!("{name}, {cores} cores")
}
