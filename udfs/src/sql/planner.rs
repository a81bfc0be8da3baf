//! From the logical operator that scores to the physical one, and how a session gets both.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use tamiz_model::Scorer;

use super::exec::{ScoreExec, ScoreTask, ScoredColumn};
use super::node::Score;

/// Plans the operator that scores; for programs that build their own [`QueryPlanner`] out of several of these.
pub struct ScorePlanner {
    scorer: Scorer,
}

impl ScorePlanner {
    /// Plans with this scorer.
    pub fn new(scorer: Scorer) -> Self {
        ScorePlanner { scorer }
    }
}

#[async_trait]
impl ExtensionPlanner for ScorePlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let (Some(score), [input]) = (node.as_any().downcast_ref::<Score>(), physical_inputs) else {
            return Ok(None);
        };
        let texts = score.texts.iter().map(|scored| {
            let text = planner.create_physical_expr(&scored.text, score.input.schema(), session, planning)?;
            Ok(ScoredColumn {
                text,
                display: scored.text.to_string(),
                column: scored.column.clone(),
            })
        });
        let task = ScoreTask {
            texts: texts.collect::<Result<_>>()?,
            functions: score.functions().into_iter().map(str::to_owned).collect(),
            scores: score.scores.clone(),
        };
        Ok(Some(Arc::new(ScoreExec::try_new(
            Arc::clone(input),
            Arc::new(task),
            self.scorer.clone(),
        )?)))
    }
}

/// Plans queries that score with DataFusion's planner and [`ScorePlanner`], and leaves all others to the planner that
/// the session had before.
pub(crate) struct ScoringQueryPlanner {
    pub(crate) scorer: Scorer,
    pub(crate) others: Arc<dyn QueryPlanner + Send + Sync>,
}

#[async_trait]
impl QueryPlanner for ScoringQueryPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        if !scores(plan)? {
            return self.others.create_physical_plan(plan, session).await;
        }
        let planner = ScorePlanner::new(self.scorer.clone());
        DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(planner)])
            .create_physical_plan(plan, session)
            .await
    }
}

impl fmt::Debug for ScoringQueryPlanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScoringQueryPlanner")
            .field("others", &self.others)
            .finish_non_exhaustive()
    }
}

/// Whether a plan holds the operator that scores.
fn scores(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Extension(extension) = node {
            found |= extension.node.as_any().is::<Score>();
        }
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(found)
}
