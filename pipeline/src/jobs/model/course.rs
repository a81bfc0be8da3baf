//! The course of a training run, for a person: a bar on a terminal, and a line per report.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tamiz_model::Progress;

use super::put;
use crate::jobs::JobError;
use crate::source::Stop;

/// Hears how a run goes on and tells it; also when it is to end.
pub(super) struct Course<'a> {
    bar: ProgressBar,
    stop: &'a Stop,
    lines: bool,
    failed: Option<JobError>,
}

impl<'a> Course<'a> {
    /// Ends the run when `stop` is set; without `lines` there is only the bar.
    pub(super) fn new(stop: &'a Stop, lines: bool) -> Self {
        let bar = ProgressBar::new(0);
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len}, {eta} left {msg}") {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        Course {
            bar,
            stop,
            lines,
            failed: None,
        }
    }

    /// One event of the run that is called `name`, or has no name.
    pub(super) fn tell(&mut self, out: &mut dyn Write, name: &str, progress: &Progress) -> ControlFlow<()> {
        if let Progress::Moved { step, steps } = progress {
            self.bar.set_length(*steps as u64);
            self.bar.set_position(*step as u64);
            self.bar.set_message(name.to_owned());
        }
        if let Progress::Asked { teacher, done, texts } = progress {
            self.bar.set_length(*texts as u64);
            self.bar.set_position(*done as u64);
            self.bar.set_message(format!("asking {teacher}"));
        }
        if let Some(line) = line(progress).filter(|_| self.lines) {
            let line = if name.is_empty() {
                line
            } else {
                format!("{name}: {line}")
            };
            if let Err(error) = self.bar.suspend(|| put(out, &line)) {
                self.failed.get_or_insert(error);
            }
        }
        if self.failed.is_some() || self.stop.is_set() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Takes the bar away.
    ///
    /// # Errors
    /// A line that could not be written.
    pub(super) fn finish(self) -> Result<(), JobError> {
        self.bar.finish_and_clear();
        self.failed.map_or(Ok(()), Err)
    }
}

/// The line that reports an event, where it is worth one.
fn line(progress: &Progress) -> Option<String> {
    Some(match progress {
        Progress::Moved { .. } => return None,
        Progress::Asked { teacher, done, texts } if done == texts => format!("{teacher} has labelled {texts} texts"),
        Progress::Asked { .. } => return None,
        Progress::Ready {
            texts,
            tokens,
            parameters,
            left_out,
        } => {
            format!(
                "{texts} texts ({left_out} left out: they stand in a validation set), {tokens} tokens, {parameters} weights"
            )
        }
        Progress::Resumed { step } => format!("going on after step {step}"),
        Progress::Step {
            step,
            steps,
            loss,
            tokens_per_second,
        } => {
            format!("step {step}/{steps}  loss {loss:.4}  {tokens_per_second:.0} tokens/s")
        }
        Progress::Evaluated {
            step,
            score,
            best,
            figures,
        } => {
            let sets: Vec<String> = figures
                .iter()
                .map(|(set, figures)| {
                    let own: Vec<String> = figures
                        .iter()
                        .map(|(name, value)| format!("{name} {value:.4}"))
                        .collect();
                    format!("  {set}: {}", own.join("  "))
                })
                .collect();
            let mark = if *best { ", the best so far" } else { "" };
            format!("step {step}: score {score:.4}{mark}\n{}", sets.join("\n"))
        }
    })
}
