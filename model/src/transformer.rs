//! The Transformer encoder, from its embeddings to its heads, in one file.
//!
//! ```text
//! token ids ─ embeddings ─ block × layers ─ norm ─ pooling ─┬─ head "sentiment"
//!                            │                              └─ head "topic" …
//!                            └ x + attention(norm(x)), then x + feed_forward(norm(x))
//! ```
//!
//! Shapes stand at line ends: `b` texts, `t` tokens of the longest text, `d` hidden width, `a` attention heads, `w = d / a`
//! the width of one attention head, `f` feed-forward width, `l` labels of a head.
//!
//! Architecture invariant: nothing here knows files, texts or threads; training and inference run this same code.

use tch::nn::{self, Init, Module};
use tch::{Kind, Tensor};

use crate::architecture::Classifier;
use crate::config::{Activation, EncoderConfig, ModelConfig, NormPlacement, Pooling, Positions};
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
    pooling: Pooling,
    dropout: f64,
    heads: Vec<nn::Linear>,
}

impl Transformer {
    /// Creates the parameters under `path`, freshly initialised; `config` must have passed its check.
    pub fn new(path: &nn::Path, config: &ModelConfig) -> Self {
        let encoder = &config.encoder;
        let blocks = path / "blocks";
        let heads = path / "heads";
        Transformer {
            embeddings: Embeddings::new(&(path / "embeddings"), encoder),
            blocks: (0..encoder.layers)
                .map(|layer| Block::new(&(&blocks / layer), encoder))
                .collect(),
            // With normalisation in front of each layer, the sum that leaves the last block has not been normalised yet.
            final_norm: (encoder.norm == NormPlacement::Pre).then(|| norm(&(path / "final_norm"), encoder)),
            pooling: encoder.pooling,
            dropout: encoder.dropout,
            heads: config
                .heads
                .iter()
                .map(|head| {
                    linear(
                        &(&heads / &head.name),
                        encoder.hidden,
                        head.labels.len() as i64,
                        INIT_STDEV,
                    )
                })
                .collect(),
        }
    }

    /// One pass: the logits of every head. `(b, l)` each
    pub fn forward(&self, batch: &TokenBatch, mode: Mode) -> Vec<Tensor> {
        let tokens = self.encode(batch, mode); // (b, t, d)
        let texts = self.pool(&tokens, batch).dropout(self.dropout, mode == Mode::Train); // (b, d)
        self.heads.iter().map(|head| head.forward(&texts)).collect() // (b, l) each
    }

    /// One vector per token, each having looked at all others of its text. `(b, t, d)`
    pub fn encode(&self, batch: &TokenBatch, mode: Mode) -> Tensor {
        let mut x = self.embeddings.forward(&batch.ids, mode); // (b, t, d)
        let bias = batch.padding.as_ref().map(|padding| attention_bias(padding, x.kind())); // (b, 1, 1, t)
        for block in &self.blocks {
            x = block.forward(&x, bias.as_ref(), mode); // (b, t, d)
        }
        match &self.final_norm {
            Some(norm) => norm.forward(&x),
            None => x,
        }
    }

    /// Whether the text's vector is that of its first token.
    pub(crate) fn reads_first_token(&self) -> bool {
        matches!(self.pooling, Pooling::Cls)
    }

    /// One vector per text. `(b, d)`
    pub fn pool(&self, tokens: &Tensor, batch: &TokenBatch) -> Tensor {
        match (self.pooling, &batch.padding) {
            (Pooling::Cls, _) => tokens.select(1, 0), // (b, d)
            (Pooling::Mean, None) => tokens.mean_dim([1_i64].as_slice(), false, None),
            (Pooling::Mean, Some(padding)) => {
                let real = padding.logical_not().to_kind(tokens.kind()).unsqueeze(-1); // (b, t, 1)
                let sum = (tokens * &real).sum_dim_intlist([1_i64].as_slice(), false, None); // (b, d)
                sum / real.sum_dim_intlist([1_i64].as_slice(), false, None) // (b, d) / (b, 1)
            }
        }
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
    positions: nn::Embedding,
    norm: Option<nn::LayerNorm>,
    dropout: f64,
}

impl Embeddings {
    fn new(path: &nn::Path, config: &EncoderConfig) -> Self {
        let Positions::Learned = config.positions;
        Embeddings {
            tokens: embedding(&(path / "tokens"), config.vocabulary, config.hidden),
            positions: embedding(&(path / "positions"), config.max_tokens as i64, config.hidden),
            norm: (config.norm == NormPlacement::Post).then(|| norm(&(path / "norm"), config)),
            dropout: config.dropout,
        }
    }

    fn forward(&self, ids: &Tensor, mode: Mode) -> Tensor {
        let places = Tensor::arange(ids.size()[1], (Kind::Int64, ids.device())); // (t)
        let tokens = mode.token_vectors(self.tokens.forward(ids)); // (b, t, d)
        let x = tokens + self.positions.forward(&places); // (b, t, d) + (t, d)
        let x = match &self.norm {
            Some(norm) => norm.forward(&x),
            None => x,
        };
        x.dropout(self.dropout, mode == Mode::Train)
    }
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

    fn forward(&self, x: &Tensor, bias: Option<&Tensor>, mode: Mode) -> Tensor {
        let drop = |y: Tensor| y.dropout(self.dropout, mode == Mode::Train);
        match self.placement {
            NormPlacement::Pre => {
                let x = x + drop(self.attention.forward(&self.attention_norm.forward(x), bias, mode)); // (b, t, d)
                &x + drop(self.feed_forward.forward(&self.feed_forward_norm.forward(&x))) // (b, t, d)
            }
            NormPlacement::Post => {
                let x = self
                    .attention_norm
                    .forward(&(x + drop(self.attention.forward(x, bias, mode)))); // (b, t, d)
                self.feed_forward_norm
                    .forward(&(&x + drop(self.feed_forward.forward(&x)))) // (b, t, d)
            }
        }
    }
}

/// Multi-head scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762).
#[derive(Debug)]
struct Attention {
    query_key_value: nn::Linear, // one matrix product instead of three
    output: nn::Linear,
    heads: i64,
    dropout: f64,
}

impl Attention {
    fn new(path: &nn::Path, config: &EncoderConfig) -> Self {
        Attention {
            query_key_value: linear(
                &(path / "query_key_value"),
                config.hidden,
                3 * config.hidden,
                INIT_STDEV,
            ),
            output: linear(&(path / "output"), config.hidden, config.hidden, residual_stdev(config)),
            heads: config.attention_heads,
            dropout: config.dropout,
        }
    }

    fn forward(&self, x: &Tensor, bias: Option<&Tensor>, mode: Mode) -> Tensor {
        let (b, t, d) = (x.size()[0], x.size()[1], x.size()[2]);
        let qkv = self
            .query_key_value
            .forward(x)
            .view([b, t, 3, self.heads, d / self.heads]); // (b, t, 3, a, w)
        let qkv = qkv.permute([2, 0, 3, 1, 4]); // (3, b, a, t, w)
        let dropout = if mode == Mode::Train { self.dropout } else { 0.0 };
        let (q, k, v) = (qkv.get(0), qkv.get(1), qkv.get(2)); // (b, a, t, w) each
        if let Mode::Observe(trace) = mode {
            trace.attended(attention_weights(&q, &k, bias));
        }
        let mixed = attend(&q, &k, &v, bias, dropout); // (b, a, t, w)
        self.output.forward(&mixed.transpose(1, 2).reshape([b, t, d])) // (b, t, d)
    }
}

/// `softmax(q kᵀ / √w + bias) v`: every token takes the mean of all values, weighted by how well its query fits their keys.
///
/// Dividing by √w keeps the products' variance at one whatever the width, where the softmax still has a gradient.
/// `q`, `k`, `v` and the result: `(b, a, t, w)`; `bias`: `(b, 1, 1, t)`.
pub(crate) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, bias: Option<&Tensor>, dropout: f64) -> Tensor {
    let weights = attention_weights(q, k, bias).dropout(dropout, dropout > 0.0); // (b, a, t, t)
    weights.matmul(v) // (b, a, t, w)
}

/// `softmax(q kᵀ / √w + bias)`: how much of every token each token takes. `(b, a, t, t)`, rows sum to 1
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
    widen: nn::Linear,
    narrow: nn::Linear,
    activation: Activation,
}

impl FeedForward {
    fn new(path: &nn::Path, config: &EncoderConfig) -> Self {
        FeedForward {
            widen: linear(&(path / "widen"), config.hidden, config.feed_forward, INIT_STDEV),
            narrow: linear(
                &(path / "narrow"),
                config.feed_forward,
                config.hidden,
                residual_stdev(config),
            ),
            activation: config.activation,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let wide = self.widen.forward(x); // (b, t, f)
        let bent = match self.activation {
            Activation::Gelu => wide.gelu("none"),
            Activation::Relu => wide.relu(),
        };
        self.narrow.forward(&bent) // (b, t, d)
    }
}

/// Standard deviation of fresh weights, as in BERT and GPT-2.
const INIT_STDEV: f64 = 0.02;

/// Layers that write to the residual stream start smaller, so that its variance does not grow with depth (GPT-2, section 2.3).
fn residual_stdev(config: &EncoderConfig) -> f64 {
    INIT_STDEV / (2.0 * config.layers as f64).sqrt()
}

fn linear(path: &nn::Path, from: i64, to: i64, stdev: f64) -> nn::Linear {
    let ws_init = Init::Randn { mean: 0.0, stdev };
    nn::linear(
        path,
        from,
        to,
        nn::LinearConfig {
            ws_init,
            bs_init: Some(Init::Const(0.0)),
            bias: true,
        },
    )
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

fn norm(path: &nn::Path, config: &EncoderConfig) -> nn::LayerNorm {
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
mod tests {
    use super::*;
    use crate::batching::pad;
    use crate::testing::{tiny_config, tiny_heads};
    use tch::Device;

    fn model(change: impl Fn(&mut EncoderConfig)) -> (nn::VarStore, Transformer) {
        let mut config = tiny_config(50, &tiny_heads());
        change(&mut config.encoder);
        let store = nn::VarStore::new(Device::Cpu);
        let model = Transformer::new(&store.root(), &config);
        (store, model)
    }

    fn logits(model: &Transformer, rows: &[&[u32]]) -> Vec<Tensor> {
        tch::no_grad(|| model.forward(&pad(rows, 0, Device::Cpu).unwrap(), Mode::Infer))
    }

    fn gap(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn attention_equals_libtorchs_own() {
        let like = (Kind::Float, Device::Cpu);
        let [q, k, v] = [(); 3].map(|()| Tensor::randn([3, 4, 9, 8], like)); // (b, a, t, w)
        let lengths = Tensor::from_slice(&[9_i64, 5, 1]).unsqueeze(1);
        let padding = Tensor::arange(9, (Kind::Int64, Device::Cpu))
            .unsqueeze(0)
            .ge_tensor(&lengths); // (b, t)
        let bias = attention_bias(&padding, Kind::Float);
        for bias in [None, Some(&bias)] {
            let ours = attend(&q, &k, &v, bias, 0.0);
            let theirs = Tensor::scaled_dot_product_attention(&q, &k, &v, bias, 0.0, false, None, false);
            assert!(gap(&ours, &theirs) < 1e-5, "they differ by {}", gap(&ours, &theirs));
        }
    }

    #[test]
    fn padding_does_not_change_scores() {
        for (norm, pooling) in [(NormPlacement::Pre, Pooling::Mean), (NormPlacement::Post, Pooling::Cls)] {
            let (_store, model) = model(|config| (config.norm, config.pooling) = (norm, pooling));
            let short: &[u32] = &[4, 9, 17];
            let alone = logits(&model, &[short]);
            let padded = logits(&model, &[short, &(1..30).collect::<Vec<u32>>()]);
            for (alone, padded) in alone.iter().zip(&padded) {
                assert!(gap(alone, &padded.narrow(0, 0, 1)) < 1e-5);
            }
        }
    }

    #[test]
    fn the_order_of_tokens_matters() {
        let (store, model) = model(|_| ());
        tch::no_grad(|| {
            store
                .trainable_variables()
                .iter_mut()
                .for_each(|weight| drop(weight.g_mul_scalar_(5.0)))
        });
        assert!(gap(&logits(&model, &[&[4, 9, 17]])[0], &logits(&model, &[&[17, 9, 4]])[0]) > 1e-3);
    }

    #[test]
    fn every_weight_gets_a_gradient() {
        for norm in [NormPlacement::Pre, NormPlacement::Post] {
            let (store, model) = model(|config| config.norm = norm);
            let batch = pad(&[&[4, 9, 17], &[3, 5]], 0, Device::Cpu).unwrap();
            // A plain sum would give softmax and norms a gradient of zero by symmetry.
            let loss: Tensor = model
                .forward(&batch, Mode::Train)
                .iter()
                .map(|logits| (logits * logits).sum(Kind::Float))
                .sum();
            loss.backward();
            for (name, weight) in store.variables() {
                let size = weight.grad().abs().sum(Kind::Double).double_value(&[]);
                assert!(size > 0.0, "{name} has no gradient");
            }
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let (mut store, model) = model(|config| config.dropout = 0.0);
        store.double();
        let batch = pad(&[&[4, 9, 17], &[3, 5]], 0, Device::Cpu).unwrap();
        let loss = || -> Tensor {
            model
                .forward(&batch, Mode::Train)
                .iter()
                .map(|logits| logits.sin().sum(Kind::Double))
                .sum()
        };
        loss().backward();
        for (name, weight) in store.variables() {
            let (weights, gradients) = (weight.view(-1), weight.grad().view(-1));
            let place = gradients.abs().argmax(None, false).int64_value(&[]);
            let shifted = |by: f64| {
                tch::no_grad(|| drop(weights.get(place).g_add_scalar_(by)));
                let loss = tch::no_grad(loss).double_value(&[]);
                tch::no_grad(|| drop(weights.get(place).g_add_scalar_(-by)));
                loss
            };
            let step = 1e-5;
            let measured = (shifted(step) - shifted(-step)) / (2.0 * step);
            let computed = gradients.double_value(&[place]);
            assert!(
                (measured - computed).abs() < 1e-6 + 1e-4 * computed.abs(),
                "{name}: {computed} but measured {measured}"
            );
        }
    }
}
