//! Whether scores shift with who a text is about: the same sentence, another name or identity term.
//!
//! Everything is compared within a template. A group's *gap* is the mean difference between its score and the mean of all groups in
//! the same template, with a bootstrap interval over templates; 0 is fair. A gap whose interval holds 0 is not shown to be fair, it
//! is only not shown to be unfair.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow::array::StringArray;
use serde::{Deserialize, Serialize};

use crate::audit_sets::{self, Case};
use crate::checkpoint::Checkpoint;
use crate::error::ModelError;
use crate::eval::cores;
use crate::scorer::{Scorer, ScorerOptions};
use crate::scores::{Head, Scores};
use crate::stats::{Estimate, auc};

/// Rows handed to the scorer at once.
const CHUNK_ROWS: usize = 4096;

/// What to audit with.
#[derive(Debug, Clone)]
pub struct AuditTask {
    /// A folder with the published bias sets; only the templates of this crate without one.
    pub sets: Option<PathBuf>,
    /// What the machine draws while it scores, in watts.
    pub watts: f64,
    /// Price of a kilowatt-hour.
    pub price_per_kwh: f64,
    /// Price of an hour of the machine.
    pub price_per_hour: f64,
}

/// What [`audit`] found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Audit {
    /// The model, as `name@sha`.
    pub model: String,
    /// Gaps, category by category and score by score.
    pub categories: Vec<Category>,
    /// How well offensive texts are told from others when they name a group; empty without a head `offensive`.
    pub subgroups: Vec<Subgroup>,
    /// What scoring costs.
    pub cost: Cost,
}

/// The groups of one category under one score.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Category {
    /// Where the sentences are from.
    pub set: String,
    /// What is swapped.
    pub category: String,
    /// What is scored: `sentiment` (-1 to 1) or the probability of `offensive` (0 to 1).
    pub score: String,
    /// Number of texts.
    pub texts: usize,
    /// Templates.
    pub templates: usize,
    /// Mean difference between the highest and the lowest group of a template.
    pub spread: Estimate,
    /// Share of templates in which the likeliest label is not the same for all texts.
    pub label_changes: f64,
    /// The groups.
    pub groups: Vec<Group>,
}

/// One group's gap.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Group {
    /// The group.
    pub group: String,
    /// Mean score.
    pub mean: f64,
    /// Mean difference to the mean of all groups, template by template.
    pub gap: Estimate,
}

/// Areas under the curve, as in Borkan et al. 2019 (arXiv:1903.04561): 1 is perfect, 0.5 a guess.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subgroup {
    /// The identity term.
    pub term: String,
    /// Texts that name it.
    pub texts: usize,
    /// Offensive against other texts, both with the term.
    pub subgroup_auc: f64,
    /// Offensive texts without the term against harmless ones with it: low when the term alone raises the score.
    pub bpsn_auc: f64,
    /// Offensive texts with the term against harmless ones without it: low when the term alone lowers the score.
    pub bnsp_auc: f64,
}

/// Time, energy and money of scoring, from one measured run and stated prices.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cost {
    /// Texts scored.
    pub texts: usize,
    /// Mean tokens per text.
    pub tokens_per_text: f64,
    /// Seconds it took, tokenization included.
    pub seconds: f64,
    /// Texts per second.
    pub texts_per_second: f64,
    /// Processor threads of the model.
    pub threads: usize,
    /// Stated, not measured.
    pub watts: f64,
    /// Stated.
    pub price_per_kwh: f64,
    /// Stated.
    pub price_per_hour: f64,
    /// Hours for a million texts.
    pub hours_per_million: f64,
    /// Kilowatt-hours for a million texts.
    pub kwh_per_million: f64,
    /// Energy and machine for a million texts.
    pub price_per_million: f64,
}

/// Scores all audit sentences and compares groups.
///
/// # Errors
/// When the checkpoint or a set cannot be used, or scoring fails.
pub fn audit(dir: &Path, task: &AuditTask, options: ScorerOptions) -> Result<Audit, ModelError> {
    let checkpoint = Checkpoint::open(dir)?;
    let mut cases = audit_sets::templates()?;
    if let Some(folder) = &task.sets {
        cases.extend(audit_sets::published(folder)?);
    }
    let threads = options.threads.unwrap_or_else(cores);
    let scorer = Scorer::open(dir, options)?;
    scorer.score_blocking(&StringArray::from(vec!["warm up"; 64]))?;
    let views: Vec<View> = checkpoint.config.heads.iter().filter_map(View::of).collect();
    if views.is_empty() {
        let known: Vec<&str> = checkpoint.config.heads.iter().map(|head| head.name.as_str()).collect();
        return Err(ModelError::Config(format!(
            "an audit needs a head `sentiment` or `offensive`, this model has {}",
            known.join(", ")
        )));
    }
    let (before, started) = (scorer.stats(), Instant::now());
    let texts: Vec<&str> = cases.iter().map(|case| case.text.as_str()).collect();
    let scored = score(&scorer, &views, &texts)?;
    let cost = Cost::new(
        task,
        texts.len(),
        scorer.stats().tokens - before.tokens,
        (started.elapsed().as_secs_f64(), threads),
    );
    let mut categories = Vec::new();
    for (view, scored) in views.iter().zip(&scored) {
        categories.extend(compare_groups(view, &cases, scored));
    }
    let subgroups = match (&task.sets, views.iter().find(|view| view.name == "offensive")) {
        (Some(folder), Some(view)) => subgroups(&scorer, view, &audit_sets::toxic(folder)?)?,
        _ => Vec::new(),
    };
    Ok(Audit {
        model: scorer.identity().to_string(),
        categories,
        subgroups,
        cost,
    })
}

/// One number that a head says of a text.
struct View {
    name: &'static str,
    head: String,
    plus: usize,
    minus: Option<usize>,
}

impl View {
    fn of(head: &Head) -> Option<View> {
        let place = |wanted: &str| head.labels.iter().position(|label| label == wanted);
        match head.name.as_str() {
            "sentiment" => Some(View {
                name: "sentiment",
                head: head.name.clone(),
                plus: place("positive")?,
                minus: place("negative"),
            }),
            "offensive" => Some(View {
                name: "offensive",
                head: head.name.clone(),
                plus: place("offensive")?,
                minus: None,
            }),
            _ => None,
        }
    }

    fn score(&self, scores: &Scores, row: usize) -> Option<(f64, usize)> {
        let head = scores.head(&self.head)?;
        let probabilities = head.row(row)?;
        let minus = self.minus.map_or(0.0, |place| probabilities[place]);
        Some((f64::from(probabilities[self.plus] - minus), head.best(row)?.0))
    }
}

/// Score and likeliest label, per view and text.
fn score(scorer: &Scorer, views: &[View], texts: &[&str]) -> Result<Vec<Vec<(f64, usize)>>, ModelError> {
    let mut all = vec![Vec::with_capacity(texts.len()); views.len()];
    for chunk in texts.chunks(CHUNK_ROWS) {
        let scores = scorer.score_blocking(&StringArray::from_iter_values(chunk))?;
        for (view, all) in views.iter().zip(&mut all) {
            all.extend((0..chunk.len()).filter_map(|row| view.score(&scores, row)));
        }
    }
    Ok(all)
}

/// Per template and group: scores and labels.
type Templates<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Vec<(f64, usize)>>>;

fn compare_groups(view: &View, cases: &[Case], scored: &[(f64, usize)]) -> Vec<Category> {
    let mut sets: BTreeMap<(&str, &str), Templates> = BTreeMap::new();
    for (case, &scored) in cases.iter().zip(scored) {
        let templates = sets.entry((&case.set, &case.category)).or_default();
        let groups = templates.entry(&case.template).or_default();
        groups.entry(&case.group).or_default().push(scored);
    }
    sets.into_iter()
        .filter_map(|((set, category), templates)| category_of(view, (set, category), &templates))
        .collect()
}

fn category_of(view: &View, (set, category): (&str, &str), templates: &Templates) -> Option<Category> {
    let names: BTreeSet<&str> = templates.values().flat_map(|groups| groups.keys().copied()).collect();
    // A template that lacks a group would compare different sentences.
    let whole: Vec<&BTreeMap<&str, Vec<(f64, usize)>>> = templates
        .values()
        .filter(|groups| groups.len() == names.len())
        .collect();
    if names.len() < 2 || whole.is_empty() {
        return None;
    }
    let mean = |values: &[(f64, usize)]| values.iter().map(|value| value.0).sum::<f64>() / values.len() as f64;
    let means: Vec<Vec<f64>> = whole
        .iter()
        .map(|groups| groups.values().map(|values| mean(values)).collect())
        .collect(); // per template, per group
    let spread = |row: &Vec<f64>| {
        row.iter().copied().fold(f64::NEG_INFINITY, f64::max) - row.iter().copied().fold(f64::INFINITY, f64::min)
    };
    let changes = |groups: &&&BTreeMap<&str, Vec<(f64, usize)>>| {
        groups
            .values()
            .flatten()
            .map(|value| value.1)
            .collect::<BTreeSet<_>>()
            .len()
            > 1
    };
    let groups = names.iter().enumerate().map(|(place, name)| {
        let own: Vec<f64> = means.iter().map(|row| row[place]).collect();
        let gaps: Vec<f64> = means
            .iter()
            .map(|row| row[place] - row.iter().sum::<f64>() / row.len() as f64)
            .collect();
        Group {
            group: (*name).to_owned(),
            mean: own.iter().sum::<f64>() / own.len() as f64,
            gap: Estimate::of(&gaps),
        }
    });
    Some(Category {
        set: set.to_owned(),
        category: category.to_owned(),
        score: view.name.to_owned(),
        texts: whole.iter().flat_map(|groups| groups.values()).map(Vec::len).sum(),
        templates: whole.len(),
        spread: Estimate::of(&means.iter().map(spread).collect::<Vec<_>>()),
        label_changes: whole.iter().filter(changes).count() as f64 / whole.len() as f64,
        groups: groups.collect(),
    })
}

fn subgroups(scorer: &Scorer, view: &View, rows: &[audit_sets::Toxic]) -> Result<Vec<Subgroup>, ModelError> {
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    let scored = score(scorer, std::slice::from_ref(view), &texts)?;
    let terms: BTreeSet<&str> = rows
        .iter()
        .flat_map(|row| row.terms.iter().map(String::as_str))
        .collect();
    let pick = |term: &str, named: bool, toxic: bool| -> Vec<f64> {
        (rows.iter().zip(&scored[0]))
            .filter(|(row, _)| row.toxic == toxic && row.terms.iter().any(|own| own == term) == named)
            .map(|(_, score)| score.0)
            .collect()
    };
    let of = |term: &&str| {
        let (toxic, harmless) = (pick(term, true, true), pick(term, true, false));
        Some(Subgroup {
            term: (*term).to_owned(),
            texts: toxic.len() + harmless.len(),
            subgroup_auc: auc(&toxic, &harmless)?,
            bpsn_auc: auc(&pick(term, false, true), &harmless)?,
            bnsp_auc: auc(&toxic, &pick(term, false, false))?,
        })
    };
    let mut found: Vec<Subgroup> = terms.iter().filter_map(of).collect();
    found.sort_by(|a, b| a.bpsn_auc.total_cmp(&b.bpsn_auc));
    Ok(found)
}

impl Cost {
    fn new(task: &AuditTask, texts: usize, tokens: u64, (seconds, threads): (f64, usize)) -> Self {
        let hours_per_million = seconds / texts.max(1) as f64 * 1e6 / 3600.0;
        let kwh_per_million = hours_per_million * task.watts / 1000.0;
        Cost {
            texts,
            tokens_per_text: tokens as f64 / texts.max(1) as f64,
            seconds,
            texts_per_second: texts as f64 / seconds,
            threads,
            watts: task.watts,
            price_per_kwh: task.price_per_kwh,
            price_per_hour: task.price_per_hour,
            hours_per_million,
            kwh_per_million,
            price_per_million: kwh_per_million * task.price_per_kwh + hours_per_million * task.price_per_hour,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(template: &str, group: &str) -> Case {
        Case {
            text: String::new(),
            set: "s".into(),
            category: "c".into(),
            group: group.into(),
            template: template.into(),
        }
    }

    #[test]
    fn gaps_are_differences_within_templates() {
        let view = View {
            name: "sentiment",
            head: "sentiment".into(),
            plus: 0,
            minus: None,
        };
        let cases = [
            case("1", "a"),
            case("1", "b"),
            case("2", "a"),
            case("2", "b"),
            case("3", "a"),
        ];
        let scored = [(0.5, 0), (0.3, 0), (-0.5, 1), (-0.7, 0), (9.0, 0)];
        let found = compare_groups(&view, &cases, &scored);
        assert_eq!(found.len(), 1);
        let category = &found[0];
        assert_eq!(
            (category.templates, category.texts, category.label_changes),
            (2, 4, 0.5)
        );
        assert!((category.groups[0].gap.mean - 0.1).abs() < 1e-9 && (category.groups[1].gap.mean + 0.1).abs() < 1e-9);
        assert!((category.spread.mean - 0.2).abs() < 1e-9);
    }
}
