//! From one vector per token to one per text, and from there to the logits of a head.
//!
//! Shapes as in [`crate::transformer`].

use tch::nn::{self, Init, Module};
use tch::{Kind, Tensor};

use crate::config::{EncoderConfig, HeadLayer, Pooling};
use crate::dense::Dense;
use crate::transformer::{INIT_STDEV, Mode};

/// How a sequence becomes one vector.
#[derive(Debug)]
pub(crate) enum Pool {
    Cls,
    Mean,
    Attention { query: Tensor }, // (d)
}

impl Pool {
    pub(crate) fn new(path: &nn::Path, config: &EncoderConfig) -> Self {
        match config.pooling {
            Pooling::Cls => Pool::Cls,
            Pooling::Mean => Pool::Mean,
            // Zeros: it starts as the plain mean and learns what to leave out.
            Pooling::Attention => Pool::Attention {
                query: path.var("query", &[config.hidden], Init::Const(0.0)),
            },
        }
    }

    /// `tokens`: `(b, t, d)`; `padding`: `(b, t)`; the result: `(b, d)`.
    pub(crate) fn forward(&self, tokens: &Tensor, padding: Option<&Tensor>) -> Tensor {
        match (self, padding) {
            (Pool::Cls, _) => tokens.select(1, 0), // (b, d)
            (Pool::Mean, None) => tokens.mean_dim([1_i64].as_slice(), false, None),
            (Pool::Mean, Some(padding)) => {
                let real = padding.logical_not().to_kind(tokens.kind()).unsqueeze(-1); // (b, t, 1)
                let sum = (tokens * &real).sum_dim_intlist([1_i64].as_slice(), false, None); // (b, d)
                sum / real.sum_dim_intlist([1_i64].as_slice(), false, None) // (b, d) / (b, 1)
            }
            (Pool::Attention { query }, padding) => {
                let width = query.size()[0] as f64;
                let fit = tokens.matmul(query) / width.sqrt(); // (b, t)
                let fit = match padding {
                    Some(padding) => fit.masked_fill(padding, f64::NEG_INFINITY),
                    None => fit,
                };
                let weights = fit.softmax(-1, None).unsqueeze(-1); // (b, t, 1)
                (tokens * weights).sum_dim_intlist([1_i64].as_slice(), false, None) // (b, d)
            }
        }
    }
}

/// One head: a linear layer, with a bent one before it where the configuration asks for that.
#[derive(Debug)]
pub(crate) struct HeadLayers {
    dense: Option<Dense>,
    bend: HeadLayer,
    output: Dense,
}

impl HeadLayers {
    pub(crate) fn new(path: &nn::Path, config: &EncoderConfig, labels: i64) -> Self {
        let dense = path / "dense";
        HeadLayers {
            dense: (config.head_layer != HeadLayer::None)
                .then(|| Dense::new(&dense, (config.hidden, config.hidden), INIT_STDEV)),
            bend: config.head_layer,
            output: Dense::new(path, (config.hidden, labels), INIT_STDEV),
        }
    }

    /// `texts`: `(b, d)`; the result: `(b, l)`.
    pub(crate) fn forward(&self, texts: &Tensor, dropout: f64, mode: Mode) -> Tensor {
        let Some(dense) = &self.dense else {
            return self.output.forward(texts);
        };
        let dense = dense.forward(texts); // (b, d)
        let bent = match self.bend {
            HeadLayer::Relu => dense.relu(),
            _ => dense.tanh(),
        };
        self.output.forward(&bent.dropout(dropout, mode == Mode::Train)) // (b, l)
    }
}

/// Predicts hidden tokens: a bent layer, then the token embedding itself, used backwards (BERT's masked-language-model head).
///
/// It serves pre-training only and is not part of a checkpoint.
#[derive(Debug)]
pub(crate) struct MaskedHead {
    dense: Dense,
    norm: nn::LayerNorm,
    bias: Tensor, // (vocabulary)
}

impl MaskedHead {
    pub(crate) fn new(path: &nn::Path, config: &EncoderConfig) -> Self {
        MaskedHead {
            dense: Dense::new(&(path / "dense"), (config.hidden, config.hidden), INIT_STDEV),
            norm: crate::transformer::norm(&(path / "norm"), config),
            bias: path.var("bias", &[config.vocabulary], Init::Const(0.0)),
        }
    }

    /// `hidden`, the vectors of hidden tokens: `(n, d)`; `vectors`, those of the vocabulary: `(vocabulary, d)`; the logits:
    /// `(n, vocabulary)`.
    pub(crate) fn forward(&self, hidden: &Tensor, vectors: &Tensor) -> Tensor {
        let bent = self.dense.forward(hidden).gelu("none"); // (n, d)
        let fit = self.norm.forward(&bent).matmul(&vectors.tr()); // (n, vocabulary)
        (fit + &self.bias).to_kind(Kind::Float)
    }
}
