//! `tamiz table …`

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use tamiz::config::{self, Config};
use tamiz::jobs::JobError;
use tamiz::jobs::table::{self, ForgetOptions, Format};
use tamiz::table::care::{CompactOptions, DoctorOptions, VacuumOptions};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Pack the small files of closed days into large ones; safe beside a running writer.
    Compact {
        #[command(flatten)]
        table: Table,
        /// Size of a packed file, MiB.
        #[arg(long, default_value_t = 128)]
        target_mib: u64,
        /// A day is closed so many hours after it ended: rows that come later make small files again.
        #[arg(long, default_value_t = 24)]
        min_age_hours: u64,
        /// Only tell what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete files that no version needs any more, and what crashes left behind.
    Vacuum {
        #[command(flatten)]
        table: Table,
        /// Files needed by versions of the last so many hours stay, and so do younger ones that no version names.
        #[arg(long, default_value_t = 168)]
        retention_hours: u64,
        /// Before that take out every day that ended more than so many days ago.
        #[arg(long, value_name = "N")]
        older_than_days: Option<u32>,
        /// Allow a retention of less than an hour: only while no writer is running.
        #[arg(long)]
        force: bool,
        /// Only tell what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// What was committed: version, time, operation, rows, files, bytes, offsets.
    History {
        #[command(flatten)]
        table: Table,
        /// Versions to tell, from the newest back.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Delete an author's rows from posts and dead letters, out of every file.
    Forget {
        #[command(flatten)]
        table: Table,
        /// As the source names them, or their pseudonym (u_ and 12 digits).
        #[arg(long)]
        author: String,
        /// The dead letters that belong to the table, where they do not lie beside it.
        #[arg(long, value_name = "TABLE")]
        dead_letters: Option<String>,
        /// Only tell how many files hold such rows.
        #[arg(long)]
        dry_run: bool,
    },
    /// Look for broken log entries, broken checkpoints, missing and corrupt files; exit code 1 when there are any.
    Doctor {
        #[command(flatten)]
        table: Table,
        /// Mend what can be mended; stop the writers before. Nothing is deleted: what is broken is moved aside.
        #[arg(long)]
        repair: bool,
        /// Mending may take back whole versions, whose rows are read again from Kafka.
        #[arg(long)]
        roll_back: bool,
        /// Only whether data files are there and as long as they should be.
        #[arg(long)]
        quick: bool,
    },
}

/// What every verb needs.
#[derive(Debug, Args)]
pub(super) struct Table {
    /// The table: a folder or s3:// address.
    table: String,
    /// How the answer is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Configuration file; the defaults otherwise.
    #[arg(short, long)]
    config: Option<PathBuf>,
}

impl Command {
    fn table(&self) -> &Table {
        match self {
            Command::Compact { table, .. }
            | Command::Vacuum { table, .. }
            | Command::History { table, .. }
            | Command::Forget { table, .. }
            | Command::Doctor { table, .. } => table,
        }
    }

    /// The configuration that the options name.
    pub(super) fn config(&self) -> Result<Config, JobError> {
        Ok(config::load(self.table().config.as_deref(), std::env::vars_os())?)
    }
}

/// Runs a verb.
pub(super) async fn run(command: Command, config: &Config) -> Result<(), JobError> {
    let mut out = io::stdout();
    let to = (command.table().format, &mut out as &mut dyn io::Write);
    let hours = |hours: u64| Duration::from_secs(hours.saturating_mul(3_600));
    match &command {
        Command::Compact {
            table,
            target_mib,
            min_age_hours,
            dry_run,
        } => {
            let options = CompactOptions {
                target_bytes: target_mib.saturating_mul(1 << 20),
                min_age: hours(*min_age_hours),
                dry_run: *dry_run,
            };
            table::compact(config, &table.table, &options, to).await
        }
        Command::Vacuum {
            table,
            retention_hours,
            older_than_days,
            force,
            dry_run,
        } => {
            let options = VacuumOptions {
                retention: hours(*retention_hours),
                force: *force,
                dry_run: *dry_run,
            };
            table::vacuum(config, &table.table, (&options, *older_than_days), to).await
        }
        Command::History { table, limit } => table::history(config, &table.table, *limit, to).await,
        Command::Forget {
            table,
            author,
            dead_letters,
            dry_run,
        } => {
            let options = ForgetOptions {
                author: author.clone(),
                dead_letters: dead_letters.clone(),
                dry_run: *dry_run,
            };
            table::forget(config, &table.table, &options, to).await
        }
        Command::Doctor {
            table,
            repair,
            roll_back,
            quick,
        } => {
            let options = DoctorOptions {
                repair: *repair,
                roll_back: *roll_back,
                quick: *quick,
            };
            table::doctor(config, &table.table, &options, to).await
        }
    }
}
