//! A producer that never stops: posts with a sequence number at a steady rate, and a note of all that the broker took.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

use super::oracle::Acknowledged;

/// How long the last messages may take, with a broker that comes back.
const PATIENCE: Duration = Duration::from_secs(90);

type Notes = Arc<Mutex<Vec<Acknowledged>>>;

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Feed {
    /// Messages a second.
    pub(crate) rate: u64,
    /// Some of them are no posts; see [`is_poison`].
    pub(crate) poison: bool,
}

/// A producer at work in a thread of its own.
pub(crate) struct Load {
    notes: Notes,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Sends to the topic's partitions in turns.
    pub(crate) fn start(servers: &str, topic: &str, partitions: i32, feed: Feed) -> Load {
        let (notes, stop) = (Notes::default(), Arc::new(AtomicBool::new(false)));
        let producer = producer(servers, Arc::clone(&notes));
        let (topic, stopped) = (topic.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || send(&producer, (&topic, partitions), feed, &stopped));
        Load {
            notes,
            stop,
            thread: Some(thread),
        }
    }

    /// Per partition the offset after the last message that the broker took so far.
    pub(crate) fn ends(&self) -> BTreeMap<i32, i64> {
        let mut ends = BTreeMap::new();
        for one in self.notes.lock().unwrap().iter() {
            let end = ends.entry(one.place.0).or_insert(0);
            *end = (*end).max(one.place.1 + 1);
        }
        ends
    }

    /// Stops sending; what the broker took.
    pub(crate) fn finish(mut self) -> Vec<Acknowledged> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut self.notes.lock().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A post in the project's own wire format. No two texts are alike.
pub(crate) fn post(number: u64) -> (String, String) {
    let id = format!("fault-{number}");
    let words = [
        "harbour", "train", "market", "garden", "match", "winter", "film", "engine",
    ];
    let word = |by: u64| words[(number / by) as usize % words.len()];
    let text = format!(
        "the {} and the {} met number {number} near the {}",
        word(1),
        word(8),
        word(64)
    );
    let body = serde_json::json!({
        "id": id, "source": "faults", "created_at": "2026-01-02T03:04:05Z", "author": format!("a{}", number % 97), "text": text,
    });
    (id, body.to_string())
}

/// Whether the message of that number is none that can be read, in a feed with poison.
pub(crate) fn is_poison(number: u64) -> bool {
    number % 7 == 3
}

/// Something that no post can be made of; `None`: no payload.
fn poison(number: u64) -> Option<Vec<u8>> {
    Some(match number / 7 % 8 {
        0 => br#"{"id": "cut o"#.to_vec(),
        1 => b"{\"id\": \"\xff\xfe\", \"text\": \"a\"}".to_vec(),
        2 => vec![b'['; 100_000],
        3 => br#"{"id": "x", "source": "faults", "created_at": "2026-01-02T03:04:05Z"}"#.to_vec(),
        4 => post(number).1.replace("near", &"near ".repeat(60_000)).into_bytes(),
        5 => Vec::new(),
        6 => b"null".to_vec(),
        _ => return None,
    })
}

fn producer(servers: &str, notes: Notes) -> BaseProducer<Noting> {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", servers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("message.timeout.ms", "120000")
        .set("socket.timeout.ms", "5000")
        .set("reconnect.backoff.max.ms", "500");
    client.create_with_context(Noting(notes)).unwrap()
}

fn send(producer: &BaseProducer<Noting>, (topic, partitions): (&str, i32), feed: Feed, stop: &AtomicBool) {
    let begun = Instant::now();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = (begun.elapsed().as_secs_f64() * feed.rate as f64) as u64;
        while number < due {
            let (id, body) = post(number);
            let body = match feed.poison && is_poison(number) {
                true => poison(number),
                false => Some(body.into_bytes()),
            };
            let mut record = BaseRecord::<str, [u8], Box<String>>::with_opaque_to(topic, Box::new(id))
                .partition((number % partitions as u64) as i32);
            record.payload = body.as_deref();
            match producer.send(record) {
                Ok(()) => number += 1,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => break,
                Err((error, _)) => panic!("{error}"),
            }
        }
        producer.poll(Duration::from_millis(10));
    }
    producer.flush(PATIENCE).unwrap();
}

struct Noting(Notes);

impl ClientContext for Noting {
    // Brokers die here on purpose.
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Noting {
    type DeliveryOpaque = Box<String>;

    fn delivery(&self, result: &DeliveryResult<'_>, id: Box<String>) {
        // A message whose fate is unknown may or may not be there; only what was acknowledged must be.
        if let Ok(message) = result {
            let place = (message.partition(), message.offset());
            self.0.lock().unwrap().push(Acknowledged { id: *id, place });
        }
    }
}
