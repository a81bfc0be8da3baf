//! From a column of texts to token ids, in parallel over its rows.
//!
//! Architecture invariant: the ids of a text depend on that text and the checkpoint only, never on its neighbours.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, StringArray};
use arrow::buffer::NullBuffer;
use rayon::prelude::*;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, TruncationParams,
};

use crate::config::Prepare;
use crate::error::{ModelError, ScoreError};
use crate::prepare::prepare;
use crate::vocabulary::{self, INSIDE};

/// Rows per unit of parallel work: small enough to balance, large enough to be worth handing over.
const ROWS_PER_TASK: usize = 64;

/// A text is cut to this many bytes per token the model can read before it is tokenized, so that a body of megabytes costs no
/// more than a long post. Only texts of blanks or endless words could differ by it.
const BYTES_PER_TOKEN: usize = 512;

const UNKNOWN: &str = "[UNK]";
const PADDING: &str = "[PAD]";
const FIRST: &str = "[CLS]";

/// Stands for a token that is hidden from the model in training.
pub(crate) const HIDDEN: &str = "[MASK]";

/// A tokenizer with the checkpoint's preparation and length.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    prepare: Prepare,
    max_tokens: usize,
    padding_id: u32,
}

/// The token ids of a column, one row after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    ids: Vec<u32>,
    offsets: Vec<usize>, // rows + 1
    truncated: Vec<bool>,
    nulls: Option<NullBuffer>,
}

impl Encoded {
    /// Rows of these ids, none NULL, none cut.
    #[cfg(test)]
    pub(crate) fn of_ids(rows: &[Vec<u32>]) -> Self {
        let ends = rows.iter().scan(0, |end, row| {
            *end += row.len();
            Some(*end)
        });
        Encoded {
            ids: rows.concat(),
            offsets: std::iter::once(0).chain(ends).collect(),
            truncated: vec![false; rows.len()],
            nulls: None,
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.truncated.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.truncated.is_empty()
    }

    /// The ids of row `i`; empty where the text was NULL.
    pub fn row(&self, i: usize) -> &[u32] {
        &self.ids[self.offsets[i]..self.offsets[i + 1]]
    }

    /// Whether the text of row `i` was longer than the model reads.
    pub fn truncated(&self, i: usize) -> bool {
        self.truncated[i]
    }

    /// Where the column was NULL.
    pub fn nulls(&self) -> Option<&NullBuffer> {
        self.nulls.as_ref()
    }

    /// Number of ids in all rows.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    pub(crate) fn open(path: &Path, prepare: Prepare, max_tokens: usize) -> Result<Self, ModelError> {
        let bytes = std::fs::read(path).map_err(|source| ModelError::Missing {
            path: path.to_owned(),
            source,
        })?;
        let inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| ModelError::malformed(path, error))?;
        Self::new(inner, prepare, max_tokens).map_err(|reason| ModelError::malformed(path, reason))
    }

    fn new(mut inner: tokenizers::Tokenizer, prepare: Prepare, max_tokens: usize) -> Result<Self, String> {
        let truncation = TruncationParams {
            max_length: max_tokens,
            ..TruncationParams::default()
        };
        inner
            .with_truncation(Some(truncation))
            .map_err(|error| error.to_string())?;
        inner.with_padding(None);
        let padding_id = inner
            .token_to_id(PADDING)
            .or_else(|| inner.token_to_id("<pad>"))
            .unwrap_or(0);
        Ok(Tokenizer {
            inner: Arc::new(inner),
            prepare,
            max_tokens,
            padding_id,
        })
    }

    /// Learns a lower-cased WordPiece vocabulary from texts.
    pub(crate) fn train<'a>(
        texts: impl Iterator<Item = &'a str> + Send,
        vocabulary: usize,
        prepare_as: Prepare,
        max_tokens: usize,
    ) -> Result<Self, ModelError> {
        let inner = learn(texts.map(|text| prepare(text, prepare_as)), vocabulary)
            .map_err(|error| ModelError::Config(format!("the tokenizer cannot be trained: {error}")))?;
        Self::new(inner, prepare_as, max_tokens).map_err(ModelError::Config)
    }

    /// The same tokenizer with another preparation and length.
    pub(crate) fn adapted(&self, prepare: Prepare, max_tokens: usize) -> Result<Self, ModelError> {
        Self::new((*self.inner).clone(), prepare, max_tokens).map_err(ModelError::Config)
    }

    /// The same tokenizer with the commonest symbols that it does not know, emoji mostly, as tokens of their own.
    pub(crate) fn with_unknown_symbols<'a>(
        &self,
        texts: impl Iterator<Item = &'a str>,
        tokens: usize,
    ) -> Result<Self, ModelError> {
        let mut counts: BTreeMap<char, u64> = BTreeMap::new();
        for text in texts {
            let symbols = text.chars().filter(|&c| !c.is_ascii() && !c.is_alphanumeric());
            symbols
                .filter(|c| !c.is_whitespace() && !c.is_control())
                .for_each(|symbol| *counts.entry(symbol).or_default() += 1);
        }
        let unknown = self.id_of(UNKNOWN).or_else(|| self.id_of("<unk>"));
        let known = |symbol: char| {
            let encoding = self.inner.encode_fast(symbol.to_string(), false);
            encoding.is_ok_and(|encoding| !encoding.get_ids().iter().any(|&id| Some(id) == unknown))
        };
        let mut symbols: Vec<(u64, char)> = counts
            .into_iter()
            .filter(|&(symbol, count)| count > 1 && !known(symbol))
            .map(|(symbol, count)| (count, symbol))
            .collect();
        symbols.sort_unstable_by(|a, b| b.cmp(a));
        let mut inner = (*self.inner).clone();
        let tokens = symbols.into_iter().take(tokens);
        inner
            .add_tokens(tokens.map(|(_, symbol)| AddedToken::from(symbol.to_string(), false)))
            .map_err(|error| ModelError::Config(format!("the tokenizer takes no further tokens: {error}")))?;
        Self::new(inner, self.prepare, self.max_tokens).map_err(ModelError::Config)
    }

    /// Writes the `tokenizer.json`.
    pub(crate) fn save(&self, path: &Path) -> Result<(), ModelError> {
        let mut inner = (*self.inner).clone();
        inner
            .with_truncation(None)
            .map_err(|error| ModelError::malformed(path, error))?;
        let text = inner
            .to_string(true)
            .map_err(|error| ModelError::malformed(path, error))?;
        std::fs::write(path, text).map_err(|source| ModelError::write(path, source))
    }

    /// One more than the largest token id.
    pub fn vocabulary(&self) -> usize {
        self.inner
            .get_vocab(true)
            .values()
            .max()
            .map_or(0, |&id| id as usize + 1)
    }

    /// The id that fills up short rows.
    pub fn padding_id(&self) -> u32 {
        self.padding_id
    }

    /// The id of a token, if the vocabulary has it.
    pub(crate) fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// What happens to a text first.
    pub(crate) fn prepare(&self) -> Prepare {
        self.prepare
    }

    /// The id that stands for a token that is hidden from the model in training.
    pub(crate) fn hidden_id(&self) -> Option<u32> {
        self.inner
            .token_to_id(HIDDEN)
            .or_else(|| self.inner.token_to_id("<mask>"))
    }

    /// The tokenizer's own marks, which are not part of a text.
    pub(crate) fn special_ids(&self) -> HashSet<u32> {
        let added = self.inner.get_added_tokens_decoder();
        added
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| id)
            .collect()
    }

    /// The token of an id.
    pub fn token(&self, id: u32) -> String {
        self.inner.id_to_token(id).unwrap_or_else(|| UNKNOWN.to_owned())
    }

    /// Tokenizes a column on rayon's threads. NULL rows have no ids.
    ///
    /// # Errors
    /// When the tokenizer refuses a text.
    pub fn encode(&self, texts: &StringArray) -> Result<Encoded, ScoreError> {
        let parts: Vec<Part> = (0..texts.len().div_ceil(ROWS_PER_TASK))
            .into_par_iter()
            .map(|task| {
                let start = task * ROWS_PER_TASK;
                self.encode_rows(texts, start..texts.len().min(start + ROWS_PER_TASK))
            })
            .collect::<Result<_, _>>()?;
        let mut all = Encoded {
            ids: Vec::with_capacity(parts.iter().map(|part| part.ids.len()).sum()),
            offsets: Vec::with_capacity(texts.len() + 1),
            truncated: Vec::with_capacity(texts.len()),
            nulls: texts.nulls().cloned(),
        };
        all.offsets.push(0);
        for part in parts {
            let base = all.ids.len();
            all.ids.extend_from_slice(&part.ids);
            all.offsets.extend(part.ends.iter().map(|end| base + end));
            all.truncated.extend_from_slice(&part.truncated);
        }
        Ok(all)
    }

    fn encode_rows(&self, texts: &StringArray, rows: std::ops::Range<usize>) -> Result<Part, ScoreError> {
        let mut part = Part::default();
        for row in rows {
            let mut truncated = false;
            if texts.is_valid(row) {
                truncated = self.encode_one(texts.value(row), &mut part.ids)?;
            }
            part.ends.push(part.ids.len());
            part.truncated.push(truncated);
        }
        Ok(part)
    }

    /// Appends the ids of one text; returns whether it was cut.
    fn encode_one(&self, text: &str, ids: &mut Vec<u32>) -> Result<bool, ScoreError> {
        let limit = text.floor_char_boundary(self.max_tokens.saturating_mul(BYTES_PER_TOKEN));
        let prepared = prepare(&text[..limit], self.prepare);
        let encoding = self
            .inner
            .encode_fast(prepared.as_ref(), true)
            .map_err(|error| ScoreError::Tokenize(error.to_string().into()))?;
        let before = ids.len();
        ids.extend_from_slice(encoding.get_ids());
        if ids.len() == before {
            ids.push(self.padding_id); // a checkpoint without markers, an empty text: the encoder needs one token to look at
        }
        Ok(limit < text.len() || !encoding.get_overflowing().is_empty())
    }
}

/// What one task gives.
#[derive(Default)]
struct Part {
    ids: Vec<u32>,
    ends: Vec<usize>,
    truncated: Vec<bool>,
}

/// A tokenizer whose pieces are learnt from prepared texts.
fn learn<S: AsRef<str> + Send>(
    texts: impl Iterator<Item = S> + Send,
    vocabulary: usize,
) -> tokenizers::Result<tokenizers::Tokenizer> {
    let special = [PADDING, UNKNOWN, FIRST, HIDDEN];
    let pieces = vocabulary::learn(&count_words(texts)?, vocabulary.saturating_sub(special.len()));
    let ids: BTreeMap<String, u32> = special.into_iter().map(str::to_owned).chain(pieces).zip(0..).collect();
    let model = serde_json::json!({
        "type": "WordPiece",
        "unk_token": UNKNOWN,
        "continuing_subword_prefix": INSIDE,
        "max_input_chars_per_word": 100,
        "vocab": ids,
    });
    let model: WordPiece = serde_json::from_str(&model.to_string())?;
    let first = 2; // its place among the special tokens
    let template = TemplateProcessing::builder()
        .try_single(format!("{FIRST} $A"))
        .map_err(|error| error.to_string())?
        .special_tokens(vec![(FIRST, first)])
        .build()?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_normalizer(Some(BertNormalizer::default()))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_post_processor(Some(template));
    tokenizer.with_decoder(Some(tokenizers::decoders::wordpiece::WordPiece::default()));
    tokenizer.add_special_tokens(special.map(|token| AddedToken::from(token, true)))?;
    Ok(tokenizer)
}

/// The words of texts, lower-cased and split as the tokenizer will, with their counts.
fn count_words<S: AsRef<str> + Send>(
    texts: impl Iterator<Item = S> + Send,
) -> tokenizers::Result<BTreeMap<String, u64>> {
    let normalizer = BertNormalizer::default();
    let mut words = BTreeMap::new();
    for text in texts {
        let mut split = PreTokenizedString::from(text.as_ref());
        split.normalize(|text| normalizer.normalize(text))?;
        BertPreTokenizer.pre_tokenize(&mut split)?;
        for (word, _, _) in split.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            match words.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(words.insert(word.to_owned(), 1)),
            }
        }
    }
    Ok(words)
}
