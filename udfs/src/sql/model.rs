//! The functions that run the model: `sentiment`, `topic`, `classify` and their shorthands.
//!
//! Each is a plain scalar function, right wherever DataFusion may call one, and so the fallback for any plan: it scores
//! the column it is given and blocks until that is done. The rule in [`super::hoist`] replaces it by the same function
//! reading a column of scores, made once per text by an operator that does not block. Both ends share the shaping in
//! [`crate::scores`], so a plan with the rule and one without it give the same values.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type};
use datafusion::common::{DataFusionError, Result, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use tamiz_model::{Head, Scorer};

use super::args::{Usage, column, run, texts};
use crate::scores::{self, Rows, SENTIMENT, ScoresError, TOPIC};

/// Which model function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ModelFunction {
    Sentiment,
    SentimentLabel,
    SentimentScore,
    Topic,
    TopicScores,
    Classify,
}

impl ModelFunction {
    pub(crate) const ALL: [ModelFunction; 6] = [
        ModelFunction::Sentiment,
        ModelFunction::SentimentLabel,
        ModelFunction::SentimentScore,
        ModelFunction::Topic,
        ModelFunction::TopicScores,
        ModelFunction::Classify,
    ];

    fn usage(self) -> Usage {
        let (name, syntax, description, example) = match self {
            ModelFunction::Sentiment => (
                "sentiment",
                "sentiment(text)",
                "The sentiment of a text: its label, score = positive - negative (-1 to 1), and the probability of each label.",
                "SELECT sentiment(text)['label'], sentiment(text)['positive'] FROM posts",
            ),
            ModelFunction::SentimentLabel => (
                "sentiment_label",
                "sentiment_label(text)",
                "The likeliest sentiment of a text: negative, neutral or positive.",
                "SELECT sentiment_label(text), count(*) FROM posts GROUP BY 1",
            ),
            ModelFunction::SentimentScore => (
                "sentiment_score",
                "sentiment_score(text)",
                "The sentiment of a text as one number: the probability of positive less that of negative, -1 to 1.",
                "SELECT source, avg(sentiment_score(text)) FROM posts GROUP BY source",
            ),
            ModelFunction::Topic => (
                "topic",
                "topic(text)",
                "The likeliest topic of a text and its probability.",
                "SELECT topic(text)['label'] AS topic, avg(sentiment_score(text)) FROM posts GROUP BY 1",
            ),
            ModelFunction::TopicScores => (
                "topic_scores",
                "topic_scores(text)",
                "The probability of every topic of a text, one field per topic.",
                "SELECT id FROM posts WHERE topic_scores(text)['sports'] > 0.3",
            ),
            ModelFunction::Classify => (
                "classify",
                "classify(text, head)",
                "The likeliest label of one head of the model and its probability; `tamiz model info` lists the heads.",
                "SELECT classify(text, 'topic')['label'] FROM posts",
            ),
        };
        let literal =
            (self == ModelFunction::Classify).then_some(("head", "The name of a head of the model, a literal."));
        Usage {
            name,
            syntax,
            description,
            example,
            literal,
        }
    }

    /// The head it reads; `None` where the query names it.
    fn head(self) -> Option<&'static str> {
        match self {
            ModelFunction::Sentiment | ModelFunction::SentimentLabel | ModelFunction::SentimentScore => Some(SENTIMENT),
            ModelFunction::Topic | ModelFunction::TopicScores => Some(TOPIC),
            ModelFunction::Classify => None,
        }
    }

    fn result_type(self, head: &Head) -> DataType {
        match self {
            ModelFunction::Sentiment => scores::sentiment_type(),
            ModelFunction::SentimentLabel => DataType::Utf8,
            ModelFunction::SentimentScore => DataType::Float32,
            ModelFunction::Topic | ModelFunction::Classify => scores::label_confidence_type(),
            ModelFunction::TopicScores => DataType::Struct(scores::all_fields(head)),
        }
    }

    fn shape(self, rows: &Rows<'_>) -> ArrayRef {
        match self {
            ModelFunction::Sentiment => column(rows.sentiment()),
            ModelFunction::SentimentLabel => column(rows.labels()),
            ModelFunction::SentimentScore => column(rows.sentiment_score()),
            ModelFunction::Topic | ModelFunction::Classify => column(rows.label_confidence()),
            ModelFunction::TopicScores => column(rows.all()),
        }
    }
}

/// What the first argument of a model function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reads {
    /// A text: calling the function runs the model.
    Text,
    /// A column of [`scores::pack`]: calling the function only shapes what the model gave.
    Scores,
}

/// A model function on texts, or on scores.
#[derive(Clone)]
pub(crate) struct ModelUdf {
    function: ModelFunction,
    reads: Reads,
    scorer: Scorer,
    usage: Usage,
    signature: Signature,
    documentation: Documentation,
}

impl ModelUdf {
    /// The function that SQL calls.
    pub(crate) fn new(function: ModelFunction, scorer: Scorer) -> Self {
        let usage = function.usage();
        let signature = Signature::user_defined(Volatility::Immutable);
        ModelUdf {
            function,
            reads: Reads::Text,
            scorer,
            usage,
            signature,
            documentation: usage.documentation(),
        }
    }

    /// Whether a call runs the model.
    pub(crate) fn runs_model(&self) -> bool {
        self.reads == Reads::Text
    }

    /// The same function on a column of scores.
    pub(crate) fn on_scores(&self) -> ScalarUDF {
        ScalarUDF::from(ModelUdf {
            reads: Reads::Scores,
            ..self.clone()
        })
    }

    /// The head that this call reads, and where its labels begin in a row of all heads.
    fn head(&self, named: Option<&str>) -> Result<(&Arc<Head>, usize)> {
        let heads = &self.scorer.identity().heads;
        let Some(name) = self.function.head().or(named) else {
            return exec_err!(
                "{} needs the name of a head: call it as {}",
                self.usage.name,
                self.usage.syntax
            );
        };
        let mut offset = 0;
        for head in heads {
            if head.name == name {
                return Ok((head, offset));
            }
            offset += head.labels.len();
        }
        let error = ScoresError::missing(name, heads);
        plan_err!(
            "{} cannot be answered by {}: {error}",
            self.usage.name,
            self.scorer.identity()
        )
    }

    fn score(&self, column: &ArrayRef, named: Option<&str>) -> Result<ArrayRef> {
        let (head, _) = self.head(named)?;
        let scores = self.scorer.score_blocking(&texts(column)?).map_err(external)?;
        match scores.head(&head.name) {
            Some(scores) => Ok(self.function.shape(&Rows::of(scores))),
            None => exec_err!(
                "{}",
                ScoresError::missing(&head.name, scores.heads.iter().map(|scores| &scores.head))
            ),
        }
    }

    fn shape(&self, column: &ArrayRef, named: Option<&str>) -> Result<ArrayRef> {
        let (head, offset) = self.head(named)?;
        let packed = column.as_fixed_size_list();
        let values = packed.values().as_primitive::<Float32Type>();
        Ok(self.function.shape(&Rows::packed(head, offset, packed, values)))
    }
}

impl ScalarUDFImpl for ModelUdf {
    fn name(&self) -> &str {
        self.usage.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match self.reads {
            Reads::Text => self.usage.coerce(types),
            Reads::Scores => Ok(types.to_vec()),
        }
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        exec_err!(
            "the type of {} depends on the model: it is found with its arguments",
            self.usage.name
        )
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let (head, _) = self.head(self.usage.planned_literal(&args)?)?;
        if head.name == SENTIMENT && self.function.head().is_some() {
            scores::check_sentiment(head).map_err(external)?;
        }
        Ok(Arc::new(Field::new(
            self.usage.name,
            self.function.result_type(head),
            true,
        )))
    }

    /// NULL in, NULL out.
    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let named = self.usage.literal(&args.args)?;
        let Some(first) = args.args.first() else {
            return exec_err!(
                "{} was run without a text: call it as {}",
                self.usage.name,
                self.usage.syntax
            );
        };
        match self.reads {
            Reads::Text => run(first, |texts| self.score(texts, named)),
            Reads::Scores => run(first, |scores| self.shape(scores, named)),
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

/// An error of another crate as DataFusion carries it.
pub(crate) fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl fmt::Debug for ModelUdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelUdf")
            .field("function", &self.function)
            .field("reads", &self.reads)
            .finish_non_exhaustive()
    }
}

/// Two calls are the same when the same model answers the same question about the same kind of input.
impl PartialEq for ModelUdf {
    fn eq(&self, other: &Self) -> bool {
        self.function == other.function
            && self.reads == other.reads
            && self.scorer.identity() == other.scorer.identity()
    }
}

impl Eq for ModelUdf {}

impl Hash for ModelUdf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.function, self.reads).hash(state);
        self.scorer.identity().sha.hash(state);
    }
}
