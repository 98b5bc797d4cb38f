//! Networks that read sequences, for the benches.

use burnish_engine::Program;
use burnish_engine::program::{Kind, Role, ValueId};
use serde_json::json;

use crate::networks::{apply, dense, input, parameter, with_loss};

/// An LSTM of 64 units over 50 steps of 16 features, and a dense layer.
pub fn lstm() -> Program {
    let mut program = Program::default();
    let x = input(&mut program, "x", &[50, 16], Kind::Float);
    let kernel = parameter(&mut program, "lstm.kernel", &[16, 256], Role::Kernel);
    let recurrent = parameter(&mut program, "lstm.recurrent_kernel", &[64, 256], Role::Kernel);
    let bias = parameter(&mut program, "lstm.bias", &[256], Role::Bias);
    let last = apply(&mut program, "lstm", &[x, kernel, recurrent, bias], json!({"bias": true, "returns": "last"}));
    let logits = dense(&mut program, "dense", last, [64, 10], "none");
    with_loss(program, logits)
}

/// Two encoder layers of width 128 with 4 heads over 64 positions, their mean, and a dense layer.
pub fn transformer() -> Program {
    const WIDTH: usize = 128;
    let mut program = Program::default();
    let mut x = input(&mut program, "x", &[64, WIDTH], Kind::Float);
    for layer in ["first", "second"] {
        let [query, key, value] = ["query", "key", "value"]
            .map(|name| dense(&mut program, &format!("{layer}.{name}"), x, [WIDTH, WIDTH], "none"));
        let seen =
            apply(&mut program, "attention", &[query, key, value], json!({"heads": 4, "scale": 32f64.powf(-0.5)}));
        let seen = dense(&mut program, &format!("{layer}.output"), seen, [WIDTH, WIDTH], "none");
        x = sum_normalised(&mut program, &format!("{layer}.attention_norm"), x, seen, WIDTH);
        let hidden = dense(&mut program, &format!("{layer}.hidden"), x, [WIDTH, 2 * WIDTH], "relu");
        let fed = dense(&mut program, &format!("{layer}.feed_forward"), hidden, [2 * WIDTH, WIDTH], "none");
        x = sum_normalised(&mut program, &format!("{layer}.feed_forward_norm"), x, fed, WIDTH);
    }
    let mean = apply(&mut program, "mean", &[x], json!({"axes": [1]}));
    let logits = dense(&mut program, "dense", mean, [WIDTH, 10], "none");
    with_loss(program, logits)
}

fn sum_normalised(program: &mut Program, name: &str, x: ValueId, y: ValueId, width: usize) -> ValueId {
    let sum = apply(program, "add", &[x, y], json!({}));
    let scale = parameter(program, &format!("{name}.scale"), &[width], Role::Scale);
    let offset = parameter(program, &format!("{name}.offset"), &[width], Role::Bias);
    apply(program, "layer_norm", &[sum, scale, offset], json!({}))
}
