//! The order in which a training run sees its texts: sets by their shares, rows shuffled, batches of neighbouring lengths.
//!
//! Everything random comes from one seeded generator, so that a run can be repeated.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::batching::cut;
use crate::lesson::Lesson;
use crate::tokenizer::Encoded;
use crate::train_config::SetConfig;

/// Rows that are sorted by length together: many batches' worth, so that lengths match, and few enough that a batch is not
/// always made of the same rows.
const POOL_ROWS: usize = 4096;

/// A training set, tokenized.
pub(crate) struct TrainingSet {
    pub(crate) lesson: Lesson,
    encoded: Encoded,
    share: f64,
    until: f64,
    waiting: Vec<Vec<usize>>,
}

impl TrainingSet {
    pub(crate) fn new(config: &SetConfig, lesson: Lesson, encoded: Encoded) -> Self {
        TrainingSet {
            lesson,
            encoded,
            share: config.share,
            until: config.until,
            waiting: Vec::new(),
        }
    }

    pub(crate) fn texts(&self) -> usize {
        self.encoded.len()
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

/// One batch of texts: which set, which of its texts, their token ids; in pre-training what was hidden.
pub(crate) struct Batch {
    pub(crate) set: usize,
    pub(crate) places: Vec<usize>,
    pub(crate) rows: Vec<Vec<u32>>,
    pub(crate) hidden: Vec<Hidden>,
}

/// A token that the model has to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hidden {
    pub(crate) row: usize,
    pub(crate) place: usize,
    pub(crate) id: u32,
}

/// What happens to the tokens of a training text.
#[derive(Debug, Clone)]
pub(crate) enum Noise {
    /// A share of them becomes the hidden token: single words are not learnt by heart.
    Drop { share: f64, hidden: u32 },
    /// A share of them is to be found. Of these eight in ten become the hidden token, one becomes any other and one stays, so that
    /// the model has to look at every token (Devlin et al. 2018, section 3.1).
    Hide {
        share: f64,
        hidden: u32,
        vocabulary: u32,
        /// Marks of the tokenizer, which are never hidden.
        special: HashSet<u32>,
    },
}

impl Noise {
    /// Changes the rows in place; returns what is to be found.
    pub(crate) fn apply(&self, rows: &mut [Vec<u32>], random: &mut StdRng) -> Vec<Hidden> {
        match self {
            Noise::Drop { share, hidden } => {
                if *share > 0.0 {
                    for id in rows.iter_mut().flat_map(|row| row.iter_mut().skip(1)) {
                        if random.random_bool(*share) {
                            *id = *hidden;
                        }
                    }
                }
                Vec::new()
            }
            Noise::Hide {
                share,
                hidden,
                vocabulary,
                special,
            } => {
                let mut found = Vec::new();
                for (row, ids) in rows.iter_mut().enumerate() {
                    for (place, id) in ids.iter_mut().enumerate() {
                        if special.contains(id) || !random.random_bool(*share) {
                            continue;
                        }
                        found.push(Hidden { row, place, id: *id });
                        match random.random_range(0..10) {
                            0 => *id = random.random_range(0..*vocabulary),
                            1 => (),
                            _ => *id = *hidden,
                        }
                    }
                }
                found
            }
        }
    }
}

/// All training sets.
pub(crate) struct Feed {
    pub(crate) sets: Vec<TrainingSet>,
    batch_tokens: usize,
    noise: Noise,
    random: StdRng,
}

impl Feed {
    pub(crate) fn new(sets: Vec<TrainingSet>, batch_tokens: usize, noise: Noise, seed: u64) -> Self {
        Feed {
            sets,
            batch_tokens,
            noise,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Draws what has been drawn before, so that a run that was cut short goes on where it stopped: `batches` of them, each with
    /// its share of the run that was over.
    pub(crate) fn replay(&mut self, done: impl Iterator<Item = f64>) {
        done.for_each(|done| drop(self.next(done)));
    }

    /// The next batch, when `done` of the run (0 to 1) is over.
    pub(crate) fn next(&mut self, done: f64) -> Batch {
        let set = self.choose(done);
        let places = self.sets[set].next(self.batch_tokens, &mut self.random);
        let encoded = &self.sets[set].encoded;
        let mut rows: Vec<Vec<u32>> = places.iter().map(|&place| encoded.row(place).to_vec()).collect();
        let hidden = self.noise.apply(&mut rows, &mut self.random);
        Batch {
            set,
            places,
            rows,
            hidden,
        }
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
