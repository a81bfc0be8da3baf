//! `tamiz replay`: which letters, and what became of them.

use std::sync::Arc;

use clap::Args;
use tamiz::config::Config;
use tamiz::jobs::replay::ReplayOptions;
use tamiz::jobs::{self, JobError};
use tamiz::source::Stop;
use tamiz::stats::Stats;

/// Which dead letters.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only letters with this reason; may be given several times.
    #[arg(long = "reason", value_name = "REASON")]
    reasons: Vec<String>,
    /// Only letters of this stage.
    #[arg(long)]
    stage: Option<String>,
    /// Only letters refused at this moment or later (2026-01-02T03:04:05Z).
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<i64>,
    /// Only letters refused before this moment.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<i64>,
    /// Put them through the line, tell what would become of them, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

fn moment(text: &str) -> Result<i64, String> {
    tamiz_schemas::time::parse(text).ok_or_else(|| "write a moment, as 2026-01-02T03:04:05Z".to_owned())
}

/// Replays, and tells what became of the letters.
///
/// # Errors
/// As the job's.
pub(super) async fn run(config: &Config, arguments: &Arguments) -> Result<(), JobError> {
    let options = ReplayOptions {
        reasons: arguments.reasons.clone(),
        stage: arguments.stage.clone(),
        since: arguments.since,
        until: arguments.until,
        dry_run: arguments.dry_run,
    };
    options.check()?;
    config.check()?;
    let scorer = jobs::scorer(config)?;
    let stop = super::on_signal(&Stop::default(), "the letters in hand are finished first");
    let done = jobs::replay::replay(config, scorer, &options, Arc::new(Stats::default()), stop).await?;
    super::tell(&done.summary(options.dry_run));
    Ok(())
}
