//! `tamiz model explain | faithfulness | audit | card`

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use tamiz::jobs::JobError;
use tamiz::jobs::model::audit::{self, CardOptions};
use tamiz::jobs::model::explain::{self, ExplainOptions};
use tamiz::jobs::model::measure::Answer;
use tamiz_model::{AuditTask, FaithfulTask, HubOptions, Method, ScorerOptions};

use super::folder;
use super::measure::{Format, Labelled, Model};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Show which words a label rests on.
    Explain {
        #[command(flatten)]
        model: Model,
        /// The texts.
        #[arg(required = true)]
        texts: Vec<String>,
        /// The head; all of them unless given.
        #[arg(long)]
        head: Option<String>,
        /// How the weights are computed.
        #[arg(long, value_enum, default_value_t = Weights::Integrated)]
        method: Weights,
        /// Write a page there.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        /// JSON instead of coloured words.
        #[arg(long)]
        json: bool,
    },
    /// Measure whether the words that explain a label are those that made it: take them out and look.
    Faithfulness {
        #[command(flatten)]
        model: Model,
        #[command(flatten)]
        labelled: Labelled,
        /// Texts to draw.
        #[arg(long, default_value_t = 200)]
        texts: usize,
        /// Seeds the draw.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        answer: Format,
    },
    /// Swap names and identity terms and see whether scores move; energy and cost.
    Audit {
        #[command(flatten)]
        model: Model,
        /// Folder with the published bias sets; $TAMIZ_DATA/bias unless given, only own templates without either.
        #[arg(long, value_name = "DIR")]
        sets: Option<PathBuf>,
        /// What the machine draws while it scores.
        #[arg(long, default_value_t = 65.0)]
        watts: f64,
        /// Price of a kilowatt-hour.
        #[arg(long, default_value_t = 0.30)]
        price_per_kwh: f64,
        /// Price of an hour of the machine.
        #[arg(long, default_value_t = 0.10)]
        price_per_hour: f64,
        #[command(flatten)]
        answer: Format,
    },
    /// Write a model card from measurements, in the format of Hugging Face.
    Card {
        #[command(flatten)]
        model: Model,
        /// What no measurement tells, as model/configs/card.toml.
        #[arg(long)]
        facts: PathBuf,
        /// Answers of `eval --format json`.
        #[arg(long = "eval", value_name = "FILE")]
        evaluations: Vec<PathBuf>,
        /// The answer of `audit --format json`.
        #[arg(long, value_name = "FILE")]
        audit: Option<PathBuf>,
        /// The answer of `faithfulness --format json`.
        #[arg(long, value_name = "FILE")]
        faithfulness: Option<PathBuf>,
        /// Where it goes; standard output unless given.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum Weights {
    /// Integrated gradients: the weights sum to the label's log-odds.
    Integrated,
    /// Gradient times input: faster, rougher.
    Gradient,
}

pub(in crate::cli) fn run(command: Command, hub: &HubOptions) -> Result<(), JobError> {
    let out = &mut io::stdout();
    match command {
        Command::Explain {
            model,
            texts,
            head,
            method,
            html,
            json,
        } => {
            let options = ExplainOptions {
                texts,
                head,
                method: match method {
                    Weights::Integrated => Method::IntegratedGradients,
                    Weights::Gradient => Method::GradientTimesInput,
                },
                html,
                answer: if json { Answer::Json } else { Answer::Table },
                colour: out.is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            };
            explain::explain(&folder(model.model, hub)?, &options, model.device, out)
        }
        Command::Faithfulness {
            model,
            labelled,
            texts,
            seed,
            answer,
        } => {
            let task = FaithfulTask {
                selection: labelled.selection(),
                data: labelled.data,
                head: labelled.head,
                texts,
                seed,
            };
            explain::faithfulness(&folder(model.model, hub)?, &task, model.device, answer.format, out)
        }
        Command::Audit {
            model,
            sets,
            watts,
            price_per_kwh,
            price_per_hour,
            answer,
        } => {
            let ours = || std::env::var_os("TAMIZ_DATA").map(|data| PathBuf::from(data).join("bias"));
            let task = AuditTask {
                sets: sets.or_else(ours),
                watts,
                price_per_kwh,
                price_per_hour,
            };
            let scorer = ScorerOptions {
                device: model.device,
                ..ScorerOptions::default()
            };
            audit::audit(&folder(model.model, hub)?, &task, scorer, answer.format, out)
        }
        Command::Card {
            model,
            facts,
            evaluations,
            audit,
            faithfulness,
            out: to,
        } => {
            let options = CardOptions {
                facts,
                evaluations,
                audit,
                faithfulness,
                to,
            };
            audit::card(&folder(model.model, hub)?, &options, out)
        }
    }
}
