//! Update rules: each formula written once, run as a fused loop over CPU slices or over tensors of any device.

mod adam;
mod rmsprop;
mod sgd;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::cpu;
use crate::program::Role;
use crate::tensor::{DType, Real, Tensor};
use crate::{Error, Number, Result};

/// What one update of one parameter depends on besides its arrays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The count of updates of this parameter, from 1.
    pub number: u64,
    /// The learning rate.
    pub learning_rate: f64,
    /// The weight decay of this parameter.
    pub weight_decay: f64,
    /// What the gradient is multiplied by first: clipping, and the mean over accumulated samples.
    pub gradient_scale: f64,
}

/// Sums of squares that an update leaves behind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Squares {
    /// Of the parameter before the update.
    pub parameter: f64,
    /// Of the change.
    pub update: f64,
}

impl Squares {
    /// The norm of the change over that of the parameter.
    pub fn ratio(&self) -> f64 {
        (self.update / self.parameter).sqrt()
    }
}

/// What a rule may know of a parameter besides its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The lengths of the axes.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
    /// Whether another kernel is used behind it: it is no part of the output layer.
    pub hidden: bool,
}

/// An array that a rule keeps for a parameter; it starts at 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: &'static str,
    /// The lengths of the axes.
    pub shape: Vec<usize>,
}

/// An update rule with its hyperparameters.
pub trait Rule: std::fmt::Debug + Send + Sync {
    /// The arrays that it keeps for a parameter.
    fn state(&self, target: &Target) -> Vec<Slot>;
    /// The weight decay of parameters that no group says otherwise of.
    fn weight_decay(&self) -> f64;
    /// Updates a parameter and its state in place.
    fn update(
        &self,
        target: &Target,
        parameter: &mut Tensor,
        gradient: Tensor,
        state: &mut [Tensor],
        step: &Step,
    ) -> Squares;
}

/// An element-wise rule over `S` arrays of state.
trait Formula<const S: usize>: std::fmt::Debug + Send + Sync {
    /// The names of the state, arrays of the parameter's shape.
    const STATE: [&'static str; S];
    /// Numbers computed once per update, in 64 bits (bias corrections in 32 bits are off by up to 1.4e-5).
    type Scalars: Copy + Send + Sync;
    /// Computes them.
    fn scalars(&self, step: &Step) -> Self::Scalars;
    /// See [`Rule::weight_decay`].
    fn weight_decay(&self) -> f64;
    /// The new parameter and state of one element.
    fn apply<N: Number>(scalars: &Self::Scalars, parameter: N, gradient: N, state: [N; S]) -> (N, [N; S]);
}

/// Makes a [`Rule`] of a [`Formula`].
#[derive(Debug)]
struct Elementwise<F, const S: usize>(F);

impl<F: Formula<S>, const S: usize> Rule for Elementwise<F, S> {
    fn state(&self, target: &Target) -> Vec<Slot> {
        F::STATE.map(|name| Slot { name, shape: target.shape.clone() }).into()
    }

    fn weight_decay(&self) -> f64 {
        self.0.weight_decay()
    }

    fn update(
        &self,
        _: &Target,
        parameter: &mut Tensor,
        gradient: Tensor,
        state: &mut [Tensor],
        step: &Step,
    ) -> Squares {
        let scalars = self.0.scalars(step);
        match parameter.dtype() {
            DType::F32 if parameter.is_cpu() => update_cpu::<f32, F, S>(&scalars, parameter, gradient, state, step),
            DType::F64 if parameter.is_cpu() => update_cpu::<f64, F, S>(&scalars, parameter, gradient, state, step),
            _ => update_tensors::<F, S>(&scalars, parameter, gradient, state, step),
        }
    }
}

fn update_tensors<F: Formula<S>, const S: usize>(
    scalars: &F::Scalars,
    parameter: &mut Tensor,
    gradient: Tensor,
    state: &mut [Tensor],
    step: &Step,
) -> Squares {
    let before = parameter.clone();
    let gradient = gradient.times(step.gradient_scale);
    let old: [Tensor; S] = std::array::from_fn(|index| state[index].clone());
    let (after, new) = F::apply(scalars, before.clone(), gradient, old);
    state.iter_mut().zip(new).for_each(|(state, new)| *state = new);
    *parameter = after.clone();
    Squares { parameter: sum_squares(&before), update: sum_squares(&(after - before)) }
}

/// Elements that one pass handles in registers: whole vectors of every width, and no alias to check.
const LANES: usize = 16;

/// Elements summed in the parameter's own type before the sum goes on in 64 bits.
const BLOCK: usize = 64 * LANES;

fn update_cpu<E: Real, F: Formula<S>, const S: usize>(
    scalars: &F::Scalars,
    parameter: &mut Tensor,
    gradient: Tensor,
    state: &mut [Tensor],
    step: &Step,
) -> Squares {
    let gradient = gradient.contiguous::<E>();
    let gradient = gradient.elements::<E>();
    let parameter = parameter.elements_mut::<E>();
    let count = parameter.len();
    let mut rest = parameter;
    let mut states: Vec<&mut [E]> = state.iter_mut().map(Tensor::elements_mut::<E>).collect();
    // Pieces are whole blocks, so that the sums do not depend on the number of threads.
    let length = cpu::piece(count).next_multiple_of(BLOCK);
    let mut tasks = Vec::with_capacity(count.div_ceil(length.max(1)));
    let mut offset = 0;
    while !rest.is_empty() {
        let take = length.min(rest.len());
        let (piece, tail) = rest.split_at_mut(take);
        rest = tail;
        let state: [&mut [E]; S] = std::array::from_fn(|index| {
            let all = std::mem::take(&mut states[index]);
            let (piece, tail) = all.split_at_mut(take);
            states[index] = tail;
            piece
        });
        tasks.push((piece, &gradient[offset..offset + take], state));
        offset += take;
    }
    run_tasks::<E, F, S>(scalars, E::from_f64(step.gradient_scale), tasks)
}

type Task<'a, E, const S: usize> = (&'a mut [E], &'a [E], [&'a mut [E]; S]);

fn run_tasks<E: Real, F: Formula<S>, const S: usize>(
    scalars: &F::Scalars,
    scale: E,
    tasks: Vec<Task<'_, E, S>>,
) -> Squares {
    use rayon::prelude::*;
    let run = |(parameter, gradient, state): Task<'_, E, S>| {
        let mut sums = Vec::with_capacity(parameter.len().div_ceil(BLOCK));
        cpu::vectorised!(fused::<E, F, S>(scalars, scale, parameter, gradient, state, &mut sums));
        sums
    };
    let sums: Vec<Vec<Squares>> = match tasks.len() {
        0 | 1 => tasks.into_iter().map(run).collect(),
        _ => tasks.into_par_iter().map(run).collect(),
    };
    sums.into_iter().flatten().fold(Squares::default(), |sum, block| Squares {
        parameter: sum.parameter + block.parameter,
        update: sum.update + block.update,
    })
}

/// One pass over a piece: each element is read and written once.
#[inline(always)]
fn fused<E: Real, F: Formula<S>, const S: usize>(
    scalars: &F::Scalars,
    scale: E,
    parameter: &mut [E],
    gradient: &[E],
    mut state: [&mut [E]; S],
    sums: &mut Vec<Squares>,
) {
    let count = parameter.len();
    let mut start = 0;
    while start < count {
        let stop = (start + BLOCK).min(count);
        let mut squares = [[E::default(); LANES]; 2];
        while start + LANES <= stop {
            lanes::<E, F, S>(scalars, scale, parameter, gradient, &mut state, start, &mut squares);
            start += LANES;
        }
        for index in start..stop {
            let old: [E; S] = std::array::from_fn(|k| state[k][index]);
            let (after, new) = F::apply(scalars, parameter[index], gradient[index] * scale, old);
            (0..S).for_each(|k| state[k][index] = new[k]);
            add_squares(&mut squares, 0, parameter[index], after);
            parameter[index] = after;
        }
        start = stop;
        let total = |lanes: &[E; LANES]| lanes.iter().map(|value| value.to_f64()).sum();
        sums.push(Squares { parameter: total(&squares[0]), update: total(&squares[1]) });
    }
}

#[inline(always)]
fn lanes<E: Real, F: Formula<S>, const S: usize>(
    scalars: &F::Scalars,
    scale: E,
    parameter: &mut [E],
    gradient: &[E],
    state: &mut [&mut [E]; S],
    start: usize,
    squares: &mut [[E; LANES]; 2],
) {
    let load = |values: &[E]| -> [E; LANES] { values[start..start + LANES].try_into().expect("LANES long") };
    let (before, gradient) = (load(parameter), load(gradient));
    let mut old = [[E::default(); LANES]; S];
    (0..S).for_each(|k| old[k] = load(state[k]));
    let mut after = before;
    for lane in 0..LANES {
        let mine: [E; S] = std::array::from_fn(|k| old[k][lane]);
        let (value, new) = F::apply(scalars, before[lane], gradient[lane] * scale, mine);
        after[lane] = value;
        (0..S).for_each(|k| old[k][lane] = new[k]);
        add_squares(squares, lane, before[lane], value);
    }
    parameter[start..start + LANES].copy_from_slice(&after);
    (0..S).for_each(|k| state[k][start..start + LANES].copy_from_slice(&old[k]));
}

#[inline(always)]
fn add_squares<E: Real>(squares: &mut [[E; LANES]; 2], lane: usize, before: E, after: E) {
    let change = after - before;
    squares[0][lane] = squares[0][lane] + before * before;
    squares[1][lane] = squares[1][lane] + change * change;
}

/// The sum of the squares of all elements; not finite if and only if an element is not (or squares overflow 64 bits).
pub(crate) fn sum_squares(tensor: &Tensor) -> f64 {
    fn blocked<E: Real>(values: &[E]) -> f64 {
        let mut blocks = vec![0.0; values.len().div_ceil(BLOCK)];
        cpu::for_pieces(&mut blocks, |offset, piece| {
            cpu::vectorised!({
                for (sum, block) in piece.iter_mut().zip(values[offset * BLOCK..].chunks(BLOCK)) {
                    *sum = block_squares(block);
                }
            });
        });
        blocks.iter().sum()
    }
    if let Some(values) = tensor.as_slice::<f32>() {
        return blocked(values);
    }
    if let Some(values) = tensor.as_slice::<f64>() {
        return blocked(values);
    }
    // One number comes from the device; all of them only if squares overflowed its type.
    let wide = if tensor.dtype() == DType::F64 { tensor.clone() } else { tensor.clone().cast(DType::F32) };
    let axes: Vec<usize> = (0..wide.rank()).collect();
    let sum = wide.clone().square().sum_axes(&axes).scalar();
    if sum.is_finite() { sum } else { wide.to_f64().iter().map(|value| value * value).sum() }
}

#[inline(always)]
fn block_squares<E: Real>(block: &[E]) -> f64 {
    let mut sums = [E::default(); LANES];
    let (whole, rest) = block.as_chunks::<LANES>();
    for lanes in whole {
        for (sum, &value) in sums.iter_mut().zip(lanes) {
            *sum = *sum + value * value;
        }
    }
    let sum: f64 = sums.iter().map(|value| value.to_f64()).sum();
    let sum = sum + rest.iter().map(|value| value.to_f64() * value.to_f64()).sum::<f64>();
    if sum.is_infinite() {
        // Squares of large 32-bit numbers overflow: again in 64 bits.
        return block.iter().map(|value| value.to_f64() * value.to_f64()).sum();
    }
    sum
}

/// A line of the list of optimizers.
struct Entry {
    name: &'static str,
    make: fn(Json) -> std::result::Result<Box<dyn Rule>, serde_json::Error>,
    defaults: fn() -> Json,
}

/// Optimizers by name: hyperparameters with their defaults, and the rule that they give.
trait Hyperparameters: DeserializeOwned + serde::Serialize + Default {
    /// The learning rate when none is given.
    const LEARNING_RATE: f64;
    /// The rule.
    fn rule(self) -> Box<dyn Rule>;
}

const fn entry<H: Hyperparameters>(name: &'static str) -> Entry {
    Entry {
        name,
        make: |json| Ok(serde_json::from_value::<H>(json)?.rule()),
        defaults: || {
            let mut json = serde_json::to_value(H::default()).expect("plain numbers");
            json["learning_rate"] = H::LEARNING_RATE.into();
            json
        },
    }
}

const OPTIMIZERS: &[Entry] = &[
    entry::<sgd::Sgd>("sgd"),
    entry::<adam::Adam>("adam"),
    entry::<adam::AdamW>("adamw"),
    entry::<rmsprop::RmsProp>("rmsprop"),
];

/// The rule of a name with its hyperparameters.
pub fn rule(name: &str, hyperparameters: Json) -> Result<Box<dyn Rule>> {
    let entry = OPTIMIZERS
        .iter()
        .find(|entry| entry.name == name)
        .ok_or_else(|| Error::Missing(format!("unknown optimizer {name:?}")))?;
    (entry.make)(hyperparameters).map_err(|error| Error::value(format!("optimizer {name}: {error}")))
}

/// Every optimizer's hyperparameters with their defaults, `learning_rate` among them.
pub fn defaults() -> BTreeMap<&'static str, Json> {
    OPTIMIZERS.iter().map(|entry| (entry.name, (entry.defaults)())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Device;
    use crate::testing::{assert_close, numbers, on_threads};

    /// The rules as SEMANTICS' sources write them, one number at a time.
    fn plain(name: &str, h: &Json, step: &Step, p: f64, g: f64, state: &mut [f64]) -> f64 {
        let defaults = &defaults()[name];
        let value = |key: &str| h.get(key).unwrap_or(&defaults[key]);
        let number = |key: &str| value(key).as_f64().expect("a number");
        let truth = |key: &str| value(key).as_bool().expect("a truth value");
        let (rate, t) = (step.learning_rate, step.number as f64);
        let decay = step.weight_decay;
        let g = g * step.gradient_scale + if name == "adamw" { 0.0 } else { decay * p };
        match name {
            "sgd" if number("momentum") == 0.0 => p - rate * g,
            "sgd" => {
                let momentum = number("momentum");
                let first = step.number == 1;
                state[0] = if first { g } else { momentum * state[0] + (1.0 - number("dampening")) * g };
                p - rate * if truth("nesterov") { g + momentum * state[0] } else { state[0] }
            }
            "adam" | "adamw" => {
                let beta = |index: usize| value("betas")[index].as_f64().expect("a number");
                let p = if name == "adamw" { p * (1.0 - rate * decay) } else { p };
                state[0] = beta(0) * state[0] + (1.0 - beta(0)) * g;
                state[1] = beta(1) * state[1] + (1.0 - beta(1)) * g * g;
                let mut v = state[1];
                if truth("amsgrad") {
                    state[2] = state[2].max(v);
                    v = state[2];
                }
                let m = state[0] / (1.0 - beta(0).powf(t));
                p - rate * m / ((v / (1.0 - beta(1).powf(t))).sqrt() + number("eps"))
            }
            "rmsprop" => {
                let (alpha, centered) = (number("alpha"), truth("centered"));
                state[0] = alpha * state[0] + (1.0 - alpha) * g * g;
                let mut variance = state[0];
                if centered {
                    state[1] = alpha * state[1] + (1.0 - alpha) * g;
                    variance -= state[1] * state[1];
                }
                let direction = g / (variance.sqrt() + number("eps"));
                let Some(buffer) = state.get_mut(1 + usize::from(centered)) else {
                    return p - rate * direction;
                };
                *buffer = number("momentum") * *buffer + direction;
                p - rate * *buffer
            }
            other => panic!("no plain formula of {other}: write one"),
        }
    }

    /// Every optimizer of the list with its defaults, and every branch of its formula.
    fn configurations() -> Vec<(&'static str, Json)> {
        let mut all: Vec<(&str, Json)> = OPTIMIZERS.iter().map(|entry| (entry.name, json!({}))).collect();
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
        ]);
        all
    }

    fn target(count: usize) -> Target {
        Target { shape: vec![count], role: Role::Kernel, hidden: true }
    }

    /// Parameter, state and sums after some steps on a device.
    fn steps(name: &str, h: &Json, count: usize, dtype: DType, device: &Device) -> (Vec<f64>, Vec<f64>, Vec<Squares>) {
        let rule = rule(name, h.clone()).expect("a known optimizer");
        let tensor = |seed| Tensor::from_f64(numbers(seed, count), &[count], dtype, device);
        let mut parameter = tensor(1);
        let target = target(count);
        let mut state: Vec<Tensor> =
            rule.state(&target).iter().map(|slot| Tensor::full(&slot.shape, 0.0, dtype, device)).collect();
        let squares = (1..4)
            .map(|number| {
                let step = step(number, rule.weight_decay());
                rule.update(&target, &mut parameter, tensor(1 + number), &mut state, &step)
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
            let mut sums = Squares::default();
            for ((p, g), state) in parameter.iter_mut().zip(numbers(1 + number, count)).zip(&mut state) {
                let after = plain(name, h, &step(number, rule.weight_decay()), *p, g, state);
                sums.parameter += *p * *p;
                sums.update += (after - *p) * (after - *p);
                *p = after;
            }
            squares.push(sums);
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
        let values = Tensor::from_f64(numbers(5, count), &[count], DType::F32, &Device::cpu());
        let [one, two, three] = on_threads(|| sum_squares(&values));
        assert!(one == two && one == three);
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
}
