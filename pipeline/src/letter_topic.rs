//! Dead letters on a Kafka topic as well, for whoever wants to hear of them at once.
//!
//! They are produced before they are committed, so none that is in the table is missing on the topic: at least once. After
//! a crash between the two a letter is produced again; its key, `topic/partition/offset`, tells such twins. Within one run
//! the producer is idempotent. The value is the payload where the configuration keeps payloads, else there is none.
//!
//! Never is a message that the broker thinks too large a reason to stop: it goes without its payload.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use tamiz_schemas::columns::*;

use crate::config::ConfigError;
use crate::source::SourceError;
use crate::source::kafka::{Access, Guard, KafkaConfig, reach_with};

/// How long a message may take; the client tries again until then.
const DELIVERY_MILLIS: &str = "60000";
/// A little longer, so that the client's own verdict comes first.
const PATIENCE: Duration = Duration::from_secs(70);
/// What the header of a letter without its payload says, where it should have one.
const TOO_LARGE: &str = "too_large";

/// The columns that become headers, by their own names.
const HEADERS: [&str; 10] = [
    STAGE,
    REASON,
    DETAIL,
    TOPIC_NAME,
    PARTITION,
    OFFSET,
    TIMESTAMP,
    REJECTED_AT,
    PAYLOAD_HASH,
    PAYLOAD_BYTES,
];

/// Dead letters that could not be produced.
#[derive(Debug, thiserror::Error)]
#[error("cannot produce dead letters to `{topic}`: see `sink.dead_letter_topic`, the topic and this user's rights")]
pub struct LetterTopicError {
    topic: String,
    /// The first refusal.
    #[source]
    source: KafkaError,
}

/// A producer of dead letters. It has a thread that serves the client's events: most of the time there are no letters, and
/// what the client logs and tells would pile up.
#[derive(Clone)]
pub struct LetterTopic {
    topic: Arc<str>,
    producer: Arc<ThreadedProducer<Refusals>>,
}

/// What was refused: number of the letter, and why.
struct Refusals {
    guard: Guard,
    noted: Mutex<BTreeMap<usize, KafkaError>>,
}

impl ClientContext for Refusals {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.guard.hear_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.guard.hear(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.guard.token()
    }
}

impl ProducerContext for Refusals {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, letter: usize) {
        if let Err((error, _)) = result {
            self.note(letter, error.clone());
        }
    }
}

impl Refusals {
    fn note(&self, letter: usize, error: KafkaError) {
        self.noted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(letter, error);
    }

    fn take(&self) -> BTreeMap<usize, KafkaError> {
        std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl LetterTopic {
    /// Connects, and makes sure that the topic exists. Blocks.
    ///
    /// # Errors
    /// No broker, no such topic, or options that are refused.
    pub fn connect(kafka: &KafkaConfig, topic: &str) -> Result<Self, SourceError> {
        let sought = KafkaConfig {
            topics: Vec::new(), // those that are read are none of ours
            ..kafka.clone()
        };
        reach_with(&sought, Some(topic))?;
        let access = access(kafka)?;
        let producer: ThreadedProducer<Refusals> = access.open(Refusals {
            guard: access.guard(),
            noted: Mutex::default(),
        })?;
        // Once the broker has answered, trouble is worth a line in the log.
        let guard = &producer.context().guard;
        guard.ask(
            |time| producer.poll(time),
            |time| producer.client().fetch_metadata(Some(topic), time),
        )?;
        Ok(LetterTopic {
            topic: topic.into(),
            producer: Arc::new(producer),
        })
    }

    /// Produces rows of the dead-letters table, and waits until the broker has them.
    ///
    /// # Errors
    /// One that the broker refuses for good, or did not take in time.
    pub async fn send(&self, letters: &[RecordBatch]) -> Result<(), LetterTopicError> {
        let (own, letters) = (self.clone(), letters.to_vec());
        let sent = tokio::task::spawn_blocking(move || own.send_blocking(&letters)).await;
        sent.unwrap_or(Err(KafkaError::Canceled))
            .map_err(|source| LetterTopicError {
                topic: self.topic.to_string(),
                source,
            })
    }

    fn send_blocking(&self, letters: &[RecordBatch]) -> Result<(), KafkaError> {
        let all: Vec<Letter> = letters.iter().flat_map(Letter::each).collect();
        self.round(
            all.iter()
                .enumerate()
                .map(|(number, letter)| (number, letter, letter.payload.as_deref())),
        )?;
        let refused = self.producer.context().take();
        let is_large = |error: &KafkaError| error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge);
        if let Some(error) = refused.values().find(|error| !is_large(error)) {
            return Err(error.clone());
        }
        if refused.is_empty() {
            return Ok(());
        }
        // The broker refuses a whole request: each is tried alone before its payload is left out.
        let mut large = Vec::new();
        for at in refused.into_keys() {
            if all[at].payload.is_some() {
                self.round(std::iter::once((at, &all[at], all[at].payload.as_deref())))?;
            }
            match self.producer.context().take().remove(&at) {
                Some(error) if !is_large(&error) => return Err(error),
                None if all[at].payload.is_some() => {}
                _ => large.push(at),
            }
        }
        if large.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            letters = large.len(),
            "dead letters are too large for their topic: produced without their payload"
        );
        let smaller: Vec<(usize, Letter)> = large.iter().map(|at| (*at, all[*at].without_payload())).collect();
        self.round(smaller.iter().map(|(number, letter)| (*number, letter, None)))?;
        match self.producer.context().take().into_values().next() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Sends letters and waits for the answers; refusals are noted.
    fn round<'l>(
        &self,
        letters: impl Iterator<Item = (usize, &'l Letter, Option<&'l [u8]>)>,
    ) -> Result<(), KafkaError> {
        for (number, letter, payload) in letters {
            let mut record = BaseRecord::<str, [u8], usize>::with_opaque_to(&self.topic, number)
                .key(&letter.key)
                .headers(letter.headers());
            record.payload = payload;
            while let Err((error, back)) = self.producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    self.producer.context().note(number, error);
                    break;
                }
                self.producer.poll(Duration::from_millis(10));
                record = back;
            }
        }
        self.producer.flush(PATIENCE)
    }
}

/// What the producer needs to reach the cluster.
fn access(kafka: &KafkaConfig) -> Result<Access, ConfigError> {
    let mut access = kafka.client()?;
    access
        .config_mut()
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("message.timeout.ms", DELIVERY_MILLIS)
        // Those that a user wants are the consumer's: nobody reads these.
        .set("statistics.interval.ms", "0");
    Ok(access)
}

/// One dead letter as a message.
struct Letter {
    key: String,
    headers: Vec<(&'static str, String)>,
    payload: Option<Vec<u8>>,
}

impl Letter {
    fn each(letters: &RecordBatch) -> Vec<Letter> {
        let texts: Vec<(&'static str, ArrayRef)> = HEADERS
            .iter()
            .filter_map(|name| Some((*name, cast(letters.column_by_name(name)?, &DataType::Utf8).ok()?)))
            .collect();
        let payloads = letters
            .column_by_name(PAYLOAD)
            .and_then(|column| column.as_binary_opt::<i32>());
        let letter = |row: usize| {
            let value = |column: &ArrayRef| {
                column
                    .is_valid(row)
                    .then(|| column.as_string::<i32>().value(row).to_owned())
            };
            let headers: Vec<_> = texts
                .iter()
                .filter_map(|(name, column)| Some((*name, value(column)?)))
                .collect();
            let of = |name: &str| {
                let found = headers.iter().find(|(header, _)| *header == name);
                found.map_or("", |(_, value)| value.as_str())
            };
            Letter {
                key: format!("{}/{}/{}", of(TOPIC_NAME), of(PARTITION), of(OFFSET)),
                payload: payloads
                    .filter(|all| all.is_valid(row))
                    .map(|all| all.value(row).to_vec()),
                headers,
            }
        };
        (0..letters.num_rows()).map(letter).collect()
    }

    fn without_payload(&self) -> Letter {
        let left_out = ("payload_left_out", TOO_LARGE.to_owned());
        Letter {
            key: self.key.clone(),
            headers: self.headers.iter().cloned().chain([left_out]).collect(),
            payload: None,
        }
    }

    fn headers(&self) -> OwnedHeaders {
        let all = OwnedHeaders::new_with_capacity(self.headers.len());
        self.headers.iter().fold(all, |all, (key, value)| {
            all.insert(Header {
                key,
                value: Some(value),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    #[test]
    fn the_producer_makes_no_statistics_though_the_consumer_is_to() {
        let mut kafka = load(None, std::iter::empty()).unwrap().source.kafka;
        kafka.options.insert("statistics.interval.ms".into(), "1000".into());
        let access = access(&kafka).unwrap();
        assert_eq!(access.config().get("statistics.interval.ms"), Some("0"));
        assert_eq!(access.config().get("enable.idempotence"), Some("true"));
    }
}
