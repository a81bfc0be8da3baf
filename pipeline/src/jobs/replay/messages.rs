//! Messages that were read before, fetched from Kafka once more, by partition and offset.
//!
//! No group is joined and no offset is committed. A message that is no longer there is simply not among the answers.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::places::Place;
use crate::batch::TopicPartition;
use crate::source::SourceError;
use crate::source::kafka::{Guard, KafkaConfig};

/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages that are read over rather than jumped over: a jump throws away what was fetched ahead.
const READ_OVER: i64 = 1_000;

/// What is needed of a message to read it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) payload: Option<Vec<u8>>,
    pub(super) key: Option<Vec<u8>>,
}

/// Fetches messages by their offsets. Blocks.
///
/// # Errors
/// No broker, or one that does not deliver.
pub(super) fn fetch(
    kafka: &KafkaConfig,
    wanted: BTreeMap<TopicPartition, Vec<i64>>,
) -> Result<HashMap<Place, Message>, SourceError> {
    let mut access = kafka.client()?;
    access
        .config_mut()
        .set("group.id", format!("{}-replay", kafka.group))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .set("isolation.level", "read_committed");
    let consumer: BaseConsumer<Guard> = access.open(access.guard())?;
    let mut found = HashMap::new();
    for (at, mut offsets) in wanted {
        offsets.sort_unstable();
        one(&consumer, &at, &offsets, &mut found)?;
    }
    Ok(found)
}

fn error(at: &TopicPartition, what: &str) -> impl FnOnce(KafkaError) -> SourceError {
    let what = format!("`{}` [{}]: {what}", at.topic, at.partition);
    move |error| SourceError::Kafka {
        what,
        cause: error.to_string(),
    }
}

fn one(
    consumer: &BaseConsumer<Guard>,
    at: &TopicPartition,
    offsets: &[i64],
    found: &mut HashMap<Place, Message>,
) -> Result<(), SourceError> {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    let (low, high) = match consumer.fetch_watermarks(&at.topic, at.partition, PATIENCE) {
        Ok(ends) => ends,
        // The topic was deleted, and with it the messages.
        Err(error)
            if matches!(
                error.rdkafka_error_code(),
                Some(UnknownPartition | UnknownTopic | UnknownTopicOrPartition)
            ) =>
        {
            return Ok(());
        }
        Err(cause) => return Err(error(at, "cannot ask for its offsets")(cause)),
    };
    let mut left = offsets
        .iter()
        .copied()
        .filter(|offset| (low..high).contains(offset))
        .peekable();
    let Some(first) = left.peek() else { return Ok(()) };
    seek(consumer, at, *first)?;
    let mut heard = Instant::now();
    while let Some(&next) = left.peek() {
        match consumer.poll(Duration::from_millis(500)) {
            None if heard.elapsed() > PATIENCE => {
                return Err(SourceError::Kafka {
                    what: format!(
                        "`{}` [{}]: the broker does not deliver offset {next}",
                        at.topic, at.partition
                    ),
                    cause: "timed out".into(),
                });
            }
            None => {}
            Some(Ok(message)) => {
                heard = Instant::now();
                let offset = message.offset();
                if offset == next {
                    found.extend([told(at, &message)]);
                }
                // Those passed over were compacted away.
                while left.next_if(|wanted| *wanted <= offset).is_some() {}
                if let Some(far) = left.peek().filter(|wanted| **wanted > offset + READ_OVER) {
                    seek(consumer, at, *far)?;
                }
            }
            // What is left was never committed by its producer.
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(cause)) => judge(at, cause)?,
        }
    }
    Ok(())
}

/// Where a message lies, and what is in it.
fn told(at: &TopicPartition, message: &BorrowedMessage<'_>) -> (Place, Message) {
    let place = Place {
        at: at.clone(),
        offset: message.offset(),
        // As the source has it.
        timestamp: message.timestamp().to_millis().map(|millis| millis * 1000),
    };
    let payload = message.payload().map(<[u8]>::to_vec);
    let key = message.key().map(<[u8]>::to_vec);
    (place, Message { payload, key })
}

/// Connections that break are mended by the client; what is said about the partition itself is not.
fn judge(at: &TopicPartition, cause: KafkaError) -> Result<(), SourceError> {
    match cause {
        KafkaError::MessageConsumption(_) | KafkaError::Global(_) => {
            tracing::warn!(error = %cause, "kafka");
            Ok(())
        }
        cause => Err(error(at, "cannot read it")(cause)),
    }
}

fn seek(consumer: &BaseConsumer<Guard>, at: &TopicPartition, offset: i64) -> Result<(), SourceError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&at.topic, at.partition, Offset::Offset(offset))
        .and_then(|()| consumer.assign(&list))
        .map_err(error(at, "cannot go to an offset of it"))
}
