//! The linear layer, over the fastest kernel at hand.
//!
//! libtorch gives matrix products of 32-bit floats on x86 to MKL, which keeps its best kernels for Intel's processors: one core of an
//! AMD EPYC (Zen 5) did 111 GFLOP/s with MKL and 250 with oneDNN, the same products to the last bits. libtorch reaches oneDNN in
//! 32 bits through convolutions only. A linear layer is one: with a kernel of one pixel, over a picture whose pixels are the tokens and
//! whose channels are their vectors.

use tch::nn::{self, Init, Module};
use tch::{Device, Kind, Tensor};

/// Multiplications below which preparing the convolution costs more than it saves.
const WORTH_IT: i64 = 1 << 20;

/// `x Wᵀ + b`.
#[derive(Debug)]
pub(crate) struct Dense {
    weight: Tensor, // (to, from)
    bias: Tensor,   // (to)
}

impl Dense {
    /// Weights drawn from a normal distribution of that standard deviation, and no bias yet.
    pub(crate) fn new(path: &nn::Path, (from, to): (i64, i64), stdev: f64) -> Self {
        Dense {
            weight: path.var("weight", &[to, from], Init::Randn { mean: 0.0, stdev }),
            bias: path.var("bias", &[to], Init::Const(0.0)),
        }
    }
}

impl Module for Dense {
    /// `(…, from)` to `(…, to)`.
    fn forward(&self, x: &Tensor) -> Tensor {
        if suits_convolution(x, &self.weight) {
            convolve(x, &self.weight, &self.bias)
        } else {
            x.linear(&self.weight, Some(&self.bias))
        }
    }
}

fn suits_convolution(x: &Tensor, weight: &Tensor) -> bool {
    let rows = x.numel() as i64 / weight.size()[1].max(1);
    x.device() == Device::Cpu
        && x.kind() == Kind::Float
        && rows * weight.numel() as i64 >= WORTH_IT
        && tch::utils::has_mkldnn()
}

/// The linear layer as a convolution.
fn convolve(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let (mut shape, to, from) = (x.size(), weight.size()[0], weight.size()[1]);
    let pixels = x.reshape([1, -1, 1, from]).permute([0, 3, 1, 2]); // (1, from, rows, 1), channels last in memory
    let kernel = weight.view([to, from, 1, 1]);
    let out = pixels.mkldnn_convolution(&kernel, Some(bias), [0, 0], [1, 1], [1, 1], 1); // (1, to, rows, 1)
    if let Some(last) = shape.last_mut() {
        *last = to;
    }
    out.permute([0, 2, 3, 1]).reshape(shape) // (…, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_convolution_over_one_pixel_is_the_linear_layer_forwards_and_backwards() {
        tch::manual_seed(1);
        let normal = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let (x, weight, bias) = (normal(&[3, 50, 64]), normal(&[96, 64]), normal(&[96]));
        let direction = Tensor::randn([3, 50, 96], (Kind::Float, Device::Cpu));
        let outcome = |y: Tensor| {
            let gradients = Tensor::run_backward(
                &[(&y * &direction).sum(Kind::Float)],
                &[&x, &weight, &bias],
                false,
                false,
            );
            (y, gradients)
        };
        let (y, gradients) = outcome(convolve(&x, &weight, &bias));
        let (expected_y, expected) = outcome(x.linear(&weight, Some(&bias)));
        assert_eq!(y.size(), [3, 50, 96]);
        let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        assert!(apart(&y, &expected_y) < 1e-4);
        for (gradient, expected) in gradients.iter().zip(&expected) {
            assert!(apart(gradient, expected) < 1e-3, "{gradient:?}");
        }
    }
}
