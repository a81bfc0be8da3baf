//! A model card in the format of Hugging Face, written from what was measured; only what no measurement tells comes from a file of
//! facts.

use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::audit::Audit;
use crate::checkpoint::{Checkpoint, ModelInfo};
use crate::error::ModelError;

/// What no measurement tells.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardFacts {
    /// Language codes.
    pub language: Vec<String>,
    /// Licence of the weights, as Hugging Face spells it.
    pub license: String,
    /// The checkpoint that training started from, if any.
    pub base_model: Option<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// One paragraph: what it is.
    pub summary: String,
    /// What it is for.
    pub intended_use: Vec<String>,
    /// What it must not be used for.
    pub not_for: Vec<String>,
    /// How it was trained, with the command.
    pub training: String,
    /// What it cannot do.
    pub limits: Vec<String>,
    /// Texts that it gets wrong, and why.
    #[serde(default)]
    pub failures: Vec<Failure>,
    /// What it learnt from.
    pub data: Vec<DataFact>,
}

/// A text that the model gets wrong.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The text.
    pub text: String,
    /// What happens and why.
    pub why: String,
}

/// A data set and its terms.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFact {
    /// Its name.
    pub name: String,
    /// What it was used for.
    pub used_for: String,
    /// Its licence or terms.
    pub licence: String,
}

impl CardFacts {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// When it cannot be read or lacks something.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(|error| ModelError::read(path, error))?;
        toml::from_str(&text).map_err(|error| ModelError::malformed(path, error.to_string().trim()))
    }
}

/// What was measured of a model.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Answers of `tamiz model eval --format json`.
    pub evaluations: Vec<Value>,
    /// The answer of `tamiz model audit --format json`.
    pub audit: Option<Audit>,
    /// The answer of `tamiz model faithfulness --format json`.
    pub faithfulness: Option<Value>,
}

/// The whole card. Measurements of another model than `checkpoint` are refused.
///
/// # Errors
/// When a measurement is of another model, or the checkpoint cannot be loaded.
pub fn card(checkpoint: &Checkpoint, facts: &CardFacts, measured: &Measured) -> Result<String, ModelError> {
    let info = checkpoint.info()?;
    let models = measured
        .evaluations
        .iter()
        .chain(&measured.faithfulness)
        .map(|value| text(value, "model"));
    let models = models.chain(measured.audit.iter().map(|audit| audit.model.clone()));
    for model in models {
        if model != info.identity {
            return Err(ModelError::Config(format!(
                "a measurement is of {model}, the card is for {}: measure this model",
                info.identity
            )));
        }
    }
    let mut out = front_matter(&info, facts, measured);
    let name = &info.config.name;
    // Writing to a string cannot fail.
    let _ = write!(out, "\n# {name}\n\n{}\n", facts.summary.trim());
    about(&mut out, &info);
    list(&mut out, "Intended use", &facts.intended_use);
    list(&mut out, "Not for", &facts.not_for);
    let _ = write!(out, "\n## Training\n\n{}\n", facts.training.trim());
    evaluations(&mut out, measured);
    if let Some(found) = &measured.faithfulness {
        faithfulness(&mut out, found);
    }
    if let Some(audit) = &measured.audit {
        gaps(&mut out, audit);
        cost(&mut out, audit);
    }
    list(&mut out, "Limits", &facts.limits);
    failures_and_data(&mut out, facts);
    Ok(out)
}

fn front_matter(info: &ModelInfo, facts: &CardFacts, measured: &Measured) -> String {
    let mut out = String::from("---\n");
    let _ = writeln!(out, "language: [{}]", facts.language.join(", "));
    let _ = writeln!(out, "license: {}", facts.license);
    let _ = writeln!(out, "library_name: tamiz\npipeline_tag: text-classification");
    if let Some(base) = &facts.base_model {
        let _ = writeln!(out, "base_model: {base}");
    }
    let _ = writeln!(out, "tags: [{}]", facts.tags.join(", "));
    if !measured.evaluations.is_empty() {
        let _ = writeln!(out, "model-index:\n- name: {}\n  results:", info.config.name);
    }
    for evaluation in &measured.evaluations {
        let _ = writeln!(
            out,
            "  - task: {{type: text-classification, name: {}}}\n    dataset: {{type: {set}, name: {set}, split: validation}}\n    metrics:",
            text(evaluation, "head"),
            set = set_name(evaluation)
        );
        for (metric, field) in [("accuracy", "accuracy"), ("f1", "macro_f1"), ("recall", "macro_recall")] {
            let _ = writeln!(
                out,
                "    - {{type: {metric}, name: {field}, value: {:.4}}}",
                number(&evaluation[field])
            );
        }
    }
    out.push_str("---\n");
    out
}

fn about(out: &mut String, info: &ModelInfo) {
    let encoder = &info.config.encoder;
    let _ = write!(
        out,
        "\n| | |\n|---|---|\n| Identity | `{}` |\n| Network | {}, {} layers, hidden {}, at most {} tokens |\n\
         | Weights | {:.1} million, {:.1} MB on disk |\n",
        info.identity,
        encoder.architecture.name(),
        encoder.layers,
        encoder.hidden,
        encoder.max_tokens,
        info.parameters as f64 / 1e6,
        info.weights_bytes as f64 / 1e6,
    );
    for head in &info.config.heads {
        let _ = writeln!(
            out,
            "| Head `{}` | {} (temperature {}) |",
            head.name,
            head.labels.join(", ").replace('|', "\\|"), // which would end the cell
            head.temperature
        );
    }
    let origin = &info.origin;
    let _ = writeln!(
        out,
        "| Made by | commit {}, seed {}, data {:.12} |",
        origin.commit, origin.seed, origin.data_sha256
    );
}

fn evaluations(out: &mut String, measured: &Measured) {
    if measured.evaluations.is_empty() {
        return;
    }
    out.push_str(
        "\n## Figures\n\nMeasured with `tamiz model eval`. On validation splits the checkpoint was chosen by them, so unseen data \
         gives a little less.\n\n| set | head | labels | texts | accuracy | macro F1 | macro recall | calibration error |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for evaluation in &measured.evaluations {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {:.3} | {:.3} | {:.3} | {:.3} |",
            set_name(evaluation),
            text(evaluation, "head"),
            evaluation["among"].as_array().map_or(0, Vec::len),
            evaluation["rows"],
            number(&evaluation["accuracy"]),
            number(&evaluation["macro_f1"]),
            number(&evaluation["macro_recall"]),
            number(&evaluation["calibration"]["ece"]),
        );
    }
}

fn faithfulness(out: &mut String, found: &Value) {
    let _ = write!(
        out,
        "\n## Explanations\n\nToken weights of `tamiz model explain`, measured by taking tokens out of {} texts: what the label's \
         probability loses without the heaviest tokens (more is better) and with them alone (less is better).\n\n\
         | order | without | alone |\n|---|---|---|\n",
        found["texts"]
    );
    for order in found["orders"].as_array().into_iter().flatten() {
        let _ = writeln!(
            out,
            "| {} | {:.3} | {:.3} |",
            text(order, "order"),
            number(&order["comprehensiveness"]["mean"]),
            number(&order["sufficiency"]["mean"])
        );
    }
}

fn gaps(out: &mut String, audit: &Audit) {
    out.push_str(
        "\n## Who a text is about\n\nThe same sentences with other names and identity terms (`tamiz model audit`). *Gap*: mean \
         difference of a group to all groups of the same sentence, with a 95 % interval; sentiment runs from -1 to 1. \
         *Labels change*: share of sentences whose likeliest label depends on the term.\n\n\
         | set | what is swapped | score | spread | labels change | lowest group | highest group |\n|---|---|---|---|---|---|---|\n",
    );
    for category in &audit.categories {
        let by_gap = |a: &&crate::audit::Group, b: &&crate::audit::Group| a.gap.mean.total_cmp(&b.gap.mean);
        let tell = |group: Option<&crate::audit::Group>| {
            group.map_or(String::new(), |group| {
                let gap = &group.gap;
                format!("{} {:+.3} [{:+.3}, {:+.3}]", group.group, gap.mean, gap.low, gap.high)
            })
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {:.3} | {:.0} % | {} | {} |",
            category.set,
            category.category,
            category.score,
            category.spread.mean,
            category.label_changes * 100.0,
            tell(category.groups.iter().min_by(by_gap)),
            tell(category.groups.iter().max_by(by_gap)),
        );
    }
    if audit.subgroups.is_empty() {
        return;
    }
    out.push_str(
        "\nOffensive texts that name a group against harmless ones (areas under the curve; the ten terms with the most harmless \
         texts taken for offensive):\n\n| term | texts | within the group | harmless with the term | offensive with the term |\n\
         |---|---|---|---|---|\n",
    );
    for row in audit.subgroups.iter().take(10) {
        let _ = writeln!(
            out,
            "| {} | {} | {:.3} | {:.3} | {:.3} |",
            row.term, row.texts, row.subgroup_auc, row.bpsn_auc, row.bnsp_auc
        );
    }
}

fn cost(out: &mut String, audit: &Audit) {
    let cost = &audit.cost;
    let _ = write!(
        out,
        "\n## Energy and cost\n\n{} texts of {:.1} tokens in {:.1} s: {:.0} texts/s with {} threads. At {} W, {} per kWh and {} per \
         machine hour (stated, not measured) a million texts take {:.2} hours, {:.3} kWh and {:.2} in money.\n",
        cost.texts,
        cost.tokens_per_text,
        cost.seconds,
        cost.texts_per_second,
        cost.threads,
        cost.watts,
        cost.price_per_kwh,
        cost.price_per_hour,
        cost.hours_per_million,
        cost.kwh_per_million,
        cost.price_per_million
    );
}

fn failures_and_data(out: &mut String, facts: &CardFacts) {
    if !facts.failures.is_empty() {
        out.push_str("\n## Known failures\n\n| text | what happens |\n|---|---|\n");
        for failure in &facts.failures {
            let _ = writeln!(out, "| {} | {} |", cell(&failure.text), cell(&failure.why));
        }
    }
    out.push_str("\n## Data\n\nOnly weights were derived from the data; no text is part of this repository.\n\n| set | used for | licence or terms |\n|---|---|---|\n");
    for set in &facts.data {
        let _ = writeln!(
            out,
            "| {} | {} | {} |",
            cell(&set.name),
            cell(&set.used_for),
            cell(&set.licence)
        );
    }
}

fn list(out: &mut String, title: &str, entries: &[String]) {
    if entries.is_empty() {
        return;
    }
    let _ = write!(out, "\n## {title}\n\n");
    for entry in entries {
        let _ = writeln!(out, "- {}", entry.trim());
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// `tweeteval_sentiment/val` of `…/tweeteval_sentiment/val.jsonl.zst`.
fn set_name(evaluation: &Value) -> String {
    let path = text(evaluation, "data");
    let parts: Vec<&str> = path.rsplit('/').take(2).collect();
    let file = parts.first().map_or("", |file| file.split('.').next().unwrap_or(file));
    match parts.get(1) {
        Some(folder) if !folder.is_empty() => format!("{folder}/{file}"),
        _ => file.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_checkpoint;
    use serde_json::json;

    fn facts() -> CardFacts {
        toml::from_str(
            "language = ['en']\nlicense = 'apache-2.0'\ntags = ['a']\nsummary = 's'\nintended_use = ['u']\nnot_for = ['n']\n\
             training = 't'\nlimits = ['l']\n[[data]]\nname = 'd'\nused_for = 'x'\nlicence = 'CC | BY'\n",
        )
        .unwrap()
    }

    #[test]
    fn a_card_holds_the_figures_and_refuses_those_of_another_model() {
        let dir = tempfile::TempDir::new().unwrap();
        let identity = tiny_checkpoint(dir.path()).unwrap().to_string();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let evaluation = |model: &str| {
            json!({"model": model, "head": "topic", "data": "/x/bbc/val.jsonl.zst", "rows": 7, "among": ["a", "b"],
                   "accuracy": 0.5, "macro_f1": 0.25, "macro_recall": 0.125, "calibration": {"ece": 0.0625}})
        };
        let measured = |model: &str| Measured {
            evaluations: vec![evaluation(model)],
            ..Measured::default()
        };
        let card_text = card(&checkpoint, &facts(), &measured(&identity)).unwrap();
        assert!(
            card_text.contains("| bbc/val | topic | 2 | 7 | 0.500 | 0.250 | 0.125 | 0.062 |"),
            "{card_text}"
        );
        assert!(card_text.starts_with("---\nlanguage: [en]\n") && card_text.contains("CC \\| BY"));
        let error = card(&checkpoint, &facts(), &measured("other@1"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("other@1"), "{error}");
    }
}
