//! Waiting for a share of the byte budget: nothing is fetched meanwhile, and the group still hears from us.
//!
//! Architecture Invariant: while the budget is spent no partition that is ours is left unpaused, so nothing piles up.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;

use super::{KafkaSource, kafka_error};
use crate::batch::{Permit, TopicPartition};
use crate::source::{Collector, SourceError};

/// Without budget, polling is held back this long before the partitions are paused: a pause throws prefetched data away.
const PAUSE_AFTER: Duration = Duration::from_secs(2);

impl KafkaSource {
    /// A share for a batch; while there is none, the group must still hear from us.
    pub(super) fn wait_for_share(
        &self,
        bytes: usize,
        (collector, caught_up): (&mut Collector, &mut HashSet<TopicPartition>),
        give_up: impl Fn() -> bool,
    ) -> Result<Option<Permit>, SourceError> {
        let started = Instant::now();
        let mut paused_at = None;
        let share = loop {
            self.consumer.context().turned();
            if self.out.capacity() > 0
                && let Some(share) = self.budget.try_take(bytes)
            {
                break Some(share);
            }
            if give_up() || self.out.is_closed() {
                break None;
            }
            if started.elapsed() < PAUSE_AFTER {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            // Partitions that come meanwhile are not paused.
            let epoch = self.consumer.context().lock().epoch;
            if paused_at != Some(epoch) {
                self.pause()?;
                paused_at = Some(epoch);
            }
            let message = self.consumer.poll(Duration::from_millis(50));
            self.follow_assignment(collector, caught_up);
            self.take_in(message, collector, caught_up)?;
        };
        if paused_at.is_some() {
            let list = self
                .consumer
                .assignment()
                .map_err(kafka_error("cannot list assigned partitions"))?;
            self.consumer.resume(&list).map_err(kafka_error("cannot resume"))?;
        }
        Ok(share)
    }

    fn pause(&self) -> Result<(), SourceError> {
        let list = self
            .consumer
            .assignment()
            .map_err(kafka_error("cannot list assigned partitions"))?;
        self.consumer.pause(&list).map_err(kafka_error("cannot pause"))?;
        tracing::debug!("paused: the byte budget is spent");
        Ok(())
    }
}
