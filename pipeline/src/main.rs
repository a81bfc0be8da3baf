//! The binary `tamiz`: parses the command line, sets up logs and signals, and runs one of the jobs.
//!
//! Exit codes: 0 done, 1 the job failed, 2 bad usage or configuration.

mod cli;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use tamiz::jobs::JobError;
use tamiz::jobs::run::chain;
use tamiz::jobs::sql::harmless;

/// jemalloc gives back what is free for some seconds, and its statistics tell what is in use from what is kept: glibc has an arena per
/// thread and does neither. What C and C++ libraries (libtorch, librdkafka) take stays with glibc.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    tamiz_model::print_no_caught_panics();
    tamiz::fault::listen();
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe has had enough: normal.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.downcast_ref::<JobError>().map_or(1, JobError::exit_code);
            let lines = chain(error.as_ref());
            let lines = lines.lines().map(|line| format!("tamiz: {}\n", harmless(line)));
            // Nothing can be done where not even standard error can be written.
            let _ = io::stderr().write_all(lines.collect::<String>().as_bytes());
            ExitCode::from(code)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<io::Error>().map(io::Error::kind);
    error
        .chain()
        .any(|cause| kind(cause) == Some(io::ErrorKind::BrokenPipe))
}
