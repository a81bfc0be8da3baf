//! What someone who explains a pass may see of it: the token vectors, which can be moved, and the attention weights.

use std::cell::RefCell;

use tch::Tensor;

use crate::transformer::Mode;

/// Collects what a pass shows of itself; see [`Mode::Observe`].
#[derive(Debug, Default)]
pub struct Trace {
    /// What the token vectors are replaced by, if anything. `(b, t, d)`
    replacement: Option<Tensor>,
    seen: RefCell<Option<Tensor>>,
    attention: RefCell<Vec<Tensor>>,
}

impl Trace {
    /// A trace that puts `vectors` in the place of the batch's token vectors, so that gradients reach them. `(b, t, d)`
    pub(crate) fn with_vectors(vectors: Tensor) -> Self {
        Trace {
            replacement: Some(vectors),
            ..Trace::default()
        }
    }

    /// The token vectors as the network looked them up, before positions are added. `(b, t, d)`
    pub(crate) fn token_vectors(&self) -> Option<Tensor> {
        self.seen.borrow().as_ref().map(Tensor::shallow_clone)
    }

    /// The attention weights, block by block. `(b, a, t, t)` each
    pub(crate) fn attention(&self) -> Vec<Tensor> {
        self.attention.borrow().iter().map(Tensor::shallow_clone).collect()
    }

    pub(crate) fn attended(&self, weights: Tensor) {
        self.attention.borrow_mut().push(weights.detach());
    }
}

impl Mode<'_> {
    /// Every network passes its token vectors through here, and goes on with what it gets back.
    pub(crate) fn token_vectors(&self, vectors: Tensor) -> Tensor {
        let Mode::Observe(trace) = self else { return vectors };
        let replaced = trace.replacement.as_ref().map(Tensor::shallow_clone);
        *trace.seen.borrow_mut() = Some(vectors.shallow_clone());
        replaced.unwrap_or(vectors)
    }
}
