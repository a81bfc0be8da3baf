//! What `EXPLAIN` shows.

use crate::support::{Session, rows};

/// The plan of a query, without the details that other DataFusion versions may change.
async fn check(sql: &str, expected: &str) {
    let session = Session::new();
    let plan = session.plan(sql).await;
    assert_eq!(
        plan.trim_end(),
        expected.trim_start_matches('\n').trim_end(),
        "{sql}\n{plan}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_select_and_order_share_one_operator() {
    check("SELECT id, sentiment_label(text) AS label FROM posts WHERE sentiment_score(text) > 0.5 AND id < 100 ORDER BY sentiment_score(text)", "
ProjectionExec: expr=[id@0 as id, label@1 as label]
  SortPreservingMergeExec: [sentiment_score(__score_1@2) ASC NULLS LAST]
    SortExec: expr=[sentiment_score(__score_1@2) ASC NULLS LAST], preserve_partitioning=[true]
      ProjectionExec: expr=[id@0 as id, sentiment_label(__score_1@1) as label, __score_1@1 as __score_1]
        FilterExec: CAST(sentiment_score(__score_1@1) AS Float64) > 0.5
          ProjectionExec: expr=[id@0 as id, __score_1@2 as __score_1]
            ScoreExec: texts=[posts.text], functions=[sentiment_label, sentiment_score], rows≈200
              FilterExec: id@0 < 100
                DataSourceExec: partitions=2, partition_sizes=[2, 2]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_top_k_by_another_column_is_taken_first() {
    check(
        "SELECT id, topic(text) FROM posts ORDER BY id LIMIT 10",
        "
ProjectionExec: expr=[id@0 as id, topic(__score_1@2) as topic(posts.text)]
  ScoreExec: texts=[posts.text], functions=[topic], rows=10
    SortPreservingMergeExec: [id@0 ASC NULLS LAST], fetch=10
      SortExec: TopK(fetch=10), expr=[id@0 ASC NULLS LAST], preserve_partitioning=[true]
        DataSourceExec: partitions=2, partition_sizes=[2, 2]",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_names_texts_functions_and_rows() {
    let session = Session::new();
    let sql = "SELECT sentiment_label(text), classify(text, 'topic')['label'], avg(sentiment_score(text)) FROM posts GROUP BY 1, 2";
    let plan = rows(&session.ctx, &format!("EXPLAIN FORMAT INDENT {sql}"))
        .await
        .join("\n");
    let operators: Vec<&str> = plan
        .lines()
        .filter(|line| line.contains("ScoreExec:"))
        .map(str::trim)
        .collect();
    assert_eq!(
        operators,
        ["ScoreExec: texts=[posts.text], functions=[classify(topic), sentiment_label, sentiment_score], rows=200"]
    );
    let tree = rows(&session.ctx, &format!("EXPLAIN {sql}")).await.join("\n");
    assert_eq!(tree.matches("ScoreExec").count(), 1, "{tree}");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_analyze_counts_what_was_scored() {
    let session = Session::new();
    let plan = rows(
        &session.ctx,
        "EXPLAIN ANALYZE SELECT sentiment_label(text) FROM posts WHERE id < 20",
    )
    .await
    .join("\n");
    assert!(plan.contains("scored_rows=19"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_full_whatever_the_source_sends() {
    let session = Session::new();
    session
        .ctx
        .sql("SET tamiz.batch_rows = 64")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    session
        .ctx
        .sql("SET datafusion.execution.batch_size = 7")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    let query = session
        .ctx
        .sql("SELECT sentiment_label(text) FROM posts")
        .await
        .unwrap();
    let partitions = query.collect_partitioned().await.unwrap();
    let sizes: Vec<Vec<usize>> = partitions
        .iter()
        .map(|batches| batches.iter().map(|batch| batch.num_rows()).collect())
        .collect();
    assert_eq!(
        sizes,
        [[64, 36], [64, 36]],
        "partitions of 100 rows that came in sevens"
    );
}
