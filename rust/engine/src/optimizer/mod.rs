//! Update rules: each formula written once, run as a fused loop over CPU slices or over tensors of any device.

mod adam;
mod rmsprop;
mod sgd;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::cpu;
use crate::tensor::{DType, Real, Tensor};
use crate::{Error, Number, Result};

/// What one update of one parameter depends on besides its arrays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The count of updates of this parameter, from 1.
    pub number: u64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Whether weight decay applies to this parameter.
    pub decay: bool,
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

/// An update rule with its hyperparameters.
pub trait Rule: std::fmt::Debug + Send + Sync {
    /// The names of the arrays that it keeps for each parameter, all starting at 0.
    fn state(&self) -> &'static [&'static str];
    /// Updates a parameter and its state in place.
    fn update(&self, parameter: &mut Tensor, gradient: Tensor, state: &mut [Tensor], step: &Step) -> Squares;
}

/// An element-wise rule over `S` arrays of state.
trait Formula<const S: usize>: std::fmt::Debug + Send + Sync {
    /// The names of the state.
    const STATE: [&'static str; S];
    /// Numbers computed once per update, in 64 bits (bias corrections in 32 bits are off by up to 1.4e-5).
    type Scalars: Copy + Send + Sync;
    /// Computes them.
    fn scalars(&self, step: &Step) -> Self::Scalars;
    /// The new parameter and state of one element.
    fn apply<N: Number>(scalars: &Self::Scalars, parameter: N, gradient: N, state: [N; S]) -> (N, [N; S]);
}

/// Makes a [`Rule`] of a [`Formula`].
#[derive(Debug)]
struct Elementwise<F, const S: usize>(F);

impl<F: Formula<S>, const S: usize> Rule for Elementwise<F, S> {
    fn state(&self) -> &'static [&'static str] {
        const { &F::STATE }
    }

    fn update(&self, parameter: &mut Tensor, gradient: Tensor, state: &mut [Tensor], step: &Step) -> Squares {
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
    let gradient = gradient.contiguous_cpu::<E>().expect("gradients have the parameter's type");
    let gradient = gradient.as_slice::<E>().expect("contiguous");
    let parameter = unique::<E>(parameter);
    let count = parameter.len();
    let mut rest = parameter;
    let mut states: Vec<&mut [E]> = state.iter_mut().map(unique::<E>).collect();
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

/// The elements for writing; copied first if somebody else holds the storage.
fn unique<E: Real>(tensor: &mut Tensor) -> &mut [E] {
    if tensor.as_mut_slice::<E>().is_none() {
        let shape = tensor.shape();
        *tensor = Tensor::from_vec(tensor.clone().into_vec::<E>(), &shape);
    }
    tensor.as_mut_slice::<E>().expect("just made unique")
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
    tensor.clone().cast(DType::F32).to_f64().iter().map(|value| value * value).sum()
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
