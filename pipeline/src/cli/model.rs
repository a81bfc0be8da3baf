//! `tamiz model …`

mod look;
mod measure;

use std::io;
use std::path::PathBuf;

use clap::Subcommand;
use tamiz::jobs::JobError;
use tamiz::jobs::model;
use tamiz::source::Stop;
use tamiz_model::{DeviceChoice, HubOptions, Task, TrainConfig, locate};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// What a checkpoint is: identity, heads, labels, size, how it was made.
    Info {
        /// Folder of the model, or its name on the Hugging Face Hub (owner/name@revision); the one that ships unless given.
        #[arg(long, value_name = "MODEL")]
        model: Option<PathBuf>,
    },
    /// Token ids, logits and labels per text, one JSON object a line.
    Score {
        /// Folder of the model, or its name on the Hugging Face Hub (owner/name@revision); the one that ships unless given.
        #[arg(long, value_name = "MODEL")]
        model: Option<PathBuf>,
        /// auto, cpu, cuda or cuda:N.
        #[arg(long, default_value = "auto")]
        device: DeviceChoice,
        /// Texts; lines of standard input unless given.
        texts: Vec<String>,
    },
    #[command(flatten)]
    Measure(measure::Command),
    #[command(flatten)]
    Look(look::Command),
    /// The mean of several models that were fine-tuned from the same start, weight by weight: often better than each.
    Average {
        /// Where the mean goes.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Two or more folders of models, alike in structure, labels and tokenizer.
        #[arg(required = true, num_args = 2.., value_name = "MODEL")]
        models: Vec<PathBuf>,
    },
    /// Train a model.
    Train {
        /// The run, as model/configs/base.toml.
        #[arg(long)]
        config: PathBuf,
        /// The folder that the configuration's data paths start from.
        #[arg(long)]
        data: PathBuf,
        /// Where the checkpoint goes.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The checkpoint to start from, instead of the configured one: a folder, or a name on the Hugging Face Hub.
        #[arg(long, value_name = "CHECKPOINT")]
        from: Option<String>,
        /// classify, or mlm to pre-train on hidden words, instead of the configured one.
        #[arg(long)]
        task: Option<Task>,
        /// Draws everything that is drawn, instead of the configured one.
        #[arg(long)]
        seed: Option<u64>,
        /// auto, cpu, cuda or cuda:N, instead of the configured one.
        #[arg(long)]
        device: Option<DeviceChoice>,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok((from.into(), to.into())),
        _ => Err(format!("`{text}` is not FROM=TO")),
    }
}

/// The folder of a model that was named, or of the one that ships.
fn folder(given: Option<PathBuf>, hub: &HubOptions) -> Result<PathBuf, JobError> {
    Ok(given.map_or_else(tamiz_model::default_weights, |name| {
        locate(&name.to_string_lossy(), hub)
    })?)
}

pub(super) fn run(command: Command, offline: bool, stop: &Stop) -> Result<(), JobError> {
    let mut out = io::stdout();
    let mut hub = HubOptions::from_environment();
    hub.offline |= offline;
    match command {
        Command::Info { model } => model::info(&folder(model, &hub)?, &mut out),
        Command::Score { model, device, texts } => {
            model::score(&folder(model, &hub)?, device, &texts, &mut io::stdin().lock(), &mut out)
        }
        Command::Average { out: folder, models } => model::average(&models, &folder, &mut out),
        Command::Measure(command) => measure::run(command, &hub, stop),
        Command::Look(command) => look::run(command, &hub),
        Command::Train {
            config,
            data,
            out: folder,
            from,
            task,
            seed,
            device,
        } => {
            let mut config = TrainConfig::read(&config)?;
            config.data = data;
            config.from = match from.or(config.from) {
                Some(name) => Some(locate(&name, &hub)?.to_string_lossy().into_owned()),
                None => None,
            };
            config.task = task.unwrap_or(config.task);
            config.seed = seed.unwrap_or(config.seed);
            config.device = device.unwrap_or(config.device);
            model::train(&config, &folder, stop, &mut out)
        }
    }
}
