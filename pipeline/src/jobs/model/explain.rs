//! `tamiz model explain | faithfulness`.

use std::io::Write;
use std::path::{Path, PathBuf};

use arrow::array::StringArray;
use tamiz_model::{DeviceChoice, Explanation, FaithfulTask, Method, Probe, html, terminal};

use super::measure::{Answer, save};
use super::{put, to_json};
use crate::jobs::JobError;

/// What to explain.
#[derive(Debug, Clone)]
pub struct ExplainOptions {
    /// The texts.
    pub texts: Vec<String>,
    /// The head; all of the model's unless given.
    pub head: Option<String>,
    /// How the weights are computed.
    pub method: Method,
    /// A page to write.
    pub html: Option<PathBuf>,
    /// How the answer is written.
    pub answer: Answer,
    /// Whether words may be coloured.
    pub colour: bool,
}

/// Shows which tokens a label rests on.
///
/// # Errors
/// The folder is no intact checkpoint, it has no such head, or the page cannot be written.
pub fn explain(
    dir: &Path,
    options: &ExplainOptions,
    device: DeviceChoice,
    out: &mut dyn Write,
) -> Result<(), JobError> {
    let probe = Probe::open(dir, device)?;
    let texts = StringArray::from_iter_values(&options.texts);
    let heads: Vec<String> = match &options.head {
        Some(head) => vec![head.clone()],
        None => probe
            .checkpoint()
            .config
            .heads
            .iter()
            .map(|head| head.name.clone())
            .collect(),
    };
    let mut all: Vec<Explanation> = Vec::new();
    for head in heads {
        all.extend(probe.explain(&texts, &head, options.method)?.into_iter().flatten());
    }
    if let Some(page) = &options.html {
        save(page, &html(&probe.checkpoint().identity().to_string(), &all))?;
    }
    match options.answer {
        Answer::Json => put(out, &to_json(&all)?),
        Answer::Table => all.iter().try_for_each(|one| put(out, &terminal(one, options.colour))),
    }
}

/// Measures whether token weights tell what the model did.
///
/// # Errors
/// The checkpoint, the head or the file cannot be used, or a pass fails.
pub fn faithfulness(
    dir: &Path,
    task: &FaithfulTask,
    device: DeviceChoice,
    answer: Answer,
    out: &mut dyn Write,
) -> Result<(), JobError> {
    let found = tamiz_model::faithfulness(dir, task, device)?;
    if answer == Answer::Json {
        return put(out, &to_json(&found)?);
    }
    let shares: Vec<String> = found
        .shares
        .iter()
        .map(|share| format!("{:.0} %", share * 100.0))
        .collect();
    put(
        out,
        &format!(
            "model {}, head {}: {} texts, {} of their tokens taken out, seed {}; means with 95 % intervals",
            found.model,
            found.head,
            found.texts,
            shares.join(" / "),
            found.seed
        ),
    )?;
    put(
        out,
        &format!(
            "{:<22}{:>26}{:>26}{:>26}",
            "order", "comprehensiveness (up)", "sufficiency (down)", "over random (up)"
        ),
    )?;
    for order in &found.orders {
        let tell = |e: &tamiz_model::Estimate| format!("{:.3} [{:+.3}, {:+.3}]", e.mean, e.low, e.high);
        put(
            out,
            &format!(
                "{:<22}{:>26}{:>26}{:>26}",
                order.order,
                tell(&order.comprehensiveness),
                tell(&order.sufficiency),
                tell(&order.over_random)
            ),
        )?;
    }
    Ok(())
}
