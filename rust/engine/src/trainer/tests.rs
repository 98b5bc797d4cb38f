//! Whole sessions on small programs, against plain formulas.

mod ahead;
mod held;
mod joined;

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Interrupt;
use crate::gradient::Method;
use crate::program::{Buffer, Dim, Initializer, Kind, Parameter, Role};
use crate::testing::{assert_close, numbers, on_threads};

const FEATURES: usize = 3;
const HIDDEN: usize = 4;

/// `(tanh(x · a.kernel + a.bias) · b.kernel - y)²` per sample, with its mean absolute error as a metric.
fn program() -> Program {
    let mut program = Program::default();
    let mut input = |name: &str, shape: &[usize]| {
        let dims = [Dim::BATCH].into_iter().chain(shape.iter().map(|&length| Dim::known(length))).collect();
        program.input(name, dims, Kind::Float).expect("a new name")
    };
    let (x, y) = (input("x", &[FEATURES]), input("y", &[1]));
    let mut parameter = |path: &str, shape: &[usize], role| {
        let initializer = Initializer::Normal { mean: 0.0, stddev: 0.7 };
        let parameter = Parameter { path: path.to_owned(), shape: shape.to_vec(), role, initializer };
        program.parameter(parameter).expect("a new path")
    };
    let kernel = parameter("a.kernel", &[FEATURES, HIDDEN], Role::Kernel);
    let bias = parameter("a.bias", &[HIDDEN], Role::Bias);
    let last = parameter("b.kernel", &[HIDDEN, 1], Role::Kernel);
    let mut apply = |name: &str, inputs: &[ValueId], attributes| {
        program.apply(name, inputs.to_vec(), attributes).expect("fitting shapes")
    };
    let hidden = apply("linear", &[x, kernel, bias], json!({"activation": "tanh"}));
    let out = apply("linear", &[hidden, last], json!({}));
    let difference = apply("subtract", &[out, y], json!({}));
    let squares = apply("square", &[difference], json!({}));
    let loss = apply("mean", &[squares], json!({"axes": [1]}));
    let sizes = apply("abs", &[difference], json!({}));
    let error = apply("mean", &[sizes], json!({"axes": [1]}));
    for name in ["training.loss", "evaluation.loss"] {
        program.output(name, loss).expect("a value");
    }
    program.output("training.metric.mae", error).expect("a value");
    program.output("evaluation.metric.mae", error).expect("a value");
    program.output("prediction", out).expect("a value");
    program
}

struct Data {
    x: Vec<f64>,
    y: Vec<f64>,
    weight: Vec<f64>,
}

impl Data {
    fn new(seed: u64, rows: usize) -> Self {
        let weight = numbers(seed ^ 2, rows).into_iter().map(|number| 0.1 + number.abs()).collect();
        Self { x: numbers(seed, rows * FEATURES), y: numbers(seed ^ 1, rows), weight }
    }

    fn view(values: &[f64], shape: &[usize]) -> ArrayView {
        let strides = match shape {
            [_] => vec![8],
            [_, width] => vec![8 * *width as isize, 8],
            other => panic!("no view of {} axes", other.len()),
        };
        // SAFETY: the data outlive every use of their views in these tests.
        unsafe { ArrayView::new(values.as_ptr().cast(), Format::F64, false, shape.to_vec(), strides) }
    }

    fn inputs(&self) -> Inputs {
        let rows = self.y.len();
        let views = [("x", Self::view(&self.x, &[rows, FEATURES])), ("y", Self::view(&self.y, &[rows, 1]))];
        views.map(|(name, view)| (name.to_owned(), view)).into()
    }

    fn weights(&self) -> ArrayView {
        Self::view(&self.weight, &[self.weight.len()])
    }
}

fn session(device: &Device, dtype: DType) -> Session {
    Session::new(Arc::new(program()), device.clone(), dtype, 5, &mut Arrays::new()).expect("a whole program")
}

fn compiled(dtype: DType, config: serde_json::Value) -> Session {
    compiled_on(&Device::cpu(), dtype, config)
}

fn compiled_on(device: &Device, dtype: DType, config: serde_json::Value) -> Session {
    let mut session = session(device, dtype);
    session.set_optimizer(&serde_json::from_value(config).expect("a configuration")).expect("a known optimizer");
    session
}

fn train(session: &mut Session, data: &Data, order: Option<&[i64]>, batch_size: usize, weighted: bool) -> Records {
    let weights = data.weights();
    let rows = order.map_or(data.y.len(), <[i64]>::len);
    let rates = vec![0.05; rows.div_ceil(batch_size)];
    let chunk = Chunk { order, sample_weight: weighted.then_some(&weights), ..Chunk::new(batch_size, &rates) };
    session.train(&data.inputs(), &chunk, &Interrupt::default()).expect("steps")
}

#[test]
fn a_profile_tells_what_each_operation_moves_and_trains_as_usual() {
    let data = Data::new(3, 10);
    let mut plain = compiled(DType::F64, json!({"name": "adam"}));
    train(&mut plain, &data, None, 5, false);
    let mut session = compiled(DType::F64, json!({"name": "adam"}));
    let rates = [0.05; 2];
    let chunk = Chunk::new(5, &rates);
    let profile = session.profile(&data.inputs(), &chunk, &Interrupt::default()).expect("steps");
    assert_eq!(flat(&session.state()), flat(&plain.state()));
    assert!(profile.rows.iter().all(|row| row.cost.calls == 2 && row.cost.seconds > 0.0));
    assert!(profile.rows.iter().map(|row| row.cost.seconds).sum::<f64>() <= profile.seconds);
    let bytes = |phase, operation: &str| {
        let mut rows = profile.rows.iter().filter(|row| row.phase == phase && row.operation == operation);
        rows.next().expect("a row").cost.bytes / 16.0
    };
    // Elements: x, kernel, bias and value of the first layer; x and y of a batch; gradients of all parameters.
    assert_eq!(bytes(Phase::Forward, "linear"), (5 * 3 + 3 * 4 + 4 + 5 * 4) as f64);
    assert_eq!((bytes(Phase::Gather, ""), bytes(Phase::Update, "")), ((5 * 3 + 5) as f64, (12 + 4 + 4) as f64));
    let phases = |phase| profile.rows.iter().filter(|row| row.phase == phase && row.node.is_some()).count();
    assert_eq!((phases(Phase::Forward), phases(Phase::Backward)), (7, 5));
    assert!(session.profiler.is_none());
}

fn flat(arrays: &Arrays) -> Vec<f64> {
    arrays.values().flat_map(Tensor::to_f64).collect()
}

/// Loss and error of one sample by plain arithmetic.
fn plain(state: &BTreeMap<String, Vec<f64>>, data: &Data, row: usize) -> (f64, f64) {
    let x = &data.x[row * FEATURES..][..FEATURES];
    let hidden = (0..HIDDEN).map(|unit| {
        let sum: f64 = (0..FEATURES).map(|feature| x[feature] * state["a.kernel"][feature * HIDDEN + unit]).sum();
        (sum + state["a.bias"][unit]).tanh() * state["b.kernel"][unit]
    });
    let difference = hidden.sum::<f64>() - data.y[row];
    (difference * difference, difference.abs())
}

fn state_of(session: &Session) -> BTreeMap<String, Vec<f64>> {
    session.state().iter().map(|(path, array)| (path.clone(), array.to_f64())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn evaluation_is_the_weighted_mean_for_every_batch_size(seed: u64, rows in 1usize..30, batch_size in 1usize..40) {
        let data = Data::new(seed, rows);
        let mut session = session(&Device::cpu(), DType::F64);
        let state = state_of(&session);
        let samples: Vec<(f64, f64)> = (0..rows).map(|row| plain(&state, &data, row)).collect();
        for weighted in [false, true] {
            let weights = data.weights();
            let found = session
                .evaluate(&data.inputs(), batch_size, weighted.then_some(&weights), &Interrupt::default())
                .expect("numbers");
            let weight = |row: usize| if weighted { data.weight[row] } else { 1.0 };
            let total: f64 = (0..rows).map(weight).sum();
            let mean = |value: &dyn Fn(usize) -> f64| (0..rows).map(|row| weight(row) * value(row)).sum::<f64>() / total;
            let expected = [mean(&|row| samples[row].0), mean(&|row| samples[row].1), total];
            assert_close(&["loss", "metric.mae", "weight"].map(|key| found[key]), &expected, 1e-12);
        }
    }

    #[test]
    fn all_gradient_methods_agree(seed: u64, rows in 1usize..12, weighted: bool) {
        let data = Data::new(seed, rows);
        let weights = data.weights();
        let mut session = session(&Device::cpu(), DType::F64);
        let mut gradients = |method| {
            let weight = weighted.then_some(&weights);
            flat(&session.gradients(&data.inputs(), method, weight, &Interrupt::default()).expect("gradients"))
        };
        let exact = gradients(Method::Autodiff);
        prop_assert!(exact.iter().any(|&slope| slope != 0.0));
        assert_close(&gradients(Method::Numerical), &exact, 1e-8);
        assert_close(&gradients(Method::NumericalBatch), &exact, 1e-5);
    }

    #[test]
    fn accumulated_micro_batches_make_the_update_of_one_batch(
        seed: u64,
        rows in 2usize..20,
        size in 1usize..8,
        weighted: bool,
    ) {
        let data = Data::new(seed, rows);
        let groups = rows.div_ceil(size);
        let rule = json!({"name": "adam", "clip_norm": 0.3, "accumulate_gradients": groups});
        let mut parts = compiled(DType::F64, rule);
        let records = train(&mut parts, &data, None, size, weighted);
        let mut whole = compiled(DType::F64, json!({"name": "adam", "clip_norm": 0.3}));
        let record = train(&mut whole, &data, None, rows, weighted);
        assert_close(&flat(&parts.state()), &flat(&whole.state()), 1e-12);
        assert_close(&records.gradient_norm[groups - 1..], &record.gradient_norm, 1e-12);
        prop_assert!(records.gradient_norm[..groups - 1].iter().all(|norm| norm.is_nan()));
        let mean = records.loss.iter().zip(&records.weight).map(|(loss, weight)| loss * weight).sum::<f64>();
        assert_close(&[mean / records.weight.iter().sum::<f64>()], &record.loss, 1e-12);
        // A group that stays open is closed by hand.
        let mut open = compiled(DType::F64, json!({"name": "adam", "clip_norm": 0.3, "accumulate_gradients": groups + 1}));
        train(&mut open, &data, None, size, weighted);
        prop_assert!(open.flush(0.05).expect("compiled").expect("an open group").finite);
        prop_assert_eq!(open.flush(0.05).expect("compiled"), None);
        assert_close(&flat(&open.state()), &flat(&whole.state()), 1e-12);
    }

    #[test]
    fn the_order_of_samples_within_a_batch_does_not_matter(seed: u64, rows in 2usize..20) {
        let data = Data::new(seed, rows);
        let order = crate::random::permutation(seed, 0, rows);
        let [one, other] = [None, Some(order.as_slice())].map(|order| {
            let mut session = compiled(DType::F64, json!({"name": "sgd"}));
            train(&mut session, &data, order, rows, true);
            flat(&session.state())
        });
        assert_close(&one, &other, 1e-12);
    }
}

/// `sum(w)` per sample: its gradient with respect to `w` is the mean of the input `g`.
fn linear_program() -> Program {
    let mut program = Program::default();
    let g = program.input("g", vec![Dim::BATCH, Dim::known(2)], Kind::Float).expect("a new name");
    let initializer = Initializer::Constant { value: 1.0 };
    let w = Parameter { path: "w".to_owned(), shape: vec![2], role: Role::Kernel, initializer: initializer.clone() };
    let w = program.parameter(w).expect("a new path");
    let product = program.apply("multiply", vec![g, w], json!({})).expect("fitting shapes");
    let loss = program.apply("sum", vec![product], json!({"axes": [1]})).expect("fitting shapes");
    program.output("training.loss", loss).expect("a value");
    let buffer = program.buffer(Buffer { path: "seen".to_owned(), shape: vec![2], initializer }).expect("a new path");
    let mean = program.apply("mean", vec![g], json!({"axes": [0]})).expect("fitting shapes");
    let sum = program.apply("add", vec![buffer, mean], json!({})).expect("fitting shapes");
    program.assign("seen", sum).expect("a buffer");
    program
}

/// One step of plain SGD at rate 1 under a gradient; returns the step, the record and the buffer.
fn clipped(gradient: [f64; 2], config: serde_json::Value) -> (Vec<f64>, Records, Vec<f64>) {
    let mut all = json!({"name": "sgd"});
    all.as_object_mut().expect("an object").extend(config.as_object().expect("an object").clone());
    let program = Arc::new(linear_program());
    let mut session = Session::new(program, Device::cpu(), DType::F64, 0, &mut Arrays::new()).expect("whole");
    session.set_optimizer(&serde_json::from_value(all).expect("a configuration")).expect("known");
    let inputs = BTreeMap::from([("g".to_owned(), Data::view(&gradient, &[1, 2]))]);
    let chunk = Chunk::new(1, &[1.0]);
    let records = session.train(&inputs, &chunk, &Interrupt::default()).expect("a step");
    let state = state_of(&session);
    (state["w"].iter().map(|w| 1.0 - w).collect(), records, state["seen"].clone())
}

#[test]
fn clipping_is_exact_at_the_limit_and_reports_the_norm_before() {
    assert_eq!(clipped([3.0, 4.0], json!({"clip_norm": 5.0})).0, [3.0, 4.0]);
    let (step, records, seen) = clipped([3.0, 4.0], json!({"clip_norm": 2.5}));
    assert_close(&step, &[1.5, 2.0], 1e-15);
    assert_eq!((records.gradient_norm, records.finite), (vec![5.0], vec![true]));
    assert_eq!(seen, [4.0, 5.0]);
    assert_eq!(clipped([3.0, -4.0], json!({"clip_value": 3.5})).0, [3.0, -3.5]);
    assert_eq!(clipped([3.0, -4.0], json!({"clip_value": 3.5})).1.gradient_norm, [5.0]);
    // By value first, then by norm.
    assert_close(&clipped([3.0, 40.0], json!({"clip_value": 4.0, "clip_norm": 2.5})).0, &[1.5, 2.0], 1e-15);
    assert_eq!(clipped([0.0, 0.0], json!({"clip_norm": 1.0})).0, [0.0, 0.0]);
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing_and_is_told() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for config in [json!({}), json!({"clip_norm": 1.0}), json!({"clip_value": 1.0}), json!({"name": "adamw"})] {
            let (step, records, seen) = clipped([1.0, bad], config);
            assert_eq!((step, seen), (vec![0.0, 0.0], vec![1.0, 1.0]));
            assert_eq!(records.finite, [false]);
            assert!(!records.gradient_norm[0].is_finite() && records.update_ratio[0].is_nan());
        }
    }
}

#[test]
fn a_batch_without_weight_is_no_reason_to_move() {
    let mut data = Data::new(1, 6);
    data.weight = vec![0.0; 6];
    let mut session = compiled(DType::F64, json!({"name": "sgd"}));
    let before = flat(&session.state());
    let records = train(&mut session, &data, None, 3, true);
    assert_eq!((flat(&session.state()), records.loss), (before, vec![0.0, 0.0]));
    let weights = data.weights();
    let gradients =
        session.gradients(&data.inputs(), Method::Autodiff, Some(&weights), &Interrupt::default()).expect("gradients");
    assert!(flat(&gradients).iter().all(|&slope| slope == 0.0));
}

#[test]
fn training_is_the_same_among_any_number_of_threads_and_chunks() {
    let data = Data::new(3, 300);
    let order = crate::random::permutation(1, 0, 300);
    let run = |pieces: &[&[i64]]| {
        let mut session = compiled(DType::F32, json!({"name": "adam"}));
        for piece in pieces {
            train(&mut session, &data, Some(piece), 25, false);
        }
        (flat(&session.state()), flat(&session.optimizer_state().expect("compiled")))
    };
    let [one, two, three] = on_threads(|| run(&[&order]));
    assert!(one == two && one == three);
    assert!(one == run(&[&order[..100], &order[100..125], &order[125..]]));
}

#[test]
fn an_interrupt_leaves_the_state_and_the_records_of_whole_updates() {
    for device in [Device::cpu(), Device::ndarray()] {
        interrupted(&device);
    }
}

fn interrupted(device: &Device) {
    let data = Data::new(4, 50);
    let mut session = compiled_on(device, DType::F32, json!({"name": "adam"}));
    let order: Vec<i64> = (0..4_000_000).map(|step| step % 50).collect();
    let rates = vec![0.01; order.len() / 5];
    let chunk = |steps: usize| Chunk { order: Some(&order[..5 * steps]), ..Chunk::new(5, &rates[..steps]) };
    // A slow machine may not have begun when the first one comes, which is an error and changes nothing.
    let stopped = [100, 800, 6400].into_iter().find_map(|wait| {
        let interrupt = Interrupt::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(wait));
                interrupt.raise();
            });
            session.train(&data.inputs(), &chunk(rates.len()), &interrupt).ok()
        })
    });
    let updates = session.optimizer_state().expect("compiled")["updates"].scalar() as usize;
    assert!(updates < rates.len());
    let mut again = compiled_on(device, DType::F32, json!({"name": "adam"}));
    let whole = again.train(&data.inputs(), &chunk(updates), &Interrupt::default());
    assert_eq!(format!("{:?}", stopped.expect("records")), format!("{:?}", whole.expect("steps")));
    let raised = Interrupt::default();
    raised.raise();
    assert_eq!(session.train(&data.inputs(), &chunk(3), &raised), Err(Error::Interrupted));
    assert_eq!(state_of(&session), state_of(&again));
    let (stopped, whole) = (session.optimizer_state().expect("compiled"), again.optimizer_state().expect("compiled"));
    assert_eq!(flat(&stopped), flat(&whole));
}

#[test]
fn state_goes_out_and_in_and_training_goes_on_as_if_nothing_had_been() {
    let data = Data::new(6, 40);
    for name in crate::optimizer::defaults().keys() {
        let rule = crate::optimizer::rule(name, json!({})).expect("a name of the list");
        let config = json!({"name": name, "accumulate_gradients": if rule.solver().is_some() { 1 } else { 3 }});
        let mut first = compiled(DType::F32, config.clone());
        train(&mut first, &data, None, 5, true);
        let mut second = compiled(DType::F32, config);
        second.load_state(first.state()).expect("its own arrays");
        second.load_optimizer_state(first.optimizer_state().expect("compiled")).expect("its own arrays");
        for session in [&mut first, &mut second] {
            train(session, &data, None, 5, true);
        }
        assert_eq!(state_of(&first), state_of(&second), "{name}");
    }
}

#[test]
fn arrays_that_do_not_fit_change_nothing() {
    let mut session = compiled(DType::F32, json!({"name": "adam"}));
    let before = state_of(&session);
    let zeros = |shape: &[usize]| Tensor::full(shape, 0.0, DType::F32, &Device::cpu());
    let load = |session: &mut Session, path: &str, shape: &[usize]| {
        session.load_state(
            [("a.bias", zeros(&[HIDDEN])), (path, zeros(shape))].map(|(path, array)| (path.to_owned(), array)).into(),
        )
    };
    assert!(matches!(load(&mut session, "b.kernel", &[1, HIDDEN]), Err(Error::Value(_))));
    assert!(matches!(load(&mut session, "b.bias", &[1]), Err(Error::Missing(_))));
    assert_eq!(state_of(&session), before);
    train(&mut session, &Data::new(1, 4), None, 4, false);
    let whole = session.optimizer_state().expect("compiled");
    for (key, wrong) in
        [("updates", zeros(&[0])), ("first_moment.a.bias", zeros(&[2])), ("updates.a.bias", zeros(&[3]))]
    {
        let mut arrays = whole.clone();
        arrays.insert(key.to_owned(), wrong);
        assert!(matches!(session.load_optimizer_state(arrays), Err(Error::Value(_))), "{key}");
        let mut arrays = whole.clone();
        arrays.remove(key);
        let lacking = session.load_optimizer_state(arrays);
        assert!(matches!(lacking, Err(Error::Missing(_))), "{key}");
    }
    assert_eq!(flat(&session.optimizer_state().expect("compiled")), flat(&whole));
}

#[test]
fn devices_train_alike() {
    let data = Data::new(8, 20);
    let config = json!({"name": "adamw", "clip_norm": 0.5, "clip_value": 0.3});
    let [cpu, other] = [Device::cpu(), Device::ndarray()].map(|device| {
        let mut session = compiled_on(&device, DType::F64, config.clone());
        let records = train(&mut session, &data, None, 6, true);
        (flat(&session.state()), records.loss)
    });
    assert_close(&cpu.0, &other.0, 1e-12);
    assert_close(&cpu.1, &other.1, 1e-12);
}

#[test]
fn inputs_that_do_not_fit_are_refused_in_words() {
    let data = Data::new(1, 4);
    let mut session = compiled(DType::F32, json!({"name": "sgd"}));
    let mut refused = |inputs: Inputs, expected: &str| {
        let error = session.evaluate(&inputs, 2, None, &Interrupt::default()).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    };
    let change = |name: &str, view: Option<ArrayView>| {
        let mut inputs = data.inputs();
        inputs.remove(name);
        inputs.extend(view.map(|view| (name.to_owned(), view)));
        inputs
    };
    refused(change("y", None), "y is missing");
    refused(change("z", Some(Data::view(&data.y, &[4]))), "z is not an input");
    refused(change("y", Some(Data::view(&data.y, &[3, 1]))), "y must have 4 rows like x, got 3");
    refused(change("y", Some(Data::view(&data.y, &[4]))), "expected shape (batch, 1), got (4,)");
}
