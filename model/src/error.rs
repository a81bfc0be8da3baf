//! What can go wrong here, in one sentence each: what failed, on what, and what to do next.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// A checkpoint, a device, a training configuration or a data file that cannot be used.
#[derive(Debug, Error)]
pub enum ModelError {
    /// A file of a checkpoint folder is missing or unreadable.
    #[error(
        "cannot read `{}`: a model folder holds config.json, model.safetensors, tokenizer.json and manifest.json", path.display()
    )]
    Missing {
        /// The file that was looked for.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read `{}`: check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write `{}`: check the space and the permissions there", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file was read but is not what it should be.
    #[error("`{}` is not usable: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// A file differs from the hash that the manifest holds.
    #[error("`{}` does not match its manifest (sha256 {found:.12}… instead of {expected:.12}…): fetch the model folder again", path.display())]
    Hash {
        /// The file.
        path: PathBuf,
        /// The hash in the manifest.
        expected: String,
        /// The hash of the file.
        found: String,
    },
    /// A label map that does not fit its head.
    #[error("head `{head}` has wrong labels: {reason}")]
    Labels {
        /// The head.
        head: String,
        /// What is wrong, with the labels that would be right.
        reason: String,
    },
    /// A head that the model does not have.
    #[error("the model has no head `{head}`: choose one of {known}")]
    UnknownHead {
        /// The head that was asked for.
        head: String,
        /// Those there are, separated by commas.
        known: String,
    },
    /// A weight whose shape does not fit the configuration.
    #[error("`{}`: {reason}", path.display())]
    Weights {
        /// The file of weights.
        path: PathBuf,
        /// Which weight, what was expected and what was found.
        reason: String,
    },
    /// A device that was asked for and is not there.
    #[error("{0}")]
    Device(String),
    /// An option or a training configuration that cannot work.
    #[error("{0}")]
    Config(String),
    /// A line of a data file that cannot be used.
    #[error("`{}` line {line}: {reason}", path.display())]
    Row {
        /// The data file.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// libtorch refused an operation.
    #[error("libtorch failed while {doing}: {reason}")]
    Torch {
        /// What was being done.
        doing: &'static str,
        /// The first line of what libtorch said.
        reason: String,
    },
    /// Scoring failed.
    #[error(transparent)]
    Score(#[from] ScoreError),
}

impl ModelError {
    pub(crate) fn malformed(path: &Path, reason: impl ToString) -> Self {
        ModelError::Malformed {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        ModelError::Read {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        ModelError::Write {
            path: path.to_owned(),
            source,
        }
    }
}

/// Why one call to the scorer has no result. The scorer itself lives on, except after [`ScoreError::Stopped`].
#[derive(Debug, Clone, Error)]
pub enum ScoreError {
    /// The thread that owns the model has ended.
    #[error("the scorer has stopped: open it again")]
    Stopped,
    /// The tokenizer refused a text.
    #[error("the tokenizer failed: {0}")]
    Tokenize(Arc<str>),
    /// Single texts failed, alone and after smaller batches were tried; [`crate::Scorer::score_each`] tells which.
    #[error("the model failed on {failed} of {rows} texts ({reason})")]
    Rows {
        /// How many.
        failed: usize,
        /// Of how many.
        rows: usize,
        /// What libtorch said of the first.
        reason: Arc<str>,
    },
    /// The model fails on everything: the device is gone, or its memory is taken. No text is to blame.
    #[error("the model cannot work ({0}): look at the device and its memory, then start again")]
    Broken(Arc<str>),
}

/// Runs `work` on tensors and turns a failure inside libtorch into an error.
///
/// The operators of `tch` that read like mathematics panic where libtorch throws (out of memory, wrong shape); this is the one
/// place that catches it, so that the forward pass stays readable and nothing above it has to expect a panic.
pub(crate) fn guard<T>(doing: &'static str, work: impl FnOnce() -> T) -> Result<T, ModelError> {
    let around = GUARDED.replace(true);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    GUARDED.set(around);
    done.map_err(|panic| {
        let said = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        ModelError::Torch {
            doing,
            reason: first_line(said),
        }
    })
}

thread_local! {
    /// Whether a panic of this thread would be caught and told as an error.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Keeps panics that become errors from being printed as well: a batch that is halved ten times would be told ten times. For a
/// program's `main`; panics elsewhere are printed as before.
pub fn print_no_caught_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !GUARDED.get() {
            print(panic);
        }
    }));
}

/// libtorch appends its C++ stack to every message; only the first line is for people.
fn first_line(message: &str) -> String {
    let line = message.split("\\n").next().unwrap_or(message);
    let line = line.lines().next().unwrap_or(line);
    line.trim_start_matches("called `Result::unwrap()` on an `Err` value: ")
        .trim_matches(['"', '(', ')'])
        .to_owned()
}

impl From<tch::TchError> for ModelError {
    fn from(error: tch::TchError) -> Self {
        ModelError::Torch {
            doing: "working on tensors",
            reason: first_line(&error.to_string()),
        }
    }
}
