//! The stages in their order, made from the configuration and checked as a chain.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use tamiz_model::Scorer;

use crate::config::{Config, ConfigError, Problem};
use crate::registry::Registry;
use crate::source;
use crate::stage::{Chain, Stage};
use crate::stages::decode::{Decode, Origin};
use crate::stages::duplicates::Duplicates;
use crate::stages::finish::DeadLetterRules;
use crate::stages::language::Language;
use crate::stages::late::Late;
use crate::stages::noise::Noise;
use crate::stages::normalize::Normalize;
use crate::stages::payloads::Payloads;
use crate::stages::score::Scoring;
use crate::stages::validate::Validate;
use crate::stats::Stats;

/// All that a row passes between source and sink.
pub struct Line {
    /// Stages without a memory, run on many batches at once.
    pub chain: Chain,
    /// The stage with a memory, run in order.
    pub duplicates: Arc<dyn Stage>,
    /// The model.
    pub scoring: Scoring,
    /// Fetches the schemas of payloads before they are decoded.
    pub registry: Option<Arc<Registry>>,
    /// What becomes of rejects.
    pub rules: DeadLetterRules,
    /// The counters.
    pub stats: Arc<Stats>,
}

/// What a source's payload column holds when it is bytes.
pub fn input_schema() -> SchemaRef {
    source::schema(DataType::Binary)
}

impl Line {
    /// Makes the stages and checks that each one's output is what the next one needs.
    ///
    /// # Errors
    /// A setting that a stage refuses, or a model without the heads that the table needs.
    pub fn new(
        config: &Config,
        scorer: Option<Scorer>,
        origin: Origin,
        stats: Arc<Stats>,
    ) -> Result<Self, ConfigError> {
        let wrong = |key: &str, message: String| {
            ConfigError(vec![Problem {
                key: key.into(),
                message,
            }])
        };
        let mapping = config.mapping()?;
        // Files are JSON lines or Parquet, whatever the topic's messages are.
        let (payloads, registry) = match origin {
            Origin::Kafka => Payloads::of(&config.input, &mapping).map_err(|(key, message)| wrong(key, message))?,
            Origin::File => (Payloads::json(&mapping), None),
        };
        let naming = config.naming(&mapping).map_err(|message| wrong("pii", message))?;
        let decode = Decode::new(&mapping, config.validate.max_payload_bytes, origin, naming);
        let stages: Vec<Arc<dyn Stage>> = vec![
            Arc::new(decode.with(payloads)),
            Arc::new(Validate::new(&config.validate).map_err(|message| wrong("validate", message))?),
            Arc::new(Late::new(config.late)),
            Arc::new(Normalize),
            Arc::new(Language::new(config.language.clone())),
            Arc::new(Noise::new(config.noise.clone())),
            Arc::new(config.scrub().map_err(|message| wrong("pii", message))?),
        ];
        let duplicates: Arc<dyn Stage> = Arc::new(Duplicates::new(config.noise.clone()));
        let broken = |error: crate::stage::StageError| wrong("stages", error.to_string());
        let chain = Chain::new(stages, input_schema(), Arc::clone(&stats)).map_err(broken)?;
        let output = chain.output(input_schema()).map_err(broken)?;
        duplicates.schema(&output).map_err(broken)?;
        let scoring = Scoring::new(scorer).map_err(|error| wrong("model", error.to_string()))?;
        Ok(Line {
            chain,
            duplicates,
            scoring,
            registry,
            rules: config.dead_letter_rules(),
            stats,
        })
    }

    /// Heads of the model beside sentiment and topic: each has a column of its own.
    pub fn further_heads(&self) -> &[String] {
        self.scoring.further_heads()
    }

    /// Every step's name, in order.
    pub fn steps(&self) -> Vec<&'static str> {
        let mut names = self.chain.names();
        names.extend([self.duplicates.name(), crate::stages::score::NAME]);
        names
    }
}
