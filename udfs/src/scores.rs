//! Scores as Arrow columns: what a table holds and what SQL returns, made in one place.
//!
//! The stream writes these columns, the SQL functions return them, so the same text gives the same struct through either.
//! Nothing here runs a model: the input is what [`tamiz_model::Scorer`] returned.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, FixedSizeListArray, Float32Array, Float32Builder, StringArray, StringBuilder, StructArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use tamiz_model::{Head, HeadScores, Scores};
use thiserror::Error;

/// Name of the head that [`sentiment`] reads.
pub const SENTIMENT: &str = "sentiment";
/// Name of the head that the SQL function `topic` reads.
pub const TOPIC: &str = "topic";
/// The labels of the sentiment head, in its order; `score` is the last less the first.
pub const SENTIMENT_LABELS: [&str; 3] = ["negative", "neutral", "positive"];

/// Scores that cannot be shaped as asked.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ScoresError {
    /// The model lacks a head.
    #[error("the model has no head `{head}`: choose one of {known}")]
    MissingHead {
        /// The head that was asked for.
        head: String,
        /// Those there are, separated by commas.
        known: String,
    },
    /// The sentiment head has other labels than this crate can name.
    #[error(
        "head `sentiment` has the labels [{found}] instead of [negative, neutral, positive]: map its labels when the checkpoint is loaded"
    )]
    SentimentLabels {
        /// The labels found, separated by commas.
        found: String,
    },
}

impl ScoresError {
    pub(crate) fn missing<'a>(head: &str, known: impl IntoIterator<Item = &'a Arc<Head>>) -> Self {
        let known = known
            .into_iter()
            .map(|head| head.name.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        ScoresError::MissingHead {
            head: head.to_owned(),
            known,
        }
    }
}

/// Type of [`sentiment`]: `Struct<label, score, negative, neutral, positive>`.
pub fn sentiment_type() -> DataType {
    DataType::Struct(sentiment_fields())
}

/// Type of [`label_confidence`]: `Struct<label, confidence>`.
pub fn label_confidence_type() -> DataType {
    DataType::Struct(label_confidence_fields())
}

/// The likeliest sentiment, `score` = positive − negative (−1 to 1), and the three probabilities; NULL where the text was NULL.
///
/// # Errors
/// When the model has no head `sentiment`, or one with other labels.
pub fn sentiment(scores: &Scores) -> Result<StructArray, ScoresError> {
    let head = scores
        .head(SENTIMENT)
        .ok_or_else(|| ScoresError::missing(SENTIMENT, scores.heads.iter().map(|scores| &scores.head)))?;
    check_sentiment(&head.head)?;
    Ok(Rows::of(head).sentiment())
}

/// The likeliest label of one head and its probability; NULL where the text was NULL.
pub fn label_confidence(scores: &HeadScores) -> StructArray {
    Rows::of(scores).label_confidence()
}

/// Whether a head has the labels that [`sentiment`] names its fields after.
pub(crate) fn check_sentiment(head: &Head) -> Result<(), ScoresError> {
    if head.labels == SENTIMENT_LABELS {
        return Ok(());
    }
    Err(ScoresError::SentimentLabels {
        found: head.labels.join(", "),
    })
}

/// All heads of all rows in one column: the probabilities of every head side by side, in the order of `heads`.
/// The SQL operator that scores appends one such column per text; [`Rows::packed`] reads it.
pub(crate) fn pack(scores: &Scores) -> FixedSizeListArray {
    let width: usize = scores.heads.iter().map(|scores| scores.head.labels.len()).sum();
    let rows = scores.n_tokens.len();
    let mut values = Vec::with_capacity(rows * width);
    let mut valid = Vec::with_capacity(rows);
    for i in 0..rows {
        let start = values.len();
        values.extend(scores.heads.iter().filter_map(|head| head.row(i)).flatten().copied());
        valid.push(values.len() == start + width);
        values.resize(start + width, 0.0);
    }
    let (item, width) = packed_parts(width);
    FixedSizeListArray::new(
        item,
        width,
        Arc::new(Float32Array::from(values)),
        Some(NullBuffer::from(valid)),
    )
}

/// Type of [`pack`] for a model with these heads.
pub(crate) fn packed_type<'a>(heads: impl IntoIterator<Item = &'a Arc<Head>>) -> DataType {
    let (item, width) = packed_parts(heads.into_iter().map(|head| head.labels.len()).sum());
    DataType::FixedSizeList(item, width)
}

fn packed_parts(width: usize) -> (Arc<Field>, i32) {
    let width = i32::try_from(width).expect("a model has far fewer labels than 2^31");
    (Arc::new(Field::new("item", DataType::Float32, true)), width)
}

/// The rows of one head, wherever they lie.
pub(crate) struct Rows<'a> {
    head: &'a Head,
    len: usize,
    row: Box<dyn Fn(usize) -> Option<&'a [f32]> + 'a>,
}

impl<'a> Rows<'a> {
    /// The rows of one head as the scorer returned them.
    pub(crate) fn of(scores: &'a HeadScores) -> Self {
        Rows {
            head: &scores.head,
            len: scores.len(),
            row: Box::new(|i| scores.row(i)),
        }
    }

    /// The rows of one head out of a column made by [`pack`]; `offset` is where the head's labels begin.
    pub(crate) fn packed(
        head: &'a Head,
        offset: usize,
        column: &'a FixedSizeListArray,
        values: &'a Float32Array,
    ) -> Self {
        let row = move |i: usize| {
            let start = column.value_offset(i) as usize + offset;
            column
                .is_valid(i)
                .then(|| &values.values()[start..start + head.labels.len()])
        };
        Rows {
            head,
            len: column.len(),
            row: Box::new(row),
        }
    }

    fn iter(&self) -> impl Iterator<Item = Option<&'a [f32]>> {
        (0..self.len).map(|i| (self.row)(i))
    }

    /// See [`sentiment`]; the labels must have been checked.
    pub(crate) fn sentiment(&self) -> StructArray {
        let probability = |place: usize| Arc::new(self.column(|row| row[place])) as ArrayRef;
        let columns = vec![
            Arc::new(self.labels()) as ArrayRef,
            Arc::new(self.sentiment_score()),
            probability(0),
            probability(1),
            probability(2),
        ];
        StructArray::new(sentiment_fields(), columns, self.nulls())
    }

    /// Positive less negative; the labels must have been checked.
    pub(crate) fn sentiment_score(&self) -> Float32Array {
        self.column(|row| row[2] - row[0])
    }

    /// See [`label_confidence`].
    pub(crate) fn label_confidence(&self) -> StructArray {
        let confidence = self.column(|row| row[best(row)]);
        let columns = vec![Arc::new(self.labels()) as ArrayRef, Arc::new(confidence)];
        StructArray::new(label_confidence_fields(), columns, self.nulls())
    }

    /// The likeliest label.
    pub(crate) fn labels(&self) -> StringArray {
        let mut labels = StringBuilder::with_capacity(self.len, self.len * 8);
        for row in self.iter() {
            labels.append_option(row.map(|row| self.head.labels[best(row)].as_str()));
        }
        labels.finish()
    }

    /// One field per label, with its probability.
    pub(crate) fn all(&self) -> StructArray {
        let columns = (0..self.head.labels.len()).map(|place| Arc::new(self.column(|row| row[place])) as ArrayRef);
        StructArray::new(all_fields(self.head), columns.collect(), self.nulls())
    }

    fn column(&self, value: impl Fn(&[f32]) -> f32) -> Float32Array {
        let mut values = Float32Builder::with_capacity(self.len);
        for row in self.iter() {
            values.append_option(row.map(&value));
        }
        values.finish()
    }

    fn nulls(&self) -> Option<NullBuffer> {
        Some(self.iter().map(|row| row.is_some()).collect::<NullBuffer>()).filter(|nulls| nulls.null_count() > 0)
    }
}

/// Place of the largest probability; the first of equals.
fn best(row: &[f32]) -> usize {
    (1..row.len()).fold(0, |best, place| if row[place] > row[best] { place } else { best })
}

/// The fields of [`Rows::all`].
pub(crate) fn all_fields(head: &Head) -> Fields {
    head.labels
        .iter()
        .map(|label| Field::new(label, DataType::Float32, true))
        .collect()
}

fn sentiment_fields() -> Fields {
    let label = std::iter::once(Field::new("label", DataType::Utf8, true));
    let numbers = std::iter::once("score").chain(SENTIMENT_LABELS);
    label
        .chain(numbers.map(|name| Field::new(name, DataType::Float32, true)))
        .collect()
}

fn label_confidence_fields() -> Fields {
    Fields::from(vec![
        Field::new("label", DataType::Utf8, true),
        Field::new("confidence", DataType::Float32, true),
    ])
}
