//! The shapes that the stream stores and SQL returns.

use arrow::array::{Array, AsArray, StringArray};
use arrow::datatypes::{DataType, Float32Type};
use tamiz_udfs::scores::{label_confidence, label_confidence_type, sentiment, sentiment_type};

use crate::support::{Session, assert_same_rows, rows};

#[test]
fn sentiment_is_positive_less_negative_with_all_probabilities() {
    let session = Session::new();
    let texts = StringArray::from(vec![Some("what a day"), None, Some("")]);
    let scores = session.scorer.score_blocking(&texts).unwrap();
    let column = sentiment(&scores).unwrap();
    assert_eq!(column.data_type(), &sentiment_type());
    assert_eq!(
        (column.is_null(0), column.is_null(1), column.is_null(2)),
        (false, true, false)
    );
    let number = |name: &str, row: usize| {
        column
            .column_by_name(name)
            .unwrap()
            .as_primitive::<Float32Type>()
            .value(row)
    };
    for row in [0, 2] {
        assert!((number("positive", row) - number("negative", row) - number("score", row)).abs() < 1e-6);
        assert!((number("positive", row) + number("neutral", row) + number("negative", row) - 1.0).abs() < 1e-5);
        let label = column.column_by_name("label").unwrap().as_string::<i32>().value(row);
        assert!(
            ["negative", "neutral", "positive"]
                .iter()
                .all(|other| number(other, row) <= number(label, row))
        );
    }
    for field in column.columns() {
        assert!(field.is_null(1), "fields of a NULL row are NULL");
    }
}

#[test]
fn types_are_the_ones_that_tables_hold() {
    let fields = |data_type: DataType| match data_type {
        DataType::Struct(fields) => fields
            .iter()
            .map(|field| format!("{}: {}", field.name(), field.data_type()))
            .collect(),
        other => vec![other.to_string()],
    };
    assert_eq!(
        fields(sentiment_type()),
        [
            "label: Utf8",
            "score: Float32",
            "negative: Float32",
            "neutral: Float32",
            "positive: Float32"
        ]
    );
    assert_eq!(fields(label_confidence_type()), ["label: Utf8", "confidence: Float32"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_returns_what_the_kernels_return() {
    let session = Session::new();
    let texts = StringArray::from(vec!["a joy", "a terrible day", "the match"]);
    let scores = session.scorer.score_blocking(&texts).unwrap();
    let (mood, topic) = (
        sentiment(&scores).unwrap(),
        label_confidence(scores.head("topic").unwrap()),
    );
    let batch = arrow::array::RecordBatch::try_from_iter([
        ("text", std::sync::Arc::new(texts) as arrow::array::ArrayRef),
        ("mood", std::sync::Arc::new(mood)),
        ("topic", std::sync::Arc::new(topic)),
    ]);
    session.ctx.register_batch("three", batch.unwrap()).unwrap();
    let asked = rows(
        &session.ctx,
        "SELECT text, sentiment(text), topic(text), classify(text, 'topic') FROM three",
    )
    .await;
    let stored = rows(&session.ctx, "SELECT text, mood, topic, topic AS again FROM three").await;
    assert_same_rows(asked, stored, "SQL against kernels");
}
