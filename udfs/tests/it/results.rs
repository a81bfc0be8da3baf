//! Every kind of query gives the rows that it gives without the rule, and scores each row once.

use crate::support::{Session, TEXTS, assert_same_rows, rows};

/// Runs a query with the rule and without it; the rows have to agree, and the model to have read `texts` texts.
async fn check(session: &Session, sql: &str, texts: u64) {
    let (found, scored) = session.scored(sql).await;
    let expected = rows(&session.without_rule(), sql).await;
    assert!(!expected.is_empty(), "{sql}: gives no rows");
    assert_same_rows(found, expected, sql);
    assert_eq!(scored, texts, "{sql}: texts scored, in\n{}", session.plan(sql).await);
}

async fn check_all(cases: &[(&str, u64)]) {
    let session = Session::new();
    for (sql, texts) in cases {
        check(&session, sql, *texts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_named_several_times_is_scored_once() {
    check_all(&[
        ("SELECT id, sentiment(text)['label'], sentiment(text)['score'], sentiment_label(text), topic(text)['label'], classify(text, 'topic')['confidence'], topic_scores(text)['sports'] FROM posts", TEXTS),
        ("SELECT id, sentiment_score(text) FROM posts WHERE sentiment_label(text) >= 'a' ORDER BY sentiment_score(text), id", TEXTS),
        ("SELECT sentiment_label(text) AS l, topic(text)['label'] AS t, avg(sentiment_score(text)), count(*) FROM posts GROUP BY 1, 2", TEXTS),
        ("SELECT id, sentiment_score(upper(text)), sentiment_label(upper(text)) FROM posts", TEXTS),
        ("SELECT id, sentiment_score(text), sentiment_score(title) FROM posts", TEXTS + 200),
        ("SELECT * FROM (SELECT id, sentiment_score(text) AS s, text FROM posts) x WHERE s > -0.9 AND sentiment_label(x.text) >= 'a'", TEXTS),
        ("SELECT id, sentiment(text) FROM posts WHERE sentiment(text)['positive'] >= 0", TEXTS),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_dropped_anyway_are_not_scored() {
    check_all(&[
        (
            "SELECT id, sentiment_score(text) FROM posts WHERE sentiment_score(text) > -0.99 AND id < 20",
            19,
        ),
        (
            "SELECT id FROM posts WHERE id < 20 AND sentiment_label(text) IS NOT NULL",
            19,
        ),
        ("SELECT id, sentiment_score(text) FROM posts ORDER BY id LIMIT 10", 9),
        (
            "SELECT sentiment_score(text) AS s FROM posts ORDER BY lang, id DESC LIMIT 10",
            10,
        ),
        (
            "SELECT * FROM (SELECT id, sentiment_label(text) AS l FROM posts) v ORDER BY id DESC LIMIT 4",
            4,
        ),
        (
            "SELECT id, sentiment_label(text) FROM posts ORDER BY id LIMIT 3 OFFSET 20",
            3,
        ),
        (
            "SELECT count(*) FROM (SELECT id, sentiment_score(text) AS s FROM posts)",
            0,
        ),
        (
            "SELECT a.id, sentiment_label(a.text) FROM posts a JOIN posts b ON a.id = b.id WHERE b.id < 5",
            5,
        ),
        (
            "SELECT text, sentiment_label(text) FROM posts WHERE id IN (1, 3) GROUP BY text",
            2,
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_alone_scores_no_more_rows_than_it_gives() {
    let session = Session::new();
    let (rows, scored) = session.scored("SELECT sentiment_score(text) FROM posts LIMIT 5").await;
    assert_eq!((rows.len(), scored), (5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn order_and_top_k_by_the_model_are_right() {
    let session = Session::new();
    let sql = "SELECT id FROM posts WHERE text IS NOT NULL ORDER BY sentiment_score(text) DESC, id LIMIT 7";
    let (found, scored) = session.scored(sql).await;
    assert_eq!(found, rows(&session.without_rule(), sql).await, "in this order");
    assert_eq!(scored, TEXTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregates_take_model_calls_in_every_place() {
    check_all(&[
        ("SELECT count(*) FILTER (WHERE sentiment_score(text) > 0) FROM posts", TEXTS),
        ("SELECT lang, avg(sentiment_score(text)) AS a FROM posts GROUP BY lang HAVING avg(sentiment_score(text)) > -1", TEXTS),
        ("SELECT sentiment_label(text), lang, count(*) FROM posts GROUP BY ROLLUP(sentiment_label(text), lang)", TEXTS),
        ("SELECT count(DISTINCT sentiment_label(text)) FROM posts", TEXTS),
        ("SELECT DISTINCT sentiment_label(text) FROM posts", TEXTS),
        ("SELECT array_agg(sentiment_label(text) ORDER BY sentiment_score(text), id) FROM posts", TEXTS),
        ("SELECT lang, sentiment_label(max(text)) FROM posts GROUP BY lang", 2),
        ("SELECT max(sentiment(text)['score']) - min(sentiment(text)['score']) FROM posts", TEXTS),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_take_model_calls_in_every_place() {
    check_all(&[
        ("SELECT id, row_number() OVER (PARTITION BY sentiment_label(text) ORDER BY sentiment_score(text), id) FROM posts", TEXTS),
        ("SELECT id, lag(sentiment_score(text)) OVER (ORDER BY id), sentiment_score(text) FROM posts", TEXTS),
        ("SELECT id, avg(sentiment_score(text)) OVER (PARTITION BY lang ORDER BY id ROWS 3 PRECEDING) AS a FROM posts", TEXTS),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_of_a_case_is_scored_only_for_its_rows() {
    check_all(&[
        ("SELECT id, CASE WHEN lang = 'en' THEN sentiment_score(text) ELSE 0 END FROM posts", 100),
        ("SELECT id, CASE lang WHEN 'en' THEN sentiment_score(text) ELSE -sentiment_score(text) END FROM posts", TEXTS),
        ("SELECT id, CASE WHEN id < 10 THEN 'early' WHEN id < 20 THEN sentiment_label(text) WHEN id < 30 THEN topic(text)['label'] END FROM posts", 20),
        ("SELECT id, sentiment_label(text), CASE WHEN lang = 'en' THEN sentiment_score(text) END FROM posts", TEXTS),
        ("SELECT id, CASE WHEN sentiment_label(text) = 'negative' THEN topic(text)['label'] ELSE 'other' END FROM posts", TEXTS),
        ("SELECT lang, sum(CASE WHEN id < 10 THEN sentiment_score(text) END) AS s FROM posts GROUP BY lang", 9),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_take_model_calls_in_their_conditions() {
    check_all(&[
        ("SELECT a.id, l.name FROM posts a JOIN labels l ON sentiment_label(a.text) = l.label", TEXTS),
        ("SELECT a.id, b.id FROM posts a LEFT JOIN posts b ON a.id = b.id AND sentiment_label(b.text) = 'positive'", TEXTS),
        ("SELECT a.id, b.id FROM posts a FULL JOIN posts b ON a.id = b.id AND sentiment_score(a.text) > 0", TEXTS),
        ("SELECT a.id, sentiment_label(b.text) FROM posts a LEFT JOIN (SELECT * FROM posts WHERE sentiment_score(text) > 0) b ON a.id = b.id", TEXTS),
        ("SELECT a.id, sentiment_label(b.t) FROM posts a LEFT JOIN (SELECT id, coalesce(text, 'x') AS t FROM posts WHERE sentiment_score(coalesce(text, 'x')) > 0) b ON a.id = b.id", 200),
        ("SELECT a.id FROM posts a JOIN posts b ON a.id = b.id AND sentiment_score(a.text) > sentiment_score(b.title) - 3", TEXTS + 200),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_from_both_sides_of_a_join_is_scored_by_the_plain_function() {
    let session = Session::new();
    let sql = "SELECT a.id FROM posts a LEFT JOIN posts b ON a.id = b.id AND sentiment_score(a.title || b.title) > 0";
    assert_same_rows(
        rows(&session.ctx, sql).await,
        rows(&session.without_rule(), sql).await,
        sql,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn subqueries_set_operations_and_common_tables_are_right() {
    check_all(&[
        ("SELECT id FROM posts WHERE sentiment_score(text) > (SELECT avg(sentiment_score(text)) FROM posts)", 2 * TEXTS),
        ("SELECT id FROM posts p WHERE EXISTS (SELECT 1 FROM labels l WHERE l.label = sentiment_label(p.text))", TEXTS),
        ("SELECT name FROM labels WHERE label IN (SELECT sentiment_label(text) FROM posts)", TEXTS),
        ("SELECT id FROM posts WHERE sentiment_label(text) NOT IN (SELECT name FROM labels)", TEXTS),
        ("SELECT l.label, (SELECT count(*) FROM (SELECT sentiment_label(text) AS s FROM posts) p WHERE p.s = l.label) FROM labels l", TEXTS),
        ("SELECT sentiment_label(text) FROM posts WHERE id < 10 UNION ALL SELECT sentiment_label(text) FROM posts WHERE id >= 190", 19),
        ("SELECT sentiment_label(text) FROM posts UNION SELECT label FROM labels", TEXTS),
        ("SELECT sentiment_label(text) FROM posts EXCEPT SELECT 'none'", TEXTS),
        ("WITH s AS (SELECT id, text, sentiment_score(text) AS score FROM posts) SELECT a.id, a.score, b.score FROM s a JOIN s b ON a.id = b.id", 2 * TEXTS),
        ("WITH s AS (SELECT id, text FROM posts WHERE sentiment_score(text) > -0.9) SELECT id, sentiment_label(text) FROM s WHERE topic(text)['confidence'] > 0", TEXTS),
        ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT n, sentiment_label('day ' || n) FROM r", 3),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn constants_give_every_row_and_are_scored_once() {
    check_all(&[
        ("SELECT id, sentiment('what a day')['label'] FROM posts WHERE id < 5", 1),
        ("SELECT sentiment_score('what a day'), sentiment_score('')", 2),
        ("SELECT sentiment_label(NULL), sentiment(NULL)", 0),
        ("SELECT id FROM posts WHERE sentiment_score('what a day') < 2", 1),
    ])
    .await;
    let session = Session::new();
    assert_eq!(
        rows(&session.ctx, "SELECT sentiment('x') FROM posts LIMIT 5")
            .await
            .len(),
        5
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_inside_a_call_is_right() {
    check_all(&[
        ("SELECT id, topic(sentiment_label(text))['label'] FROM posts", 2 * TEXTS),
        (
            "SELECT id, sentiment_label(concat(text, sentiment_label(text))) FROM posts",
            TEXTS + 200,
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_texts_are_left_to_the_plain_function() {
    let session = Session::new();
    let sql = "SELECT sentiment_label(text || random()) FROM posts WHERE id < 3";
    assert_eq!(rows(&session.ctx, sql).await.len(), 3);
    assert!(!session.plan(sql).await.contains("ScoreExec"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_can_be_made_from_scores_and_views_read_them() {
    let session = Session::new();
    session
        .ctx
        .sql("CREATE TABLE scored AS SELECT id, sentiment(text) AS s FROM posts")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    session
        .ctx
        .sql("CREATE VIEW labelled AS SELECT id, text, sentiment_label(text) AS label FROM posts")
        .await
        .unwrap();
    let (found, scored) = session
        .scored("SELECT id, label, sentiment_score(text) FROM labelled WHERE label >= 'a'")
        .await;
    let stored = rows(
        &session.ctx,
        "SELECT id, s['label'], s['score'] FROM scored WHERE s['label'] >= 'a'",
    )
    .await;
    assert_same_rows(found, stored, "view against table");
    assert_eq!(scored, TEXTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_take_a_text() {
    let session = Session::new();
    session
        .ctx
        .sql("PREPARE one(VARCHAR) AS SELECT sentiment_label($1)")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    let found = rows(&session.ctx, "EXECUTE one('what a day')").await;
    assert_eq!(found, rows(&session.ctx, "SELECT sentiment_label('what a day')").await);
    session
        .ctx
        .sql("PREPARE few(BIGINT) AS SELECT id, sentiment_label(text) FROM posts WHERE id < $1")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    assert_eq!(session.scored("EXECUTE few(5)").await.1, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_files_are_filtered_by_the_model_once() {
    let session = Session::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("posts.parquet");
    let path = path.to_str().unwrap();
    for setting in ["pushdown_filters", "reorder_filters"] {
        let set = format!("SET datafusion.execution.parquet.{setting} = true");
        session.ctx.sql(&set).await.unwrap().collect().await.unwrap();
    }
    session
        .ctx
        .sql(&format!("COPY posts TO '{path}'"))
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    session
        .ctx
        .register_parquet("archive", path, Default::default())
        .await
        .unwrap();
    check(
        &session,
        "SELECT id, sentiment_label(text) FROM archive WHERE sentiment_score(text) > -0.9",
        TEXTS,
    )
    .await;
    check(
        &session,
        "SELECT id, sentiment_label(text) FROM archive WHERE sentiment_score(text) > -0.9 AND id < 20",
        19,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_lists_the_tokens_that_the_model_reads() {
    let session = Session::new();
    let query = "SELECT id FROM posts WHERE array_length(explain(text, 'topic')) = token_count(text) AND id < 12";
    assert_eq!(
        rows(&session.ctx, query).await.len(),
        11,
        "all but the post without text"
    );
    let query = "SELECT id FROM posts WHERE explain(text, 'topic') IS NULL AND id < 12";
    assert_eq!(rows(&session.ctx, query).await, ["7"]);
    let error = session.error("SELECT explain(text, 'mood') FROM posts").await;
    assert!(error.contains("choose one of sentiment, topic"), "{error}");
}
