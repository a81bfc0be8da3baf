//! The configuration: one TOML file over the embedded defaults, the environment over the file, flags over both.
//!
//! Architecture Invariant: no globals. Whoever needs a setting is given it.

mod check;
mod environment;
mod input;
mod keys;
mod load;
mod secret;

use std::collections::{BTreeMap, BTreeSet};
use std::env::VarError;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tamiz_model::{DeviceChoice, HubOptions, ScorerOptions};
use tamiz_schemas::mapping::{InputConfig, Mapping};
use tamiz_udfs::TextOptions;
use tamiz_udfs::text::pii::{Kind, Mode, PiiPolicy, PseudonymKey, Scrubber};

pub use check::{ConfigError, Problem};
pub(crate) use keys::is_within;
pub use load::{DEFAULT, Draft, draft, load};
pub use secret::secret;

use crate::jobs::care::CareRules;
use crate::observe::{MetricsConfig, TracesConfig};
use crate::source::BatchLimits;
use crate::source::kafka::KafkaConfig;
use crate::stages::deletes::Naming;
use crate::stages::finish::DeadLetterRules;
use crate::stages::language::LanguageRules;
use crate::stages::late::LateRules;
use crate::stages::noise::NoiseConfig;
use crate::stages::scrub::{Authors, Scrub};
use crate::stages::validate::ValidateRules;

/// Environment variable that holds the key of the pseudonyms.
pub const KEY_VARIABLE: &str = "TAMIZ_PII_KEY";

/// Everything that can be set; `pipeline/default.toml` documents each option.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[pipeline]`
    pub pipeline: PipelineConfig,
    /// `[source]`
    pub source: SourceConfig,
    /// `[input]`
    pub input: InputConfig,
    /// `[validate]`
    pub validate: ValidateRules,
    /// `[late]`
    pub late: LateRules,
    /// `[deletes]`
    pub deletes: DeletesConfig,
    /// `[language]`
    pub language: LanguageRules,
    /// `[noise]`
    pub noise: NoiseConfig,
    /// `[pii]`
    pub pii: PiiConfig,
    /// `[model]`
    pub model: ModelConfig,
    /// `[sink]`
    pub sink: SinkConfig,
    /// `[table]`
    pub table: CareRules,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[metrics]`
    pub metrics: MetricsConfig,
    /// `[traces]`
    pub traces: TracesConfig,
}

/// `[pipeline]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineConfig {
    /// Name under which the tables remember how far this pipeline has read.
    pub name: String,
}

/// `[source]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// `[source.kafka]`
    pub kafka: KafkaConfig,
}

/// `[deletes]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeletesConfig {
    /// Address of the table of deletes; empty: that of posts with `_deletes` behind.
    pub table: String,
    /// A post that was taken back is out of the table after so many minutes.
    pub apply_minutes: f64,
    /// Posts that arrive so much later than their delete are still taken out.
    pub remember_hours: u32,
}

/// What happens to authors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthorMode {
    /// A keyed pseudonym.
    Hash,
    /// Nothing is kept.
    Drop,
}

/// `[pii]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PiiConfig {
    /// Mode of the kinds not named in `kinds`.
    pub default: Mode,
    /// Mode by kind.
    pub kinds: BTreeMap<Kind, Mode>,
    /// What happens to authors.
    pub authors: AuthorMode,
    /// File that holds the key.
    pub key_file: String,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Whether rows are scored.
    pub enabled: bool,
    /// Folder of the checkpoint; empty for the one that ships.
    pub path: String,
    /// Device.
    pub device: String,
    /// Padded tokens per forward pass.
    pub batch_tokens: usize,
    /// Processor threads of the model; 0: one per core.
    pub threads: usize,
    /// Rows that an accelerator cannot do alone are scored on the processor.
    pub cpu_fallback: bool,
}

/// `[sink]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// Address of the posts table.
    pub posts: String,
    /// Address of the dead-letters table.
    pub dead_letters: String,
    /// A commit is made when this many payload bytes wait.
    pub flush_bytes: usize,
    /// … or when the oldest row has waited this long.
    pub flush_seconds: f64,
    /// Keep payloads of dead letters.
    pub keep_payload: bool,
    /// Reasons that are counted but not stored.
    pub ignore: BTreeSet<String>,
    /// `[sink.dead_letter_topic]`
    pub dead_letter_topic: LetterTopicConfig,
    /// Options of the object store.
    pub storage: BTreeMap<String, String>,
}

/// `[sink.dead_letter_topic]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LetterTopicConfig {
    /// Topic to which `tamiz run` produces dead letters as well; empty: none.
    pub topic: String,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// Bytes in flight between source and commit.
    pub memory_bytes: usize,
    /// Rows of a batch.
    pub batch_rows: usize,
    /// Payload bytes of a batch.
    pub batch_bytes: usize,
    /// How long a first row waits for company.
    pub linger_millis: u64,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// error, warn, info, debug or trace.
    pub level: String,
    /// How log lines look.
    pub format: LogFormat,
    /// How often a minute a warning that repeats is written; 0: always.
    pub repeats_per_minute: u32,
}

impl Config {
    /// The defaults.
    ///
    /// # Errors
    /// The environment holds a wrong value.
    pub fn defaults() -> Result<Self, ConfigError> {
        load(None, std::env::vars_os())
    }

    /// The mapping of `[input]`.
    ///
    /// # Errors
    /// A pointer is none.
    pub fn mapping(&self) -> Result<Mapping, ConfigError> {
        self.input.mapping().map_err(|error| {
            ConfigError(vec![Problem {
                key: "input".into(),
                message: error.to_string(),
            }])
        })
    }

    /// The key of the pseudonyms, from the environment or its file; `None` where neither is given.
    ///
    /// # Errors
    /// The file cannot be read, or the key is too short. Never tells the key.
    pub fn key(&self) -> Result<Option<PseudonymKey>, String> {
        let (place, secret) = match std::env::var(KEY_VARIABLE) {
            Ok(secret) => (KEY_VARIABLE.to_owned(), secret),
            Err(VarError::NotUnicode(_)) => {
                return Err(format!(
                    "{KEY_VARIABLE} is not UTF-8: write the key as `openssl rand -hex 32` does"
                ));
            }
            Err(_) if self.pii.key_file.is_empty() => return Ok(None),
            Err(_) => {
                let place = format!("`pii.key_file` `{}`", self.pii.key_file);
                let secret = std::fs::read_to_string(&self.pii.key_file)
                    .map_err(|error| format!("cannot read {place}: {error}"))?;
                (place, secret)
            }
        };
        PseudonymKey::new(secret.trim().as_bytes())
            .map(Some)
            .map_err(|error| format!("{place}: {error}"))
    }

    /// The scrub stage.
    ///
    /// # Errors
    /// A key is needed and there is none.
    pub fn scrub(&self) -> Result<Scrub, String> {
        let key = self.key()?;
        let authors = self.authors(key.clone())?;
        let policy = PiiPolicy {
            default: self.pii.default,
            kinds: self.pii.kinds.clone(),
        };
        let scrubber = Scrubber::new(policy, key).map_err(|error| error.to_string())?;
        Ok(Scrub::new(scrubber, authors))
    }

    fn authors(&self, key: Option<PseudonymKey>) -> Result<Authors, String> {
        match (self.pii.authors, key) {
            (AuthorMode::Drop, _) => Ok(Authors::Drop),
            (AuthorMode::Hash, Some(key)) => Ok(Authors::Pseudonym(key)),
            (AuthorMode::Hash, None) => Err(format!(
                "pseudonyms of authors need a key: set {KEY_VARIABLE} (for example to the output of `openssl rand \
                 -hex 32`, kept for as long as the table), name a `pii.key_file`, or set pii.authors = \"drop\""
            )),
        }
    }

    /// How deletes and posts name each other.
    ///
    /// # Errors
    /// A key is needed and there is none, or deletes of two kinds would know posts by different names.
    pub fn naming(&self, mapping: &Mapping) -> Result<Naming, String> {
        let key = self.key()?;
        let tombstones = self.input.deletes.tombstones;
        if key.is_none() && (tombstones || self.input.key.is_some()) {
            return Err(format!(
                "`input.key` and `input.deletes.tombstones` keep a keyed hash: set {KEY_VARIABLE} or name a `pii.key_file`"
            ));
        }
        // A post has one key: there it is that of its message, and a delete record has only the identifier to go by.
        let by_message = tombstones && mapping.key.is_none() && mapping.deletes.is_some();
        if by_message && self.pii.authors == AuthorMode::Drop {
            return Err(
                "with pii.authors = \"drop\" and `input.deletes.tombstones` delete records do not find their posts: \
                 set pii.authors = \"hash\", leave tombstones out, or switch the records off with `input.deletes.when = {}`"
                    .into(),
            );
        }
        Ok(Naming::new(mapping, tombstones, self.authors(key.clone())?, key))
    }

    /// Address of the table of deletes.
    pub fn deletes_address(&self) -> String {
        match self.deletes.table.as_str() {
            "" => format!("{}_deletes", self.sink.posts.trim_end_matches('/')),
            address => address.to_owned(),
        }
    }

    /// What the SQL functions scrub by: the same policy and key as the stream.
    ///
    /// # Errors
    /// As [`Config::key`].
    pub fn text_options(&self) -> Result<TextOptions, String> {
        let pii = PiiPolicy {
            default: self.pii.default,
            kinds: self.pii.kinds.clone(),
        };
        Ok(TextOptions {
            pii,
            pseudonym_key: self.key()?,
        })
    }

    /// Folder of the model; one that is named as on the Hugging Face Hub is fetched if it has not been before.
    ///
    /// # Errors
    /// The shipped model cannot be found, there is no such folder, or it cannot be fetched.
    pub fn model_path(&self) -> Result<PathBuf, String> {
        if self.model.path.is_empty() {
            tamiz_model::default_weights()
        } else {
            tamiz_model::locate(&self.model.path, &HubOptions::from_environment())
        }
        .map_err(|error| error.to_string())
    }

    /// Options of the scorer.
    ///
    /// # Errors
    /// The device's name is no device.
    pub fn scorer_options(&self) -> Result<ScorerOptions, String> {
        Ok(ScorerOptions {
            device: self
                .model
                .device
                .parse::<DeviceChoice>()
                .map_err(|error| error.to_string())?,
            batch_tokens: self.model.batch_tokens,
            threads: (self.model.threads > 0).then_some(self.model.threads),
            cpu_fallback: self.model.cpu_fallback,
            ..ScorerOptions::default()
        })
    }

    /// How large batches grow.
    pub fn batch_limits(&self) -> BatchLimits {
        BatchLimits {
            rows: self.limits.batch_rows,
            bytes: self.limits.batch_bytes,
            linger: Duration::from_millis(self.limits.linger_millis),
        }
    }

    /// What becomes of rejects.
    pub fn dead_letter_rules(&self) -> DeadLetterRules {
        DeadLetterRules {
            keep_payload: self.sink.keep_payload,
            ignore: self.sink.ignore.clone(),
        }
    }
}
