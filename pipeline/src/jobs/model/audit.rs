//! `tamiz model audit | card`.

use std::io::Write;
use std::path::{Path, PathBuf};

use tamiz_model::{Audit, AuditTask, CardFacts, Checkpoint, Measured, ScorerOptions};

use super::measure::{Answer, save};
use super::{put, to_json};
use crate::jobs::JobError;

/// Compares scores of sentences that differ in who they are about.
///
/// # Errors
/// The checkpoint or a set cannot be used, or scoring failed.
pub fn audit(
    dir: &Path,
    task: &AuditTask,
    scorer: ScorerOptions,
    answer: Answer,
    out: &mut dyn Write,
) -> Result<(), JobError> {
    let found = tamiz_model::audit(dir, task, scorer)?;
    if answer == Answer::Json {
        return put(out, &to_json(&found)?);
    }
    table(&found).iter().try_for_each(|line| put(out, line))
}

fn table(found: &Audit) -> Vec<String> {
    let mut lines = vec![format!(
        "model {}; a gap is the mean difference of a group to all groups of the same sentence, with a 95 % interval",
        found.model
    )];
    for category in &found.categories {
        lines.push(String::new());
        lines.push(format!(
            "{} / {}, score {}: {} sentences, {} texts; spread {:.3} [{:.3}, {:.3}], label changes in {:.0} % of the sentences",
            category.set,
            category.category,
            category.score,
            category.templates,
            category.texts,
            category.spread.mean,
            category.spread.low,
            category.spread.high,
            category.label_changes * 100.0
        ));
        for group in &category.groups {
            let gap = &group.gap;
            let mark = if gap.differs_from_zero() { "  *" } else { "" };
            lines.push(format!(
                "  {:<20} mean {:>+7.3}   gap {:>+7.3} [{:+.3}, {:+.3}]{mark}",
                group.group, group.mean, gap.mean, gap.low, gap.high
            ));
        }
    }
    if !found.subgroups.is_empty() {
        lines.push(String::new());
        lines.push(format!(
            "{:<16}{:>8}{:>16}{:>24}{:>24}",
            "term", "texts", "within group", "harmless with term", "offensive with term"
        ));
        for row in &found.subgroups {
            lines.push(format!(
                "{:<16}{:>8}{:>16.3}{:>24.3}{:>24.3}",
                row.term, row.texts, row.subgroup_auc, row.bpsn_auc, row.bnsp_auc
            ));
        }
    }
    let cost = &found.cost;
    lines.push(String::new());
    lines.push(format!(
        "a million posts like these ({:.1} tokens): {:.2} h at {:.0} texts/s, {:.3} kWh at {} W, {:.2} in money at {} per kWh and {} per hour",
        cost.tokens_per_text,
        cost.hours_per_million,
        cost.texts_per_second,
        cost.kwh_per_million,
        cost.watts,
        cost.price_per_million,
        cost.price_per_kwh,
        cost.price_per_hour
    ));
    lines
}

/// What a card is made of.
#[derive(Debug, Clone)]
pub struct CardOptions {
    /// What no measurement tells.
    pub facts: PathBuf,
    /// Answers of `eval --format json`.
    pub evaluations: Vec<PathBuf>,
    /// The answer of `audit --format json`.
    pub audit: Option<PathBuf>,
    /// The answer of `faithfulness --format json`.
    pub faithfulness: Option<PathBuf>,
    /// Where it goes; standard output unless given.
    pub to: Option<PathBuf>,
}

/// Writes the model's card from measurements.
///
/// # Errors
/// A file that cannot be read, or a measurement of another model.
pub fn card(dir: &Path, options: &CardOptions, out: &mut dyn Write) -> Result<(), JobError> {
    let measured = Measured {
        evaluations: options
            .evaluations
            .iter()
            .map(|path| read(path))
            .collect::<Result<_, _>>()?,
        audit: options.audit.as_deref().map(read).transpose()?,
        faithfulness: options.faithfulness.as_deref().map(read).transpose()?,
    };
    let facts = CardFacts::read(&options.facts)?;
    let text = tamiz_model::card(&Checkpoint::open(dir)?, &facts, &measured)?;
    match &options.to {
        Some(path) => save(path, &text),
        None => put(out, text.trim_end()),
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, JobError> {
    let text = std::fs::read_to_string(path).map_err(JobError::io(format!("cannot read `{}`", path.display())))?;
    serde_json::from_str(&text).map_err(|error| {
        JobError::Usage(format!(
            "`{}` is not what `--format json` writes ({error}): measure again",
            path.display()
        ))
    })
}
