//! Whole training steps, from gathering the rows to the update. `cargo bench -p burnish-engine --bench training`.

use std::collections::BTreeMap;
use std::sync::Arc;

use burnish_engine::gradient::Method;
use burnish_engine::program::{Dim, Initializer, Kind, Parameter, Role, ValueId};
use burnish_engine::trainer::{ArrayView, Arrays, Chunk, Format, Inputs, OptimizerConfig};
use burnish_engine::{DType, Device, Interrupt, Program, Session};
use divan::Bencher;
use serde_json::{Value as Json, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs where the bindings run it: among the threads that share the work.
fn main() {
    rayon::scope(|_| divan::main());
}

const ROWS: usize = 1024;

fn parameter(program: &mut Program, path: &str, shape: &[usize], role: Role) -> ValueId {
    let initializer = if role == Role::Bias { Initializer::Zeros {} } else { Initializer::GlorotUniform {} };
    let parameter = Parameter { path: path.to_owned(), shape: shape.to_vec(), role, initializer };
    program.parameter(parameter).expect("a new path")
}

fn apply(program: &mut Program, name: &str, inputs: &[ValueId], attributes: Json) -> ValueId {
    program.apply(name, inputs.to_vec(), attributes).expect("fitting shapes")
}

fn input(program: &mut Program, name: &str, shape: &[usize], kind: Kind) -> ValueId {
    let mut dims = vec![Dim::BATCH];
    dims.extend(shape.iter().map(|&length| Dim::known(length)));
    program.input(name, dims, kind).expect("a new name")
}

fn dense(program: &mut Program, name: &str, x: ValueId, sizes: [usize; 2], activation: &str) -> ValueId {
    let kernel = parameter(program, &format!("{name}.kernel"), &sizes, Role::Kernel);
    let bias = parameter(program, &format!("{name}.bias"), &sizes[1..], Role::Bias);
    apply(program, "linear", &[x, kernel, bias], json!({"activation": activation}))
}

fn with_loss(mut program: Program, logits: ValueId) -> Program {
    let labels = input(&mut program, "y", &[], Kind::Int);
    let loss = apply(&mut program, "cross_entropy", &[logits, labels], json!({}));
    program.output("training.loss", loss).expect("a value of the program");
    program
}

fn mlp(sizes: &[usize]) -> Program {
    let mut program = Program::default();
    let mut x = input(&mut program, "x", &sizes[..1], Kind::Float);
    for layer in 1..sizes.len() {
        let activation = if layer + 1 == sizes.len() { "none" } else { "relu" };
        x = dense(&mut program, &format!("dense_{layer}"), x, [sizes[layer - 1], sizes[layer]], activation);
    }
    with_loss(program, x)
}

fn cnn() -> Program {
    let mut program = Program::default();
    let mut x = input(&mut program, "x", &[28, 28, 1], Kind::Float);
    for (name, channels, filters) in [("conv_1", 1, 16), ("conv_2", 16, 32)] {
        let kernel = parameter(&mut program, &format!("{name}.kernel"), &[3, 3, channels, filters], Role::Kernel);
        let bias = parameter(&mut program, &format!("{name}.bias"), &[filters], Role::Bias);
        let same = json!({"padding": [[1, 1], [1, 1]], "activation": "relu"});
        x = apply(&mut program, "conv2d", &[x, kernel, bias], same);
        x = apply(&mut program, "max_pool2d", &[x], json!({"size": [2, 2], "strides": [2, 2]}));
    }
    x = apply(&mut program, "reshape", &[x], json!({"shape": [-1, 7 * 7 * 32]}));
    let logits = dense(&mut program, "dense", x, [7 * 7 * 32, 10], "none");
    with_loss(program, logits)
}

struct Data {
    x: Vec<f32>,
    y: Vec<i64>,
    shape: Vec<usize>,
}

impl Data {
    /// As many rows as the first length says.
    fn new(shape: &[usize], classes: i64) -> Self {
        let length: usize = shape.iter().product();
        let x = (0..length).map(|index| ((index * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
        let y = (0..shape[0] as i64).map(|row| row * 31 % classes).collect();
        Self { x, y, shape: shape.to_vec() }
    }

    fn inputs(&self) -> Inputs {
        let mut strides = vec![4isize; self.shape.len()];
        for axis in (0..self.shape.len() - 1).rev() {
            strides[axis] = strides[axis + 1] * self.shape[axis + 1] as isize;
        }
        // SAFETY: both vectors outlive the views, which the bench drops first.
        let (x, y) = unsafe {
            (
                ArrayView::new(self.x.as_ptr().cast(), Format::F32, false, self.shape.clone(), strides),
                ArrayView::new(self.y.as_ptr().cast(), Format::I64, false, vec![self.y.len()], vec![8]),
            )
        };
        BTreeMap::from([("x".to_owned(), x), ("y".to_owned(), y)])
    }
}

fn bench(bencher: Bencher, program: Program, data: &Data, batch_size: usize) {
    let mut session =
        Session::new(Arc::new(program), Device::cpu(), DType::F32, 0, &mut Arrays::new()).expect("a whole program");
    let config: OptimizerConfig = serde_json::from_value(json!({"name": "adam"})).expect("a configuration");
    session.set_optimizer(&config).expect("a known optimizer");
    let inputs = data.inputs();
    let order: Vec<i64> = (0..batch_size as i64).map(|row| row * 5 % ROWS as i64).collect();
    bencher.bench_local(|| {
        let chunk = Chunk {
            order: Some(&order),
            batch_size,
            learning_rates: &[1e-3],
            sample_weight: None,
            epoch: 0,
            first_step: 0,
            diagnose: false,
        };
        session.train(&inputs, &chunk, &Interrupt::default()).expect("a step")
    });
}

const WIDTHS: [&[usize]; 4] = [&[784, 128, 10], &[784, 112, 64, 10], &[64, 128, 10], &[24, 32, 6]];

/// The gradient of a network by central differences, batch 32.
#[divan::bench(args = [0, 1, 2, 3])]
fn central_differences(bencher: Bencher, network: usize) {
    let widths = WIDTHS[network];
    let data = Data::new(&[32, widths[0]], widths[widths.len() - 1] as i64);
    let mut session =
        Session::new(Arc::new(mlp(widths)), Device::cpu(), DType::F32, 0, &mut Arrays::new()).expect("a whole program");
    let inputs = data.inputs();
    bencher
        .bench_local(|| session.gradients(&inputs, Method::Numerical, None, &Interrupt::default()).expect("gradients"));
}

#[divan::bench(args = [128, 32])]
fn mlp_784_256_128_10(bencher: Bencher, batch_size: usize) {
    bench(bencher, mlp(&[784, 256, 128, 10]), &Data::new(&[ROWS, 784], 10), batch_size);
}

#[divan::bench]
fn mlp_30_64_64_2_batch_32(bencher: Bencher) {
    bench(bencher, mlp(&[30, 64, 64, 2]), &Data::new(&[ROWS, 30], 2), 32);
}

#[divan::bench]
fn cnn_batch_64(bencher: Bencher) {
    bench(bencher, cnn(), &Data::new(&[ROWS, 28, 28, 1], 10), 64);
}
