//! The mathematics of the Transformer, option by option.

use tch::Device;

use super::*;
use crate::batching::pad;
use crate::config::{HeadLayer, Pooling};
use crate::testing::{tiny_config, tiny_heads};

fn model(change: impl Fn(&mut EncoderConfig)) -> (nn::VarStore, Transformer) {
    let mut config = tiny_config(50, &tiny_heads());
    change(&mut config.encoder);
    config.check().unwrap();
    let store = nn::VarStore::new(Device::Cpu);
    let model = Transformer::new(&store.root(), &config);
    (store, model)
}

type Change = fn(&mut EncoderConfig);

/// Every option at least once, in designs that someone might want.
fn designs() -> Vec<(&'static str, Change)> {
    vec![
        ("as it ships", |_| ()),
        ("BERT", |c| {
            (c.norm, c.pooling, c.head_layer, c.token_types) = (NormPlacement::Post, Pooling::Cls, HeadLayer::Tanh, 2);
        }),
        ("DistilBERT", |c| {
            (c.norm, c.pooling, c.head_layer) = (NormPlacement::Post, Pooling::Cls, HeadLayer::Relu);
        }),
        ("RoBERTa", |c| {
            (c.norm, c.pooling, c.head_layer) = (NormPlacement::Post, Pooling::Cls, HeadLayer::Tanh);
            (c.token_types, c.position_padding) = (1, Some(1));
        }),
        ("rotary, SwiGLU, attention pooling", |c| {
            (c.positions, c.activation, c.pooling) = (Positions::Rotary, Activation::Swiglu, Pooling::Attention);
        }),
        ("sinusoidal, ReLU", |c| {
            (c.positions, c.activation) = (Positions::Sinusoidal, Activation::Relu);
        }),
        ("GELU by tanh, post-norm, mean", |c| {
            (c.activation, c.norm) = (Activation::GeluTanh, NormPlacement::Post);
        }),
        ("averaging", |c| c.mixing = Mixing::Average),
    ]
}

fn logits(model: &Transformer, rows: &[&[u32]]) -> Vec<Tensor> {
    tch::no_grad(|| model.forward(&pad(rows, 0, Device::Cpu).unwrap(), Mode::Infer))
}

fn gap(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

/// Fresh weights give every text nearly the same scores; tests want to tell texts apart.
fn enlarge(store: &nn::VarStore, by: f64) {
    tch::no_grad(|| {
        store
            .trainable_variables()
            .iter_mut()
            .for_each(|weight| drop(weight.g_mul_scalar_(by)))
    });
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
        let ours = attention_weights(&q, &k, bias).matmul(&v);
        let theirs = Tensor::scaled_dot_product_attention(&q, &k, &v, bias, 0.0, false, None, false);
        assert!(gap(&ours, &theirs) < 1e-5, "they differ by {}", gap(&ours, &theirs));
    }
}

#[test]
fn padding_does_not_change_scores() {
    for (name, design) in designs() {
        let (store, model) = model(design);
        enlarge(&store, 5.0);
        let short: &[u32] = &[4, 9, 17];
        let alone = logits(&model, &[short]);
        let padded = logits(&model, &[short, &(1..30).collect::<Vec<u32>>()]);
        for (alone, padded) in alone.iter().zip(&padded) {
            assert!(gap(alone, &padded.narrow(0, 0, 1)) < 1e-5, "{name}");
        }
    }
}

#[test]
fn the_order_of_tokens_matters() {
    for (name, design) in designs() {
        let (store, model) = model(design);
        enlarge(&store, 5.0);
        let difference = gap(
            &logits(&model, &[&[4, 9, 17, 8]])[0],
            &logits(&model, &[&[4, 17, 8, 9]])[0],
        );
        assert!(difference > 1e-4, "{name}: {difference}");
    }
}

#[test]
fn every_weight_gets_a_gradient() {
    for (name, design) in designs() {
        let (store, model) = model(design);
        enlarge(&store, 2.0); // a query of zeros stays one, and still gets a gradient
        let batch = pad(&[&[4, 9, 17], &[3, 5]], 0, Device::Cpu).unwrap();
        // A plain sum would give softmax and norms a gradient of zero by symmetry.
        let loss: Tensor = model
            .forward(&batch, Mode::Train)
            .iter()
            .map(|logits| (logits * logits).sum(Kind::Float))
            .sum();
        loss.backward();
        for (weight_name, weight) in store.variables() {
            let size = weight.grad().abs().sum(Kind::Double).double_value(&[]);
            assert!(size > 0.0, "{name}: {weight_name} has no gradient");
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for (name, design) in designs() {
        let (mut store, model) = model(|config| {
            design(config);
            config.dropout = 0.0;
        });
        store.double();
        let batch = pad(&[&[4, 9, 17], &[3, 5]], 0, Device::Cpu).unwrap();
        let loss = || -> Tensor {
            let logits = model.forward(&batch, Mode::Train);
            logits.iter().map(|logits| logits.sin().sum(Kind::Double)).sum()
        };
        loss().backward();
        for (weight_name, weight) in store.variables() {
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
                "{name}, {weight_name}: {computed} but measured {measured}"
            );
        }
    }
}

#[test]
fn rotary_scores_depend_on_distance_only() {
    let config = tiny_config(50, &tiny_heads()).encoder;
    let rotation = Rotation::new(&config, Device::Cpu).first(20, Kind::Float);
    let like = (Kind::Float, Device::Cpu);
    let repeated = || Tensor::randn([1, 1, 1, 8], like).expand([1, 1, 20, 8], false); // (b, a, t, w), the same token everywhere
    let (q, k) = (rotation.turn(&repeated()), rotation.turn(&repeated()));
    let fit = q.matmul(&k.transpose(-2, -1)).squeeze(); // (t, t)
    for distance in [-7, 0, 3, 11] {
        let diagonal = fit.diagonal(distance, 0, 1);
        assert!(
            gap(&diagonal, &diagonal.get(0).expand_as(&diagonal)) < 1e-4,
            "{distance}"
        );
    }
    assert!(gap(&fit.get(0).get(1), &fit.get(0).get(9)) > 1e-3, "distances differ");
}

#[test]
fn thirty_two_examples_are_learnt_by_heart() {
    use tch::nn::OptimizerConfig;
    tch::manual_seed(1);
    let (store, model) = model(|config| {
        (config.dropout, config.hidden, config.feed_forward) = (0.0, 32, 64);
    });
    // The labels have nothing to do with the tokens: only memory helps.
    let rows: Vec<Vec<u32>> = (0..32_u32)
        .map(|row| {
            (0..3 + row % 9)
                .map(|place| (row * 17 + place * (5 + row)) % 50)
                .collect()
        })
        .collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let batch = pad(&rows, 0, Device::Cpu).unwrap();
    let truth = Tensor::from_slice(&(0..32).map(|row| (row * row * 7 + row / 5) % 3).collect::<Vec<i64>>());
    let mut optimizer = nn::AdamW::default().build(&store, 3e-3).unwrap();
    let mut last = f64::NAN;
    for _ in 0..200 {
        let loss = model.forward(&batch, Mode::Train)[0].cross_entropy_for_logits(&truth);
        optimizer.backward_step(&loss);
        last = loss.double_value(&[]);
    }
    assert!(last < 0.01, "the loss is still {last}");
}
