//! Sets up what is written to standard error, and where spans go.
//!
//! Must never be handed post text: what is logged are names, numbers and the words of libraries about connections and
//! files.

use std::io::{self, IsTerminal};
use std::time::Duration;

use tracing_subscriber::filter::FilterExt;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::repeats::Repeats;
use super::traces::{self, Traces};
use crate::config::{LogConfig, LogFormat};

/// Libraries that would tell more than an operator wants to know. The Delta kernel logs each error that it returns; that
/// another writer was faster is the daily bread of several, and counted.
const QUIET: &str = "datafusion=warn,deltalake_core=warn,deltalake_core::kernel::transaction=off,\
                     buoyant_kernel=off,buoyant_kernel_engine=warn,object_store=warn,hyper=warn,rustyline=warn";
/// How often it is looked whether lines were left out.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The logs and traces of a command.
pub struct Logs {
    repeats: Repeats,
    traces: Option<Traces>,
}

/// Starts to write logs, and to export spans where `traces` are given.
pub fn start(config: &LogConfig, traces: Option<Traces>) -> Logs {
    let quiet = format!("{},{QUIET},{}=off", config.level, traces::TARGET);
    let filter = EnvFilter::try_new(quiet).unwrap_or_else(|_| EnvFilter::new("info"));
    let repeats = Repeats::new(config.repeats_per_minute);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Human => lines.compact().boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let lines = lines.with_filter(FilterExt::and(filter, repeats.clone()));
    // A second call, as in tests, changes nothing.
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(traces.as_ref().map(Traces::layer))
        .try_init();
    Logs { repeats, traces }
}

impl Logs {
    /// Tells of lines that were left out, for as long as the runtime lives.
    pub fn tell_left_out(&self, runtime: &tokio::runtime::Handle) {
        let repeats = self.repeats.clone();
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(TELL_EVERY).await;
                repeats.tell();
            }
        });
    }

    /// Writes and sends what is left. Not to be called on a runtime: sending blocks.
    pub fn finish(self) {
        if let Some(traces) = self.traces {
            traces.finish();
        }
        self.repeats.tell_all();
    }
}
