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

/// A producer at work in a thread of its own.
pub(crate) struct Load {
    notes: Notes,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Sends `rate` posts a second to the topic's partitions in turns.
    pub(crate) fn start(servers: &str, topic: &str, partitions: i32, rate: u64) -> Load {
        let (notes, stop) = (Notes::default(), Arc::new(AtomicBool::new(false)));
        let producer = producer(servers, Arc::clone(&notes));
        let (topic, stopped) = (topic.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || send(&producer, (&topic, partitions), rate, &stopped));
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

fn send(producer: &BaseProducer<Noting>, (topic, partitions): (&str, i32), rate: u64, stop: &AtomicBool) {
    let begun = Instant::now();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        while number < due {
            let (id, body) = post(number);
            let record = BaseRecord::<str, str, Box<String>>::with_opaque_to(topic, Box::new(id))
                .partition((number % partitions as u64) as i32)
                .payload(&body);
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
