//! `SELECT f(text) … ORDER BY id LIMIT 10` scores ten rows.
//!
//! DataFusion computes the columns of a query first and sorts then. Where the order does not depend on the model, this
//! takes the k first rows first: a sort with a limit changes places with the projection (and the name of a subquery) that
//! lies between it and the model calls. A sort without a limit stays where it is: it would drop no row.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, Sort, SortExpr, SubqueryAlias};

use super::calls::has_call;

/// The same rows in the same order, with the sort one operator further down; unchanged where that would not help.
pub(super) fn below_calls(sort: Sort) -> Result<Transformed<LogicalPlan>> {
    if sort.fetch.is_none() || !projection_calls(&sort.input) {
        return Ok(Transformed::no(LogicalPlan::Sort(sort)));
    }
    let Some(keys) = keys_below(&sort)? else {
        return Ok(Transformed::no(LogicalPlan::Sort(sort)));
    };
    let under = |input: Arc<LogicalPlan>| {
        Arc::new(LogicalPlan::Sort(Sort {
            expr: keys,
            input,
            fetch: sort.fetch,
        }))
    };
    Ok(Transformed::yes(match Arc::unwrap_or_clone(sort.input) {
        LogicalPlan::Projection(node) => LogicalPlan::Projection(Projection::try_new_with_schema(
            node.expr,
            under(node.input),
            node.schema,
        )?),
        LogicalPlan::SubqueryAlias(node) => {
            LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(under(node.input), node.alias)?)
        }
        other => other,
    }))
}

/// Whether the model is called in one of the projections that lie directly below.
fn projection_calls(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(node) => node.expr.iter().any(has_call) || projection_calls(&node.input),
        LogicalPlan::SubqueryAlias(node) => projection_calls(&node.input),
        _ => false,
    }
}

/// The keys of a sort over the columns below its input; `None` where they cannot be had without the model, or would be
/// computed twice with different results.
fn keys_below(sort: &Sort) -> Result<Option<Vec<SortExpr>>> {
    let schema = sort.input.schema();
    let below: Vec<Expr> = match sort.input.as_ref() {
        LogicalPlan::Projection(node) => node.expr.iter().map(|expr| expr.clone().unalias()).collect(),
        LogicalPlan::SubqueryAlias(node) => node.input.schema().columns().into_iter().map(Expr::Column).collect(),
        _ => return Ok(None),
    };
    let mut keys = Vec::with_capacity(sort.expr.len());
    for key in &sort.expr {
        let expr = key.expr.clone().transform_down(|part| match &part {
            Expr::Column(column) => {
                let source = below[schema.index_of_column(column)?].clone();
                Ok(Transformed::new(source, true, TreeNodeRecursion::Jump))
            }
            _ => Ok(Transformed::no(part)),
        })?;
        if has_call(&expr.data) || expr.data.is_volatile() {
            return Ok(None);
        }
        keys.push(key.with_expr(expr.data));
    }
    Ok(Some(keys))
}
