//! A progress bar with live rates per stage, and the summary at the end. Draws on standard error, and only on a terminal.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

use crate::stats::{Snapshot, Stats};

/// How often the bar is drawn.
const EVERY: Duration = Duration::from_millis(200);

/// A bar that follows the counters until it is finished.
pub struct Progress {
    task: JoinHandle<()>,
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    /// Starts to follow; `total` rows where that is known.
    pub fn follow(stats: Arc<Stats>, steps: Vec<&'static str>, total: Option<u64>) -> Self {
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let template = if total.is_some() {
            "{elapsed_precise} {bar:30} {pos}/{len} posts read\n{msg}"
        } else {
            "{elapsed_precise} {pos} posts read\n{msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        let shown = bar.clone();
        let task = tokio::spawn(async move {
            let mut before = (Instant::now(), stats.snapshot());
            loop {
                tokio::time::sleep(EVERY).await;
                let now = (Instant::now(), stats.snapshot());
                shown.set_position(now.1.read);
                shown.set_message(rates(&steps, &before.1, &now.1, now.0 - before.0));
                before = now;
            }
        });
        Progress {
            task,
            bar,
            started: Instant::now(),
        }
    }

    /// Takes the bar away; says how long it stood.
    pub fn finish(self) -> Duration {
        self.task.abort();
        self.bar.finish_and_clear();
        self.started.elapsed()
    }
}

fn rates(steps: &[&'static str], before: &Snapshot, now: &Snapshot, took: Duration) -> String {
    let mut line = String::new();
    for step in steps {
        let rows = |snapshot: &Snapshot| snapshot.stages.get(step).map_or(0, |count| count.rows);
        let rate = (rows(now) - rows(before)) as f64 / took.as_secs_f64();
        let _ = write!(line, "{step} {rate:.0}/s  ");
    }
    let _ = write!(
        line,
        "\ncommitted {} posts, {} dead letters in {} commits",
        now.posts, now.dead_letters, now.commits
    );
    line
}

/// What a run did, for a person: rows, time per stage, rejects by reason.
pub fn summary(steps: &[&'static str], done: &Snapshot, took: Duration) -> String {
    let mut text = String::new();
    let seconds = took.as_secs_f64();
    let _ = writeln!(
        text,
        "read {} rows in {seconds:.1} s ({:.0}/s): {} posts and {} dead letters in {} commits, {} files, {:.1} MB",
        done.read,
        done.read as f64 / seconds.max(1e-9),
        done.posts,
        done.dead_letters,
        done.commits,
        done.files,
        done.file_bytes as f64 / 1e6,
    );
    let others = [
        ("counted, not stored", done.ignored),
        ("already in the table", done.replayed),
        ("conflicts", done.conflicts),
        ("deletes", done.deletes),
        ("taken back before they were committed", done.taken_back),
    ];
    for (what, count) in others.iter().filter(|(_, count)| *count > 0) {
        let _ = writeln!(text, "  {what}: {count}");
    }
    for step in steps {
        if let Some(count) = done.stages.get(step) {
            let per_row = count.seconds * 1e6 / (count.rows.max(1)) as f64;
            let _ = writeln!(
                text,
                "  {step:<11} {:>9} rows {per_row:>9.2} µs each {:>7} refused",
                count.rows, count.refused
            );
        }
    }
    for ((stage, reason), count) in &done.reasons {
        let _ = writeln!(text, "  refused by {stage}: {reason}: {count}");
    }
    text
}
