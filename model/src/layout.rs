//! How the weights of a file are named, and which of theirs is which of ours.

use std::collections::HashMap;

use tch::Tensor;

use crate::error::ModelError;

/// How the weights of a file are named.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Layout {
    /// As the network names them.
    Own,
    /// As `transformers` does.
    Foreign {
        family: Family,
        /// The order of our labels among theirs, where it differs.
        rows: Option<Vec<i64>>,
    },
}

/// The kinds of `config.json` that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Bert,
    DistilBert,
    Roberta,
}

impl Layout {
    /// The weights of a file under our names; `wanted` are the network's. One that is not there is left out, and noticed where
    /// they are put in place.
    pub(crate) fn translate(
        &self,
        found: HashMap<String, Tensor>,
        wanted: &HashMap<String, Tensor>,
    ) -> Result<HashMap<String, Tensor>, ModelError> {
        let Layout::Foreign { family, rows } = self else {
            return Ok(found);
        };
        let mut found: HashMap<String, Tensor> = found
            .into_iter()
            .map(|(name, tensor)| (modern(&name), tensor))
            .collect();
        let prefix = family.prefix(&found);
        let mut ours = HashMap::new();
        for (name, variable) in wanted {
            let theirs = family.names(name, prefix);
            let parts: Option<Vec<Tensor>> = theirs.iter().map(|name| found.remove(name)).collect();
            let Some(parts) = parts.filter(|parts| !parts.is_empty()) else {
                continue;
            };
            let mut tensor = Tensor::f_cat(&parts, 0)?;
            let rows_wanted = variable.size()[0];
            if name == "embeddings.positions.weight" && tensor.size()[0] > rows_wanted {
                tensor = tensor.f_narrow(0, 0, rows_wanted)?; // texts are cut before they get there
            }
            let is_output = name.starts_with("heads.") && !name.contains(".dense.");
            if let Some(rows) = rows.as_ref().filter(|_| is_output) {
                tensor = tensor.f_index_select(0, &Tensor::from_slice(rows))?;
            }
            ours.insert(name.clone(), tensor);
        }
        // What is left of the encoder is an error; poolers and the heads of other tasks are not used.
        let encoder = |name: &String| {
            let name = name.strip_prefix(prefix).unwrap_or(name);
            ["encoder.layer.", "transformer.layer.", "embeddings."]
                .iter()
                .any(|start| name.starts_with(start))
                && !name.ends_with("position_ids")
        };
        ours.extend(found.into_iter().filter(|(name, _)| encoder(name)));
        Ok(ours)
    }
}

/// BERT's first releases called the weights of a norm gamma and beta.
fn modern(name: &str) -> String {
    name.replace("LayerNorm.gamma", "LayerNorm.weight")
        .replace("LayerNorm.beta", "LayerNorm.bias")
}

type Names = [(&'static str, &'static [&'static str])];

const BERT_EMBEDDINGS: &Names = &[
    ("tokens", &["word_embeddings"]),
    ("positions", &["position_embeddings"]),
    ("token_types", &["token_type_embeddings"]),
    ("norm", &["LayerNorm"]),
];

const BERT_BLOCK: &Names = &[
    (
        "attention.query_key_value",
        &["attention.self.query", "attention.self.key", "attention.self.value"],
    ),
    ("attention.output", &["attention.output.dense"]),
    ("attention_norm", &["attention.output.LayerNorm"]),
    ("feed_forward.widen", &["intermediate.dense"]),
    ("feed_forward.narrow", &["output.dense"]),
    ("feed_forward_norm", &["output.LayerNorm"]),
];

const DISTILBERT_BLOCK: &Names = &[
    (
        "attention.query_key_value",
        &["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    ),
    ("attention.output", &["attention.out_lin"]),
    ("attention_norm", &["sa_layer_norm"]),
    ("feed_forward.widen", &["ffn.lin1"]),
    ("feed_forward.narrow", &["ffn.lin2"]),
    ("feed_forward_norm", &["output_layer_norm"]),
];

impl Family {
    /// What stands before the names of the encoder; a bare encoder may have been saved without.
    fn prefix(self, found: &HashMap<String, Tensor>) -> &'static str {
        let prefix = match self {
            Family::Bert => "bert.",
            Family::DistilBert => "distilbert.",
            Family::Roberta => "roberta.",
        };
        if found.keys().any(|name| name.starts_with(prefix)) {
            prefix
        } else {
            ""
        }
    }

    /// Their names of the weights that make up ours, one above the other.
    fn names(self, ours: &str, prefix: &str) -> Vec<String> {
        let Some((path, kind)) = ours.rsplit_once('.') else {
            return Vec::new();
        };
        let look_up = |names: &Names, path: &str, before: &str| -> Vec<String> {
            let theirs = names
                .iter()
                .find(|(ours, _)| *ours == path)
                .map_or(&[][..], |(_, theirs)| theirs);
            theirs.iter().map(|name| format!("{before}{name}.{kind}")).collect()
        };
        let mut parts = path.splitn(3, '.');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("embeddings"), Some(part), None) => look_up(BERT_EMBEDDINGS, part, &format!("{prefix}embeddings.")),
            (Some("blocks"), Some(number), Some(part)) => match self {
                Family::DistilBert => look_up(DISTILBERT_BLOCK, part, &format!("{prefix}transformer.layer.{number}.")),
                _ => look_up(BERT_BLOCK, part, &format!("{prefix}encoder.layer.{number}.")),
            },
            (Some("heads"), Some(_), part) => vec![match (self, part) {
                (Family::Bert, Some(_)) => format!("{prefix}pooler.dense.{kind}"),
                (Family::DistilBert, Some(_)) => format!("pre_classifier.{kind}"),
                (Family::Roberta, Some(_)) => format!("classifier.dense.{kind}"),
                (Family::Roberta, None) => format!("classifier.out_proj.{kind}"),
                (_, None) => format!("classifier.{kind}"),
            }],
            _ => Vec::new(),
        }
    }
}
