//! Every rule against plain formulas, on slices and on whole tensors.

use serde_json::json;

use super::piece::{BLOCK, LANES};
use super::*;
use crate::memory::Block;
use crate::tensor::Rows;
use crate::testing::{assert_close, numbers, on_threads, reals, tensor};
use crate::{DType, Device, cpu};

/// Hyperparameters, the defaults behind them.
struct Given<'a> {
    given: &'a Json,
    defaults: Json,
}

impl<'a> Given<'a> {
    fn new(name: &str, given: &'a Json) -> Self {
        Self { given, defaults: defaults()[name].clone() }
    }

    fn value(&self, key: &str) -> &Json {
        self.given.get(key).unwrap_or(&self.defaults[key])
    }

    fn number(&self, key: &str) -> f64 {
        self.value(key).as_f64().expect("a number")
    }

    fn truth(&self, key: &str) -> bool {
        self.value(key).as_bool().expect("a truth value")
    }

    fn pair(&self, key: &str) -> [f64; 2] {
        [0, 1].map(|index| self.value(key)[index].as_f64().expect("a number"))
    }
}

/// Running means of gradient and square, and both corrected.
fn moments([b1, b2]: [f64; 2], t: f64, g: f64, state: &mut [f64]) -> (f64, f64) {
    state[0] = b1 * state[0] + (1.0 - b1) * g;
    state[1] = b2 * state[1] + (1.0 - b2) * g * g;
    (state[0] / (1.0 - b1.powf(t)), state[1] / (1.0 - b2.powf(t)))
}

/// The rules as SEMANTICS' sources write them, one number at a time.
fn plain(name: &str, h: &Given<'_>, step: &Step, p: f64, g: f64, state: &mut [f64]) -> f64 {
    let (rate, t, first) = (step.learning_rate, step.number as f64, step.number == 1);
    let decay = step.weight_decay;
    let decoupled = match name {
        "adamw" | "lion" | "muon" => true,
        "nadam" | "radam" => h.truth("decoupled_weight_decay"),
        _ => false,
    };
    let g = g * step.gradient_scale + if decoupled { 0.0 } else { decay * p };
    let p = if decoupled && name != "muon" { p * (1.0 - rate * decay) } else { p };
    match name {
        "sgd" if h.number("momentum") == 0.0 => p - rate * g,
        "sgd" => {
            let momentum = h.number("momentum");
            state[0] = if first { g } else { momentum * state[0] + (1.0 - h.number("dampening")) * g };
            p - rate * if h.truth("nesterov") { g + momentum * state[0] } else { state[0] }
        }
        "adam" | "adamw" => {
            let (m, mut v) = moments(h.pair("betas"), t, g, state);
            if h.truth("amsgrad") {
                state[2] = state[2].max(state[1]);
                v = state[2] / (1.0 - h.pair("betas")[1].powf(t));
            }
            p - rate * m / (v.sqrt() + h.number("eps"))
        }
        "muon" => {
            // Without axes that a matrix has, it is AdamW at a part of the learning rate.
            let rate = rate * h.number("adamw_ratio");
            let (m, v) = moments(h.pair("adamw_betas"), t, g, state);
            p * (1.0 - rate * decay) - rate * m / (v.sqrt() + h.number("adamw_eps"))
        }
        "nadam" => {
            let mu = |t: f64| h.pair("betas")[0] * (1.0 - 0.5 * 0.96f64.powf(t * h.number("momentum_decay")));
            let product: f64 = (1..=step.number).map(|t| mu(t as f64)).product();
            let (_, v) = moments(h.pair("betas"), t, g, state);
            let (now, next) = (1.0 - mu(t), mu(t + 1.0));
            let ahead = now * g / (1.0 - product) + next * state[0] / (1.0 - product * next);
            p - rate * ahead / (v.sqrt() + h.number("eps"))
        }
        "radam" => {
            let b2 = h.pair("betas")[1];
            let (m, _) = moments(h.pair("betas"), t, g, state);
            let limit = 2.0 / (1.0 - b2) - 1.0;
            let length = limit - 2.0 * t * b2.powf(t) / (1.0 - b2.powf(t));
            if length <= 5.0 {
                return p - rate * m;
            }
            let square = (length - 4.0) * (length - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * length);
            p - rate * m * square.sqrt() * (1.0 - b2.powf(t)).sqrt() / (state[1].sqrt() + h.number("eps"))
        }
        "adamax" => {
            let [b1, b2] = h.pair("betas");
            state[0] = b1 * state[0] + (1.0 - b1) * g;
            state[1] = (b2 * state[1]).max(g.abs() + h.number("eps"));
            p - rate / (1.0 - b1.powf(t)) * state[0] / state[1]
        }
        "rmsprop" => {
            let (alpha, centered) = (h.number("alpha"), h.truth("centered"));
            state[0] = alpha * state[0] + (1.0 - alpha) * g * g;
            let mut variance = state[0];
            if centered {
                state[1] = alpha * state[1] + (1.0 - alpha) * g;
                variance -= state[1] * state[1];
            }
            let direction = g / (variance.sqrt() + h.number("eps"));
            let Some(buffer) = state.get_mut(1 + usize::from(centered)) else {
                return p - rate * direction;
            };
            *buffer = h.number("momentum") * *buffer + direction;
            p - rate * *buffer
        }
        "adagrad" => {
            state[0] = if first { h.number("initial_accumulator_value") } else { state[0] } + g * g;
            p - rate / (1.0 + (t - 1.0) * h.number("lr_decay")) * g / (state[0].sqrt() + h.number("eps"))
        }
        "adadelta" => {
            let (rho, eps) = (h.number("rho"), h.number("eps"));
            state[0] = rho * state[0] + (1.0 - rho) * g * g;
            let change = (state[1] + eps).sqrt() / (state[0] + eps).sqrt() * g;
            state[1] = rho * state[1] + (1.0 - rho) * change * change;
            p - rate * change
        }
        "lion" => {
            let [b1, b2] = h.pair("betas");
            let direction = b1 * state[0] + (1.0 - b1) * g;
            state[0] = b2 * state[0] + (1.0 - b2) * g;
            p - rate * if direction == 0.0 { 0.0 } else { direction.signum() }
        }
        "rprop" => {
            let ([shorter, longer], [least, most]) = (h.pair("etas"), h.pair("step_sizes"));
            let size = if first { rate } else { state[1] };
            let agreement = g * state[0];
            let factor = if agreement > 0.0 {
                longer
            } else if agreement < 0.0 {
                shorter
            } else {
                1.0
            };
            state[1] = (size * factor).clamp(least, most);
            state[0] = if agreement < 0.0 { 0.0 } else { g };
            p - if state[0] == 0.0 { 0.0 } else { state[0].signum() * state[1] }
        }
        "asgd" => {
            let (lambd, start) = (h.number("lambd"), h.number("t0"));
            let eta = rate / (1.0 + lambd * rate * (t - 1.0)).powf(h.number("alpha"));
            let p = p * (1.0 - lambd * eta) - eta * g;
            let intake = 1.0 / (t - 1.0 - start).max(1.0);
            state[0] += intake * (p - state[0]);
            p
        }
        other => panic!("no plain formula of {other}: write one"),
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// The rules that look at a whole parameter, which is a vector here; `state` by element.
fn plain_whole(name: &str, h: &Given<'_>, step: &Step, p: &[f64], g: &[f64], state: &mut [Vec<f64>]) -> Vec<f64> {
    let (rate, t, decay) = (step.learning_rate, step.number as f64, step.weight_decay);
    let g: Vec<f64> = g.iter().map(|g| g * step.gradient_scale).collect();
    let elements = || p.iter().zip(&g);
    match name {
        "lamb" => {
            let direction = |((p, g), state): ((&f64, &f64), &mut Vec<f64>)| {
                let (m, v) = moments(h.pair("betas"), t, *g, state);
                m / (v.sqrt() + h.number("eps")) + decay * p
            };
            let r: Vec<f64> = elements().zip(state).map(direction).collect();
            let trust = norm(p) / norm(&r);
            p.iter().zip(&r).map(|(p, r)| p - rate * trust * r).collect()
        }
        "lars" => {
            let local = h.number("trust_coefficient") * norm(p) / (norm(&g) + decay * norm(p));
            let moved = |((p, g), state): ((&f64, &f64), &mut Vec<f64>)| {
                state[0] = h.number("momentum") * state[0] + local * (g + decay * p);
                p - rate * state[0]
            };
            elements().zip(state).map(moved).collect()
        }
        "adafactor" => {
            let (w, count) = (t.powf(h.number("beta2_decay")), p.len() as f64);
            // The smallest number that 32 and 64 bits agree about is given where it matters.
            let eps = h.value("eps")[0].as_f64().unwrap_or(0.0);
            let direction = |(g, state): (&f64, &mut Vec<f64>)| {
                state[0] = (1.0 - w) * state[0] + w * g * g;
                g / state[0].max(eps * eps).sqrt()
            };
            let u: Vec<f64> = g.iter().zip(state).map(direction).collect();
            let alpha =
                (norm(p) / count.sqrt()).max(h.value("eps")[1].as_f64().expect("a number")) * rate.min(1.0 / t.sqrt());
            let clipping = (norm(&u) / count.sqrt() / h.number("clipping_threshold")).max(1.0);
            p.iter().zip(&u).map(|(p, u)| p * (1.0 - rate * decay) - alpha * u / clipping).collect()
        }
        _ => {
            let one = |((p, g), state): ((&f64, &f64), &mut Vec<f64>)| {
                plain(name, h, &Step { gradient_scale: 1.0, ..*step }, *p, *g, state)
            };
            elements().zip(state).map(one).collect()
        }
    }
}

/// Every optimizer of the list with its defaults, and every branch of its formula.
fn configurations() -> Vec<(&'static str, Json)> {
    let rules = OPTIMIZERS.iter().filter(|entry| rule(entry.name, json!({})).is_ok_and(|rule| rule.solver().is_none()));
    let mut all: Vec<(&str, Json)> = rules.map(|entry| (entry.name, json!({}))).collect();
    all.extend([
        ("sgd", json!({"momentum": 0.9, "weight_decay": 0.1})),
        ("sgd", json!({"momentum": 0.8, "dampening": 0.3})),
        ("sgd", json!({"momentum": 0.7, "nesterov": true, "weight_decay": 0.2})),
        ("adam", json!({"weight_decay": 0.1, "betas": [0.5, 0.6]})),
        ("adam", json!({"amsgrad": true, "eps": 0.01})),
        ("adamw", json!({"amsgrad": true, "weight_decay": 0.3})),
        ("rmsprop", json!({"weight_decay": 0.1, "alpha": 0.5})),
        ("rmsprop", json!({"momentum": 0.9})),
        ("rmsprop", json!({"centered": true})),
        ("rmsprop", json!({"centered": true, "momentum": 0.5, "eps": 0.01})),
        ("adagrad", json!({"lr_decay": 0.5, "weight_decay": 0.1})),
        ("adagrad", json!({"initial_accumulator_value": 0.1, "eps": 0.01})),
        ("adadelta", json!({"rho": 0.5, "eps": 0.01, "weight_decay": 0.1})),
        ("nadam", json!({"weight_decay": 0.1, "momentum_decay": 1.0, "betas": [0.5, 0.6]})),
        ("nadam", json!({"weight_decay": 0.1, "decoupled_weight_decay": true})),
        ("radam", json!({"weight_decay": 0.1})),
        ("radam", json!({"weight_decay": 0.1, "decoupled_weight_decay": true, "betas": [0.5, 0.9]})),
        ("radam", json!({"betas": [0.9, 0.5]})),
        ("adamax", json!({"weight_decay": 0.1, "betas": [0.5, 0.6], "eps": 0.01})),
        ("lion", json!({"weight_decay": 0.1, "betas": [0.5, 0.6]})),
        ("lamb", json!({"weight_decay": 0.1, "betas": [0.5, 0.6], "eps": 0.01})),
        ("lars", json!({"weight_decay": 0.1, "momentum": 0.5, "trust_coefficient": 0.1})),
        ("adafactor", json!({"weight_decay": 0.1, "clipping_threshold": 2.0, "eps": [0.01, 2.0]})),
        ("muon", json!({"weight_decay": 0.1, "adamw_ratio": 0.5, "adamw_betas": [0.5, 0.6], "adamw_eps": 0.01})),
        ("rprop", json!({"weight_decay": 0.1, "etas": [0.3, 2.0], "step_sizes": [0.004, 0.015]})),
        ("asgd", json!({"weight_decay": 0.1, "lambd": 0.3, "alpha": 0.5, "t0": 0})),
    ]);
    all
}

fn target(count: usize) -> Target {
    Target { shape: vec![count], role: Role::Kernel, hidden: true }
}

/// Parameter, state and sums after some steps on a device.
fn steps(name: &str, h: &Json, count: usize, dtype: DType, device: &Device) -> (Vec<f64>, Vec<f64>, Vec<Squares>) {
    let rule = rule(name, h.clone()).expect("a known optimizer");
    let tensor = |seed| Tensor::from_f64(&numbers(seed, count), &[count], dtype, device);
    let mut parameter = tensor(1);
    let target = target(count);
    let mut state: Vec<Tensor> =
        rule.state(&target).iter().map(|slot| Tensor::full(&slot.shape, 0.0, dtype, device)).collect();
    let squares = (1..4)
        .map(|number| {
            let step = step(number, rule.weight_decay());
            rule.update(&target, &mut parameter, tensor(1 + number), &mut state, &step).squares()
        })
        .collect();
    (parameter.to_f64(), state.iter().flat_map(Tensor::to_f64).collect(), squares)
}

fn step(number: u64, weight_decay: f64) -> Step {
    let weight_decay = if number == 2 { 0.0 } else { weight_decay };
    Step { number, learning_rate: 0.01 * number as f64, weight_decay, gradient_scale: 0.5 }
}

fn plain_steps(name: &str, h: &Json, count: usize) -> (Vec<f64>, Vec<f64>, Vec<Squares>) {
    let rule = rule(name, h.clone()).expect("a known optimizer");
    let kept = rule.state(&target(count)).len();
    let mut parameter = numbers(1, count);
    let mut state = vec![vec![0.0; kept]; count];
    let mut squares = Vec::new();
    for number in 1..4 {
        let step = step(number, rule.weight_decay());
        let after = plain_whole(name, &Given::new(name, h), &step, &parameter, &numbers(1 + number, count), &mut state);
        let change: Vec<f64> = after.iter().zip(&parameter).map(|(after, before)| after - before).collect();
        squares.push(Squares { parameter: norm(&parameter).powi(2), update: norm(&change).powi(2) });
        parameter = after;
    }
    let by_name = (0..kept).flat_map(|name| state.iter().map(move |state| state[name])).collect();
    (parameter, by_name, squares)
}

#[test]
fn fused_and_whole_tensors_follow_the_plain_formula() {
    let lengths = [1, LANES - 1, LANES, LANES + 1, BLOCK - 1, BLOCK, BLOCK + 1, cpu::PARALLEL_ELEMENTS + 3];
    for (name, h) in configurations() {
        for count in lengths {
            let expected = plain_steps(name, &h, count);
            for device in [Device::cpu(), Device::ndarray()] {
                for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
                    let found = steps(name, &h, count, dtype, &device);
                    assert_close(&found.0, &expected.0, tolerance);
                    assert_close(&found.1, &expected.1, tolerance);
                    for (found, expected) in found.2.iter().zip(&expected.2) {
                        // Steps much smaller than their parameters keep few digits.
                        let norm = expected.parameter.sqrt();
                        let norms =
                            |squares: &Squares| [squares.parameter, squares.update].map(|sum| sum.sqrt() / norm);
                        assert_close(&norms(found), &norms(expected), tolerance);
                    }
                }
            }
        }
    }
}

#[test]
fn an_update_is_the_same_among_any_number_of_threads() {
    let count = 3 * cpu::PARALLEL_ELEMENTS + 17;
    for (name, h) in configurations() {
        let [one, two, three] = on_threads(|| steps(name, &h, count, DType::F32, &Device::cpu()));
        assert!(one == two && one == three, "{name} {h}");
    }
    let values = Tensor::from_f64(&numbers(5, count), &[count], DType::F32, &Device::cpu());
    let [one, two, three] = on_threads(|| sum_squares(&values));
    assert!(one == two && one == three);
}

/// Parameter, state and sums after two steps by gradients of which every `nth` row is other than 0, held alone or among zeros.
fn steps_by_rows(
    name: &str,
    h: &Json,
    shape: [usize; 2],
    nth: usize,
    alone: bool,
) -> (Vec<f64>, Vec<f64>, Vec<Squares>) {
    let (rule, [rows, width]) = (rule(name, h.clone()).expect("a known optimizer"), shape);
    let gradient = |number: u64| {
        let places: Vec<i32> = (number as i32 - 1..rows as i32).step_by(nth).collect();
        let values = reals::<f32>(number, places.len() * width);
        if alone {
            return Tensor::from_rows(Rows::new(Block::copy(&places), Block::copy(&values), &shape));
        }
        let mut all = vec![0.0; rows * width];
        for (&place, row) in places.iter().zip(values.chunks(width)) {
            all[place as usize * width..][..width].copy_from_slice(row);
        }
        Tensor::from_vec(all, &shape)
    };
    let mut parameter = tensor::<f32>(9, &shape);
    let target = Target { shape: shape.to_vec(), ..target(0) };
    let zeros = |slot: &Slot| Tensor::full(&slot.shape, 0.0, DType::F32, &Device::cpu());
    let mut state: Vec<Tensor> = rule.state(&target).iter().map(zeros).collect();
    let update = |number| {
        let step = step(number, rule.weight_decay());
        rule.update(&target, &mut parameter, gradient(number), &mut state, &step).squares()
    };
    let squares = (1..3).map(update).collect();
    (parameter.to_f64(), state.iter().flat_map(Tensor::to_f64).collect(), squares)
}

#[test]
fn rows_that_are_held_alone_move_a_parameter_by_the_same_bits() {
    let wide = [5, BLOCK + 70];
    for (shape, nth) in [([1, 1], 1), ([7, 5], 3), ([90, LANES], 90), (wide, 2), ([700, 65], 11), ([700, 65], 1)] {
        for (name, h) in configurations() {
            let expected = steps_by_rows(name, &h, shape, nth, false);
            for found in on_threads(|| steps_by_rows(name, &h, shape, nth, true)) {
                assert!(found == expected, "{name} {h} {shape:?}");
            }
        }
    }
    let values = reals::<f32>(1, 3 * BLOCK);
    let rows = Tensor::from_rows(Rows::new(Block::copy(&[1, 4, 5]), Block::copy(&values), &[9, BLOCK]));
    let expected: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
    assert!((sum_squares(&rows) / expected - 1.0).abs() < 1e-6);
}

#[test]
fn a_parameter_that_others_hold_is_copied_first() {
    let rule = rule("adam", json!({})).expect("a known optimizer");
    let mut parameter = Tensor::from_vec(vec![1.0f32; 40], &[40]);
    let held = parameter.clone();
    let mut state = vec![Tensor::from_vec(vec![0.0f32; 40], &[40]); 2];
    rule.update(&target(40), &mut parameter, held.clone(), &mut state, &step(1, 0.0));
    assert_eq!(held.to_f64(), [1.0; 40]);
    assert_ne!(parameter.to_f64(), held.to_f64());
    assert_ne!(state[0].to_f64(), state[1].to_f64());
}

#[test]
fn amsgrad_does_not_forget_a_nan() {
    let rule = rule("adam", json!({"amsgrad": true})).expect("a known optimizer");
    let mut parameter = Tensor::from_vec(vec![1.0f32], &[1]);
    let mut state = vec![Tensor::from_vec(vec![1.0f32], &[1]); 3];
    rule.update(&target(1), &mut parameter, Tensor::from_vec(vec![f32::NAN], &[1]), &mut state, &step(1, 0.0));
    assert!(state[2].scalar().is_nan() && parameter.scalar().is_nan());
}

#[test]
fn squares_that_overflow_float32_are_summed_all_the_same() {
    for count in [1, 3 * LANES, BLOCK + 1] {
        let large = Tensor::from_vec(vec![1e30f32; count], &[count]);
        let expected = count as f64 * f64::from(1e30f32).powi(2);
        assert!((sum_squares(&large) / expected - 1.0).abs() < 1e-12);
    }
    let mut values = vec![1.0f32; 100];
    values[70] = f32::NAN;
    assert!(sum_squares(&Tensor::from_vec(values, &[100])).is_nan());
}

#[test]
fn unknown_names_are_refused() {
    assert!(matches!(rule("adm", json!({})), Err(Error::Missing(_))));
    assert!(matches!(rule("adam", json!({"beta": 1})), Err(Error::Value(_))));
}

/// A rule on a parameter of any shape, a state tensor for each of its slots.
fn updated(name: &str, h: &Json, shape: &[usize], dtype: DType, device: &Device) -> Vec<f64> {
    let rule = rule(name, h.clone()).expect("a known optimizer");
    let count = shape.iter().product();
    let tensor = |seed| Tensor::from_f64(&numbers(seed, count), shape, dtype, device);
    let target = Target { shape: shape.to_vec(), ..target(count) };
    let mut parameter = tensor(1);
    let mut state: Vec<Tensor> =
        rule.state(&target).iter().map(|slot| Tensor::full(&slot.shape, 0.0, dtype, device)).collect();
    for number in 1..4 {
        rule.update(&target, &mut parameter, tensor(1 + number), &mut state, &step(number, rule.weight_decay()));
    }
    parameter.to_f64()
}

#[test]
fn matrices_move_alike_on_slices_and_on_tensors() {
    for name in ["adafactor", "muon"] {
        let h = json!({"weight_decay": 0.1});
        for shape in [vec![1, 1], vec![3, 40], vec![40, 3], vec![33, 33], vec![2, 3, 19, 17], vec![260, 300]] {
            let expected = updated(name, &h, &shape, DType::F64, &Device::ndarray());
            assert_close(&updated(name, &h, &shape, DType::F64, &Device::cpu()), &expected, 1e-12);
            for device in [Device::cpu(), Device::ndarray()] {
                assert_close(&updated(name, &h, &shape, DType::F32, &device), &expected, 1e-5);
            }
        }
    }
}

#[test]
fn matrices_are_the_same_among_any_number_of_threads() {
    for name in ["adafactor", "muon"] {
        let [one, two, three] = on_threads(|| updated(name, &json!({}), &[300, 350], DType::F32, &Device::cpu()));
        assert!(one == two && one == three, "{name}");
    }
}

#[test]
fn nothing_is_divided_by_a_norm_of_zero() {
    for name in ["lamb", "lars", "adafactor", "muon"] {
        for (shape, parameter, gradient) in
            [([3, 4], 0.0, 0.5), ([3, 4], 0.5, 0.0), ([3, 4], 0.0, 0.0), ([0, 4], 0.0, 0.0)]
        {
            let rule = rule(name, json!({})).expect("a known optimizer");
            let target = Target { shape: shape.to_vec(), role: Role::Kernel, hidden: true };
            let tensor = |value| Tensor::full(&shape, value, DType::F32, &Device::cpu());
            let mut state: Vec<Tensor> = rule
                .state(&target)
                .iter()
                .map(|slot| Tensor::full(&slot.shape, 0.0, DType::F32, &Device::cpu()))
                .collect();
            let mut found = tensor(parameter);
            rule.update(&target, &mut found, tensor(gradient), &mut state, &step(1, 0.0));
            let moved = found.to_f64().iter().any(|&value| value != parameter);
            assert!(found.to_f64().iter().all(|value| value.is_finite()), "{name}");
            assert_eq!(moved, gradient != 0.0, "{name} at {parameter} by {gradient}");
        }
    }
}
