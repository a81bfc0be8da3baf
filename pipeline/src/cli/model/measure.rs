//! `tamiz model eval | calibrate | compare`, and what all commands that measure have in common.

use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use tamiz::jobs::JobError;
use tamiz::jobs::model::measure::{self, Answer, CompareOptions, EvalOptions};
use tamiz::source::Stop;
use tamiz_model::{DeviceChoice, Fit, HubOptions, ScorerOptions, Selection};

use super::{folder, pair};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Measure a head on labelled texts: accuracy, F1, recall, confusion, calibration, speed.
    Eval {
        #[command(flatten)]
        model: Model,
        #[command(flatten)]
        labelled: Labelled,
        #[command(flatten)]
        answer: Format,
        /// Write confusion.svg and reliability.svg there.
        #[arg(long, value_name = "DIR")]
        plots: Option<PathBuf>,
        /// Processor threads of the model; one per core unless given.
        #[arg(long)]
        threads: Option<usize>,
    },
    /// Fit a head's temperature on a validation set and store it in the checkpoint: probabilities then mean what they say.
    Calibrate {
        #[command(flatten)]
        model: Model,
        #[command(flatten)]
        labelled: Labelled,
        /// Also shift the labels' logits until each label is predicted as often as it occurs: labels change.
        #[arg(long)]
        shares: bool,
        #[command(flatten)]
        answer: Format,
    },
    /// Train or load several networks on equal terms; one table of quality, speed and size.
    Compare {
        /// The comparison, as model/configs/compare.toml.
        #[arg(long)]
        config: PathBuf,
        /// The folder that the configuration's data paths start from.
        #[arg(long)]
        data: PathBuf,
        /// Checkpoints, compare.json, compare.csv and compare.svg go there; what is there already is loaded.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        #[command(flatten)]
        answer: Format,
    },
}

/// Which model, and where it runs.
#[derive(Debug, Args)]
pub(in crate::cli) struct Model {
    /// Folder of the model, or its name on the Hugging Face Hub (owner/name@revision); the one that ships unless given.
    #[arg(long, value_name = "MODEL")]
    pub(super) model: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub(super) device: DeviceChoice,
}

/// A file of labelled texts and what of it counts.
#[derive(Debug, Args)]
pub(in crate::cli) struct Labelled {
    /// JSON lines with `text` and `label`, plain or .zst.
    #[arg(long)]
    pub(super) data: PathBuf,
    /// The head.
    #[arg(long)]
    pub(super) head: String,
    /// Translate the file's labels: World=world_news,Sports=sports.
    #[arg(long, value_delimiter = ',', value_parser = pair)]
    map: Vec<(String, String)>,
    /// Take only rows whose field has this value: lang=english.
    #[arg(long, value_delimiter = ',', value_parser = pair)]
    only: Vec<(String, String)>,
    /// Choose among these labels only: world_news,sports.
    #[arg(long, value_delimiter = ',')]
    among: Vec<String>,
}

/// How the answer is written.
#[derive(Debug, Args)]
pub(in crate::cli) struct Format {
    /// For people or for programs.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Answer,
}

impl Labelled {
    pub(super) fn selection(&self) -> Selection {
        Selection {
            map: self.map.iter().cloned().collect(),
            only: self.only.iter().cloned().collect(),
            single_label: false,
            among: self.among.clone(),
        }
    }
}

pub(in crate::cli) fn run(command: Command, hub: &HubOptions, stop: &Stop) -> Result<(), JobError> {
    let mut out = io::stdout();
    let options = |labelled: Labelled, answer: Format, plots: Option<PathBuf>| EvalOptions {
        selection: labelled.selection(),
        data: labelled.data,
        head: labelled.head,
        answer: answer.format,
        plots,
    };
    match command {
        Command::Eval {
            model,
            labelled,
            answer,
            plots,
            threads,
        } => {
            let scorer = ScorerOptions {
                device: model.device,
                threads,
                ..ScorerOptions::default()
            };
            measure::eval(
                &folder(model.model, hub)?,
                &options(labelled, answer, plots),
                scorer,
                &mut out,
            )
        }
        Command::Calibrate {
            model,
            labelled,
            shares,
            answer,
        } => {
            let fit = if shares {
                Fit::TemperatureAndShares
            } else {
                Fit::Temperature
            };
            let options = options(labelled, answer, None);
            measure::calibrate(&folder(model.model, hub)?, &options, (model.device, fit), &mut out)
        }
        Command::Compare {
            config,
            data,
            out: to,
            answer,
        } => {
            let options = CompareOptions {
                config,
                data,
                out: to,
                answer: answer.format,
            };
            measure::compare(&options, stop, &mut out)
        }
    }
}
