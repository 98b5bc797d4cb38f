//! The cells over slices against the same over tensors.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::Number;
use crate::ops;
use crate::testing::{assert_close, context, on_ndarray, on_threads, reals, tensor};

/// The inputs of an operation, of which the mask is the only one that is no float.
fn inputs<E: Real>(name: &str, attributes: &Value, [batch, steps, features, units]: [usize; 4], seed: u64) -> Tensors {
    let gates = match name {
        "lstm" => 4,
        "gru" => 3,
        _ => 1,
    };
    let there = |name: &str| attributes[name] == true;
    let mut shapes = vec![vec![batch, steps, features], vec![features, gates * units], vec![units, gates * units]];
    if there("bias") {
        shapes.push(if name == "gru" { vec![2, gates * units] } else { vec![gates * units] });
    }
    if there("initial_state") {
        shapes.extend(vec![vec![batch, units]; if name == "lstm" { 2 } else { 1 }]);
    }
    let mut inputs: Tensors = (seed..).zip(&shapes).map(|(seed, shape)| tensor::<E>(seed, shape)).collect();
    // So that rounding errors do not grow along the sequence.
    inputs[2] = inputs[2].clone().times(1.0 / units as f64);
    if there("mask") {
        let drawn = reals::<E>(seed + 20, batch * steps).into_iter().map(|value| value.step()).collect();
        inputs.push(Tensor::from_vec(drawn, &[batch, steps]).cast(DType::Bool));
    }
    if there("recurrent_factors") {
        inputs.push(tensor::<E>(seed + 30, &[batch, units]));
    }
    inputs
}

/// The value and the gradients of all inputs.
fn run(name: &str, attributes: &Value, inputs: &[Tensor], gradient: impl Fn(&[usize]) -> Tensor) -> Vec<Vec<f64>> {
    let operation = ops::parse(name, attributes, inputs.len()).expect("an operation");
    let evaluation = operation.evaluate(inputs.to_vec().into(), &context(&inputs[0]));
    let kept = Kept {
        inputs: inputs.to_vec().into(),
        shapes: inputs.iter().map(Tensor::shape).collect(),
        output: None,
        saved: evaluation.saved,
    };
    let gradient = gradient(&evaluation.value.shape());
    let gradients = operation.gradient(kept, gradient, &vec![true; inputs.len()]);
    for (gradient, input) in gradients.iter().zip(inputs) {
        assert!(gradient.as_ref().is_none_or(|gradient| gradient.shape() == input.shape()), "{name}");
    }
    [vec![evaluation.value.to_f64()], gradients.into_iter().flatten().map(|gradient| gradient.to_f64()).collect()]
        .concat()
}

fn elsewhere<E: Real>(tensor: &Tensor) -> Tensor {
    if tensor.dtype() == DType::Bool {
        return on_ndarray::<E>(&tensor.clone().cast(E::DTYPE)).cast(DType::Bool);
    }
    on_ndarray::<E>(tensor)
}

fn agree<E: Real>(name: &str, attributes: &Value, sizes: [usize; 4], seed: u64, tolerance: f64) {
    let inputs = inputs::<E>(name, attributes, sizes, seed);
    let others: Vec<Tensor> = inputs.iter().map(elsewhere::<E>).collect();
    let fused = run(name, attributes, &inputs, |shape| tensor::<E>(seed + 40, shape));
    let whole = run(name, attributes, &others, |shape| on_ndarray::<E>(&tensor::<E>(seed + 40, shape)));
    assert_eq!(fused.len(), whole.len());
    for (fused, whole) in fused.iter().zip(&whole) {
        assert_close(fused, whole, tolerance);
    }
}

fn attributes(flags: [bool; 5], returns: usize, activation: usize) -> Value {
    let [bias, initial_state, mask, recurrent_factors, go_backwards] = flags;
    let returns = ["last", "sequence", "states"][returns];
    let gate = ["sigmoid", "hard_sigmoid", "tanh"][activation];
    let activation = ["tanh", "relu", "none"][activation];
    json!({
        "bias": bias,
        "initial_state": initial_state,
        "mask": mask,
        "recurrent_factors": recurrent_factors,
        "go_backwards": go_backwards,
        "returns": returns,
        "activation": activation,
        "recurrent_activation": gate,
    })
}

proptest! {
    #[test]
    fn slices_agree_with_tensors(
        name in prop::sample::select(vec!["lstm", "gru", "rnn"]),
        sizes in [1usize..6, 1usize..6, 1usize..5, 1usize..20],
        flags: [bool; 5],
        choices in [0usize..3, 0usize..3],
        seed in 0u64..1 << 40,
    ) {
        agree::<f64>(name, &attributes(flags, choices[0], choices[1]), sizes, seed, 1e-10);
        // Without kinks, on whose other side rounding may bring a number.
        agree::<f32>(name, &attributes(flags, choices[0], 0), sizes, seed, 1e-4);
    }
}

#[test]
fn threads_make_no_difference() {
    for name in ["lstm", "gru", "rnn"] {
        let attributes = attributes([true; 5], 2, 0);
        let inputs = inputs::<f32>(name, &attributes, [21, 30, 17, 40], 5);
        let [one, two, three] = on_threads(|| run(name, &attributes, &inputs, |shape| tensor::<f32>(9, shape)));
        assert!(one == two && one == three, "{name}");
        agree::<f64>(name, &attributes, [21, 30, 17, 40], 5, 1e-9);
    }
}
