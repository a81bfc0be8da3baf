//! All string types, NULL and the empty string.

use crate::support::{Session, assert_same_rows, rows};

const CALLS: [&str; 11] = [
    "normalize(t)",
    "language(t)",
    "spam_score(t)",
    "scrub_pii(t)",
    "scrub_pii(t, 'drop')",
    "pii_entities(t)",
    "tokens(t)",
    "token_count(t)",
    "sentiment(t)",
    "topic_scores(t)",
    "classify(t, 'sentiment')",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_string_type_gives_the_same_answer() {
    let session = Session::new();
    for call in CALLS {
        let of = |data_type: &str| {
            format!("SELECT id, {call} FROM (SELECT id, arrow_cast(text, '{data_type}') AS t FROM posts)")
        };
        let expected = rows(&session.ctx, &of("Utf8")).await;
        for data_type in ["LargeUtf8", "Utf8View", "Dictionary(Int32, Utf8)"] {
            let found = rows(&session.ctx, &of(data_type)).await;
            assert_same_rows(found, expected.clone(), &format!("{call} of {data_type}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn null_gives_null_and_the_empty_string_is_a_text() {
    let session = Session::new();
    for call in CALLS {
        let sql =
            format!("SELECT {call} IS NULL FROM (SELECT id, text AS t FROM posts WHERE id IN (7, 8)) ORDER BY id");
        assert_eq!(rows(&session.ctx, &sql).await, ["true", "false"], "{call} of a column");
        let constant = |value: &str| format!("SELECT {} IS NULL", call.replace("(t", &format!("({value}")));
        assert_eq!(rows(&session.ctx, &constant("NULL")).await, ["true"], "{call} of NULL");
        assert_eq!(
            rows(&session.ctx, &constant("CAST(NULL AS VARCHAR)")).await,
            ["true"],
            "{call} of a NULL text"
        );
        assert_eq!(
            rows(&session.ctx, &constant("''")).await,
            ["false"],
            "{call} of an empty text"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_function_is_documented_with_an_example() {
    let session = Session::new();
    let state = session.ctx.state();
    for call in CALLS
        .iter()
        .chain(&["sentiment_label(t)", "sentiment_score(t)", "topic(t)"])
    {
        let name = call.split('(').next().unwrap();
        let function = &state.scalar_functions()[name];
        let documentation = function.documentation().expect(name);
        assert!(documentation.syntax_example.starts_with(name), "{name}");
        assert!(
            documentation
                .sql_example
                .as_ref()
                .is_some_and(|example| example.contains(name)),
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_a_model_has_the_text_functions() {
    let ctx = datafusion::prelude::SessionContext::new();
    tamiz_udfs::register_text(&ctx, &tamiz_udfs::TextOptions::default()).unwrap();
    assert_eq!(rows(&ctx, "SELECT normalize('  a   b ')").await, ["a b"]);
    assert!(ctx.sql("SELECT sentiment('a')").await.is_err());
}
