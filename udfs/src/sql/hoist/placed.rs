//! Which scores a plan carries, and what becomes of them on the way up.

use std::collections::HashMap;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};

/// A plan, and the scores among its columns.
pub(super) struct Placed {
    pub(super) plan: LogicalPlan,
    pub(super) scores: Vec<Placement>,
}

/// `column` holds the scores of `text`, both over the columns of the same plan.
pub(super) struct Placement {
    pub(super) text: Expr,
    pub(super) column: Column,
}

impl Placed {
    /// A plan that carries no scores.
    pub(super) fn bare(plan: LogicalPlan) -> Self {
        Placed {
            plan,
            scores: Vec::new(),
        }
    }

    /// The scores that a projection of this plan to `exprs` still carries: those whose text can be said in the columns of
    /// the projection. Their columns are added to `exprs` where they are not there yet.
    pub(super) fn through_projection(&self, exprs: &mut Vec<Expr>) -> Result<Vec<Placement>> {
        let mut carried = Vec::new();
        for score in &self.scores {
            let outputs: HashMap<Expr, Column> =
                exprs.iter().map(|expr| (expr.clone().unalias(), name(expr))).collect();
            let Some(text) = said_in(&score.text, &outputs)? else {
                continue;
            };
            let source = Expr::Column(score.column.clone());
            let column = outputs.get(&source).cloned().unwrap_or_else(|| {
                exprs.push(source);
                score.column.clone()
            });
            carried.push(Placement { text, column });
        }
        Ok(carried)
    }
}

impl Placement {
    /// The same scores where columns have got new names.
    pub(super) fn renamed(&self, names: &HashMap<Column, Column>) -> Option<Placement> {
        let outputs = names
            .iter()
            .map(|(old, new)| (Expr::Column(old.clone()), new.clone()))
            .collect();
        let text = said_in(&self.text, &outputs).ok().flatten()?;
        Some(Placement {
            text,
            column: names.get(&self.column)?.clone(),
        })
    }
}

/// The scores that a join of two plans carries. Where a side is filled up with NULLs, its scores stay right only if the
/// text becomes NULL with them, as a plain column does.
pub(super) fn through_join(left: &Placed, right: &Placed, join: JoinType) -> Vec<Placement> {
    use JoinType::{Full, Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi};
    let (keep_left, keep_right) = match join {
        Inner | Left | Right | Full => (true, true),
        LeftSemi | LeftAnti | LeftMark => (true, false),
        RightSemi | RightAnti | RightMark => (false, true),
    };
    let side = |side: &Placed, keep: bool, filled_up: bool| {
        let kept = side
            .scores
            .iter()
            .filter(|score| keep && (!filled_up || matches!(score.text, Expr::Column(_))));
        kept.map(|score| Placement {
            text: score.text.clone(),
            column: score.column.clone(),
        })
        .collect::<Vec<_>>()
    };
    let mut scores = side(left, keep_left, matches!(join, Right | Full));
    scores.extend(side(right, keep_right, matches!(join, Left | Full)));
    scores
}

/// The column that an expression of a projection becomes.
fn name(expr: &Expr) -> Column {
    let (relation, name) = expr.qualified_name();
    Column::new(relation, name)
}

/// `expr` over the columns that `outputs` makes of expressions; `None` where it needs others.
fn said_in(expr: &Expr, outputs: &HashMap<Expr, Column>) -> Result<Option<Expr>> {
    let mut complete = true;
    let said = expr.clone().transform_down(|part| {
        if let Some(column) = outputs.get(&part) {
            return Ok(Transformed::new(
                Expr::Column(column.clone()),
                true,
                TreeNodeRecursion::Jump,
            ));
        }
        complete &= !matches!(part, Expr::Column(_));
        Ok(Transformed::no(part))
    })?;
    Ok(complete.then_some(said.data))
}
