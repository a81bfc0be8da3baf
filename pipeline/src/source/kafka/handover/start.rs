//! Where a partition goes on that was assigned, and where it begins if the table knows nothing of it.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::{Offset, TopicPartitionList};

use super::super::config::FirstStart;
use super::super::{BROKER_TIMEOUT, kafka_error};
use super::Handover;
use crate::batch::TopicPartition;
use crate::source::SourceError;

/// What the answer about one partition may take at the least.
const SHORT_ANSWER: Duration = Duration::from_secs(1);
/// Between two questions about a partition that has no leader.
const ASK_AGAIN: Duration = Duration::from_millis(200);

impl Handover {
    /// Where the partition goes on, and where it ends now. A partition that nobody answers for, having no leader, goes on
    /// where the table ends: if the topic does not hold that offset, its first fetch stops the run.
    pub(super) fn start(
        &self,
        consumer: &BaseConsumer<Self>,
        at: &TopicPartition,
        stored: Option<i64>,
        until: Instant,
    ) -> Result<(i64, i64), SourceError> {
        let Some(next) = stored else {
            return self.patiently(until, || self.first(consumer, at));
        };
        let left = until.saturating_duration_since(Instant::now());
        match bounds(consumer, at, left.clamp(SHORT_ANSWER, BROKER_TIMEOUT)) {
            Ok((low, high)) => fits(at, next, (low, high)).map(|()| (next, high)),
            Err(error) => {
                tracing::warn!(%error, offset = next, "going on where the table ends, once the partition answers");
                Ok((next, next))
            }
        }
    }

    /// Where a partition begins that the table knows nothing of, and where it ends now.
    fn first(&self, consumer: &BaseConsumer<Self>, at: &TopicPartition) -> Result<(i64, i64), SourceError> {
        let (low, high) = bounds(consumer, at, BROKER_TIMEOUT)?;
        let start = match self.first_start {
            FirstStart::Earliest => low,
            FirstStart::Latest => high,
            FirstStart::Timestamp => self.at_time(consumer, at, high)?,
        };
        Ok((start, high))
    }

    /// Asks again until there is an answer or time is up.
    pub(super) fn patiently<T>(
        &self,
        until: Instant,
        ask: impl Fn() -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        loop {
            match ask() {
                Err(error) if Instant::now() < until => tracing::warn!(%error, "asking again"),
                answer => return answer,
            }
            self.turned();
            std::thread::sleep(ASK_AGAIN);
        }
    }

    fn at_time(&self, consumer: &BaseConsumer<Self>, at: &TopicPartition, high: i64) -> Result<i64, SourceError> {
        let mut ask = TopicPartitionList::new();
        let what = || {
            format!(
                "cannot ask for the offset of a time in `{}` [{}]",
                at.topic, at.partition
            )
        };
        ask.add_partition_offset(&at.topic, at.partition, Offset::Offset(self.first_start_millis))
            .map_err(kafka_error(what()))?;
        let found = consumer
            .offsets_for_times(ask, BROKER_TIMEOUT)
            .map_err(kafka_error(what()))?;
        let elements = found.elements();
        let Some(element) = elements.first() else {
            return Ok(high);
        };
        element.error().map_err(kafka_error(what()))?;
        Ok(match element.offset() {
            Offset::Offset(offset) => offset,
            _ => high,
        })
    }
}

/// The first offset that the partition holds, and the one after the last.
fn bounds(consumer: &BaseConsumer<Handover>, at: &TopicPartition, within: Duration) -> Result<(i64, i64), SourceError> {
    let what = format!("cannot ask for the offsets of `{}` [{}]", at.topic, at.partition);
    consumer
        .fetch_watermarks(&at.topic, at.partition, within)
        .map_err(kafka_error(what))
}

/// Whether the topic still holds what comes next.
pub(super) fn fits(at: &TopicPartition, next: i64, (low, high): (i64, i64)) -> Result<(), SourceError> {
    let TopicPartition { topic, partition } = at;
    if next < low {
        return Err(SourceError::Offsets(format!(
            "`{topic}` [{partition}]: the table ends at offset {next}, but the topic now begins at {low}: {} messages \
             were deleted unread; restore them, or choose another `pipeline.name` to start afresh",
            low - next
        )));
    }
    if next > high {
        return Err(SourceError::Offsets(format!(
            "`{topic}` [{partition}]: the table ends at offset {next}, but the topic ends at {high}: it was made anew; \
             choose another `pipeline.name` to start afresh"
        )));
    }
    Ok(())
}
