//! The physical operator that scores.
//!
//! It gathers the rows of its partition into full batches, sends each to the shared scorer and waits without holding a
//! worker thread. While the model works on one batch the next is read and tokenized ([`ScoreConfig::in_flight`]); that
//! is all it holds. Rows leave in the order in which they came.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::BatchCoalescer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::config::{ConfigExtension, ConfigOptions};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, ScalarValue, Statistics, extensions_options, plan_err};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::equivalence::ProjectionMapping;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, apply_expression_roots};
use datafusion::physical_plan::filter_pushdown::{FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput, Time,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildStats, ColumnStatistics, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
    ReplaceChildrenOptions, SendableRecordBatchStream, StatisticsArgs, StatisticsContext,
};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tamiz_model::Scorer;

use super::args::texts;
use super::model::external;
use crate::scores::pack;

extensions_options! {
    /// How queries are scored: `SET tamiz.batch_rows = 512`.
    pub struct ScoreConfig {
        /// Rows sent to the scorer at a time.
        pub batch_rows: usize, default = 2048
        /// Batches of one partition that are scored or wait to be at a time; 2 keeps the model busy, 1 scores no row too many.
        pub in_flight: usize, default = 2
    }
}

impl ConfigExtension for ScoreConfig {
    const PREFIX: &'static str = "tamiz";
}

impl ScoreConfig {
    fn of(options: &ConfigOptions) -> ScoreConfig {
        options.extensions.get::<ScoreConfig>().cloned().unwrap_or_default()
    }
}

/// One text to be scored: the expression that gives it, and the column that its scores go to.
#[derive(Debug, Clone)]
pub(crate) struct ScoredColumn {
    pub(crate) text: Arc<dyn PhysicalExpr>,
    /// The text as the query names it.
    pub(crate) display: String,
    pub(crate) column: String,
}

/// What is scored, and what for.
#[derive(Debug, Clone)]
pub(crate) struct ScoreTask {
    pub(crate) texts: Vec<ScoredColumn>,
    /// Names of the functions above that read the scores, for `EXPLAIN`.
    pub(crate) functions: Vec<String>,
    /// Type of a column of scores.
    pub(crate) scores: DataType,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct ScoreExec {
    input: Arc<dyn ExecutionPlan>,
    task: Arc<ScoreTask>,
    scorer: Scorer,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ScoreExec {
    pub(crate) fn try_new(input: Arc<dyn ExecutionPlan>, task: Arc<ScoreTask>, scorer: Scorer) -> Result<Self> {
        let before = input.schema();
        let added = task
            .texts
            .iter()
            .map(|text| Arc::new(Field::new(&text.column, task.scores.clone(), true)));
        let fields: Vec<_> = before.fields().iter().cloned().chain(added).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, before.metadata().clone()));
        let kept = before.fields().iter().enumerate();
        let kept = kept.map(|(i, field)| (Arc::new(Column::new(field.name(), i)) as _, field.name().clone()));
        let properties = PlanProperties::new(
            input
                .equivalence_properties()
                .project(&ProjectionMapping::try_new(kept, &before)?, schema),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Ok(ScoreExec {
            input,
            task,
            scorer,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// How many rows will be scored, as far as the input can tell.
    fn rows(&self) -> Precision<usize> {
        let statistics = StatisticsContext::new().compute(self.input.as_ref(), &StatisticsArgs::new());
        statistics.map_or(Precision::Absent, |statistics| statistics.num_rows)
    }
}

impl DisplayAs for ScoreExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self
            .task
            .texts
            .iter()
            .map(|text| text.display.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        let functions = self.task.functions.join(", ");
        let rows = match self.rows() {
            Precision::Exact(rows) => format!("rows={rows}"),
            Precision::Inexact(rows) => format!("rows≈{rows}"),
            Precision::Absent => String::new(),
        };
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "ScoreExec: texts=[{texts}], functions=[{functions}]")?;
                if rows.is_empty() { Ok(()) } else { write!(f, ", {rows}") }
            }
            DisplayFormatType::TreeRender => {
                writeln!(f, "texts={texts}")?;
                writeln!(f, "functions={functions}")?;
                writeln!(f, "{rows}")
            }
        }
    }
}

impl fmt::Debug for ScoreExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScoreExec")
            .field("task", &self.task)
            .field("input", &self.input)
            .finish_non_exhaustive()
    }
}

impl ExecutionPlan for ScoreExec {
    fn name(&self) -> &str {
        "ScoreExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.task.texts.iter().map(|text| &text.text), f)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.len() != 1 {
            return plan_err!("ScoreExec has one input, not {}", children.len());
        }
        Ok(Arc::new(ScoreExec::try_new(
            children.remove(0),
            Arc::clone(&self.task),
            self.scorer.clone(),
        )?))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let options = ReplaceChildrenOptions::new(datafusion::physical_plan::ChildrenPropertiesMode::Recompute);
        self.replace_children(children, options)
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    /// All partitions wait for the same model: splitting the input would only make its batches smaller.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = inputs[0].as_ref().clone();
        statistics.total_byte_size = Precision::Absent;
        statistics
            .column_statistics
            .extend(self.task.texts.iter().map(|_| ColumnStatistics::new_unknown()));
        Ok(Arc::new(statistics))
    }

    /// Filters on the columns of the input may go below, those of a join or a top-k too: fewer rows are scored.
    fn gather_filters_for_pushdown(
        &self,
        _phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        _config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        FilterDescription::from_children(parent_filters, &self.children())
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let config = ScoreConfig::of(context.session_config().options());
        let input = self.input.execute(partition, context)?;
        let work = Arc::new(Work {
            task: Arc::clone(&self.task),
            scorer: self.scorer.clone(),
            schema: self.schema(),
            scored_rows: MetricBuilder::new(&self.metrics).counter("scored_rows", partition),
            waited: MetricBuilder::new(&self.metrics).subset_time("score_wait", partition),
        });
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let scored = full_batches(input, config.batch_rows.max(1))
            .map(move |batch| {
                let work = Arc::clone(&work);
                async move { work.score(batch?).await }
            })
            .buffered(config.in_flight.max(1))
            .map_ok(move |batch| batch.record_output(&baseline));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), scored)))
    }
}

/// What one partition needs to score a batch.
struct Work {
    task: Arc<ScoreTask>,
    scorer: Scorer,
    schema: SchemaRef,
    scored_rows: Count,
    waited: Time,
}

impl Work {
    async fn score(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let mut columns = batch.columns().to_vec();
        for text in &self.task.texts {
            columns.push(self.column(text, &batch).await?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// The scores of one text for all rows; a text that is the same for all rows is scored once.
    async fn column(&self, text: &ScoredColumn, batch: &RecordBatch) -> Result<ArrayRef> {
        match text.text.evaluate(batch)? {
            ColumnarValue::Array(column) => self.ask(&column).await,
            ColumnarValue::Scalar(constant) => {
                let one = self.ask(&constant.to_array_of_size(1)?).await?;
                ScalarValue::try_from_array(&one, 0)?.to_array_of_size(batch.num_rows())
            }
        }
    }

    async fn ask(&self, column: &ArrayRef) -> Result<ArrayRef> {
        let texts = texts(column)?;
        self.scored_rows.add(texts.len() - texts.null_count());
        let started = std::time::Instant::now();
        let scores = self.scorer.score(&texts).await.map_err(external)?;
        self.waited.add_duration(started.elapsed());
        Ok(Arc::new(pack(&scores)))
    }
}

/// The same rows in batches of exactly `rows`; the last one may be smaller.
fn full_batches(input: SendableRecordBatchStream, rows: usize) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let gathered = BatchCoalescer::new(input.schema(), rows);
    stream::try_unfold(
        (input, gathered, false),
        move |(mut input, mut gathered, mut ended)| async move {
            loop {
                if let Some(batch) = gathered.next_completed_batch() {
                    return Ok(Some((batch, (input, gathered, ended))));
                }
                if ended {
                    return Ok(None);
                }
                match input.next().await {
                    Some(batch) => gathered.push_batch(batch?)?,
                    None => {
                        ended = true;
                        gathered.finish_buffered_batch()?;
                    }
                }
            }
        },
    )
}
