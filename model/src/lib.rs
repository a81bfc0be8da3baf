//! The model: from a column of texts to probabilities per head, and everything that makes and checks it.
//!
//! | to read about | open |
//! |---|---|
//! | the network itself | [`transformer`] |
//! | scoring columns, from any thread, many callers at once | [`Scorer`] |
//! | a model on disk | [`Checkpoint`] |
//! | training one, or the mean of several | [`train()`], [`average()`] |
//! | measuring one | [`eval()`], [`calibrate()`], [`faithfulness`] |
//! | comparing networks | [`compare()`], [`Classifier`] |
//!
//! Architecture invariant: this crate knows no Kafka, no SQL and no table; texts come as Arrow arrays and are never logged.

mod architecture;
mod audit;
mod audit_sets;
mod average;
mod baselines;
mod batching;
mod calibrate;
mod card;
mod checkpoint;
mod compare;
mod compare_speed;
pub mod config;
mod curves;
mod data;
mod dense;
mod device;
mod download;
mod error;
mod eval;
mod explain;
mod explain_page;
#[cfg(feature = "failpoints")]
mod failpoint;
mod faithful;
mod feed;
mod heads;
mod hub;
mod lanes;
mod layout;
mod learner;
mod lesson;
mod metrics;
mod network;
mod optimizer;
mod owner;
pub mod plot;
mod prepare;
mod pretrained;
mod progress;
mod rescue;
mod resume;
mod scorer;
mod scores;
mod sets;
mod start;
mod stats;
mod teachers;
pub mod testing;
mod tokenizer;
mod trace;
mod train;
mod train_check;
mod train_config;
pub mod transformer;
mod validate;
mod vocabulary;

pub use architecture::{Architecture, Classifier};
pub use audit::{Audit, AuditTask, Category, Cost, Group, Subgroup, audit};
pub use average::average;
pub use calibrate::{Bin, CalibrateOptions, Calibrated, Calibration, Fit, calibrate};
pub use card::{CardFacts, DataFact, Failure, Measured, card};
pub use checkpoint::{Checkpoint, Manifest, ModelInfo, Origin, Precision, default_weights};
pub use compare::{CompareConfig, Comparison, Contender, SetFigures, compare};
pub use compare_speed::{LengthSpeed, Memory};
pub use config::ModelConfig;
pub use data::{Labelled, Selection, read_labelled};
pub use device::DeviceChoice;
pub use error::{ModelError, ScoreError, print_no_caught_panics};
pub use eval::{Evaluation, HeadLogits, Probe, Speed, TextScores, eval};
pub use explain::{Explanation, Method, TokenWeight};
pub use explain_page::{html, terminal};
pub use faithful::{FaithfulTask, Faithfulness, OrderFigures, faithfulness};
pub use hub::{HubOptions, locate};
pub use metrics::{LabelMetrics, Metrics};
pub use pretrained::{FOREIGN_HEAD, Reading};
pub use progress::{Ended, Figures, Progress, TrainOutcome};
pub use scorer::{Scorer, ScorerOptions, ScorerStats};
pub use scores::{FailedRow, Head, HeadScores, ModelIdentity, Scored, Scores};
pub use stats::{Estimate, auc};
pub use tokenizer::{Encoded, Tokenizer};
pub use trace::Trace;
pub use train::train;
pub use train_config::{Task, TrainConfig};
