//! Schemas of payloads, from a Confluent-compatible registry, at hand before a batch is decoded.
//!
//! Stages do no I/O. So before a batch goes to them, the numbers in its payloads' headers are looked at, and schemas that
//! are new are fetched and compiled onto a [`Shelf`], from which the decode stage reads. A registry that does not answer
//! is asked again until it does, or until the run is stopped; the line waits, which in the end makes the source wait.
//! A number that the registry does not know makes dead letters, and is not asked for again for a while.
//!
//! Architecture Invariant: only numbers from payloads reach the registry, never a payload; answers are bounded in size and
//! number, and so is what is kept of numbers that nobody knows.

mod client;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use futures::stream::{self, StreamExt, TryStreamExt};
use rand::Rng;
use tamiz_schemas::columns::PAYLOAD;
use tamiz_schemas::extract::{AvroReader, Extractor, ProtobufSchema};
use tamiz_schemas::format::{PayloadFormat, RegistryConfig};
use tamiz_schemas::frame;

use crate::source::Stop;
use client::{Client, Registered, Trouble};

pub use client::PASSWORD_VARIABLE;

/// Schemas that are fetched at once.
const AT_ONCE: usize = 8;
/// How long a number that the registry does not know, or whose schema cannot be used, is not asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How many such numbers are remembered; they come from payloads, which are hostile.
const MOST_UNKNOWN: usize = 65_536;
/// Schemas that are kept. A topic has a few; more are treated as unknown.
const MOST_SCHEMAS: usize = 10_000;
/// Waits between attempts grow from this …
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// … to this.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// A registry that ends the run.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It does not let us in.
    #[error("{0}")]
    Refused(String),
    /// It did not answer until someone asked to stop.
    #[error(
        "the schema registry at {0} did not answer before the run was stopped: what is not committed is read again at the \
         next start"
    )]
    Stopped(String),
}

/// A schema, ready to read payloads.
#[derive(Debug)]
pub enum Schema {
    /// Avro.
    Avro(Box<AvroReader>),
    /// Protobuf: every message of it.
    Protobuf(ProtobufSchema),
    /// It is there and cannot be used; why.
    Unusable(String),
}

/// Schemas by their number. What is not here is unknown to the registry.
pub type Schemas = HashMap<u32, Arc<Schema>>;

/// Where the schemas lie that were fetched; the decode stage takes what is there when it begins a batch.
#[derive(Debug, Default)]
pub struct Shelf(RwLock<Arc<Schemas>>);

impl Shelf {
    /// What is there now; it does not change any more.
    pub fn schemas(&self) -> Arc<Schemas> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts schemas there.
    pub fn put(&self, new: impl IntoIterator<Item = (u32, Schema)>) {
        let mut place = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = Schemas::clone(&place);
        all.extend(new.into_iter().map(|(number, schema)| (number, Arc::new(schema))));
        *place = Arc::new(all);
    }
}

/// Fetches schemas and compiles them.
#[derive(Debug)]
pub struct Registry {
    client: Client,
    format: PayloadFormat,
    extractor: Arc<Extractor>,
    shelf: Arc<Shelf>,
    /// Numbers that gave no schema, and when; held while schemas are fetched, so that each is fetched once.
    unknown: tokio::sync::Mutex<BTreeMap<u32, Instant>>,
    away: AtomicBool,
}

impl Registry {
    /// A registry as configured; asks it nothing.
    ///
    /// # Errors
    /// In words: the password is missing, or a file cannot be used.
    pub fn new(config: &RegistryConfig, format: PayloadFormat, extractor: Arc<Extractor>) -> Result<Self, String> {
        Ok(Registry {
            client: Client::new(config)?,
            format,
            extractor,
            shelf: Arc::default(),
            unknown: tokio::sync::Mutex::default(),
            away: AtomicBool::new(false),
        })
    }

    /// Where its schemas lie.
    pub fn shelf(&self) -> Arc<Shelf> {
        Arc::clone(&self.shelf)
    }

    /// Whether it answers and lets us in.
    ///
    /// # Errors
    /// In words.
    pub async fn greet(&self) -> Result<(), String> {
        self.client.greet().await.map_err(Trouble::into_words)
    }

    /// Its address.
    pub fn address(&self) -> &str {
        self.client.address()
    }

    /// Has every schema at hand that the batch names, if the registry knows it.
    ///
    /// # Errors
    /// The registry does not let us in, or did not answer before the run was stopped.
    pub async fn prepare(&self, rows: &RecordBatch, stop: &Stop) -> Result<(), RegistryError> {
        if self.missing(rows, &BTreeMap::new()).is_empty() {
            return Ok(());
        }
        let mut unknown = self.unknown.lock().await;
        unknown.retain(|_, since| since.elapsed() < ASK_AGAIN);
        // Another batch may have fetched them meanwhile.
        let wanted = self.missing(rows, &unknown);
        let fetched: Vec<(u32, Option<Schema>)> = stream::iter(wanted)
            .map(|number| async move { Ok::<_, RegistryError>((number, self.fetch(number, stop).await?)) })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        for (number, schema) in &fetched {
            if !matches!(schema, Some(Schema::Avro(_) | Schema::Protobuf(_))) {
                tracing::warn!(schema = number, "payloads of this schema become dead letters");
                if unknown.len() >= MOST_UNKNOWN {
                    unknown.clear();
                }
                unknown.insert(*number, Instant::now());
            }
        }
        self.shelf.put(
            fetched
                .into_iter()
                .filter_map(|(number, schema)| Some((number, schema?))),
        );
        Ok(())
    }

    /// The numbers in the batch that have no schema on the shelf and are worth asking for.
    fn missing(&self, rows: &RecordBatch, unknown: &BTreeMap<u32, Instant>) -> Vec<u32> {
        let Some(payloads) = rows
            .column_by_name(PAYLOAD)
            .and_then(|column| column.as_binary_opt::<i32>())
        else {
            return Vec::new();
        };
        let shelf = self.shelf.schemas();
        let usable = |number: &u32| {
            shelf
                .get(number)
                .is_some_and(|schema| !matches!(**schema, Schema::Unusable(_)))
        };
        let numbers = payloads
            .iter()
            .flatten()
            .filter_map(|payload| frame::split(payload).ok());
        let mut missing: Vec<u32> = numbers
            .map(|framed| framed.schema)
            .filter(|number| !usable(number) && !unknown.contains_key(number))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        missing.truncate(MOST_SCHEMAS.saturating_sub(shelf.len()));
        missing
    }

    /// A schema, `None` where the registry knows none. Waits for a registry that is away.
    async fn fetch(&self, number: u32, stop: &Stop) -> Result<Option<Schema>, RegistryError> {
        // Numbers at registries have 31 bits: nobody is asked, so nothing is learnt of who answers.
        if i32::try_from(number).is_err() {
            return Ok(None);
        }
        let mut wait = FIRST_WAIT;
        loop {
            match self.client.schema(number).await {
                Ok(found) => {
                    if self.away.swap(false, Ordering::SeqCst) {
                        tracing::info!(registry = self.client.address(), "the schema registry answers again");
                    }
                    return Ok(found.map(|registered| self.compile(registered)));
                }
                Err(Trouble::Refused(words)) => return Err(RegistryError::Refused(words)),
                Err(Trouble::Unusable(words)) => return Ok(Some(Schema::Unusable(words))),
                Err(Trouble::Away(words)) => {
                    if !self.away.swap(true, Ordering::SeqCst) {
                        tracing::warn!(
                            reason = words,
                            "the schema registry does not answer: the line waits for it"
                        );
                    }
                    self.pause(wait, stop).await?;
                    wait = (wait * 2).min(LAST_WAIT);
                }
            }
        }
    }

    /// Waits about so long, unless the run is stopped.
    async fn pause(&self, wait: Duration, stop: &Stop) -> Result<(), RegistryError> {
        let until = Instant::now() + wait.mul_f64(rand::rng().random_range(0.5..1.5));
        while Instant::now() < until {
            if stop.is_set() {
                return Err(RegistryError::Stopped(self.client.address().to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn compile(&self, registered: Registered) -> Schema {
        let Registered { kind, text, references } = registered;
        let extractor = Arc::clone(&self.extractor);
        let compiled = match (self.format, kind.as_str()) {
            (PayloadFormat::Avro, "AVRO") => {
                let texts: Vec<String> = references.into_iter().map(|(_, text)| text).collect();
                AvroReader::new(extractor, &text, &texts).map(|reader| Schema::Avro(Box::new(reader)))
            }
            (PayloadFormat::Protobuf, "PROTOBUF") => {
                ProtobufSchema::new(&extractor, &text, &references).map(Schema::Protobuf)
            }
            (wanted, _) => Err(format!("it is no {} schema", wanted.name())),
        };
        compiled.unwrap_or_else(Schema::Unusable)
    }
}
