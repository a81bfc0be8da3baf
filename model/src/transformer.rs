//! The Transformer encoder, from its embeddings to its heads.
//!
//! ```text
//! token ids ─ embeddings ─ block × layers ─ norm ─ pooling ─┬─ head "sentiment"
//!                            │                              └─ head "topic" …
//!                            └ x + attention(norm(x)), then x + feed_forward(norm(x))
//! ```
//!
//! The drawing shows the design with the norm in front; [`NormPlacement::Post`] is BERT's. Every choice is a field of
//! [`EncoderConfig`], with its reason there. Pooling and heads are in [`crate::heads`].
//!
//! Shapes stand at line ends: `b` texts, `t` tokens of the longest text, `d` hidden width, `a` attention heads, `w = d / a`
//! the width of one attention head, `f` feed-forward width, `l` labels of a head.
//!
//! Architecture invariant: nothing here knows files, texts or threads; training and inference run this same code.

use tch::nn::{self, Init, Module};
use tch::{Device, Kind, Tensor};

use crate::architecture::Classifier;
use crate::config::{Activation, EncoderConfig, Mixing, ModelConfig, NormPlacement, Positions};
use crate::dense::Dense;
use crate::heads::{HeadLayers, Pool};
use crate::trace::Trace;

/// What a pass is for.
#[derive(Debug, Clone, Copy)]
pub enum Mode<'a> {
    /// Dropout is on.
    Train,
    /// Dropout is off: the same input gives the same output.
    Infer,
    /// As [`Mode::Infer`], while someone looks at token vectors and attention weights; slower.
    Observe(&'a Trace),
}

impl PartialEq for Mode<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// A batch of token ids, filled up on the right to a rectangle.
#[derive(Debug)]
pub struct TokenBatch {
    /// Token ids. `(b, t)` int64
    pub ids: Tensor,
    /// True where there is no token; `None` when all texts are equally long. `(b, t)` bool
    pub padding: Option<Tensor>,
}

/// The encoder with its heads.
#[derive(Debug)]
pub struct Transformer {
    embeddings: Embeddings,
    blocks: Vec<Block>,
    final_norm: Option<nn::LayerNorm>,
    rotation: Option<Rotation>,
    pool: Pool,
    dropout: f64,
    heads: Vec<HeadLayers>,
}

impl Transformer {
    /// Creates the parameters under `path`, freshly initialised; `config` must have passed its check.
    pub fn new(path: &nn::Path, config: &ModelConfig) -> Self {
        let encoder = &config.encoder;
        let (blocks, heads) = (path / "blocks", path / "heads");
        Transformer {
            embeddings: Embeddings::new(&(path / "embeddings"), encoder),
            blocks: (0..encoder.layers)
                .map(|layer| Block::new(&(&blocks / layer), encoder))
                .collect(),
            // With normalisation in front of each layer, the sum that leaves the last block has not been normalised yet.
            final_norm: (encoder.norm == NormPlacement::Pre).then(|| norm(&(path / "final_norm"), encoder)),
            rotation: (encoder.positions == Positions::Rotary).then(|| Rotation::new(encoder, path.device())),
            pool: Pool::new(&(path / "pooling"), encoder),
            dropout: encoder.dropout,
            heads: config
                .heads
                .iter()
                .map(|head| HeadLayers::new(&(&heads / &head.name), encoder, head.labels.len() as i64))
                .collect(),
        }
    }

    /// One pass: the logits of every head. `(b, l)` each
    pub fn forward(&self, batch: &TokenBatch, mode: Mode) -> Vec<Tensor> {
        let tokens = self.encode(batch, mode); // (b, t, d)
        self.classify(&self.pool(&tokens, batch), mode) // (b, l) each
    }

    /// One vector per token, each having looked at all others of its text. `(b, t, d)`
    pub fn encode(&self, batch: &TokenBatch, mode: Mode) -> Tensor {
        let mut x = self.embeddings.forward(&batch.ids, mode); // (b, t, d)
        let around = Around {
            bias: batch.padding.as_ref().map(|padding| attention_bias(padding, x.kind())), // (b, 1, 1, t)
            rotation: self
                .rotation
                .as_ref()
                .map(|rotation| rotation.first(x.size()[1], x.kind())),
            mode,
        };
        for block in &self.blocks {
            x = block.forward(&x, &around); // (b, t, d)
        }
        match &self.final_norm {
            Some(norm) => norm.forward(&x),
            None => x,
        }
    }

    /// One vector per text. `(b, d)`
    pub fn pool(&self, tokens: &Tensor, batch: &TokenBatch) -> Tensor {
        self.pool.forward(tokens, batch.padding.as_ref())
    }

    /// The logits of every head, from one vector per text. `(b, l)` each
    pub fn classify(&self, texts: &Tensor, mode: Mode) -> Vec<Tensor> {
        let texts = texts.dropout(self.dropout, mode == Mode::Train); // (b, d)
        self.heads
            .iter()
            .map(|head| head.forward(&texts, self.dropout, mode)) // (b, l)
            .collect()
    }

    /// Whether the text's vector is that of its first token.
    pub(crate) fn reads_first_token(&self) -> bool {
        matches!(self.pool, Pool::Cls)
    }

    /// The vectors that stand for the vocabulary. `(vocabulary, d)`
    pub(crate) fn token_vectors(&self) -> &Tensor {
        &self.embeddings.tokens.ws
    }
}

impl Classifier for Transformer {
    fn forward(&self, batch: &TokenBatch, mode: Mode) -> Vec<Tensor> {
        Transformer::forward(self, batch, mode)
    }

    fn transformer(&self) -> Option<&Transformer> {
        Some(self)
    }
}

/// Token and position vectors, summed.
#[derive(Debug)]
struct Embeddings {
    tokens: nn::Embedding,
    positions: PositionVectors,
    position_padding: Option<i64>,
    types: Option<nn::Embedding>,
    norm: Option<nn::LayerNorm>,
    dropout: f64,
}

/// What tells the embeddings where a token stands.
#[derive(Debug)]
enum PositionVectors {
    Learned(nn::Embedding),
    Fixed(Tensor), // (max_tokens, d)
    None,          // the blocks see to it
}

impl Embeddings {
    fn new(path: &nn::Path, config: &EncoderConfig) -> Self {
        let types = path / "token_types";
        Embeddings {
            tokens: embedding(&(path / "tokens"), config.vocabulary, config.hidden),
            positions: match config.positions {
                Positions::Learned => {
                    PositionVectors::Learned(embedding(&(path / "positions"), config.position_rows(), config.hidden))
                }
                Positions::Sinusoidal => PositionVectors::Fixed(sinusoids(config).to_device(path.device())),
                Positions::Rotary => PositionVectors::None,
            },
            position_padding: config.position_padding,
            types: (config.token_types > 0).then(|| embedding(&types, config.token_types, config.hidden)),
            norm: (config.norm == NormPlacement::Post).then(|| norm(&(path / "norm"), config)),
            dropout: config.dropout,
        }
    }

    fn forward(&self, ids: &Tensor, mode: Mode) -> Tensor {
        let x = mode.token_vectors(self.tokens.forward(ids)); // (b, t, d)
        let x = match &self.types {
            Some(types) => x + types.ws.get(0), // (b, t, d) + (d)
            None => x,
        };
        let mut x = match &self.positions {
            PositionVectors::Learned(table) => x + table.forward(&self.places(ids)), // (b, t, d) + (t, d) or (b, t, d)
            PositionVectors::Fixed(table) => &x + table.narrow(0, 0, ids.size()[1]).to_kind(x.kind()), // (b, t, d) + (t, d)
            PositionVectors::None => x,
        };
        if let Some(norm) = &self.norm {
            x = norm.forward(&x);
        }
        x.dropout(self.dropout, mode == Mode::Train)
    }

    /// The rows of the position table. `(t)`, or `(b, t)` where they depend on the tokens
    fn places(&self, ids: &Tensor) -> Tensor {
        let Some(padding) = self.position_padding else {
            return Tensor::arange(ids.size()[1], (Kind::Int64, ids.device())); // (t)
        };
        let counted = ids.ne(padding).to_kind(Kind::Int64); // (b, t)
        counted.cumsum(1, Kind::Int64) * counted + padding // (b, t)
    }
}

/// Position `p` has sin(p / 10000^(2i/d)) at place 2i and the cosine of the same at 2i + 1. `(max_tokens, d)`
fn sinusoids(config: &EncoderConfig) -> Tensor {
    let angles = angles(config.max_tokens as i64, config.hidden); // (max_tokens, d / 2)
    let size = [config.max_tokens as i64, config.hidden];
    // Scaled down to what fresh token vectors measure: at full size positions would drown the words.
    Tensor::stack(&[angles.sin(), angles.cos()], -1).view(size) * INIT_STDEV
}

/// `p / 10000^(2i / width)` for every position `p` and pair `i`. `(positions, width / 2)`
fn angles(positions: i64, width: i64) -> Tensor {
    let like = (Kind::Double, Device::Cpu);
    let pairs = Tensor::arange(width / 2, like) * (2.0 / width as f64); // (width / 2)
    let speeds = (pairs * -(10_000_f64.ln())).exp(); // (width / 2)
    let places = Tensor::arange(positions, like).unsqueeze(1); // (positions, 1)
    (places * speeds).to_kind(Kind::Float)
}

/// Rotary positions: pair `i` of a query or key at position `p` is turned by the angle p / 10000^(2i/w). The product of two vectors
/// turned so depends on the difference of their angles, that is on their distance.
#[derive(Debug)]
struct Rotation {
    cos: Tensor, // (t, w)
    sin: Tensor, // (t, w)
}

impl Rotation {
    fn new(config: &EncoderConfig, device: Device) -> Self {
        let angles = angles(config.max_tokens as i64, config.hidden / config.attention_heads); // (max_tokens, w / 2)
        let angles = Tensor::cat(&[&angles, &angles], 1).to_device(device); // pair i is (i, i + w / 2)
        Rotation {
            cos: angles.cos(),
            sin: angles.sin(),
        }
    }

    fn first(&self, tokens: i64, kind: Kind) -> Self {
        let cut = |table: &Tensor| table.narrow(0, 0, tokens).to_kind(kind); // (t, w)
        Rotation {
            cos: cut(&self.cos),
            sin: cut(&self.sin),
        }
    }

    fn turn(&self, x: &Tensor) -> Tensor {
        let halves = x.chunk(2, -1); // (b, a, t, w / 2) twice
        let crossed = Tensor::cat(&[-&halves[1], halves[0].shallow_clone()], -1); // (b, a, t, w)
        x * &self.cos + crossed * &self.sin // (b, a, t, w)
    }
}

/// What every block needs to know besides the tokens' vectors.
struct Around<'a> {
    bias: Option<Tensor>, // (b, 1, 1, t)
    rotation: Option<Rotation>,
    mode: Mode<'a>,
}

/// Attention, which moves information between tokens, then a feed-forward layer, which works on each token alone. Both add to
/// the residual stream `x` instead of replacing it, so that deep stacks can be trained.
#[derive(Debug)]
struct Block {
    attention: Attention,
    attention_norm: nn::LayerNorm,
    feed_forward: FeedForward,
    feed_forward_norm: nn::LayerNorm,
    placement: NormPlacement,
    dropout: f64,
}

impl Block {
    fn new(path: &nn::Path, config: &EncoderConfig) -> Self {
        Block {
            attention: Attention::new(&(path / "attention"), config),
            attention_norm: norm(&(path / "attention_norm"), config),
            feed_forward: FeedForward::new(&(path / "feed_forward"), config),
            feed_forward_norm: norm(&(path / "feed_forward_norm"), config),
            placement: config.norm,
            dropout: config.dropout,
        }
    }

    fn forward(&self, x: &Tensor, around: &Around) -> Tensor {
        let drop = |y: Tensor| y.dropout(self.dropout, around.mode == Mode::Train);
        match self.placement {
            NormPlacement::Pre => {
                let x = x + drop(self.attention.forward(&self.attention_norm.forward(x), around)); // (b, t, d)
                &x + drop(self.feed_forward.forward(&self.feed_forward_norm.forward(&x))) // (b, t, d)
            }
            NormPlacement::Post => {
                let x = self
                    .attention_norm
                    .forward(&(x + drop(self.attention.forward(x, around)))); // (b, t, d)
                self.feed_forward_norm
                    .forward(&(&x + drop(self.feed_forward.forward(&x)))) // (b, t, d)
            }
        }
    }
}

/// Multi-head scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762).
#[derive(Debug)]
struct Attention {
    query_key_value: Dense, // one matrix product instead of three
    output: Dense,
    heads: i64,
    mixing: Mixing,
    dropout: f64,
}

impl Attention {
    fn new(path: &nn::Path, config: &EncoderConfig) -> Self {
        Attention {
            query_key_value: Dense::new(
                &(path / "query_key_value"),
                (config.hidden, 3 * config.hidden),
                INIT_STDEV,
            ),
            output: Dense::new(
                &(path / "output"),
                (config.hidden, config.hidden),
                residual_stdev(config),
            ),
            heads: config.attention_heads,
            mixing: config.mixing,
            dropout: config.dropout,
        }
    }

    fn forward(&self, x: &Tensor, around: &Around) -> Tensor {
        let (b, t, d) = (x.size()[0], x.size()[1], x.size()[2]);
        let qkv = self
            .query_key_value
            .forward(x)
            .view([b, t, 3, self.heads, d / self.heads]); // (b, t, 3, a, w)
        let qkv = qkv.permute([2, 0, 3, 1, 4]); // (3, b, a, t, w)
        let (mut q, mut k, v) = (qkv.get(0), qkv.get(1), qkv.get(2)); // (b, a, t, w) each
        if self.mixing == Mixing::Average {
            q = q.zeros_like(); // nothing fits better than anything else
        }
        if let Some(rotation) = &around.rotation {
            (q, k) = (rotation.turn(&q), rotation.turn(&k)); // (b, a, t, w) each
        }
        let weights = attention_weights(&q, &k, around.bias.as_ref()); // (b, a, t, t)
        if let Mode::Observe(trace) = around.mode {
            trace.attended(weights.shallow_clone());
        }
        let mixed = weights.dropout(self.dropout, around.mode == Mode::Train).matmul(&v); // (b, a, t, w)
        self.output.forward(&mixed.transpose(1, 2).reshape([b, t, d])) // (b, t, d)
    }
}

/// `softmax(q kᵀ / √w + bias)`: how much of every token each token takes; it takes the mean of all values, weighted by how well its
/// query fits their keys. `(b, a, t, t)`, rows sum to 1
///
/// Dividing by √w keeps the products' variance at one whatever the width, where the softmax still has a gradient.
/// `q`, `k`: `(b, a, t, w)`; `bias`: `(b, 1, 1, t)`.
fn attention_weights(q: &Tensor, k: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let width = *q.size().last().unwrap_or(&1) as f64;
    let fit = (q / width.sqrt()).matmul(&k.transpose(-2, -1)); // (b, a, t, t)
    let fit = match bias {
        Some(bias) => fit + bias, // (b, a, t, t) + (b, 1, 1, t)
        None => fit,
    };
    fit.softmax(-1, None)
}

/// Minus infinity where a key is padding, so that the softmax gives it exactly no weight. `(b, 1, 1, t)`
fn attention_bias(padding: &Tensor, kind: Kind) -> Tensor {
    let zeros = Tensor::zeros(padding.size().as_slice(), (kind, padding.device())); // (b, t)
    zeros.masked_fill(padding, f64::NEG_INFINITY).unsqueeze(1).unsqueeze(1)
}

/// Two linear layers with a bend between them, on each token alone.
#[derive(Debug)]
struct FeedForward {
    widen: Dense,
    narrow: Dense,
    activation: Activation,
}

impl FeedForward {
    fn new(path: &nn::Path, config: &EncoderConfig) -> Self {
        let wide = match config.activation {
            Activation::Swiglu => 2 * config.feed_forward, // what passes, and how much of it
            _ => config.feed_forward,
        };
        FeedForward {
            widen: Dense::new(&(path / "widen"), (config.hidden, wide), INIT_STDEV),
            narrow: Dense::new(
                &(path / "narrow"),
                (config.feed_forward, config.hidden),
                residual_stdev(config),
            ),
            activation: config.activation,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let wide = self.widen.forward(x); // (b, t, f), for SwiGLU (b, t, 2 f)
        let bent = match self.activation {
            Activation::Gelu => wide.gelu("none"),
            Activation::GeluTanh => wide.gelu("tanh"),
            Activation::Relu => wide.relu(),
            Activation::Swiglu => {
                let halves = wide.chunk(2, -1); // (b, t, f) twice
                halves[0].silu() * &halves[1]
            }
        }; // (b, t, f)
        self.narrow.forward(&bent) // (b, t, d)
    }
}

/// Standard deviation of fresh weights, as in BERT and GPT-2.
pub(crate) const INIT_STDEV: f64 = 0.02;

/// Layers that write to the residual stream start smaller, so that its variance does not grow with depth (GPT-2, section 2.3).
fn residual_stdev(config: &EncoderConfig) -> f64 {
    INIT_STDEV / (2.0 * config.layers as f64).sqrt()
}

fn embedding(path: &nn::Path, rows: i64, width: i64) -> nn::Embedding {
    let ws_init = Init::Randn {
        mean: 0.0,
        stdev: INIT_STDEV,
    };
    nn::embedding(
        path,
        rows,
        width,
        nn::EmbeddingConfig {
            ws_init,
            ..Default::default()
        },
    )
}

pub(crate) fn norm(path: &nn::Path, config: &EncoderConfig) -> nn::LayerNorm {
    nn::layer_norm(
        path,
        vec![config.hidden],
        nn::LayerNormConfig {
            eps: config.norm_eps,
            ..Default::default()
        },
    )
}

#[cfg(test)]
#[path = "transformer_tests.rs"]
mod tests;
