//! The functions on personal data: `scrub_pii` and `pii_entities`.

use arrow::array::{Array, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::ScalarUDF;

use super::args::{Usage, column};
use super::model::external;
use super::text::udf;
use crate::text::pii::{self, Mode, PiiError, PiiPolicy, PseudonymKey, Scrubber};

/// What the text functions need to know; the default scrubs by mask.
#[derive(Clone, Default)]
pub struct TextOptions {
    /// What `scrub_pii(text)` does to each kind of personal data.
    pub pii: PiiPolicy,
    /// The key of `scrub_pii(text, 'hash')`; without it that mode is an error.
    pub pseudonym_key: Option<PseudonymKey>,
}

/// Names that `scrub_pii` takes as its second argument.
const MODES: [(&str, Mode); 4] = [
    ("mask", Mode::Mask),
    ("hash", Mode::Hash),
    ("drop", Mode::Drop),
    ("keep", Mode::Keep),
];

/// The functions on personal data.
pub(crate) fn functions(options: &TextOptions) -> Result<Vec<ScalarUDF>> {
    let scrubbers = Scrubbers::new(options).map_err(external)?;
    let entities = pii::entities(&StringArray::new_null(0)).data_type().clone();
    Ok(vec![
        udf(SCRUB_PII, DataType::Utf8, move |texts, mode| {
            Ok(column(scrubbers.of(mode)?.scrub(texts).texts))
        }),
        udf(PII_ENTITIES, entities, |texts, _| Ok(column(pii::entities(texts)))),
    ])
}

/// One scrubber per mode, made when the functions are registered, so that a missing key is found when a query is planned.
struct Scrubbers {
    default: Scrubber,
    by_mode: Vec<(&'static str, Result<Scrubber, PiiError>)>,
}

impl Scrubbers {
    fn new(options: &TextOptions) -> Result<Self, PiiError> {
        let scrubber = |policy: PiiPolicy| Scrubber::new(policy, options.pseudonym_key.clone());
        let by_mode = MODES
            .iter()
            .map(|(name, mode)| (*name, scrubber(PiiPolicy::uniform(*mode))))
            .collect();
        Ok(Scrubbers {
            default: scrubber(options.pii.clone())?,
            by_mode,
        })
    }

    fn of(&self, mode: Option<&str>) -> Result<&Scrubber> {
        let Some(mode) = mode else { return Ok(&self.default) };
        match self.by_mode.iter().find(|(name, _)| *name == mode) {
            Some((_, Ok(scrubber))) => Ok(scrubber),
            Some((_, Err(error))) => plan_err!("scrub_pii cannot use mode '{mode}': {error}"),
            None => {
                let known = MODES.map(|(name, _)| name).join(", ");
                plan_err!("scrub_pii has no mode '{mode}': choose one of {known}")
            }
        }
    }
}

const SCRUB_PII: Usage = Usage {
    name: "scrub_pii",
    syntax: "scrub_pii(text [, mode])",
    description: "The text with personal data (e-mail, phone, IP address, card, IBAN, SSN, wallet, credentials, mention) masked, hashed or dropped.",
    example: "SELECT scrub_pii(text), scrub_pii(text, 'drop') FROM posts",
    literal: Some((
        "mode",
        "mask, hash, drop or keep; without it the session's policy holds.",
    )),
};
const PII_ENTITIES: Usage = Usage {
    name: "pii_entities",
    syntax: "pii_entities(text)",
    description: "The personal data found in a text: kind, start and end, in characters.",
    example: "SELECT id, unnest(pii_entities(text)) FROM posts",
    literal: None,
};
