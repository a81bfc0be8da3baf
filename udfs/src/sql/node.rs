//! The logical operator that scores: its input, and one more column of scores per text.
//!
//! Invariant: it has as many rows as its input, in the same order, with the same columns first. So a filter on other
//! columns, a limit and a projection may all pass it, and the optimizer is told so: that keeps what is cheap below.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, DFSchemaRef, Result, plan_err};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

/// One text to be scored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Hash)]
pub(crate) struct ScoredText {
    /// The text, over the columns of the input.
    pub(crate) text: Expr,
    /// Name of the column that holds its scores; unique in the plan.
    pub(crate) column: String,
    /// The functions that read that column, for `EXPLAIN`.
    pub(crate) functions: Vec<String>,
}

/// Scores texts. See the module.
#[derive(Debug, Clone)]
pub(crate) struct Score {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) texts: Vec<ScoredText>,
    pub(crate) scores: DataType,
    schema: DFSchemaRef,
}

impl Score {
    /// `scores` is the type of the columns that are added.
    pub(crate) fn try_new(input: LogicalPlan, texts: Vec<ScoredText>, scores: DataType) -> Result<Self> {
        let added = texts
            .iter()
            .map(|text| (None, Arc::new(Field::new(&text.column, scores.clone(), true))));
        let kept = input
            .schema()
            .iter()
            .map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
        let schema = DFSchema::new_with_metadata(kept.chain(added).collect(), input.schema().metadata().clone())?
            .with_functional_dependencies(input.schema().functional_dependencies().clone())?;
        Ok(Score {
            input: Arc::new(input),
            texts,
            scores,
            schema: Arc::new(schema),
        })
    }

    pub(crate) fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// All functions that read these scores.
    pub(crate) fn functions(&self) -> Vec<&str> {
        let mut functions: Vec<&str> = Vec::new();
        for function in self.texts.iter().flat_map(|text| &text.functions) {
            if !functions.contains(&function.as_str()) {
                functions.push(function);
            }
        }
        functions
    }
}

impl UserDefinedLogicalNodeCore for Score {
    fn name(&self) -> &str {
        "Score"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.texts.iter().map(|text| text.text.clone()).collect()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.texts.iter().map(|text| text.column.clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self
            .texts
            .iter()
            .map(|text| format!("{} AS {}", text.text, text.column))
            .collect();
        write!(
            f,
            "Score: texts=[{}], functions=[{}]",
            texts.join(", "),
            self.functions().join(", ")
        )
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        if exprs.len() != self.texts.len() || inputs.len() != 1 {
            return plan_err!(
                "Score was rebuilt with {} texts and {} inputs",
                exprs.len(),
                inputs.len()
            );
        }
        let texts = self.texts.iter().zip(exprs).map(|(old, text)| ScoredText {
            text: text.unalias(),
            ..old.clone()
        });
        Score::try_new(inputs.remove(0), texts.collect(), self.scores.clone())
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let kept = self.input.schema().fields().len();
        Some(vec![
            output_columns.iter().copied().filter(|&column| column < kept).collect(),
        ])
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts && self.input == other.input
    }
}

impl Eq for Score {}

impl Hash for Score {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.texts.hash(state);
        self.input.hash(state);
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (&self.texts, &self.input).partial_cmp(&(&other.texts, &other.input))
    }
}
