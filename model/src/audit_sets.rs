//! The sentences of an audit: templates of this crate, and published sets where a folder has them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::data::for_each_line;
use crate::error::ModelError;

const TEMPLATES: &str = include_str!("../audit/templates.toml");

/// Rows of the template set that subgroup figures are measured on: one in this many, by place in the file.
const TOXIC_ROWS: usize = 4;

/// One sentence about one group.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) text: String,
    pub(crate) set: String,
    pub(crate) category: String,
    pub(crate) group: String,
    pub(crate) template: String,
}

/// A sentence that is toxic or not and names groups.
#[derive(Debug, Clone)]
pub(crate) struct Toxic {
    pub(crate) text: String,
    pub(crate) toxic: bool,
    pub(crate) terms: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    categories: BTreeMap<String, Terms>,
    templates: Vec<Sentences>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Terms {
    slot: String,
    groups: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sentences {
    slot: String,
    texts: Vec<String>,
}

/// Every template of this crate, filled with every term that fits it.
pub(crate) fn templates() -> Result<Vec<Case>, ModelError> {
    let file: File = toml::from_str(TEMPLATES)
        .map_err(|error| ModelError::malformed(Path::new("model/audit/templates.toml"), error.to_string().trim()))?;
    let mut cases = Vec::new();
    for (category, terms) in &file.categories {
        let fitting = file.templates.iter().filter(|sentences| sentences.slot == terms.slot);
        for template in fitting.flat_map(|sentences| &sentences.texts) {
            for (group, terms) in &terms.groups {
                cases.extend(terms.iter().map(|term| Case {
                    text: capitalised(&template.replace("{}", term)),
                    set: "templates".to_owned(),
                    category: category.clone(),
                    group: group.clone(),
                    template: template.clone(),
                }));
            }
        }
    }
    Ok(cases)
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) if text.ends_with('.') => first.to_uppercase().chain(characters).collect(),
        _ => text.to_owned(),
    }
}

/// The published sets of a folder: the Equity Evaluation Corpus, Winogender, CrowS-Pairs. One that is not there is an error: an
/// audit that silently measured less would look better than it is.
pub(crate) fn published(folder: &Path) -> Result<Vec<Case>, ModelError> {
    let mut cases = Vec::new();
    rows(&folder.join("eec.jsonl.zst"), |row| {
        let template = format!("{} {}", field(row, "template"), field(row, "emotion_word"));
        for (category, key) in [("gender", "gender"), ("race of name", "race")] {
            if !field(row, key).is_empty() {
                cases.push(case(row, "eec", (category, field(row, key)), &template));
            }
        }
    })?;
    rows(&folder.join("winogender.jsonl"), |row| {
        let template = ["occupation", "participant", "answer"]
            .map(|key| field(row, key))
            .join(" ");
        cases.push(case(row, "winogender", ("pronoun", field(row, "label")), &template));
    })?;
    rows(&folder.join("crows_pairs.jsonl.zst"), |row| {
        let (id, kind) = (field(row, "id"), field(row, "bias_type"));
        cases.push(case(row, "crows_pairs", (kind, "stereotyped group"), id));
        let mut other = case(row, "crows_pairs", (kind, "other group"), id);
        other.text = field(row, "text_less").to_owned();
        cases.push(other);
    })?;
    Ok(cases)
}

/// A part of the published identity-term templates, toxic and not.
pub(crate) fn toxic(folder: &Path) -> Result<Vec<Toxic>, ModelError> {
    let mut found = Vec::new();
    let mut place = 0_usize;
    rows(&folder.join("jigsaw_templates_en.jsonl.zst"), |row| {
        place += 1;
        if !place.is_multiple_of(TOXIC_ROWS) {
            return;
        }
        let text = field(row, "text").to_owned();
        let words: Vec<String> = text
            .split(|c: char| !c.is_alphanumeric())
            .map(str::to_lowercase)
            .collect();
        let terms = IDENTITY_TERMS
            .iter()
            .filter(|term| words.iter().any(|word| word == *term));
        found.push(Toxic {
            toxic: field(row, "label") == "toxic",
            terms: terms.map(|term| (*term).to_owned()).collect(),
            text,
        });
    })?;
    Ok(found)
}

/// Terms that the published templates are filled with, as in Dixon et al. 2018.
const IDENTITY_TERMS: [&str; 40] = [
    "african",
    "american",
    "asian",
    "bisexual",
    "black",
    "blind",
    "buddhist",
    "canadian",
    "catholic",
    "chinese",
    "christian",
    "deaf",
    "elderly",
    "european",
    "female",
    "gay",
    "heterosexual",
    "hispanic",
    "homosexual",
    "indian",
    "japanese",
    "jewish",
    "latina",
    "latino",
    "lesbian",
    "lgbt",
    "male",
    "mexican",
    "muslim",
    "old",
    "paralyzed",
    "protestant",
    "queer",
    "sikh",
    "straight",
    "taoist",
    "trans",
    "transgender",
    "white",
    "young",
];

fn case(row: &Value, set: &str, (category, group): (&str, &str), template: &str) -> Case {
    Case {
        text: field(row, "text").to_owned(),
        set: set.to_owned(),
        category: category.to_owned(),
        group: group.to_owned(),
        template: template.to_owned(),
    }
}

fn field<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_default()
}

fn rows(path: &Path, mut each: impl FnMut(&Value)) -> Result<(), ModelError> {
    for_each_line(path, |line, number| {
        let row = serde_json::from_str(line).map_err(|error| ModelError::Row {
            path: path.to_owned(),
            line: number,
            reason: format!("not a JSON object ({error})"),
        })?;
        each(&row);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_filled_with_every_group() {
        let cases = templates().unwrap();
        assert!(cases.len() > 1000, "{}", cases.len());
        assert!(cases.iter().all(|case| !case.text.contains("{}")));
        let of = |category: &str| cases.iter().filter(|case| case.category == category).count();
        assert_eq!(of("gender_of_name"), 20 * 16);
        assert!(
            cases
                .iter()
                .any(|case| case.text == "A gay man" || case.text == "My neighbour is gay.")
        );
    }
}
