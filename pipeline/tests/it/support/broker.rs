//! A real Kafka: topics of one test, what was sent to them and where the broker put it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use super::skipped;

const PATIENCE: Duration = Duration::from_secs(60);
/// The shortest session that a broker accepts unless told otherwise: how long a killed member keeps its partitions.
pub(crate) const SESSION_MILLIS: u32 = 6_000;

/// Where the broker put a message: partition and offset.
pub(crate) type Place = (i32, i64);

/// Partition, key and payload of a message.
pub(crate) type Sent<'p> = (Option<i32>, Option<&'p [u8]>, Option<&'p [u8]>);

/// Headers, key and payload of a message that was read.
pub(crate) type Received = (BTreeMap<String, String>, String, Option<Vec<u8>>);

/// The broker in TAMIZ_KAFKA.
pub(crate) struct Broker {
    pub(crate) servers: String,
}

impl Broker {
    /// The broker, or a word that the test is skipped.
    pub(crate) fn find() -> Option<Broker> {
        let servers = std::env::var("TAMIZ_KAFKA").ok().filter(|servers| !servers.is_empty());
        if servers.is_none() {
            skipped("TAMIZ_KAFKA names no Kafka (scripts/test starts one)");
        }
        Some(Broker { servers: servers? })
    }

    /// A new topic, deleted with the value. `options` are the topic's own.
    pub(crate) fn topic(&self, partitions: i32, options: &[(&str, &str)]) -> Topic {
        self.new_topic((partitions, 1), options)
    }

    /// A new topic with so many copies of each partition.
    pub(crate) fn replicated_topic(&self, partitions: i32, copies: i32) -> Topic {
        self.new_topic((partitions, copies), &[])
    }

    fn new_topic(&self, (partitions, copies): (i32, i32), options: &[(&str, &str)]) -> Topic {
        let name = format!("it-{}", uuid::Uuid::new_v4());
        let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(copies));
        let new = options.iter().fold(new, |new, (key, value)| new.set(key, value));
        let made = futures::executor::block_on(self.admin().create_topics([&new], &AdminOptions::new())).unwrap();
        made[0].as_ref().unwrap();
        Topic {
            servers: self.servers.clone(),
            name,
            partitions,
        }
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.servers);
        client
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }
}

/// A topic of one test.
pub(crate) struct Topic {
    servers: String,
    pub(crate) name: String,
    partitions: i32,
}

impl Topic {
    pub(crate) fn servers(&self) -> &str {
        &self.servers
    }

    fn broker(&self) -> Broker {
        Broker {
            servers: self.servers.clone(),
        }
    }

    /// Sends payloads (`None`: a tombstone) and tells, for each, where the broker acknowledged it.
    pub(crate) fn send<'p>(&self, payloads: impl IntoIterator<Item = Option<&'p [u8]>>) -> Vec<Place> {
        self.send_to(payloads.into_iter().map(|payload| (None, None, payload)))
    }

    /// As [`Topic::send`], each message with its partition and key, where they matter.
    pub(crate) fn send_to<'p>(&self, messages: impl IntoIterator<Item = Sent<'p>>) -> Vec<Place> {
        let mut client = self.broker().client();
        client
            .set("enable.idempotence", "true")
            // Several messages of 100 MB at once are more than the heap of a small broker holds: it would refuse them.
            .set("max.in.flight.requests.per.connection", "1")
            .set("linger.ms", "20")
            .set("message.max.bytes", "100000000");
        let producer: BaseProducer<Acknowledged> = client.create_with_context(Acknowledged::default()).unwrap();
        let mut sent = 0;
        for (partition, key, payload) in messages {
            let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.name, sent);
            (record.partition, record.key, record.payload) = (partition, key, payload);
            while let Err((error, back)) = producer.send(record) {
                assert!(
                    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)),
                    "{error}"
                );
                producer.poll(Duration::from_millis(10));
                record = back;
            }
            sent += 1;
        }
        // 800 MB beside other tests take longer than an answer.
        producer.flush(PATIENCE * 3).unwrap();
        let Acknowledged { places, refused } = producer.context().as_ref();
        let mut places = places.lock().unwrap().clone();
        places.sort_unstable();
        let refused = refused.lock().unwrap();
        assert_eq!(places.len(), sent, "not every message was acknowledged: {refused:?}");
        places.into_iter().map(|(_, place)| place).collect()
    }

    /// Per partition the offset after the last message.
    pub(crate) fn ends(&self) -> Vec<i64> {
        let consumer: BaseConsumer = self.broker().client().create().unwrap();
        let end = |partition| consumer.fetch_watermarks(&self.name, partition, PATIENCE).unwrap().1;
        (0..self.partitions).map(end).collect()
    }

    /// Everything that a topic of one partition holds.
    pub(crate) fn received(&self) -> Vec<Received> {
        let mut client = self.broker().client();
        client.set("group.id", &self.name).set("enable.partition.eof", "true");
        let consumer: BaseConsumer = client.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let mut received = Vec::new();
        loop {
            match consumer.poll(PATIENCE).unwrap() {
                Err(KafkaError::PartitionEOF(_)) => return received,
                message => {
                    let message = message.unwrap();
                    let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
                    let headers = message
                        .headers()
                        .map(|all| all.iter().map(|one| (one.key.to_owned(), text(one.value))).collect());
                    received.push((
                        headers.unwrap_or_default(),
                        text(message.key()),
                        message.payload().map(<[u8]>::to_vec),
                    ));
                }
            }
        }
    }

    /// Deletes the messages before an offset, as retention does.
    pub(crate) fn forget(&self, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, Offset::Offset(before))
            .unwrap();
        let admin = self.broker().admin();
        futures::executor::block_on(admin.delete_records(&list, &AdminOptions::new())).unwrap();
    }

    /// The `[source.kafka]` section that reads this topic.
    pub(crate) fn source(&self) -> String {
        format!(
            "[source.kafka]\nbrokers = \"{}\"\ntopics = [\"{name}\"]\ngroup = \"{name}\"\n",
            self.servers,
            name = self.name
        )
    }

    /// As [`Topic::source`], by the new group protocol, in which the broker decides how long a dead member is missed.
    pub(crate) fn source_by_new_protocol(&self) -> String {
        self.source() + "group_protocol = \"consumer\"\n"
    }

    /// As [`Topic::source`], for a run that is killed: its successor does not wait longer than need be.
    pub(crate) fn source_of_mortals(&self) -> String {
        self.source() + &format!("options = {{ \"session.timeout.ms\" = \"{SESSION_MILLIS}\" }}\n")
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let admin = self.broker().admin();
        // A topic that stays is no reason to fail.
        let _ = futures::executor::block_on(admin.delete_topics(&[&self.name], &AdminOptions::new()));
    }
}

/// Notes number and place of every message that the broker took, and the number of every one that it did not, with the reason.
#[derive(Default)]
struct Acknowledged {
    places: Mutex<Vec<(usize, Place)>>,
    refused: Mutex<Vec<(usize, KafkaError)>>,
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        match result {
            Ok(message) => {
                let place = (message.partition(), message.offset());
                self.places.lock().unwrap().push((number, place));
            }
            Err((error, _)) => self.refused.lock().unwrap().push((number, error.clone())),
        }
    }
}
