//! The model: from a column of texts to probabilities per head, and everything that makes and checks it.
//!
//! | to read about | open |
//! |---|---|
//! | the network itself | [`transformer`] |
//! | scoring columns, from any thread, many callers at once | [`Scorer`] |
//! | a model on disk | [`Checkpoint`] |
//! | training one | [`train()`] |
//! | measuring one | [`eval()`] |
//!
//! Architecture invariant: this crate knows no Kafka, no SQL and no table; texts come as Arrow arrays and are never logged.

mod architecture;
mod baselines;
mod batching;
mod checkpoint;
pub mod config;
mod data;
mod device;
mod error;
mod eval;
mod feed;
mod metrics;
mod network;
mod owner;
mod prepare;
mod scorer;
mod scores;
mod sets;
pub mod testing;
mod tokenizer;
mod trace;
mod train;
mod train_config;
pub mod transformer;
mod vocabulary;

pub use architecture::{Architecture, Classifier};
pub use checkpoint::{Checkpoint, Manifest, ModelInfo, Origin, Precision, default_weights};
pub use config::ModelConfig;
pub use data::{Labelled, Selection, read_labelled};
pub use device::DeviceChoice;
pub use error::{ModelError, ScoreError};
pub use eval::{Evaluation, HeadLogits, Probe, TextScores, eval};
pub use metrics::{LabelMetrics, Metrics};
pub use scorer::{Scorer, ScorerOptions, ScorerStats};
pub use scores::{Head, HeadScores, ModelIdentity, Scores};
pub use tokenizer::{Encoded, Tokenizer};
pub use trace::Trace;
pub use train::{Ended, Figures, Progress, TrainOutcome, train};
pub use train_config::TrainConfig;
