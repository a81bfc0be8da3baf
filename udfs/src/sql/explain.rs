//! `explain(text, head)`: which tokens a label rests on.
//!
//! It costs about fifty times a score and blocks the thread that calls it, so it is for the few rows that someone wants to look
//! at: no rule hoists it, and a query had better choose its rows first.

use std::sync::Arc;

use arrow::array::{Float32Builder, ListArray, ListBuilder, StringArray, StringBuilder, StructBuilder};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::exec_err;
use datafusion::logical_expr::ScalarUDF;
use tamiz_model::{Explanation, Scorer};

use super::args::{Usage, column};
use super::model::external;
use super::text::udf;

const EXPLAIN: Usage = Usage {
    name: "explain",
    syntax: "explain(text, head)",
    description: "The tokens of a text, each with what it adds to the log-odds of the head's likeliest label (integrated gradients).",
    example: "SELECT explain(text, 'sentiment') FROM posts WHERE id = '17'",
    literal: Some(("head", "The name of a head of the model, a literal.")),
};

/// The function.
pub(super) fn function(scorer: &Scorer) -> ScalarUDF {
    let scorer = scorer.clone();
    let list = DataType::List(Arc::new(Field::new("item", DataType::Struct(fields()), true)));
    udf(EXPLAIN, list, move |texts: &StringArray, head| {
        let Some(head) = head else {
            return exec_err!("explain needs the name of a head: call it as {}", EXPLAIN.syntax);
        };
        let found = scorer.explain_blocking(texts, head).map_err(external)?;
        Ok(column(weights(&found)))
    })
}

fn fields() -> Fields {
    Fields::from(vec![
        Field::new("token", DataType::Utf8, true),
        Field::new("weight", DataType::Float32, true),
    ])
}

fn weights(found: &[Option<Explanation>]) -> ListArray {
    let token: Vec<Box<dyn arrow::array::ArrayBuilder>> =
        vec![Box::new(StringBuilder::new()), Box::new(Float32Builder::new())];
    let mut lists = ListBuilder::new(StructBuilder::new(fields(), token));
    for explanation in found {
        for token in explanation.iter().flat_map(|explanation| &explanation.tokens) {
            let row = lists.values();
            if let Some(tokens) = row.field_builder::<StringBuilder>(0) {
                tokens.append_value(&token.token);
            }
            if let Some(weights) = row.field_builder::<Float32Builder>(1) {
                weights.append_value(token.weight);
            }
            row.append(true);
        }
        lists.append(explanation.is_some());
    }
    lists.finish()
}
