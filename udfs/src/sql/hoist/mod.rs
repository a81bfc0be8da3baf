//! The optimizer rule that scores each row once.
//!
//! It takes the model calls out of a plan's expressions and puts one [`Score`] operator below the lowest node that needs
//! the scores of a text. What called the model reads the column of scores instead, there and in every node above that
//! can still see the text: a text that is named in WHERE, SELECT and ORDER BY is scored once, whatever is asked of it,
//! because one forward pass answers all heads.
//!
//! Invariants:
//! - A plan gives the same rows, names and types with the rule and without it. Where that is not certain (a text that is
//!   random, that comes from an outer query or a lambda, a condition of a join that needs both sides at once, an operator
//!   that this crate does not know) the call stays the plain function, which is right everywhere.
//! - No row is scored that DataFusion would not have scored, save for those behind the short cut of an AND or an OR:
//!   predicates without the model are evaluated first, a top-k by other columns is taken first ([`top_k`]), and a branch
//!   of a CASE is scored only for the rows that reach it ([`calls::guard_branches`]).
//!
//! The columns of scores are called `__score_1`, `__score_2`, … and never leave the plan: subqueries, set operations and
//! the query itself end in their own columns ([`Hoist::sealed`]).

mod calls;
mod placed;
mod top_k;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, Expr, Filter, Join, LogicalPlan, Projection, Repartition, Sort, SubqueryAlias,
    TableProviderFilterPushDown, TableScan, Window,
};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use tamiz_model::Scorer;

use super::node::{Score, ScoredText};
use crate::scores::packed_type;
use calls::{answer, guard_branches, has_call, preserving_names, texts_to_score};
use placed::{Placed, Placement};

/// Name of the rule, as `EXPLAIN VERBOSE` shows it.
pub(crate) const NAME: &str = "hoist_model_calls";
/// Prefix of the columns of scores.
const COLUMN: &str = "__score";

/// See the module.
#[derive(Debug)]
pub(crate) struct HoistModelCalls {
    scores: DataType,
}

impl HoistModelCalls {
    pub(crate) fn new(scorer: &Scorer) -> Self {
        HoistModelCalls {
            scores: packed_type(&scorer.identity().heads),
        }
    }
}

impl OptimizerRule for HoistModelCalls {
    fn name(&self) -> &str {
        NAME
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if !plan_calls(&plan)? {
            return Ok(Transformed::no(plan));
        }
        let hoist = Hoist {
            scores: &self.scores,
            config,
        };
        name_functions(hoist.sealed(plan)?).map(Transformed::yes)
    }
}

/// Whether a plan or one of its subqueries calls the model.
fn plan_calls(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= node_calls(node)?;
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(found)
}

/// Whether a node itself calls the model.
fn node_calls(node: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(|expr| {
        found |= has_call(expr);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

struct Hoist<'a> {
    scores: &'a DataType,
    config: &'a dyn OptimizerConfig,
}

impl Hoist<'_> {
    /// The plan with its calls hoisted and its own columns, no more.
    fn sealed(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let schema = Arc::clone(plan.schema());
        let placed = self.place(plan, false)?.plan;
        if placed.schema().columns() == schema.columns() {
            return Ok(placed);
        }
        let columns = schema.columns().into_iter().map(Expr::Column).collect();
        Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(placed))?))
    }

    fn sealed_input(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        self.sealed(plan).map(Transformed::yes)
    }

    /// The plan with its calls hoisted, and the scores that it carries along. `above` says whether anything above calls
    /// the model, so that nothing is carried for nobody.
    fn place(&self, plan: LogicalPlan, above: bool) -> Result<Placed> {
        let plan = plan.map_subqueries(|subquery| self.sealed_input(subquery))?.data;
        let above = above || node_calls(&plan)?;
        match plan {
            LogicalPlan::Projection(node) => self.projection(node, above),
            LogicalPlan::Filter(node) => self.filter(node, above),
            LogicalPlan::Sort(node) => self.sort(node, above),
            LogicalPlan::Aggregate(node) => self.aggregate(node),
            LogicalPlan::Window(node) => self.window(node, above),
            LogicalPlan::Join(node) => self.join(node, above),
            LogicalPlan::SubqueryAlias(node) => self.alias(node, above),
            LogicalPlan::TableScan(node) => scan(node),
            LogicalPlan::Limit(mut node) => {
                let input = self.place(Arc::unwrap_or_clone(node.input), above)?;
                node.input = Arc::new(input.plan);
                Ok(Placed {
                    plan: LogicalPlan::Limit(node),
                    scores: input.scores,
                })
            }
            LogicalPlan::Repartition(Repartition {
                input,
                partitioning_scheme,
            }) => {
                let input = self.place(Arc::unwrap_or_clone(input), above)?;
                let node = Repartition {
                    input: Arc::new(input.plan),
                    partitioning_scheme,
                };
                Ok(Placed {
                    plan: LogicalPlan::Repartition(node),
                    scores: input.scores,
                })
            }
            other => Ok(Placed::bare(other.map_children(|input| self.sealed_input(input))?.data)),
        }
    }

    fn projection(&self, node: Projection, above: bool) -> Result<Placed> {
        let input = self.place(Arc::unwrap_or_clone(node.input), above)?;
        let (mut exprs, input) = self.score(node.expr, input)?;
        let carried = if above {
            input.through_projection(&mut exprs)?
        } else {
            Vec::new()
        };
        let plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input.plan))?);
        Ok(Placed { plan, scores: carried })
    }

    /// The predicates that do not call the model go below the scoring.
    fn filter(&self, node: Filter, above: bool) -> Result<Placed> {
        let (dear, cheap): (Vec<_>, Vec<_>) = split_conjunction_owned(node.predicate).into_iter().partition(has_call);
        let mut input = self.place(Arc::unwrap_or_clone(node.input), above)?;
        if let Some(cheap) = conjunction(cheap) {
            input.plan = LogicalPlan::Filter(Filter::try_new(cheap, Arc::new(input.plan))?);
        }
        let (dear, mut input) = self.score(dear, input)?;
        if let Some(dear) = conjunction(dear.into_iter().map(Expr::unalias)) {
            input.plan = LogicalPlan::Filter(Filter::try_new(dear, Arc::new(input.plan))?);
        }
        Ok(input)
    }

    fn sort(&self, node: Sort, above: bool) -> Result<Placed> {
        let node = match top_k::below_calls(node)? {
            Transformed {
                data,
                transformed: true,
                ..
            } => return self.place(data, above),
            Transformed {
                data: LogicalPlan::Sort(node),
                ..
            } => node,
            Transformed { data, .. } => return Ok(Placed::bare(data)),
        };
        let input = self.place(Arc::unwrap_or_clone(node.input), above)?;
        let keys = node.expr.iter().map(|key| key.expr.clone()).collect();
        let (keys, input) = self.score(keys, input)?;
        let expr = node
            .expr
            .into_iter()
            .zip(keys)
            .map(|(old, key)| old.with_expr(key.unalias()))
            .collect();
        let plan = LogicalPlan::Sort(Sort {
            expr,
            input: Arc::new(input.plan),
            fetch: node.fetch,
        });
        Ok(Placed {
            plan,
            scores: input.scores,
        })
    }

    /// The scores end here: what leaves an aggregate are groups.
    fn aggregate(&self, node: Aggregate) -> Result<Placed> {
        let groups = node.group_expr.len();
        let calls = node.group_expr.iter().chain(&node.aggr_expr).any(has_call);
        let input = self.place(Arc::unwrap_or_clone(node.input), calls)?;
        let (mut group_expr, input) = self.score([node.group_expr, node.aggr_expr].concat(), input)?;
        let aggr_expr = group_expr.split_off(groups);
        let node = Aggregate::try_new(Arc::new(input.plan), group_expr, aggr_expr)?;
        Ok(Placed::bare(LogicalPlan::Aggregate(node)))
    }

    fn window(&self, node: Window, above: bool) -> Result<Placed> {
        let input = self.place(Arc::unwrap_or_clone(node.input), above)?;
        let (window_expr, input) = self.score(node.window_expr, input)?;
        let plan = LogicalPlan::Window(Window::try_new(window_expr, Arc::new(input.plan))?);
        Ok(Placed {
            plan,
            scores: input.scores,
        })
    }

    /// A call in the condition of a join is scored on the side that its text comes from.
    fn join(&self, node: Join, above: bool) -> Result<Placed> {
        let left = self.place(Arc::unwrap_or_clone(node.left), above)?;
        let right = self.place(Arc::unwrap_or_clone(node.right), above)?;
        let (left_keys, right_keys): (Vec<_>, Vec<_>) = node.on.into_iter().unzip();
        let filter: Vec<Expr> = node.filter.into_iter().collect();
        let keys = left_keys.len();
        let (mut exprs, left) = self.score([left_keys, filter].concat(), left)?;
        let filter = exprs.split_off(keys);
        let left_keys = exprs;
        let (mut exprs, right) = self.score([right_keys, filter].concat(), right)?;
        let filter = exprs.split_off(keys).pop().map(Expr::unalias);
        let scores = placed::through_join(&left, &right, node.join_type);
        let on = left_keys
            .into_iter()
            .map(Expr::unalias)
            .zip(exprs.into_iter().map(Expr::unalias))
            .collect();
        let node = Join {
            left: Arc::new(left.plan),
            right: Arc::new(right.plan),
            on,
            filter,
            ..node
        };
        Ok(Placed {
            plan: LogicalPlan::Join(node).recompute_schema()?,
            scores,
        })
    }

    fn alias(&self, node: SubqueryAlias, above: bool) -> Result<Placed> {
        let input = self.place(Arc::unwrap_or_clone(node.input), above)?;
        let below = Arc::clone(input.plan.schema());
        let node = SubqueryAlias::try_new(Arc::new(input.plan), node.alias)?;
        let renamed = below.columns().into_iter().zip(node.schema.columns()).collect();
        let scores = input
            .scores
            .iter()
            .filter_map(|score| score.renamed(&renamed))
            .collect();
        Ok(Placed {
            plan: LogicalPlan::SubqueryAlias(node),
            scores,
        })
    }

    /// Answers the calls in `exprs` from the scores that `input` carries, and puts scoring on top of it for the others.
    /// Every expression keeps its name. Calls inside the texts of other calls come first, hence the loop.
    fn score(&self, exprs: Vec<Expr>, mut input: Placed) -> Result<(Vec<Expr>, Placed)> {
        preserving_names(exprs, |mut exprs| {
            loop {
                exprs = answer(exprs, &input.scores)?;
                exprs = guard_branches(exprs, input.plan.schema())?;
                let texts = texts_to_score(&exprs, input.plan.schema());
                if texts.is_empty() {
                    return Ok((exprs, input));
                }
                input = self.add_score(input, texts)?;
            }
        })
    }

    fn add_score(&self, input: Placed, texts: Vec<Expr>) -> Result<Placed> {
        let mut scores = input.scores;
        let scored = texts.into_iter().map(|text| {
            let column = self.config.alias_generator().next(COLUMN);
            scores.push(Placement {
                text: text.clone(),
                column: Column::from_name(&column),
            });
            ScoredText {
                text,
                column,
                functions: Vec::new(),
            }
        });
        let scored = scored.collect();
        Ok(Placed {
            plan: Score::try_new(input.plan, scored, self.scores.clone())?.into_plan(),
            scores,
        })
    }
}

/// A scan that was given predicates with calls would run the model inside the source, in batches of its own size.
fn scan(mut node: TableScan) -> Result<Placed> {
    let (calls, filters): (Vec<_>, Vec<_>) = node.filters.into_iter().partition(has_call);
    node.filters = filters;
    if calls.is_empty() {
        return Ok(Placed::bare(LogicalPlan::TableScan(node)));
    }
    let support = node
        .source
        .supports_filters_pushdown(&calls.iter().collect::<Vec<_>>())?;
    // An inexact filter is still above the scan; an exact one is nowhere else, and its columns may not be read.
    let exact = calls
        .into_iter()
        .zip(support)
        .filter(|(_, support)| *support == TableProviderFilterPushDown::Exact);
    node.filters.extend(exact.map(|(call, _)| call));
    Ok(Placed::bare(LogicalPlan::TableScan(node)))
}

/// Writes into each [`Score`] which functions read its columns.
fn name_functions(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut readers: BTreeSet<(String, String)> = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                readers.extend(calls::reader(expr));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    let named = plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::Extension(extension) = &node else {
            return Ok(Transformed::no(node));
        };
        let Some(score) = extension.node.as_any().downcast_ref::<Score>() else {
            return Ok(Transformed::no(node));
        };
        let mut score = score.clone();
        for text in &mut score.texts {
            let of_text = readers.iter().filter(|(column, _)| *column == text.column);
            text.functions = of_text.map(|(_, function)| function.clone()).collect();
        }
        Ok(Transformed::yes(score.into_plan()))
    })?;
    Ok(named.data)
}
