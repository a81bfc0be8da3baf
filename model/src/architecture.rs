//! Which network turns token ids into logits: the Transformer, or one of those that it is compared with.
//!
//! Everything around a network — tokenizer, data, training loop, scorer, evaluation — knows only [`Classifier`], so that a
//! comparison changes the network and nothing else.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn;

use crate::baselines::{BiLstm, Ngrams, TextCnn};
use crate::config::ModelConfig;
use crate::transformer::{Mode, TokenBatch, Transformer};

/// Token ids in, the logits of every head out.
pub trait Classifier: std::fmt::Debug + Send {
    /// One pass over a batch; the logits of a text must not depend on its neighbours or on padding. `(b, l)` per head
    fn forward(&self, batch: &TokenBatch, mode: Mode) -> Vec<Tensor>;

    /// The Transformer, where it is one.
    fn transformer(&self) -> Option<&Transformer> {
        None
    }
}

/// What the encoder is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Architecture {
    /// Self-attention (Vaswani et al. 2017, arXiv:1706.03762).
    #[default]
    Transformer,
    /// Two recurrent networks, one from each end, and the maximum over their states (Conneau et al. 2017, arXiv:1705.02364).
    Bilstm {
        /// Width of the state, per direction.
        width: i64,
        /// Networks on top of each other.
        layers: usize,
    },
    /// Convolutions over neighbouring tokens and the maximum of each over the text (Kim 2014, arXiv:1408.5882).
    Textcnn {
        /// Convolutions per width.
        filters: i64,
        /// Tokens that a convolution sees.
        widths: Vec<i64>,
    },
    /// One weight per label for every run of tokens, summed: a linear model (Wang & Manning 2012; Joulin et al. 2016,
    /// arXiv:1607.01759). Runs of two and more share `buckets` weights by their hash.
    Ngrams {
        /// Tokens in the longest run.
        longest: usize,
        /// Weights per label for runs of two and more.
        buckets: i64,
    },
}

impl Architecture {
    pub(crate) fn is_transformer(&self) -> bool {
        *self == Architecture::Transformer
    }

    /// Its name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Architecture::Transformer => "transformer",
            Architecture::Bilstm { .. } => "bilstm",
            Architecture::Textcnn { .. } => "textcnn",
            Architecture::Ngrams { .. } => "ngrams",
        }
    }

    /// Checks its own options.
    pub(crate) fn check(&self) -> Result<(), String> {
        let fits = match self {
            Architecture::Transformer => true,
            Architecture::Bilstm { width, layers } => *width >= 1 && *layers >= 1,
            Architecture::Textcnn { filters, widths } => {
                *filters >= 1 && !widths.is_empty() && widths.iter().all(|width| (1..=64).contains(width))
            }
            Architecture::Ngrams { longest, buckets } => (1..=8).contains(longest) && *buckets >= 1,
        };
        if fits {
            return Ok(());
        }
        Err(format!(
            "architecture {self:?} cannot be built: sizes start at 1, a convolution sees at most 64 tokens, a run has at most 8"
        ))
    }
}

/// Creates the parameters of a network under `path`, freshly initialised; `config` must have passed its check.
pub(crate) fn build(path: &nn::Path, config: &ModelConfig) -> Box<dyn Classifier> {
    match &config.encoder.architecture {
        Architecture::Transformer => Box::new(Transformer::new(path, config)),
        Architecture::Bilstm { width, layers } => Box::new(BiLstm::new(path, config, (*width, *layers))),
        Architecture::Textcnn { filters, widths } => Box::new(TextCnn::new(path, config, *filters, widths)),
        Architecture::Ngrams { longest, buckets } => Box::new(Ngrams::new(path, config, *longest, *buckets)),
    }
}
