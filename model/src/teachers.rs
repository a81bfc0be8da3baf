//! What teachers say of texts that nobody has labelled: the mean of their probabilities, for the heads that all of them have.
//!
//! An ensemble is better than each of its models and costs as much as all of them; a student that learns what the ensemble says of
//! many texts keeps most of it at the price of one (Hinton et al. 2015, arXiv:1503.02531).

use std::ops::ControlFlow;

use arrow::array::{Array, StringArray};

use crate::error::ModelError;
use crate::hub::{HubOptions, locate};
use crate::lesson::Taught;
use crate::progress::Progress;
use crate::scorer::{Scorer, ScorerOptions};
use crate::train_config::TrainConfig;

/// Texts that a teacher is asked about at once.
const CHUNK_ROWS: usize = 4096;

/// The teachers of a run, asked one after the other: only one is in memory.
pub(crate) struct Teachers<'a> {
    config: &'a TrainConfig,
    /// Place in the run's list, name and number of labels, of each head that is taught.
    heads: Vec<(usize, String, usize)>,
    /// `name@sha` of those that were asked, in order.
    pub(crate) identities: Vec<String>,
}

impl<'a> Teachers<'a> {
    /// Nobody has been asked yet.
    pub(crate) fn new(config: &'a TrainConfig) -> Self {
        let heads = config.heads.iter().enumerate();
        Teachers {
            config,
            heads: heads
                .map(|(place, head)| (place, head.name.clone(), head.labels.len()))
                .collect(),
            identities: Vec::new(),
        }
    }

    /// What the teachers say of each text of some sets.
    ///
    /// # Errors
    /// When a teacher cannot be opened or fails, none of the run's heads is one of all of them, the labels of one differ, or
    /// `progress` wants the run to end.
    pub(crate) fn ask(
        &mut self,
        sets: &[&StringArray],
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<Taught>>, ModelError> {
        let all = sets.iter().map(|texts| texts.len()).sum();
        let mut sums: Vec<Vec<Taught>> = Vec::new();
        for name in &self.config.teachers {
            let scorer = self.open(name)?;
            let teacher = scorer.identity().to_string();
            sums.resize_with(sets.len(), || self.nothing_yet());
            let mut done = 0;
            for (texts, sums) in sets.iter().zip(&mut sums) {
                sums.retain(|taught| self.heads.iter().any(|(place, ..)| *place == taught.head));
                for start in (0..texts.len()).step_by(CHUNK_ROWS) {
                    let rows = CHUNK_ROWS.min(texts.len() - start);
                    self.add(&scorer, (&StringArray::slice(texts, start, rows), start), sums)?;
                    done += rows;
                    let told = progress(&Progress::Asked {
                        teacher: teacher.clone(),
                        done,
                        texts: all,
                    });
                    if told.is_break() {
                        return Err(ModelError::Config(
                            "training was interrupted while teachers were asked, so there is nothing to keep: start it again".to_owned(),
                        ));
                    }
                }
            }
            self.identities.push(teacher);
        }
        Ok(sums)
    }

    /// Opens a teacher and drops the heads that it does not have.
    fn open(&mut self, name: &str) -> Result<Scorer, ModelError> {
        let options = ScorerOptions {
            device: self.config.device,
            threads: self.config.threads,
            ..ScorerOptions::default()
        };
        let scorer = Scorer::open(&locate(name, &HubOptions::from_environment())?, options)?;
        for (place, ..) in &self.heads {
            let (ours, theirs) = (&self.config.heads[*place], scorer.head(&self.config.heads[*place].name));
            if let Some(theirs) = theirs.filter(|theirs| theirs.labels != ours.labels) {
                return Err(ModelError::Labels {
                    head: ours.name.clone(),
                    reason: format!(
                        "the teacher `{name}` has other labels for it, or another order: {}",
                        theirs.labels.join(", ")
                    ),
                });
            }
        }
        self.heads.retain(|(_, head, _)| scorer.head(head).is_some());
        if self.heads.is_empty() {
            let known: Vec<&str> = scorer.identity().heads.iter().map(|head| head.name.as_str()).collect();
            return Err(ModelError::Config(format!(
                "the teacher `{name}` has none of the heads that are left to teach: it has {}",
                known.join(", ")
            )));
        }
        Ok(scorer)
    }

    fn nothing_yet(&self) -> Vec<Taught> {
        let head = |(head, _, labels): &(usize, String, usize)| Taught {
            head: *head,
            labels: *labels,
            probabilities: Vec::new(),
        };
        self.heads.iter().map(head).collect()
    }

    /// Adds a teacher's share of the mean for the texts from `start` on.
    fn add(
        &self,
        scorer: &Scorer,
        (texts, start): (&StringArray, usize),
        sums: &mut [Taught],
    ) -> Result<(), ModelError> {
        let share = 1.0 / self.config.teachers.len() as f32;
        let scores = scorer.score_blocking(texts)?;
        for taught in sums {
            let name = &self.config.heads[taught.head].name;
            let Some(theirs) = scores.head(name) else { continue };
            taught.probabilities.resize(
                taught.probabilities.len().max((start + texts.len()) * taught.labels),
                0.0,
            );
            let sums = taught.probabilities[start * taught.labels..].chunks_exact_mut(taught.labels);
            for (row, sum) in (0..texts.len()).zip(sums) {
                let said = theirs.row(row).unwrap_or_default();
                sum.iter_mut().zip(said).for_each(|(sum, said)| *sum += share * said);
            }
        }
        Ok(())
    }
}
