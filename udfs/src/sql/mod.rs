//! The text and model functions as SQL functions of any DataFusion session.
//!
//! [`register`] gives a session the functions, the rule that scores each row once ([`hoist`]), and the planner of the
//! operator that the rule puts into plans ([`exec`]). A session without a model gets the text functions alone, by
//! [`register_text`]. No function here holds logic of its own: the kernels are in [`crate::text`], the model behind
//! [`Scorer`], the shapes of results in [`crate::scores`].

mod args;
mod exec;
mod explain;
mod hoist;
mod model;
mod node;
mod pii;
mod planner;
mod text;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::registry::FunctionRegistry;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::SessionContext;
use tamiz_model::Scorer;

pub use exec::ScoreConfig;
pub use pii::TextOptions;
pub use planner::ScorePlanner;

use hoist::HoistModelCalls;
use model::{ModelFunction, ModelUdf};
use planner::ScoringQueryPlanner;

/// Gives a session all functions, with the default [`TextOptions`].
///
/// Register before the session prepares statements: its state is rebuilt, and prepared statements do not survive that.
///
/// # Errors
/// When a function of the same name refuses to be replaced.
pub fn register(ctx: &SessionContext, scorer: Scorer) -> Result<()> {
    register_with(ctx, scorer, &TextOptions::default())
}

/// As [`register`], with a policy and a key for `scrub_pii`.
///
/// # Errors
/// As [`register`]; and when the policy hashes and there is no key.
pub fn register_with(ctx: &SessionContext, scorer: Scorer, options: &TextOptions) -> Result<()> {
    register_text(ctx, options)?;
    let state = ctx.state_ref();
    let mut state = state.write();
    let with_model = configure(state.clone(), scorer)?;
    *state = with_model;
    Ok(())
}

/// Gives a session the functions that need no model: `normalize`, `language`, `spam_score`, `scrub_pii`, `pii_entities`.
///
/// # Errors
/// When the policy hashes and there is no key.
pub fn register_text(ctx: &SessionContext, options: &TextOptions) -> Result<()> {
    for function in text::functions().into_iter().chain(pii::functions(options)?) {
        ctx.register_udf(function);
    }
    Ok(())
}

/// A session's state with the model functions, the rule and the planner; its session id, catalogs and functions stay.
///
/// The rule goes last: every pass of DataFusion's own has then pushed filters, limits and projections as far down as they
/// go, removed what nobody reads, and left the model calls where their values are needed.
///
/// # Errors
/// When the state refuses a function.
pub fn configure(state: SessionState, scorer: Scorer) -> Result<SessionState> {
    let planner = ScoringQueryPlanner {
        scorer: scorer.clone(),
        others: Arc::clone(state.query_planner()),
    };
    let session_id = state.session_id().to_owned();
    let mut rules = state.optimizers().to_vec();
    rules.retain(|rule| rule.name() != hoist::NAME);
    rules.push(Arc::new(HoistModelCalls::new(&scorer)));
    let mut state = SessionStateBuilder::new_from_existing(state)
        .with_session_id(session_id)
        .with_optimizer_rules(rules)
        .with_query_planner(Arc::new(planner))
        .build();
    let extensions = &mut state.config_mut().options_mut().extensions;
    if extensions.get::<ScoreConfig>().is_none() {
        extensions.insert(ScoreConfig::default());
    }
    for function in model_functions(&scorer) {
        state.register_udf(Arc::new(function))?;
    }
    Ok(state)
}

/// The functions that need the model or its tokenizer.
fn model_functions(scorer: &Scorer) -> Vec<ScalarUDF> {
    let mut functions = text::tokenizer_functions(scorer);
    functions.push(explain::function(scorer));
    functions.extend(ModelFunction::ALL.map(|function| ScalarUDF::from(ModelUdf::new(function, scorer.clone()))));
    functions
}
