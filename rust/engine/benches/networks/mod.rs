//! Networks and arrays that benches and tests train.

use std::collections::BTreeMap;
use std::sync::Arc;

use burnish_engine::program::{Dim, Initializer, Kind, Parameter, Role, ValueId};
use burnish_engine::trainer::{ArrayView, Arrays, Format, Inputs, OptimizerConfig};
use burnish_engine::{DType, Device, Program, Session};
use serde_json::{Value as Json, json};

/// A parameter as layers declare them.
pub fn parameter(program: &mut Program, path: &str, shape: &[usize], role: Role) -> ValueId {
    let initializer = match role {
        Role::Bias => Initializer::Zeros {},
        Role::Scale => Initializer::Ones {},
        _ => Initializer::GlorotUniform {},
    };
    let parameter = Parameter { path: path.to_owned(), shape: shape.to_vec(), role, initializer };
    program.parameter(parameter).expect("a new path")
}

/// An operation's value.
pub fn apply(program: &mut Program, name: &str, inputs: &[ValueId], attributes: Json) -> ValueId {
    program.apply(name, inputs.to_vec(), attributes).expect("fitting shapes")
}

/// An input, of a batch.
pub fn input(program: &mut Program, name: &str, shape: &[usize], kind: Kind) -> ValueId {
    let mut dims = vec![Dim::BATCH];
    dims.extend(shape.iter().map(|&length| Dim::known(length)));
    program.input(name, dims, kind).expect("a new name")
}

/// `activation(x · kernel + bias)`.
pub fn dense(program: &mut Program, name: &str, x: ValueId, sizes: [usize; 2], activation: &str) -> ValueId {
    let kernel = parameter(program, &format!("{name}.kernel"), &sizes, Role::Kernel);
    let bias = parameter(program, &format!("{name}.bias"), &sizes[1..], Role::Bias);
    apply(program, "linear", &[x, kernel, bias], json!({"activation": activation}))
}

/// Ends a network by its cross-entropy.
pub fn with_loss(mut program: Program, logits: ValueId) -> Program {
    let labels = input(&mut program, "y", &[], Kind::Int);
    let loss = apply(&mut program, "cross_entropy", &[logits, labels], json!({}));
    program.output("training.loss", loss).expect("a value of the program");
    program
}

/// Dense layers with relu between them, and a cross-entropy.
pub fn mlp(sizes: &[usize]) -> Program {
    let mut program = Program::default();
    let mut x = input(&mut program, "x", &sizes[..1], Kind::Float);
    for layer in 1..sizes.len() {
        let activation = if layer + 1 == sizes.len() { "none" } else { "relu" };
        x = dense(&mut program, &format!("dense_{layer}"), x, [sizes[layer - 1], sizes[layer]], activation);
    }
    with_loss(program, x)
}

/// Two convolutions with relu and pooling, one dense layer and a cross-entropy.
pub fn cnn() -> Program {
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

/// Inputs and labels.
pub struct Data {
    x: Vec<f32>,
    y: Vec<i64>,
    shape: Vec<usize>,
}

impl Data {
    /// As many rows as the first length says.
    pub fn new(shape: &[usize], classes: i64) -> Self {
        let length: usize = shape.iter().product();
        let x = (0..length).map(|index| ((index * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
        let y = (0..shape[0] as i64).map(|row| row * 31 % classes).collect();
        Self { x, y, shape: shape.to_vec() }
    }

    /// The arrays by name, lent.
    pub fn inputs(&self) -> Inputs {
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

/// A session of a program with Adam.
pub fn session(program: Program) -> Session {
    let mut session =
        Session::new(Arc::new(program), Device::cpu(), DType::F32, 0, &mut Arrays::new()).expect("a whole program");
    let config: OptimizerConfig = serde_json::from_value(json!({"name": "adam"})).expect("a configuration");
    session.set_optimizer(&config).expect("a known optimizer");
    session
}
