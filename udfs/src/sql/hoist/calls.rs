//! Model calls inside expressions: finding them, answering them from scores, and guarding those of a CASE.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Case, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::{NamePreserver, SavedName};
use datafusion::logical_expr::{Expr, ExprSchemable, GroupingSet, lit};

use super::placed::Placement;
use crate::sql::model::ModelUdf;

/// A call that runs the model: the function and its text.
pub(super) fn call(expr: &Expr) -> Option<(&ModelUdf, &Expr)> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else {
        return None;
    };
    let function = func
        .inner()
        .downcast_ref::<ModelUdf>()
        .filter(|function| function.runs_model())?;
    Some((function, args.first()?))
}

/// Whether an expression runs the model anywhere, subqueries aside.
pub(super) fn has_call(expr: &Expr) -> bool {
    contains(expr, |part| call(part).is_some())
}

fn contains(expr: &Expr, test: impl Fn(&Expr) -> bool) -> bool {
    let mut found = false;
    let walk = expr.apply(|part| {
        found |= test(part);
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    });
    walk.is_ok() && found
}

/// Reads a call's answer from the scores of its text, where there are such.
pub(super) fn answer(exprs: Vec<Expr>, scores: &[Placement]) -> Result<Vec<Expr>> {
    let answered = exprs.into_iter().map(|expr| {
        expr.transform_down(|part| {
            let Some((function, text)) = call(&part) else {
                return Ok(Transformed::no(part));
            };
            let Some(score) = scores.iter().find(|score| score.text == *text) else {
                return Ok(Transformed::no(part));
            };
            let on_scores = Arc::new(function.on_scores());
            Ok(Transformed::new(
                with_text(&part, on_scores, &score.column),
                true,
                TreeNodeRecursion::Jump,
            ))
        })
        .map(|expr| expr.data)
    });
    answered.collect()
}

/// The same call of `func` with a column in place of the text.
fn with_text(expr: &Expr, func: Arc<datafusion::logical_expr::ScalarUDF>, column: &datafusion::common::Column) -> Expr {
    let Expr::ScalarFunction(ScalarFunction { args, .. }) = expr else {
        return expr.clone();
    };
    let text = std::iter::once(Expr::Column(column.clone()));
    Expr::ScalarFunction(ScalarFunction {
        func,
        args: text.chain(args.iter().skip(1).cloned()).collect(),
    })
}

/// The texts, each once, that have to be scored for the calls in `exprs`, and can be over a plan of this schema.
pub(super) fn texts_to_score(exprs: &[Expr], schema: &DFSchema) -> Vec<Expr> {
    let mut texts = Vec::new();
    for expr in exprs {
        collect(expr, &mut |text| {
            if can_be_scored(text, schema) && !texts.contains(text) {
                texts.push(text.clone());
            }
        });
    }
    texts
}

fn collect(expr: &Expr, found: &mut impl FnMut(&Expr)) {
    // The walk itself cannot fail, as the closure never does.
    let _ = expr.apply(|part| {
        if let Some((_, text)) = call(part) {
            found(text);
        }
        Ok(TreeNodeRecursion::Continue)
    });
}

/// Whether a text has one value per row of a plan with this schema, known before the row goes anywhere else.
fn can_be_scored(text: &Expr, schema: &DFSchema) -> bool {
    let columns = text.column_refs();
    !columns.is_empty()
        && columns.iter().all(|column| schema.is_column_from_schema(column))
        && !text.is_volatile()
        && !contains(text, |part| call(part).is_some() || needs_more_than_a_row(part))
}

fn needs_more_than_a_row(part: &Expr) -> bool {
    matches!(
        part,
        Expr::OuterReferenceColumn(..)
            | Expr::LambdaVariable(_)
            | Expr::AggregateFunction(_)
            | Expr::WindowFunction(_)
            | Expr::Unnest(_)
            | Expr::Placeholder(_)
    ) || has_subquery(part)
}

fn has_subquery(part: &Expr) -> bool {
    matches!(
        part,
        Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_)
    )
}

/// Gives calls in the branches of a CASE a text that is NULL for the rows of other branches: a NULL costs nothing to
/// score. A text that is scored for all rows anyway stays as it is, so that it is scored once.
pub(super) fn guard_branches(exprs: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
    let mut always = Vec::new();
    exprs.iter().for_each(|expr| collect_unconditional(expr, &mut always));
    let guarded = exprs.into_iter().map(|expr| {
        expr.transform_down(|part| match part {
            Expr::Case(case) if can_guard(&case) => {
                let case = guard_case(case, &always, schema)?;
                Ok(Transformed::new(Expr::Case(case), true, TreeNodeRecursion::Jump))
            }
            other => Ok(Transformed::no(other)),
        })
        .map(|expr| expr.data)
    });
    guarded.collect()
}

fn collect_unconditional(expr: &Expr, texts: &mut Vec<Expr>) {
    // The walk itself cannot fail, as the closure never does.
    let _ = expr.apply(|part| {
        if let Expr::Case(case) = part {
            conditions(case).for_each(|condition| collect_unconditional(condition, texts));
            return Ok(TreeNodeRecursion::Jump);
        }
        texts.extend(call(part).map(|(_, text)| text.clone()));
        Ok(TreeNodeRecursion::Continue)
    });
}

fn conditions(case: &Case) -> impl Iterator<Item = &Expr> {
    case.expr
        .iter()
        .map(AsRef::as_ref)
        .chain(case.when_then_expr.iter().map(|(when, _)| when.as_ref()))
}

/// The conditions are computed once more by the guard, so they have to be cheap and always the same.
fn can_guard(case: &Case) -> bool {
    conditions(case).all(|condition| {
        !condition.is_volatile() && !contains(condition, |part| call(part).is_some() || has_subquery(part))
    })
}

fn guard_case(mut case: Case, always: &[Expr], schema: &DFSchema) -> Result<Case> {
    let whens: Vec<Expr> = case
        .when_then_expr
        .iter()
        .map(|(when, _)| when.as_ref().clone())
        .collect();
    let base = case.expr.clone();
    let guard = |text: &Expr, branch: usize| -> Result<Expr> {
        let null = lit(ScalarValue::try_new_null(&text.get_type(schema)?)?);
        let before = whens[..branch]
            .iter()
            .map(|when| (Box::new(when.clone()), Box::new(null.clone())));
        let here = whens
            .get(branch)
            .map(|when| (Box::new(when.clone()), Box::new(text.clone())));
        let otherwise = if here.is_none() { text.clone() } else { null.clone() };
        Ok(Expr::Case(Case::new(
            base.clone(),
            before.chain(here).collect(),
            Some(Box::new(otherwise)),
        )))
    };
    let guard_all = |expr: Expr, branch: usize| -> Result<Expr> {
        let guarded = expr.transform_down(|part| {
            let Some((_, text)) = call(&part) else {
                return Ok(Transformed::no(part));
            };
            if always.contains(text) || !can_be_scored(text, schema) {
                return Ok(Transformed::no(part));
            }
            let guarded = guard(text, branch)?;
            if !can_be_scored(&guarded, schema) {
                return Ok(Transformed::no(part));
            }
            let Expr::ScalarFunction(ScalarFunction { func, mut args }) = part else {
                return Ok(Transformed::no(part));
            };
            args[0] = guarded;
            let guarded = Expr::ScalarFunction(ScalarFunction { func, args });
            Ok(Transformed::new(guarded, true, TreeNodeRecursion::Jump))
        })?;
        Ok(guarded.data)
    };
    for (branch, (_, then)) in case.when_then_expr.iter_mut().enumerate() {
        **then = guard_all(std::mem::take(then.as_mut()), branch)?;
    }
    if let Some(otherwise) = case.else_expr.as_deref_mut() {
        *otherwise = guard_all(std::mem::take(otherwise), whens.len())?;
    }
    Ok(case)
}

/// Rewrites expressions and gives each its old name, which nodes above refer to.
pub(super) fn preserving_names<T>(
    exprs: Vec<Expr>,
    rewrite: impl FnOnce(Vec<Expr>) -> Result<(Vec<Expr>, T)>,
) -> Result<(Vec<Expr>, T)> {
    let preserver = NamePreserver::new_for_projection();
    let names: Vec<Vec<SavedName>> = exprs
        .iter()
        .map(|expr| named(expr).map(|part| preserver.save(part)).collect())
        .collect();
    let (exprs, rest) = rewrite(exprs)?;
    Ok((
        exprs
            .into_iter()
            .zip(names)
            .map(|(expr, names)| restore(expr, names))
            .collect(),
        rest,
    ))
}

/// The parts of an expression that give names to columns: itself, or the members of a grouping set.
fn named(expr: &Expr) -> Box<dyn Iterator<Item = &Expr> + '_> {
    match expr {
        Expr::GroupingSet(GroupingSet::Rollup(exprs) | GroupingSet::Cube(exprs)) => Box::new(exprs.iter()),
        Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => Box::new(sets.iter().flatten()),
        other => Box::new(std::iter::once(other)),
    }
}

fn restore(expr: Expr, names: Vec<SavedName>) -> Expr {
    let mut names = names.into_iter();
    let mut one = |expr: Expr| match names.next() {
        Some(name) => name.restore(expr),
        None => expr,
    };
    match expr {
        Expr::GroupingSet(GroupingSet::Rollup(exprs)) => {
            Expr::GroupingSet(GroupingSet::Rollup(exprs.into_iter().map(one).collect()))
        }
        Expr::GroupingSet(GroupingSet::Cube(exprs)) => {
            Expr::GroupingSet(GroupingSet::Cube(exprs.into_iter().map(one).collect()))
        }
        Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => Expr::GroupingSet(GroupingSet::GroupingSets(
            sets.into_iter()
                .map(|set| set.into_iter().map(&mut one).collect())
                .collect(),
        )),
        other => one(other),
    }
}

/// The column of scores that a call reads, and the function as `EXPLAIN` shows it.
pub(super) fn reader(expr: &Expr) -> Option<(String, String)> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else {
        return None;
    };
    func.inner()
        .downcast_ref::<ModelUdf>()
        .filter(|function| !function.runs_model())?;
    let Some(Expr::Column(column)) = args.first() else {
        return None;
    };
    let literal = args
        .get(1)
        .and_then(|arg| arg.as_literal())
        .and_then(|literal| literal.try_as_str())
        .flatten();
    let function = match literal {
        Some(literal) => format!("{}({literal})", func.name()),
        None => func.name().to_owned(),
    };
    Some((column.name.clone(), function))
}
