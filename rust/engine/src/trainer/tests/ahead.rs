//! Steps that run ahead against steps that wait, on a device that works by itself as far as the engine knows.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::testing::{reads, set_silent, set_window};

/// [`super::program`] with activations that are zero now and then and a buffer that adds up the means of `x`.
fn rectified() -> Program {
    let json = super::program().to_json().replace("tanh", "relu");
    let mut program = Program::from_json(&json).expect("its own form");
    let initializer = Initializer::Constant { value: 0.5 };
    let buffer = Buffer { path: "seen".to_owned(), shape: vec![FEATURES], initializer };
    let buffer = program.buffer(buffer).expect("a new path");
    let x = program.inputs().find(|(_, name)| *name == "x").expect("an input").0;
    let mean = program.apply("mean", vec![x], json!({"axes": [0]})).expect("fitting shapes");
    let sum = program.apply("add", vec![buffer, mean], json!({})).expect("fitting shapes");
    program.assign("seen", sum).expect("a buffer");
    program
}

fn on_device(device: &Device, dtype: DType, config: &serde_json::Value) -> Session {
    let program = Arc::new(rectified());
    let mut session = Session::new(program, device.clone(), dtype, 5, &mut Arrays::new()).expect("a whole program");
    let config = serde_json::from_value(config.clone()).expect("a configuration");
    session.set_optimizer(&config).expect("a known optimizer");
    session
}

/// All bits that a run leaves behind, and what it says.
#[derive(Debug, PartialEq)]
struct Left {
    records: Vec<String>,
    flushed: String,
    state: Vec<(String, Vec<u64>)>,
    diagnosis: String,
}

/// Trains 3 epochs of batches of 4 in pieces of so many batches, with windows of so many steps.
fn left(session: &mut Session, data: &Data, weighted: bool, piece: usize, window: Option<usize>) -> Left {
    set_window(window);
    let weights = data.weights();
    let order: Vec<i64> = (0..data.y.len() as i64).rev().collect();
    let mut records: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for epoch in 0..3 {
        for (place, rows) in order.chunks(4 * piece).enumerate() {
            let first_step = (piece * place) as u64;
            let count = rows.len().div_ceil(4);
            let rates: Vec<f64> = (0..count).map(|_| 0.05).collect();
            let chunk = Chunk {
                order: Some(rows),
                batch_size: 4,
                learning_rates: &rates,
                sample_weight: weighted.then_some(&weights),
                epoch,
                first_step,
                diagnose: true,
            };
            let found = session.train(&data.inputs(), &chunk, &Interrupt::default()).expect("steps");
            assert_eq!(found.loss.len(), count);
            add(&mut records, found, piece * place);
        }
    }
    set_window(None);
    let flushed = format!("{:?}", session.flush(0.05).expect("compiled"));
    let diagnosis = format!("{:?}", session.take_diagnosis());
    let bits = |(path, array): (String, Tensor)| (path, array.to_f64().into_iter().map(f64::to_bits).collect());
    let state = session.whole_state("optimizer.").expect("compiled").into_iter().map(bits).collect();
    Left {
        records: records.into_iter().map(|(name, column)| format!("{name}: {column:?}")).collect(),
        flushed,
        state,
        diagnosis,
    }
}

/// Adds records of a piece to those before, in words, which tell numbers from each other and not NaN from NaN.
fn add(all: &mut BTreeMap<String, Vec<String>>, found: Records, first: usize) {
    let mut put = |name: &str, values: Vec<String>| all.entry(name.to_owned()).or_default().extend(values);
    let words = |values: &[f64]| values.iter().map(|value| format!("{value:?}")).collect();
    put("learning_rate", words(&found.learning_rate));
    put("loss_scale", words(&found.loss_scale));
    put("loss", words(&found.loss));
    put("weight", words(&found.weight));
    put("gradient_norm", words(&found.gradient_norm));
    put("update_ratio", words(&found.update_ratio));
    put("finite", found.finite.iter().map(bool::to_string).collect());
    put("parameters", found.parameters.iter().map(|movement| format!("{movement:?}")).collect());
    put("activations", found.activations.iter().map(|(step, zeros)| format!("{} {zeros:?}", first + step)).collect());
    found.metrics.iter().for_each(|(name, values)| put(name, words(values)));
}

fn configs() -> Vec<serde_json::Value> {
    let scale = json!({"initial": 8.0, "growth": 2.0, "backoff": 0.5, "interval": 3, "minimum": 1.0});
    let group = json!([{"paths": ["a.bias"], "learning_rate": 3.0, "clip": false}]);
    vec![
        json!({"name": "sgd"}),
        json!({"name": "sgd", "hyperparameters": {"momentum": 0.9}, "clip_norm": 0.05, "accumulate_gradients": 3}),
        json!({"name": "adam", "clip_norm": 0.3, "clip_value": 0.1, "groups": group, "average": 0.9}),
        json!({"name": "adamw", "clip_value": 0.1, "loss_scale": scale, "frozen": ["a.kernel"]}),
        json!({"name": "rmsprop", "accumulate_gradients": 2, "loss_scale": scale, "clip_norm": 0.2, "average": 0.5}),
        json!({"name": "radam", "clip_norm": 1e3}),
        json!({"name": "lamb", "clip_norm": 0.1}),
    ]
}

/// Data of which one number is another one.
fn spoilt(rows: usize, row: usize, what: &str) -> Data {
    let mut data = Data::new(7, rows);
    match what {
        "nothing" => {}
        "x" => data.x[row * FEATURES] = f64::NAN,
        "y" => data.y[row] = f64::INFINITY,
        // The loss is finite, its gradient is not.
        "masked" => (data.y[row], data.weight[row]) = (f64::NAN, 0.0),
        // Squares overflow 32 bits: that of the difference, so that the loss is not finite, and those of the gradients.
        "large" => data.y[row] = 1e21,
        other => panic!("unknown flaw {other}"),
    }
    data
}

#[test]
fn steps_that_run_ahead_leave_the_bits_of_steps_that_wait() {
    const ROWS: usize = 4 * 23 + 2;
    let flaws = [("nothing", 0), ("x", 0), ("x", ROWS - 1), ("y", 50), ("masked", 31), ("large", 40)];
    for config in configs() {
        for dtype in [DType::F32, DType::F64] {
            for (what, row) in flaws {
                let data = spoilt(ROWS, row, what);
                let run = |piece, window| {
                    left(&mut on_device(&Device::ndarray(), dtype, &config), &data, what == "masked", piece, window)
                };
                let expected = run(24, Some(0));
                for (piece, window) in [(24, None), (24, Some(3)), (7, None), (1, None), (5, Some(2))] {
                    assert_eq!(
                        run(piece, window),
                        expected,
                        "{config} {dtype:?} {what} in row {row}: {piece} {window:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn steps_that_run_ahead_do_what_the_cpu_does() {
    for config in configs() {
        for (what, row) in [("nothing", 0), ("x", 30), ("masked", 31)] {
            let data = spoilt(4 * 12 + 1, row, what);
            let [cpu, other] = [Device::cpu(), Device::ndarray()].map(|device| {
                let mut session = on_device(&device, DType::F64, &config);
                let records = train(&mut session, &data, None, 4, true);
                (flat(&session.whole_state("optimizer.").expect("compiled")), records)
            });
            assert_close(&other.0, &cpu.0, 1e-12);
            let columns = |records: &Records| {
                let moved = records.parameters.iter().flat_map(|moved| [moved.gradient_norm, moved.update_ratio]);
                let columns =
                    [&records.loss, &records.gradient_norm, &records.update_ratio, &records.metrics["metric.mae"]];
                columns.into_iter().flatten().copied().chain(moved).map(|x| if x.is_nan() { -1.0 } else { x }).collect()
            };
            let (found, expected): (Vec<f64>, Vec<f64>) = (columns(&other.1), columns(&cpu.1));
            assert_close(&found, &expected, 1e-10);
            assert_eq!((&other.1.finite, &other.1.activations), (&cpu.1.finite, &cpu.1.activations));
            assert_eq!(other.1.finite.iter().all(|&finite| finite), what == "nothing", "{config} {what}");
        }
    }
}

#[test]
fn a_window_waits_for_its_device_once_however_many_steps_and_parameters_there_are() {
    let config = json!({"name": "adam", "clip_norm": 1.0, "clip_value": 1.0});
    let mut session = on_device(&Device::ndarray(), DType::F32, &config);
    let mut waits = |data: &Data| {
        let before = reads();
        train(&mut session, data, None, 1, true);
        reads() - before
    };
    assert_eq!([1, 12, 64, 65, 130].map(|steps| waits(&Data::new(3, steps))), [1, 1, 1, 2, 3]);
    // A window that fails is read in vain; each of its steps then waits for losses, squares of gradients and of changes, and
    // now and then for zero activations. Of the one that is not finite, three gradients are looked at and none is applied.
    let mut data = Data::new(3, 70);
    data.x[0] = f64::NAN;
    let windows_of_one_two_and_three = 3;
    assert_eq!(waits(&data), 1 + 64 * 3 + 4 + 3 - 1 + windows_of_one_two_and_three);
}

#[test]
fn a_rule_that_needs_numbers_on_the_host_waits_in_each_step() {
    let mut session = on_device(&Device::ndarray(), DType::F32, &json!({"name": "lamb"}));
    let before = reads();
    train(&mut session, &Data::new(3, 12), None, 3, true);
    assert!(reads() - before >= 4 * 3);
}

#[test]
fn a_device_that_fails_among_steps_that_run_ahead_leaves_the_state_from_before_them() {
    let config = json!({"name": "adam", "accumulate_gradients": 2, "average": 0.9});
    let data = Data::new(3, 9);
    let [mut session, mut other] = [(); 2].map(|()| on_device(&Device::ndarray(), DType::F32, &config));
    train(&mut session, &data, None, 1, true);
    train(&mut other, &data, None, 1, true);
    set_silent(true);
    let failed = catch_unwind(AssertUnwindSafe(|| train(&mut session, &data, None, 1, true)));
    set_silent(false);
    assert!(failed.is_err());
    let bits = |session: &Session| flat(&session.whole_state("optimizer.").expect("compiled"));
    assert_eq!(bits(&session), bits(&other));
    train(&mut session, &data, None, 1, true);
    train(&mut other, &data, None, 1, true);
    assert_eq!(bits(&session), bits(&other));
}
