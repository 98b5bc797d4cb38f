//! The kernels of one step against what the machine can do: an update against a plain copy of as many bytes, and matrix
//! products. `cargo bench -p burnish-engine --bench kernels`; throughput is in the last column.

use burnish_engine::optimizer::{Step, Target, rule};
use burnish_engine::program::Role;
use burnish_engine::{DType, Device, Tensor};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

const SIZES: [usize; 2] = [235_146, 10_000_000];

/// Bytes that an update moves per element: parameter and each array of state in and out, the gradient in.
fn bytes_moved(elements: usize, states: usize) -> BytesCount {
    BytesCount::new(elements * size_of::<f32>() * (3 + 2 * states))
}

fn filled(elements: usize, value: f64) -> Tensor {
    Tensor::full(&[elements], value, DType::F32, &Device::cpu())
}

/// The yardstick: as many bytes as Adam moves, half of them read, half written, on all threads.
#[divan::bench(args = SIZES)]
fn copy(bencher: Bencher, elements: usize) {
    use rayon::prelude::*;
    let floats = elements * 7 / 2;
    let from = vec![1.0f32; floats];
    let mut to = vec![0.0f32; floats];
    let piece = floats.div_ceil(rayon::current_num_threads());
    bencher.counter(bytes_moved(elements, 2)).bench_local(|| {
        let pieces = to.par_chunks_mut(piece).zip(from.par_chunks(piece));
        pieces.for_each(|(to, from)| to.copy_from_slice(from));
        black_box(&to);
    });
}

#[divan::bench(args = SIZES, consts = [0, 1, 2, 3])]
fn optimizer<const RULE: usize>(bencher: Bencher, elements: usize) {
    let (name, hyperparameters) = [
        ("sgd", serde_json::json!({"momentum": 0.9})),
        ("adam", serde_json::json!({})),
        ("adamw", serde_json::json!({})),
        ("rmsprop", serde_json::json!({})),
    ][RULE]
        .clone();
    let rule = rule(name, hyperparameters).expect("a known optimizer");
    let target = Target { shape: vec![elements], role: Role::Kernel, hidden: true };
    let gradient = filled(elements, 0.01);
    let mut parameter = filled(elements, 0.5);
    let mut state: Vec<Tensor> = rule.state(&target).iter().map(|_| filled(elements, 0.0)).collect();
    let mut step = Step { number: 0, learning_rate: 1e-3, weight_decay: 0.0, gradient_scale: 1.0 };
    bencher.counter(bytes_moved(elements, state.len())).bench_local(|| {
        step.number += 1;
        black_box(rule.update(&target, &mut parameter, gradient.clone(), &mut state, &step));
    });
}

/// Products of the MLP's sizes: `[rows, inner] · [inner, columns]`; items are multiply-adds.
#[divan::bench(args = [[128, 784, 256], [32, 784, 256], [784, 128, 256], [512, 512, 512]])]
fn matmul(bencher: Bencher, [rows, inner, columns]: [usize; 3]) {
    let a = Tensor::full(&[rows, inner], 0.5, DType::F32, &Device::cpu());
    let b = Tensor::full(&[inner, columns], 0.5, DType::F32, &Device::cpu());
    bencher.counter(ItemsCount::new(rows * inner * columns)).bench_local(|| black_box(a.clone().matmul(b.clone())));
}
