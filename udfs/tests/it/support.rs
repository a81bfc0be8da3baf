//! A session with a small random model and a table of 200 posts.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::MemTable;
use datafusion::execution::context::SessionContext;
use datafusion::prelude::SessionConfig;
use tamiz_model::testing::tiny_checkpoint;
use tamiz_model::{Scorer, ScorerOptions};

/// Rows of the table `posts`.
pub(crate) const POSTS: usize = 200;
/// Those whose text is not NULL (ids 7, 57, 107 and 157 are).
pub(crate) const TEXTS: u64 = 196;

/// A session with all functions, and the scorer behind it.
pub(crate) struct Session {
    pub(crate) ctx: SessionContext,
    pub(crate) scorer: Scorer,
    _model: tempfile::TempDir,
}

impl Session {
    pub(crate) fn new() -> Self {
        let model = tempfile::tempdir().unwrap();
        tiny_checkpoint(model.path()).unwrap();
        let scorer = Scorer::open(model.path(), ScorerOptions::default()).unwrap();
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        tamiz_udfs::register(&ctx, scorer.clone()).unwrap();
        ctx.register_table("posts", Arc::new(posts())).unwrap();
        ctx.register_batch("labels", labels()).unwrap();
        Session {
            ctx,
            scorer,
            _model: model,
        }
    }

    /// The same session without the rule: every call is the plain function.
    pub(crate) fn without_rule(&self) -> SessionContext {
        let plain = SessionContext::new_with_state(self.ctx.state());
        assert!(plain.remove_optimizer_rule("hoist_model_calls"));
        plain
    }

    /// The result of a query, and how many texts the model read for it.
    pub(crate) async fn scored(&self, sql: &str) -> (Vec<String>, u64) {
        let before = self.scorer.stats().rows;
        let rows = rows(&self.ctx, sql).await;
        (rows, self.scorer.stats().rows - before)
    }

    /// The physical plan of a query, one operator a line.
    pub(crate) async fn plan(&self, sql: &str) -> String {
        let plan = self.ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        datafusion::physical_plan::displayable(plan.as_ref())
            .indent(false)
            .to_string()
    }

    /// What a query that must fail says.
    pub(crate) async fn error(&self, sql: &str) -> String {
        let result = match self.ctx.sql(sql).await {
            Ok(query) => query.collect().await.map(drop),
            Err(error) => Err(error),
        };
        result.expect_err(sql).strip_backtrace()
    }
}

/// The rows of a query, each as one line.
pub(crate) async fn rows(ctx: &SessionContext, sql: &str) -> Vec<String> {
    let batches = ctx
        .sql(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
        .collect()
        .await;
    let batches = batches.unwrap_or_else(|error| panic!("{sql}: {error}"));
    batches.iter().flat_map(lines).collect()
}

fn lines(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
        .collect();
    let line = |row| {
        columns
            .iter()
            .map(|column| column.value(row).to_string())
            .collect::<Vec<_>>()
            .join(" | ")
    };
    (0..batch.num_rows()).map(line).collect()
}

/// Two lists of rows are the same, in any order, numbers with a point in them up to 1e-4: how texts are batched moves the
/// last digits.
pub(crate) fn assert_same_rows(mut found: Vec<String>, mut expected: Vec<String>, what: &str) {
    found.sort();
    expected.sort();
    assert_eq!(found.len(), expected.len(), "{what}: number of rows");
    for (found, expected) in found.iter().zip(&expected) {
        assert!(same(found, expected), "{what}:\nfound    {found}\nexpected {expected}");
    }
}

fn same(a: &str, b: &str) -> bool {
    let words = |line: &str| {
        line.split([' ', ',', '{', '}', ':', '[', ']'])
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (a, b) = (words(a), words(b));
    let close = |a: &str, b: &str| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(x), Ok(y)) if a.contains('.') || b.contains('.') => (x - y).abs() < 1e-4,
        _ => a == b,
    };
    a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| close(a, b))
}

/// Two partitions of two batches each.
fn posts() -> MemTable {
    let quarter = POSTS / 4;
    let batch = |part: usize| batch(part * quarter..(part + 1) * quarter);
    let (first, second) = (vec![batch(0), batch(1)], vec![batch(2), batch(3)]);
    MemTable::try_new(first[0].schema(), vec![first, second]).unwrap()
}

fn batch(ids: std::ops::Range<usize>) -> RecordBatch {
    let text = |id: usize| match id % 50 {
        7 => None,
        8 => Some(String::new()),
        n => Some(format!(
            "{} number {id} @someone https://example.org/{n}",
            ["a joy", "a terrible day", "the match"][n % 3]
        )),
    };
    let column = |array: ArrayRef| array;
    RecordBatch::try_from_iter([
        (
            "id",
            column(Arc::new(ids.clone().map(|id| id as i32).collect::<Int32Array>())),
        ),
        (
            "lang",
            column(Arc::new(
                ids.clone()
                    .map(|id| Some(["en", "es"][id % 2]))
                    .collect::<StringArray>(),
            )),
        ),
        (
            "title",
            column(Arc::new(
                ids.clone()
                    .map(|id| Some(format!("title {id}")))
                    .collect::<StringArray>(),
            )),
        ),
        ("text", column(Arc::new(ids.map(text).collect::<StringArray>()))),
    ])
    .unwrap()
}

fn labels() -> RecordBatch {
    let column = |values: [&str; 3]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let (labels, names) = (
        column(["negative", "neutral", "positive"]),
        column(["bad", "so-so", "good"]),
    );
    RecordBatch::try_from_iter([("label", labels), ("name", names)]).unwrap()
}
