//! Stacked copies against one copy at a time, through programs that use every rule.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::gradient::Method;
use crate::program::{Dim, Initializer, Kind, Parameter, Role, ValueId};
use crate::testing::{assert_close, numbers, on_threads};
use crate::trainer::{ArrayView, Arrays, Format, Inputs};
use crate::{DType, Device, Error, Interrupt, Program, Session, Tensor};

/// A program as it is written down.
struct Sketch {
    program: Program,
}

impl Sketch {
    fn new() -> Self {
        Self { program: Program::default() }
    }

    fn input(&mut self, name: &str, shape: &[usize], kind: Kind) -> ValueId {
        let dims = [Dim::BATCH].into_iter().chain(shape.iter().map(|&length| Dim::known(length))).collect();
        self.program.input(name, dims, kind).expect("a new name")
    }

    fn parameter(&mut self, path: &str, shape: &[usize]) -> ValueId {
        let initializer = Initializer::Normal { mean: 0.1, stddev: 0.6 };
        let parameter = Parameter { path: path.to_owned(), shape: shape.to_vec(), role: Role::Kernel, initializer };
        self.program.parameter(parameter).expect("a new path")
    }

    fn apply(&mut self, name: &str, inputs: &[ValueId], attributes: Json) -> ValueId {
        self.program.apply(name, inputs.to_vec(), attributes).expect("fitting shapes")
    }

    fn linear(&mut self, name: &str, x: ValueId, sizes: [usize; 2], activation: &str) -> ValueId {
        let kernel = self.parameter(&format!("{name}.kernel"), &sizes);
        let bias = self.parameter(&format!("{name}.bias"), &sizes[1..]);
        self.apply("linear", &[x, kernel, bias], json!({"activation": activation}))
    }

    /// The mean square over all axes but the batch.
    fn finish(mut self, x: ValueId) -> Program {
        let rank = self.program.value(x).expect("a value").ty.rank() as i64;
        let squares = self.apply("square", &[x], json!({}));
        let loss = self.apply("mean", &[squares], json!({"axes": (1..rank).collect::<Vec<_>>()}));
        self.program.output("training.loss", loss).expect("a value");
        self.program
    }
}

fn classifier(activation: &str) -> Program {
    let mut sketch = Sketch::new();
    let (x, y) = (sketch.input("x", &[5], Kind::Float), sketch.input("y", &[], Kind::Int));
    let hidden = sketch.linear("a", x, [5, 7], activation);
    let hidden = sketch.linear("b", hidden, [7, 6], "tanh");
    let logits = sketch.linear("c", hidden, [6, 3], "none");
    let loss = sketch.apply("cross_entropy", &[logits, y], json!({"label_smoothing": 0.1}));
    sketch.program.output("training.loss", loss).expect("a value");
    sketch.program
}

/// Element-wise operations between products, a residual path, dropout and a softmax.
fn residual() -> Program {
    let mut sketch = Sketch::new();
    let x = sketch.input("x", &[3, 5], Kind::Float);
    let kernel = sketch.parameter("a.kernel", &[5, 4]);
    let hidden = sketch.apply("matmul", &[x, kernel], json!({}));
    let scale = sketch.parameter("scale", &[4]);
    let scaled = sketch.apply("multiply", &[hidden, scale], json!({}));
    let dropped = sketch.apply("dropout", &[scaled], json!({"rate": 0.4}));
    let curved = sketch.apply("gelu", &[dropped], json!({}));
    let sum = sketch.apply("add", &[curved, hidden], json!({}));
    let next = sketch.linear("b", sum, [4, 4], "sigmoid");
    let sum = sketch.apply("add", &[next, sum], json!({}));
    let noise = sketch.apply("random_normal_like", &[sum], json!({}));
    let sum = sketch.apply("subtract", &[sum, noise], json!({}));
    let softmax = sketch.apply("softmax", &[sum], json!({}));
    sketch.finish(softmax)
}

fn image() -> Program {
    let mut sketch = Sketch::new();
    let x = sketch.input("x", &[5, 6, 2], Kind::Float);
    let (kernel, bias) = (sketch.parameter("a.kernel", &[3, 2, 2, 3]), sketch.parameter("a.bias", &[3]));
    let options = json!({"strides": [2, 1], "padding": [[1, 0], [1, 2]], "dilation": [1, 2], "activation": "relu"});
    let hidden = sketch.apply("conv2d", &[x, kernel, bias], options);
    let (kernel, bias) = (sketch.parameter("b.kernel", &[2, 2, 1, 6]), sketch.parameter("b.bias", &[6]));
    let hidden = sketch.apply("conv2d", &[hidden, kernel, bias], json!({"groups": 3}));
    let pooled = sketch.apply("max_pool2d", &[hidden], json!({"size": [1, 2], "strides": [1, 2]}));
    sketch.finish(pooled)
}

fn embedding() -> Program {
    let mut sketch = Sketch::new();
    let ids = sketch.input("ids", &[4], Kind::Int);
    let table = sketch.parameter("table", &[6, 3]);
    let rows = sketch.apply("take", &[table, ids], json!({}));
    let (scale, offset) = (sketch.parameter("scale", &[3]), sketch.parameter("offset", &[3]));
    let normal = sketch.apply("layer_norm", &[rows, scale, offset], json!({}));
    let next = sketch.linear("b", normal, [3, 2], "none");
    sketch.finish(next)
}

/// Statistics over the batch, a parameter used twice, a penalty on a parameter, and rows that are merged and parted.
fn mixing() -> Program {
    let mut sketch = Sketch::new();
    let x = sketch.input("x", &[4], Kind::Float);
    let kernel = sketch.parameter("kernel", &[4, 4]);
    let hidden = sketch.apply("linear", &[x, kernel], json!({"activation": "tanh"}));
    let hidden = sketch.apply("linear", &[hidden, kernel], json!({}));
    let mean = sketch.apply("mean", &[hidden], json!({"axes": [0]}));
    let centred = sketch.apply("subtract", &[hidden, mean], json!({}));
    let scale = sketch.parameter("scale", &[4]);
    let positive = sketch.apply("exp", &[scale], json!({}));
    let scaled = sketch.apply("multiply", &[centred, positive], json!({}));
    let merged = sketch.apply("reshape", &[scaled], json!({"shape": [-1, 2]}));
    let merged = sketch.apply("softmax", &[merged], json!({}));
    let parted = sketch.apply("reshape", &[merged], json!({"shape": [-1, 4]}));
    let across = sketch.apply("softmax", &[scaled], json!({"axis": 0}));
    let both = sketch.apply("multiply", &[parted, across], json!({}));
    let penalty = sketch.apply("mean", &[kernel], json!({}));
    let both = sketch.apply("add", &[both, penalty], json!({}));
    sketch.finish(both)
}

fn programs() -> Vec<Program> {
    vec![classifier("relu"), classifier("none"), residual(), image(), embedding(), mixing()]
}

/// Numbers for every input.
struct Data {
    floats: BTreeMap<String, (Vec<f64>, Vec<usize>)>,
    ints: BTreeMap<String, (Vec<i64>, Vec<usize>)>,
    weight: Vec<f64>,
}

impl Data {
    fn new(program: &Program, rows: usize, seed: u64) -> Self {
        let mut data = Self { floats: BTreeMap::new(), ints: BTreeMap::new(), weight: Vec::new() };
        for (id, name) in program.inputs() {
            let ty = &program.values()[id].ty;
            let shape: Vec<usize> = ty.shape.iter().map(|dim| dim.resolve(rows)).collect();
            let values = numbers(seed ^ id as u64, shape.iter().product());
            if ty.kind == Kind::Int {
                let ints = values.iter().map(|value| (value.abs() * 3.0) as i64).collect();
                data.ints.insert(name.to_owned(), (ints, shape));
            } else {
                // Zeros, so that some samples are left out.
                let values = values.into_iter().map(|value| if value.abs() < 0.2 { 0.0 } else { value }).collect();
                data.floats.insert(name.to_owned(), (values, shape));
            }
        }
        data.weight = numbers(seed ^ 77, rows).into_iter().map(|value| (value + 0.5).max(0.0)).collect();
        data.weight[0] = 0.3;
        data
    }

    fn inputs(&self) -> Inputs {
        let floats = self.floats.iter().map(|(name, (values, shape))| (name, view(values, shape, Format::F64)));
        let ints = self.ints.iter().map(|(name, (values, shape))| (name, view(values, shape, Format::I64)));
        floats.chain(ints).map(|(name, view)| (name.clone(), view)).collect()
    }

    fn weights(&self) -> ArrayView {
        view(&self.weight, &[self.weight.len()], Format::F64)
    }
}

fn view<T>(values: &[T], shape: &[usize], format: Format) -> ArrayView {
    let mut strides = vec![8isize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis] as isize;
    }
    // SAFETY: the data outlive every use of their views in these tests.
    unsafe { ArrayView::new(values.as_ptr().cast(), format, false, shape.to_vec(), strides) }
}

fn session(program: &Program, device: &Device, dtype: DType) -> Session {
    Session::new(Arc::new(program.clone()), device.clone(), dtype, 3, &mut Arrays::new()).expect("a whole program")
}

fn gradients(session: &mut Session, data: &Data, method: Method) -> BTreeMap<String, Vec<f64>> {
    let found = session.gradients(&data.inputs(), method, Some(&data.weights()), &Interrupt::default());
    found.expect("gradients").iter().map(|(path, array)| (path.clone(), array.to_f64())).collect()
}

/// Central differences in steps of `size · max(1, |p|)` by whole runs of the program, one for each end of each step.
fn one_at_a_time(session: &mut Session, data: &Data, size: f64) -> BTreeMap<String, Vec<f64>> {
    let state = session.state();
    let paths: Vec<String> = state.keys().cloned().collect();
    let slopes = paths.into_iter().map(|path| {
        let (values, shape) = (state[&path].to_f64(), state[&path].shape());
        let slope = |element: usize| {
            let mut direction = vec![0.0; values.len()];
            direction[element] = 1.0;
            let direction = BTreeMap::from([(path.clone(), Tensor::from_vec(direction, &shape))]);
            let step = size * values[element].abs().max(1.0);
            let losses = session
                .losses_along(&data.inputs(), direction, &[step, -step], Some(&data.weights()), &Interrupt::default())
                .expect("losses");
            (losses[0] - losses[1]) / ((values[element] + step) - (values[element] - step))
        };
        (path.clone(), (0..values.len()).map(slope).collect())
    });
    slopes.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn stacked_copies_agree_with_one_at_a_time(rows in 1usize..9, seed: u64) {
        for program in programs() {
            let data = Data::new(&program, rows, seed);
            for device in [Device::cpu(), Device::ndarray()] {
                let mut session = session(&program, &device, DType::F64);
                let expected = one_at_a_time(&mut session, &data, 1e-6);
                let central = gradients(&mut session, &data, Method::Numerical);
                let [above, below] = [Method::Above, Method::Below].map(|side| gradients(&mut session, &data, side));
                // Losses of some tens that differ in their last digit, over steps of 2e-6.
                for (path, expected) in expected {
                    assert_close(&central[&path], &expected, 1e-8);
                    let mean: Vec<f64> = above[&path].iter().zip(&below[&path]).map(|(a, b)| (a + b) / 2.0).collect();
                    assert_close(&mean, &expected, 2e-8);
                }
            }
        }
    }
}

#[test]
fn differences_agree_with_reverse_mode() {
    for program in programs() {
        let data = Data::new(&program, 7, 11);
        let mut session = session(&program, &Device::cpu(), DType::F64);
        let exact = gradients(&mut session, &data, Method::Autodiff);
        let central = gradients(&mut session, &data, Method::Numerical);
        let one_sided = gradients(&mut session, &data, Method::NumericalBatch);
        assert!(exact.values().flatten().any(|slope| slope.abs() > 1e-3));
        for (path, exact) in exact {
            assert_close(&central[&path], &exact, 1e-8);
            assert_close(&one_sided[&path], &exact, 1e-5);
        }
    }
}

#[test]
fn single_precision_is_as_good_as_its_losses() {
    for program in programs() {
        let data = Data::new(&program, 7, 12);
        let exact = one_at_a_time(&mut session(&program, &Device::cpu(), DType::F64), &data, 1e-2);
        let found = gradients(&mut session(&program, &Device::cpu(), DType::F32), &data, Method::Numerical);
        for (path, exact) in exact {
            assert_close(&found[&path], &exact, 5e-5);
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    for program in programs() {
        let data = Data::new(&program, 64, 13);
        let [one, two, three] =
            on_threads(|| gradients(&mut session(&program, &Device::cpu(), DType::F32), &data, Method::Numerical));
        assert!(one == two && one == three);
    }
}

#[test]
fn a_loss_that_is_no_number_leaves_no_slope() {
    let program = classifier("relu");
    let data = Data::new(&program, 4, 15);
    let mut session = session(&program, &Device::cpu(), DType::F64);
    let mut state = session.state();
    let mut bias = state["c.bias"].to_f64();
    bias[1] = f64::NAN;
    state.insert("c.bias".to_owned(), Tensor::from_vec(bias, &[3]));
    session.load_state(state).expect("fitting arrays");
    for method in [Method::Numerical, Method::NumericalBatch] {
        assert!(gradients(&mut session, &data, method).values().flatten().all(|slope| slope.is_nan()));
    }
}

#[test]
fn an_interrupt_stops_the_work() {
    let program = classifier("relu");
    let data = Data::new(&program, 4, 14);
    let interrupt = Interrupt::default();
    interrupt.raise();
    let found =
        session(&program, &Device::cpu(), DType::F32).gradients(&data.inputs(), Method::Numerical, None, &interrupt);
    assert_eq!(found.expect_err("an interrupt"), Error::Interrupted);
}
