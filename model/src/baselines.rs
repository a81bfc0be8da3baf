//! What the Transformer is compared with: a recurrent, a convolutional and a linear network, each the usual one of its kind.
//!
//! Shapes stand at line ends as in [`crate::transformer`]: `b` texts, `t` tokens of the longest, `d` token width, `l` labels.
//! Each treats padding as absent, so that a text's scores do not depend on its neighbours.

use tch::nn::{self, Init, Module, RNN};
use tch::{Kind, Tensor};

use crate::architecture::Classifier;
use crate::config::{EncoderConfig, ModelConfig};
use crate::transformer::{Mode, TokenBatch};

/// Standard deviation of fresh token vectors: unlike the Transformer's they are not normalised later, so they start larger.
const TOKEN_STDEV: f64 = 0.1;

/// A recurrent network from each end over the token vectors.
#[derive(Debug)]
pub(crate) struct BiLstm {
    tokens: nn::Embedding,
    layers: Vec<[nn::LSTM; 2]>, // forwards, backwards
    dropout: f64,
    heads: Heads,
}

impl BiLstm {
    pub(crate) fn new(path: &nn::Path, config: &ModelConfig, (width, layers): (i64, usize)) -> Self {
        let encoder = &config.encoder;
        let stack = path / "layers";
        let lstm = |layer: usize, direction: &str| {
            let from = if layer == 0 { encoder.hidden } else { 2 * width };
            nn::lstm(&(&stack / layer) / direction, from, width, nn::RNNConfig::default())
        };
        BiLstm {
            tokens: token_vectors(path, encoder),
            layers: (0..layers)
                .map(|layer| ["forwards", "backwards"].map(|direction| lstm(layer, direction)))
                .collect(),
            dropout: encoder.dropout,
            heads: Heads::new(path, config, 2 * width),
        }
    }
}

impl Classifier for BiLstm {
    fn forward(&self, batch: &TokenBatch, mode: Mode) -> Vec<Tensor> {
        let drop = |x: Tensor| x.dropout(self.dropout, mode == Mode::Train);
        let back = backwards(batch); // (b, t)
        let mut x = drop(mode.token_vectors(self.tokens.forward(&batch.ids))); // (b, t, d)
        for [forwards, backwards] in &self.layers {
            let ahead = forwards.seq(&x).0; // (b, t, w)
            let behind = turn(&backwards.seq(&turn(&x, &back)).0, &back); // (b, t, w)
            x = drop(Tensor::cat(&[ahead, behind], -1)); // (b, t, 2w)
        }
        self.heads.forward(&max_over_text(&x, batch.padding.as_ref())) // (b, l) each
    }
}

/// The places of every text's tokens from last to first; padding stays where it is, so that the network that comes from the end
/// starts at the last token. `(b, t)`
fn backwards(batch: &TokenBatch) -> Tensor {
    let t = batch.ids.size()[1];
    let places = Tensor::arange(t, (Kind::Int64, batch.ids.device())).expand_as(&batch.ids); // (b, t)
    match &batch.padding {
        None => places.flip([1]),
        Some(padding) => {
            let lengths = padding
                .logical_not()
                .sum_dim_intlist([1_i64].as_slice(), true, Kind::Int64); // (b, 1)
            let from_end: Tensor = lengths - 1 - &places; // (b, t)
            from_end.where_self(&from_end.ge(0_i64), &places)
        }
    }
}

/// Tokens in another order. `x`: `(b, t, d)`, `order`: `(b, t)`
fn turn(x: &Tensor, order: &Tensor) -> Tensor {
    x.gather(1, &order.unsqueeze(-1).expand_as(x), false)
}

/// The largest value of each place over the tokens of a text. `(b, t, d)` to `(b, d)`
fn max_over_text(x: &Tensor, padding: Option<&Tensor>) -> Tensor {
    match padding {
        None => x.amax([1_i64].as_slice(), false),
        Some(padding) => x
            .masked_fill(&padding.unsqueeze(-1), f64::NEG_INFINITY)
            .amax([1_i64].as_slice(), false),
    }
}

/// Convolutions of several widths over the token vectors.
#[derive(Debug)]
pub(crate) struct TextCnn {
    tokens: nn::Embedding,
    convolutions: Vec<(i64, nn::Conv1D)>, // width, filters
    dropout: f64,
    heads: Heads,
}

impl TextCnn {
    pub(crate) fn new(path: &nn::Path, config: &ModelConfig, filters: i64, widths: &[i64]) -> Self {
        let encoder = &config.encoder;
        let stack = path / "convolutions";
        TextCnn {
            tokens: token_vectors(path, encoder),
            convolutions: widths
                .iter()
                .enumerate()
                .map(|(place, &width)| {
                    let conv = nn::conv1d(
                        &stack / place,
                        encoder.hidden,
                        filters,
                        width,
                        nn::ConvConfig::default(),
                    );
                    (width, conv)
                })
                .collect(),
            dropout: encoder.dropout,
            heads: Heads::new(path, config, filters * widths.len() as i64),
        }
    }
}

impl Classifier for TextCnn {
    fn forward(&self, batch: &TokenBatch, mode: Mode) -> Vec<Tensor> {
        let x = mode.token_vectors(self.tokens.forward(&batch.ids)); // (b, t, d)
        let x = match &batch.padding {
            Some(padding) => x.masked_fill(&padding.unsqueeze(-1), 0.0),
            None => x,
        };
        let x = x.transpose(1, 2); // (b, d, t)
        let found: Vec<Tensor> = self
            .convolutions
            .iter()
            .map(|(width, convolution)| strongest(&x, *width, convolution, batch.padding.as_ref()))
            .collect(); // (b, filters) each
        let texts = Tensor::cat(&found, -1).dropout(self.dropout, mode == Mode::Train); // (b, d)
        self.heads.forward(&texts) // (b, l) each
    }
}

/// The strongest answer of each filter to a text: windows that reach into padding do not count, but for the first one, which a
/// text shorter than the window fills up with zeros, alone as well as in company. `(b, filters)`
fn strongest(x: &Tensor, width: i64, convolution: &nn::Conv1D, padding: Option<&Tensor>) -> Tensor {
    let t = x.size()[2];
    let x = if t < width {
        x.constant_pad_nd([0, width - t])
    } else {
        x.shallow_clone()
    }; // (b, d, t or width)
    let answers = convolution.forward(&x).relu(); // (b, filters, windows)
    let windows = answers.size()[2];
    let answers = match padding {
        Some(padding) if windows > 1 => {
            let reaches = padding.narrow(1, width - 1, windows); // (b, windows)
            let first = Tensor::arange(windows, (Kind::Int64, x.device())).eq(0_i64); // (windows)
            let outside = reaches.logical_and(&first.logical_not()); // (b, windows)
            answers.masked_fill(&outside.unsqueeze(1), f64::NEG_INFINITY)
        }
        _ => answers,
    };
    answers.amax([2_i64].as_slice(), false)
}

/// One weight per label for every run of tokens.
#[derive(Debug)]
pub(crate) struct Ngrams {
    tokens: nn::Embedding,
    runs: nn::Embedding,
    bias: Tensor, // (l of all heads)
    longest: usize,
    buckets: i64,
    labels: Vec<i64>, // per head
    dropout: f64,
}

impl Ngrams {
    pub(crate) fn new(path: &nn::Path, config: &ModelConfig, longest: usize, buckets: i64) -> Self {
        let labels: Vec<i64> = config.heads.iter().map(|head| head.labels.len() as i64).collect();
        let all = labels.iter().sum();
        let table = |name: &str, rows: i64| {
            let ws_init = Init::Const(0.0); // a linear model has no symmetry to break
            let config = nn::EmbeddingConfig {
                ws_init,
                ..Default::default()
            };
            nn::embedding(path / name, rows, all, config)
        };
        Ngrams {
            tokens: table("tokens", config.encoder.vocabulary),
            runs: table("runs", buckets),
            bias: path.var("bias", &[all], Init::Const(0.0)),
            longest,
            buckets,
            labels,
            dropout: config.encoder.dropout,
        }
    }

    /// The bucket of every run of `length` tokens. `(b, t)` to `(b, t - length + 1)`
    fn bucket(&self, ids: &Tensor, length: i64) -> Tensor {
        let windows = ids.size()[1] - length + 1;
        let mut hash = Tensor::full([1], length, (Kind::Int64, ids.device()));
        for place in 0..length {
            // Multiply and add over 64 bits with wrap-around; the constant is Knuth's multiplicative one.
            hash = hash * 2_654_435_761_i64 + ids.narrow(1, place, windows) + 1; // (b, windows)
        }
        // The low bits of a product depend on the low bits of its factors only.
        hash.bitwise_right_shift_tensor_scalar(16).remainder(self.buckets)
    }
}

impl Classifier for Ngrams {
    fn forward(&self, batch: &TokenBatch, mode: Mode) -> Vec<Tensor> {
        let t = batch.ids.size()[1];
        let words = mode.token_vectors(self.tokens.forward(&batch.ids)); // (b, t, l)
        let (mut sum, mut count) = total(&words, batch.padding.as_ref()); // (b, l), (b, 1)
        for length in 2..=(self.longest as i64).min(t) {
            let runs = self.runs.forward(&self.bucket(&batch.ids, length)); // (b, windows, l)
            let outside = batch
                .padding
                .as_ref()
                .map(|padding| padding.narrow(1, length - 1, t - length + 1)); // (b, windows)
            let (more, number) = total(&runs, outside.as_ref());
            (sum, count) = (sum + more, count + number);
        }
        // Texts as vectors of length one, so that long ones are not surer than short ones.
        let logits = (sum / count.sqrt()).dropout(self.dropout, mode == Mode::Train) + &self.bias; // (b, l)
        logits.split_with_sizes(&self.labels, -1)
    }
}

/// Sum over the tokens of a text, and their number. `(b, t, l)` to `(b, l)` and `(b, 1)`
fn total(x: &Tensor, padding: Option<&Tensor>) -> (Tensor, Tensor) {
    let over = [1_i64];
    match padding {
        None => (
            x.sum_dim_intlist(over.as_slice(), false, None),
            Tensor::full([x.size()[0], 1], x.size()[1], (x.kind(), x.device())),
        ),
        Some(padding) => {
            let real = padding.logical_not().to_kind(x.kind()); // (b, t)
            (
                (x * real.unsqueeze(-1)).sum_dim_intlist(over.as_slice(), false, None),
                real.sum_dim_intlist(over.as_slice(), true, None),
            )
        }
    }
}

/// One linear layer per head.
#[derive(Debug)]
struct Heads(Vec<nn::Linear>);

impl Heads {
    fn new(path: &nn::Path, config: &ModelConfig, width: i64) -> Self {
        let heads = path / "heads";
        Heads(
            config
                .heads
                .iter()
                .map(|head| {
                    let labels = head.labels.len() as i64;
                    nn::linear(&heads / &head.name, width, labels, nn::LinearConfig::default())
                })
                .collect(),
        )
    }

    fn forward(&self, texts: &Tensor) -> Vec<Tensor> {
        self.0.iter().map(|head| head.forward(texts)).collect()
    }
}

fn token_vectors(path: &nn::Path, config: &EncoderConfig) -> nn::Embedding {
    let ws_init = Init::Randn {
        mean: 0.0,
        stdev: TOKEN_STDEV,
    };
    let settings = nn::EmbeddingConfig {
        ws_init,
        ..Default::default()
    };
    nn::embedding(path / "tokens", config.vocabulary, config.hidden, settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::{Architecture, build};
    use crate::batching::pad;
    use crate::testing::{tiny_config, tiny_heads};
    use tch::Device;

    fn all() -> [Architecture; 3] {
        [
            Architecture::Bilstm { width: 6, layers: 2 },
            Architecture::Textcnn {
                filters: 5,
                widths: vec![2, 3, 4],
            },
            Architecture::Ngrams {
                longest: 3,
                buckets: 64,
            },
        ]
    }

    /// A network with weights that tell texts apart.
    fn network(architecture: Architecture) -> (nn::VarStore, Box<dyn Classifier>) {
        let mut config = tiny_config(50, &tiny_heads());
        config.encoder.architecture = architecture;
        config.check().unwrap();
        tch::manual_seed(5);
        let store = nn::VarStore::new(Device::Cpu);
        let classifier = build(&store.root(), &config);
        tch::no_grad(|| {
            store
                .trainable_variables()
                .iter_mut()
                .for_each(|weight| drop(weight.uniform_(-1.0, 1.0)))
        });
        (store, classifier)
    }

    fn logits(classifier: &dyn Classifier, rows: &[&[u32]]) -> Vec<Tensor> {
        tch::no_grad(|| classifier.forward(&pad(rows, 0, Device::Cpu).unwrap(), Mode::Infer))
    }

    #[test]
    fn padding_does_not_change_scores() {
        let long: Vec<u32> = (1..30).collect();
        for architecture in all() {
            let (_store, classifier) = network(architecture.clone());
            for short in [&[4_u32][..], &[4, 9], &[4, 9, 17], &[4, 9, 17, 2, 2, 30]] {
                let alone = logits(&*classifier, &[short]);
                let padded = logits(&*classifier, &[short, &long]);
                for (alone, padded) in alone.iter().zip(&padded) {
                    let gap = (alone - padded.narrow(0, 0, 1)).abs().max().double_value(&[]);
                    assert!(gap < 1e-5, "{architecture:?}, {} tokens: {gap}", short.len());
                }
            }
        }
    }

    #[test]
    fn every_weight_gets_a_gradient_and_order_counts() {
        for architecture in all() {
            let (store, classifier) = network(architecture.clone());
            let (a, b) = (
                logits(&*classifier, &[&[4, 9, 17, 3]]),
                logits(&*classifier, &[&[17, 4, 9, 3]]),
            );
            let gap = (&a[0] - &b[0]).abs().max().double_value(&[]);
            assert!(gap > 1e-4, "{architecture:?} does not see the order: {gap}");
            let batch = pad(&[&[4, 9, 17, 8, 2], &[3, 5, 7, 1]], 0, Device::Cpu).unwrap();
            let loss: Tensor = classifier
                .forward(&batch, Mode::Train)
                .iter()
                .map(|logits| (logits * logits).sum(Kind::Float))
                .sum();
            loss.backward();
            for (name, weight) in store.variables() {
                let size = weight.grad().abs().sum(Kind::Double).double_value(&[]);
                assert!(size > 0.0, "{architecture:?}: {name} has no gradient");
            }
        }
    }
}
