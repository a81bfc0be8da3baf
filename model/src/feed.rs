//! The order in which a training run sees its texts: sets by their shares, rows shuffled, batches of neighbouring lengths.
//!
//! Everything random comes from one seeded generator, so that a run can be repeated.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::batching::cut;
use crate::tokenizer::Encoded;
use crate::train_config::SetConfig;

/// Rows that are sorted by length together: many batches' worth, so that lengths match, and few enough that a batch is not
/// always made of the same rows.
const POOL_ROWS: usize = 4096;

/// A training set, tokenized.
pub(crate) struct TrainingSet {
    pub(crate) head: usize,
    pub(crate) labels: Vec<usize>,
    encoded: Encoded,
    share: f64,
    until: f64,
    /// The labels that its texts are told apart by, as places in the head's list.
    pub(crate) choices: Vec<usize>,
    /// One weight per choice.
    pub(crate) weights: Vec<f32>,
    waiting: Vec<Vec<usize>>,
}

impl TrainingSet {
    pub(crate) fn new(
        config: &SetConfig,
        head: (usize, usize),
        balance: f64,
        labels: Vec<usize>,
        encoded: Encoded,
    ) -> Self {
        let (head, label_count) = head;
        let mut counts = vec![0_usize; label_count];
        labels.iter().for_each(|&label| counts[label] += 1);
        let choices: Vec<usize> = (0..label_count)
            .filter(|&label| !config.restrict || counts[label] > 0)
            .collect();
        let occurring = counts.iter().filter(|&&count| count > 0).count().max(1);
        let even = labels.len() as f64 / occurring as f64;
        // A label as frequent as an even share has weight 1; one that never occurs is never a target.
        let weight = |label: &usize| {
            if counts[*label] == 0 {
                1.0
            } else {
                (even / counts[*label] as f64).powf(balance) as f32
            }
        };
        let weights = choices.iter().map(weight).collect();
        TrainingSet {
            head,
            labels,
            encoded,
            share: config.share,
            until: config.until,
            choices,
            weights,
            waiting: Vec::new(),
        }
    }

    pub(crate) fn tokens(&self) -> usize {
        self.encoded.tokens()
    }

    /// The next rows; the set is shuffled anew when all have been seen.
    fn next(&mut self, budget: usize, random: &mut StdRng) -> Vec<usize> {
        if self.waiting.is_empty() {
            let mut rows: Vec<usize> = (0..self.encoded.len()).collect();
            rows.shuffle(random);
            for pool in rows.chunks_mut(POOL_ROWS) {
                pool.sort_by_key(|&row| self.encoded.row(row).len());
                let lengths: Vec<usize> = pool.iter().map(|&row| self.encoded.row(row).len()).collect();
                self.waiting
                    .extend(cut(&lengths, budget).into_iter().map(|batch| pool[batch].to_vec()));
            }
            self.waiting.shuffle(random);
        }
        self.waiting.pop().unwrap_or_default()
    }
}

/// One step's texts: which set, the token ids, the labels.
pub(crate) struct Batch {
    pub(crate) set: usize,
    pub(crate) rows: Vec<Vec<u32>>,
    pub(crate) labels: Vec<usize>,
}

/// All training sets.
pub(crate) struct Feed {
    pub(crate) sets: Vec<TrainingSet>,
    batch_tokens: usize,
    token_dropout: f64,
    hidden_token: u32,
    random: StdRng,
}

impl Feed {
    pub(crate) fn new(
        sets: Vec<TrainingSet>,
        batch_tokens: usize,
        token_dropout: f64,
        hidden_token: u32,
        seed: u64,
    ) -> Self {
        Feed {
            sets,
            batch_tokens,
            token_dropout,
            hidden_token,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// The next batch, when `done` of the run (0 to 1) is over.
    pub(crate) fn next(&mut self, done: f64) -> Batch {
        let set = self.choose(done);
        let rows = self.sets[set].next(self.batch_tokens, &mut self.random);
        let source = &self.sets[set];
        let labels = rows.iter().map(|&row| source.labels[row]).collect();
        let mut rows: Vec<Vec<u32>> = rows.iter().map(|&row| source.encoded.row(row).to_vec()).collect();
        if self.token_dropout > 0.0 {
            for id in rows.iter_mut().flat_map(|row| row.iter_mut().skip(1)) {
                if self.random.random_bool(self.token_dropout) {
                    *id = self.hidden_token;
                }
            }
        }
        Batch { set, rows, labels }
    }

    fn choose(&mut self, done: f64) -> usize {
        let share = |set: &TrainingSet| if done < set.until { set.share } else { 0.0 };
        let total: f64 = self.sets.iter().map(share).sum();
        let mut left = self.random.random_range(0.0..total.max(f64::MIN_POSITIVE));
        for (place, set) in self.sets.iter().enumerate() {
            left -= share(set);
            if left < 0.0 {
                return place;
            }
        }
        self.sets.len() - 1
    }
}
