//! What cannot work in a training configuration.

use crate::config::check_head;
use crate::error::ModelError;
use crate::train_config::{AdaptConfig, SetConfig, Task, TrainConfig};

impl TrainConfig {
    /// Checks what can be checked without the data and without the checkpoint that `from` names.
    ///
    /// # Errors
    /// One sentence about the first option that cannot work.
    pub fn check(&self) -> Result<(), ModelError> {
        let wrong = |reason: &str| Err(ModelError::Config(format!("training `{}`: {reason}", self.name)));
        match (&self.from, &self.tokenizer, &self.encoder) {
            (Some(_), None, None) => self.heads.iter().try_for_each(|head| check_head(&head.head()))?,
            (None, Some(tokenizer), Some(encoder)) => {
                if encoder.vocabulary != 0 {
                    return wrong("the tokenizer decides the vocabulary: leave it out of [encoder]");
                }
                if self.adapt != AdaptConfig::default() {
                    return wrong("[adapt] changes the checkpoint that `from` names: without one, say it in [encoder]");
                }
                self.model_config(encoder.clone(), tokenizer.vocabulary as i64, tokenizer.prepare)
                    .check()?;
            }
            _ => {
                return wrong(
                    "it begins either with a checkpoint (`from`) or with nothing ([tokenizer] and [encoder]): name one of the two",
                );
            }
        }
        let (schedule, optimizer) = (&self.schedule, &self.optimizer);
        if [
            schedule.steps,
            schedule.evaluate_every,
            schedule.batch_tokens,
            schedule.accumulate,
        ]
        .contains(&0)
            || schedule.save_every == Some(0)
        {
            return wrong("steps, evaluate_every, save_every, batch_tokens and accumulate must be at least 1");
        }
        if optimizer.learning_rate <= 0.0 || optimizer.clip_norm <= 0.0 || optimizer.head_factor <= 0.0 {
            return wrong("learning_rate, clip_norm and head_factor must be above 0");
        }
        if !(optimizer.layer_decay > 0.0 && optimizer.layer_decay <= 1.0) {
            return wrong("layer_decay must be above 0 and at most 1");
        }
        if !self.validation.iter().any(|set| set.weight > 0.0) {
            return wrong("it needs a validation set with a weight above 0 to choose by");
        }
        self.check_heads()
    }

    fn check_heads(&self) -> Result<(), ModelError> {
        let wrong = |reason: String| Err(ModelError::Config(format!("training `{}`: {reason}", self.name)));
        if self.teachers.is_empty() == self.sets.iter().any(|set| set.taught) {
            return wrong(
                "`teachers` and sets that are `taught` belong together: one is there without the other".to_owned(),
            );
        }
        if let Some(set) = self.sets.iter().find(|set| set.taught && !set.head.is_empty()) {
            return wrong(format!(
                "`{}` is taught and has a head: the teachers decide which heads it teaches",
                set.path.display()
            ));
        }
        let of_labels =
            |set: &SetConfig| set.restrict || set.single_label || set.balance.is_some() || !set.map.is_empty();
        if let Some(set) = self.sets.iter().find(|set| set.taught && of_labels(set)) {
            return wrong(format!(
                "`{}` is taught: map, restrict, single_label and balance are about labels, which it has none of",
                set.path.display()
            ));
        }
        if self.sets.iter().any(|set| set.sample == Some(0)) {
            return wrong("a sample of a set needs at least one text".to_owned());
        }
        let named = self
            .sets
            .iter()
            .filter(|set| !set.taught)
            .map(|set| &set.head)
            .chain(self.validation.iter().map(|set| &set.head));
        if self.task == Task::Mlm {
            return if self.heads.is_empty() && named.clone().all(String::is_empty) && self.teachers.is_empty() {
                Ok(())
            } else {
                wrong("task `mlm` learns from texts alone: leave heads and teachers out".to_owned())
            };
        }
        if self.heads.is_empty() {
            return wrong("it has no heads: name at least one".to_owned());
        }
        for head in named {
            self.head(head)?;
        }
        if self.heads.iter().all(|head| head.auxiliary) {
            return wrong("all its heads are auxiliary: one must be kept".to_owned());
        }
        let lasts = |set: &&SetConfig| set.share > 0.0 && set.until >= 1.0;
        for head in self.heads.iter().filter(|head| !head.auxiliary) {
            if !self
                .sets
                .iter()
                .filter(lasts)
                .any(|set| set.taught || set.head == head.name)
            {
                return wrong(format!(
                    "head `{}` has no set with a share above 0 to the end",
                    head.name
                ));
            }
        }
        Ok(())
    }
}
