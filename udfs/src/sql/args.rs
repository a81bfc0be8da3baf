//! What a function accepts: text of any Arrow string type, and options that are literals.
//!
//! Every function here takes one text first and at most one literal after it, so checking, coercion and the way from a
//! scalar or an array to a column of texts exist once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, DocSection, Documentation, ReturnFieldArgs};

/// The section of the documentation that these functions are listed in.
const SECTION: DocSection = DocSection {
    include: true,
    label: "Text",
    description: None,
};

/// How a function is called and what it does, for `SHOW FUNCTIONS`, the manual and error messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// SQL name.
    pub(crate) name: &'static str,
    /// For instance `classify(text, head)`; an argument in brackets may be left out.
    pub(crate) syntax: &'static str,
    /// One sentence.
    pub(crate) description: &'static str,
    /// A query.
    pub(crate) example: &'static str,
    /// Name and meaning of the literal after the text.
    pub(crate) literal: Option<(&'static str, &'static str)>,
}

impl Usage {
    pub(crate) fn documentation(&self) -> Documentation {
        let text = "The text; any string type. NULL gives NULL, an empty text is a text.";
        let doc = Documentation::builder(SECTION, self.description, self.syntax)
            .with_sql_example(format!("```sql\n{}\n```", self.example))
            .with_argument("text", text);
        match self.literal {
            Some((name, meaning)) => doc.with_argument(name, meaning).build(),
            None => doc.build(),
        }
    }

    /// Whether the literal after the text may be left out.
    fn literal_is_optional(&self) -> bool {
        self.syntax.contains('[')
    }

    /// Checks number and types of the arguments. String types stay as they are: the kernels read them all.
    pub(crate) fn coerce(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let most = 1 + usize::from(self.literal.is_some());
        let least = if self.literal_is_optional() { 1 } else { most };
        if types.len() < least || types.len() > most {
            return plan_err!(
                "{} was given {} arguments: call it as {}",
                self.name,
                types.len(),
                self.syntax
            );
        }
        let coerced = types.iter().map(|given| match given {
            DataType::Null => Ok(DataType::Utf8),
            text if is_text(text) => Ok(text.clone()),
            other => plan_err!(
                "{} reads text, not {other}: call it as {}, with CAST(… AS VARCHAR) if need be",
                self.name,
                self.syntax
            ),
        });
        coerced.collect()
    }

    /// The literal after the text, when planning; `None` where it was left out.
    pub(crate) fn planned_literal<'a>(&self, args: &ReturnFieldArgs<'a>) -> Result<Option<&'a str>> {
        let Some((name, _)) = self.literal.filter(|_| args.arg_fields.len() > 1) else {
            return Ok(None);
        };
        match args
            .scalar_arguments
            .get(1)
            .copied()
            .flatten()
            .and_then(|scalar| scalar.try_as_str())
            .flatten()
        {
            Some(literal) => Ok(Some(literal)),
            None => plan_err!(
                "the {name} of {} has to be a literal text: call it as {}",
                self.name,
                self.syntax
            ),
        }
    }

    /// The literal after the text, when running.
    pub(crate) fn literal<'a>(&self, args: &'a [ColumnarValue]) -> Result<Option<&'a str>> {
        match args.get(1) {
            None => Ok(None),
            Some(ColumnarValue::Scalar(scalar)) if matches!(scalar.try_as_str(), Some(Some(_))) => {
                Ok(scalar.try_as_str().flatten())
            }
            Some(_) => exec_err!(
                "{} was run without a literal after the text: call it as {}",
                self.name,
                self.syntax
            ),
        }
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// A column of any string type (or of NULLs alone) as the kernels read it.
pub(crate) fn texts(column: &ArrayRef) -> Result<StringArray> {
    match column.data_type() {
        DataType::Utf8 => Ok(column.as_string::<i32>().clone()),
        _ => Ok(cast(column, &DataType::Utf8)?.as_string::<i32>().clone()),
    }
}

/// Runs a kernel on the text argument: on the whole column, or once where the text is a constant.
pub(crate) fn run(value: &ColumnarValue, kernel: impl FnOnce(&ArrayRef) -> Result<ArrayRef>) -> Result<ColumnarValue> {
    match value {
        ColumnarValue::Array(column) => Ok(ColumnarValue::Array(kernel(column)?)),
        ColumnarValue::Scalar(constant) => {
            let one = kernel(&constant.to_array_of_size(1)?)?;
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&one, 0)?))
        }
    }
}

/// An array as the trait object that DataFusion passes around.
pub(crate) fn column(array: impl Array + 'static) -> ArrayRef {
    Arc::new(array)
}
