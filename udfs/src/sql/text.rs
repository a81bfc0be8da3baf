//! The functions that read a text without the model: each wraps one kernel of [`crate::text`], or the tokenizer.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use tamiz_model::Scorer;

use super::args::{Usage, column, run, texts};
use super::model::external;
use crate::text::{language, noise, normalize};

type Kernel = dyn Fn(&StringArray, Option<&str>) -> Result<ArrayRef> + Send + Sync;

/// A function from a column of texts to a column.
#[derive(Clone)]
pub(crate) struct TextUdf {
    usage: Usage,
    result: DataType,
    kernel: Arc<Kernel>,
    signature: Signature,
    documentation: Documentation,
}

/// The functions that need no model, those on personal data aside.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    vec![
        udf(NORMALIZE, DataType::Utf8, |texts, _| {
            Ok(column(normalize::normalize(texts)))
        }),
        udf(LANGUAGE, DataType::Utf8, |texts, _| {
            Ok(column(language::detect(texts).lang))
        }),
        udf(SPAM_SCORE, DataType::Float32, |texts, _| {
            Ok(column(noise::spam_score(texts)))
        }),
    ]
}

/// The functions that need the model's tokenizer, not its weights.
pub(crate) fn tokenizer_functions(scorer: &Scorer) -> Vec<ScalarUDF> {
    let (words, counts) = (scorer.clone(), scorer.clone());
    let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    vec![
        udf(TOKENS, list, move |texts, _| {
            Ok(column(words.tokens(texts).map_err(external)?))
        }),
        udf(TOKEN_COUNT, DataType::Int32, move |texts, _| {
            Ok(column(counts.token_counts(texts).map_err(external)?))
        }),
    ]
}

/// A function out of a kernel; the literal after the text, where there is one, is the kernel's second argument.
pub(crate) fn udf(
    usage: Usage,
    result: DataType,
    kernel: impl Fn(&StringArray, Option<&str>) -> Result<ArrayRef> + Send + Sync + 'static,
) -> ScalarUDF {
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::from(TextUdf {
        usage,
        result,
        kernel: Arc::new(kernel),
        signature,
        documentation: usage.documentation(),
    })
}

impl ScalarUDFImpl for TextUdf {
    fn name(&self) -> &str {
        self.usage.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.usage.coerce(types)
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(self.result.clone())
    }

    /// Runs the kernel on no rows, which finds a literal that it does not take before the query starts.
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if let Some(literal) = self.usage.planned_literal(&args)? {
            (self.kernel)(&StringArray::new_null(0), Some(literal))?;
        }
        Ok(Arc::new(Field::new(self.usage.name, self.result.clone(), true)))
    }

    /// NULL in, NULL out.
    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let literal = self.usage.literal(&args.args)?;
        match args.args.first() {
            Some(first) => run(first, |column| (self.kernel)(&texts(column)?, literal)),
            None => exec_err!(
                "{} was run without a text: call it as {}",
                self.usage.name,
                self.usage.syntax
            ),
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

impl fmt::Debug for TextUdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextUdf")
            .field("name", &self.usage.name)
            .finish_non_exhaustive()
    }
}

/// The same function, made by the same registration: two registrations may scrub by different keys.
impl PartialEq for TextUdf {
    fn eq(&self, other: &Self) -> bool {
        self.usage.name == other.usage.name && Arc::ptr_eq(&self.kernel, &other.kernel)
    }
}

impl Eq for TextUdf {}

impl Hash for TextUdf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.usage.name.hash(state);
    }
}

const NORMALIZE: Usage = Usage {
    name: "normalize",
    syntax: "normalize(text)",
    description: "The text in Unicode NFC, without HTML entities, control, zero-width and bidirectional characters, and with single spaces.",
    example: "SELECT normalize(text) FROM posts",
    literal: None,
};
const LANGUAGE: Usage = Usage {
    name: "language",
    syntax: "language(text)",
    description: "The language of a text as its ISO 639-1 code; `und` where there is nothing to tell it by.",
    example: "SELECT language(text), count(*) FROM posts GROUP BY 1",
    literal: None,
};
const SPAM_SCORE: Usage = Usage {
    name: "spam_score",
    syntax: "spam_score(text)",
    description: "How much a text looks like spam by its form (repetition, links, shouting), 0 to 1.",
    example: "SELECT id FROM posts WHERE spam_score(text) < 0.5",
    literal: None,
};
const TOKENS: Usage = Usage {
    name: "tokens",
    syntax: "tokens(text)",
    description: "The tokens that the model reads a text as.",
    example: "SELECT tokens(text) FROM posts",
    literal: None,
};
const TOKEN_COUNT: Usage = Usage {
    name: "token_count",
    syntax: "token_count(text)",
    description: "How many tokens the model reads a text as.",
    example: "SELECT sum(token_count(text)) FROM posts",
    literal: None,
};
