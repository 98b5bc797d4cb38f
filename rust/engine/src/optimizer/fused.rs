//! Passes over the elements of a parameter: each formula a fused loop over CPU slices, or whole tensors on other devices.

use std::slice::ChunksExactMut;

use super::piece::{self, BLOCK, Buffer, Gradient, LANES, Padded, Piece};
use super::{Change, Rule, Slot, Squares, Step, Target};
use crate::Number;
use crate::cpu;
use crate::memory::Block;
use crate::tensor::{DType, Real, Tensor};
use crate::threads::join;

/// One look at every element: the new parameter, the new `S` arrays of state, and `K` terms that are added up.
pub(super) trait Pass<const S: usize, const K: usize>: Copy + Sync {
    /// Whether the parameter is written back.
    const WRITES_PARAMETER: bool = true;
    /// Whether the state is written back.
    const WRITES_STATE: bool = true;
    /// The formula, for one element or for whole tensors.
    fn apply<N: Number>(&self, parameter: N, gradient: N, state: [N; S]) -> (N, [N; S], [N; K]);
}

/// The terms whose sums are [`Squares`].
#[inline(always)]
pub(super) fn squares<N: Number>(before: N, after: N) -> [N; 2] {
    [before.clone().square(), (after - before).square()]
}

/// An element-wise rule over `S` arrays of state, in one pass.
pub(super) trait Formula<const S: usize>: std::fmt::Debug + Send + Sync {
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
pub(super) struct Elementwise<F, const S: usize>(pub F);

struct Update<F: Formula<S>, const S: usize>(F::Scalars);

impl<F: Formula<S>, const S: usize> Clone for Update<F, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Formula<S>, const S: usize> Copy for Update<F, S> {}

impl<F: Formula<S>, const S: usize> Pass<S, 2> for Update<F, S> {
    #[inline(always)]
    fn apply<N: Number>(&self, parameter: N, gradient: N, state: [N; S]) -> (N, [N; S], [N; 2]) {
        let (after, state) = F::apply(&self.0, parameter.clone(), gradient, state);
        (after.clone(), state, squares(parameter, after))
    }
}

impl<F: Formula<S>, const S: usize> Rule for Elementwise<F, S> {
    fn state(&self, target: &Target) -> Vec<Slot> {
        slots(F::STATE, target)
    }

    fn weight_decay(&self) -> f64 {
        self.0.weight_decay()
    }

    fn joins(&self) -> bool {
        let weight_decay = self.weight_decay();
        let step = Step { number: 1, learning_rate: 1.0, weight_decay, gradient_scale: 1.0 };
        let (after, state) = F::apply(&self.0.scalars(&step), 0.0_f64, 0.0, [0.0; S]);
        after == 0.0 && state.iter().all(|number| number.is_finite())
    }

    fn waits(&self) -> bool {
        false
    }

    fn update(
        &self,
        _: &Target,
        parameter: &mut Tensor,
        gradient: Tensor,
        state: &mut [Tensor],
        step: &Step,
    ) -> Change {
        let pass = Update::<F, S>(self.0.scalars(step));
        if parameter.is_cpu() {
            return Squares::of(run(&pass, parameter, &gradient, state, step.gradient_scale)).into();
        }
        Change::OnDevice(pass_over_tensors(&pass, parameter, &gradient, state, step.gradient_scale))
    }
}

/// Arrays of the parameter's shape.
pub(super) fn slots<const S: usize>(names: [&'static str; S], target: &Target) -> Vec<Slot> {
    names.map(|name| Slot { name, shape: target.shape.clone() }).into()
}

/// `g·scale` goes into the pass; returns the sums of its terms, the same for any number of threads.
pub(super) fn run<P: Pass<S, K>, const S: usize, const K: usize>(
    pass: &P,
    parameter: &mut Tensor,
    gradient: &Tensor,
    state: &mut [Tensor],
    scale: f64,
) -> [f64; K] {
    match parameter.dtype() {
        DType::F32 if parameter.is_cpu() => run_cpu::<f32, P, S, K>(pass, parameter, gradient, state, scale),
        DType::F64 if parameter.is_cpu() => run_cpu::<f64, P, S, K>(pass, parameter, gradient, state, scale),
        _ if K == 0 => {
            pass_over_tensors(pass, parameter, gradient, state, scale);
            [0.0; K]
        }
        _ => {
            let terms = pass_over_tensors(pass, parameter, gradient, state, scale);
            let sums = Tensor::joined(terms.map(sum_on_device).into()).numbers();
            *sums.first_chunk().expect("a number for each sum")
        }
    }
}

/// [`run`] on any device, which is not asked for the sums of the terms.
fn pass_over_tensors<P: Pass<S, K>, const S: usize, const K: usize>(
    pass: &P,
    parameter: &mut Tensor,
    gradient: &Tensor,
    state: &mut [Tensor],
    scale: f64,
) -> [Tensor; K] {
    let old: [Tensor; S] = std::array::from_fn(|index| state[index].clone());
    let (after, new, terms) = pass.apply(parameter.clone(), gradient.clone().times(scale), old);
    if P::WRITES_STATE {
        state.iter_mut().zip(new).for_each(|(state, new)| *state = new);
    }
    if P::WRITES_PARAMETER {
        *parameter = after;
    }
    terms
}

/// The sum of all elements, in 32 bits or more.
pub(super) fn sum(tensor: Tensor) -> f64 {
    sum_on_device(tensor).scalar()
}

/// The sum of all elements, in 32 bits or more, where the tensor is, `(1,)`.
pub(crate) fn sum_on_device(tensor: Tensor) -> Tensor {
    let wide = if tensor.dtype() == DType::F64 { tensor } else { tensor.cast(DType::F32) };
    let axes: Vec<usize> = (0..wide.rank()).collect();
    wide.sum_axes(&axes).reshape(&[1])
}

/// The sum of the squares of all elements, as [`sum_on_device`].
pub(crate) fn squares_on_device(tensor: &Tensor) -> Tensor {
    sum_on_device(tensor.clone().square())
}

fn run_cpu<E: Real, P: Pass<S, K>, const S: usize, const K: usize>(
    pass: &P,
    parameter: &mut Tensor,
    gradient: &Tensor,
    state: &mut [Tensor],
    scale: f64,
) -> [f64; K] {
    let dense;
    let gradient = match gradient.rows() {
        Some(rows) => Gradient::of_rows(rows),
        None => {
            dense = gradient.clone().contiguous::<E>();
            Gradient::Dense(dense.elements())
        }
    };
    let mut states = state.iter_mut().map(Tensor::elements_mut::<E>);
    let states: [&mut [E]; S] = std::array::from_fn(|_| states.next().expect("as many arrays as the rule names"));
    run_slices(pass, parameter.elements_mut::<E>(), gradient, states, scale)
}

/// See [`run`].
pub(super) fn run_slices<E: Real, P: Pass<S, K>, const S: usize, const K: usize>(
    pass: &P,
    parameter: &mut [E],
    gradient: Gradient<'_, E>,
    state: [&mut [E]; S],
    scale: f64,
) -> [f64; K] {
    let count = parameter.len();
    // One sum more for what does not fill the registers.
    let mut sums = Block::full(K * (count.div_ceil(BLOCK) + 1), 0.0);
    let length = cpu::piece(count).next_multiple_of(BLOCK);
    shared_out(pass, E::from_f64(scale), length, Piece { parameter, gradient, state }, &mut sums);
    let blocks = sums.chunks_exact(K.max(1));
    blocks.fold([0.0; K], |sum, block| std::array::from_fn(|index| sum[index] + block[index]))
}

/// Splits at whole blocks, so that the sums do not depend on the number of threads.
fn shared_out<E: Real, P: Pass<S, K>, const S: usize, const K: usize>(
    pass: &P,
    scale: E,
    length: usize,
    mut rest: Piece<'_, E, S>,
    sums: &mut [f64],
) {
    let count = rest.parameter.len();
    if count <= length {
        return pass_over(pass, scale, rest, sums);
    }
    let half = count.div_ceil(length) / 2 * length;
    let first = rest.split_off(half);
    let (sums, rest_sums) = sums.split_at_mut(half / BLOCK * K);
    join(|| shared_out(pass, scale, length, first, sums), || shared_out(pass, scale, length, rest, rest_sums));
}

/// Passes over a piece on the calling thread; leaves the sums of its blocks.
fn pass_over<E: Real, P: Pass<S, K>, const S: usize, const K: usize>(
    pass: &P,
    scale: E,
    mut rest: Piece<'_, E, S>,
    sums: &mut [f64],
) {
    let count = rest.parameter.len();
    let whole = rest.split_off(count / LANES * LANES);
    let mut padded = Padded::new(&rest);
    let some = !rest.parameter.is_empty();
    // A loop, so that the formula is compiled once for whole registers and the rest.
    let mut parts = [Some((whole, LANES)), some.then(|| (padded.piece(), rest.parameter.len()))];
    let mut sums = sums.chunks_exact_mut(K.max(1));
    cpu::vectorised!({
        // Copied, so that what the formula makes of its constants is made once and stays in registers.
        let pass = *pass;
        for (piece, valid) in parts.iter_mut().flatten() {
            fused(&pass, scale, piece, *valid, &mut sums);
        }
    });
    padded.put_back(rest);
}

/// One pass over whole registers, of which `valid` lanes are added up: each element is read and written once.
#[inline(always)]
fn fused<E: Real, P: Pass<S, K>, const S: usize, const K: usize>(
    pass: &P,
    scale: E,
    piece: &mut Piece<'_, E, S>,
    valid: usize,
    sums: &mut ChunksExactMut<'_, f64>,
) {
    let mut buffer = Buffer::<E, BLOCK>::new();
    while let Some(block) = piece.next(&mut buffer) {
        let terms = lanes(pass, scale, block, valid);
        let sums = sums.next().into_iter().flatten();
        sums.zip(&terms).for_each(|(sum, lanes)| *sum = lanes.iter().map(|value| value.to_f64()).sum());
    }
}

/// One pass over a block; returns its terms by lane.
#[inline(always)]
fn lanes<E: Real, P: Pass<S, K>, const S: usize, const K: usize>(
    pass: &P,
    scale: E,
    block: piece::Block<'_, '_, E, S>,
    valid: usize,
) -> [[E; LANES]; K] {
    let mut terms = [[E::default(); LANES]; K];
    let (parameters, _) = block.parameter.as_chunks_mut::<LANES>();
    let count = parameters.len();
    let gradients = &block.gradient.as_chunks::<LANES>().0[..count];
    let mut states = block.state.map(|state| &mut state.as_chunks_mut::<LANES>().0[..count]);
    for index in 0..count {
        let (mut parameter, gradient) = (parameters[index], gradients[index]);
        let mut state = [[E::default(); LANES]; S];
        (0..S).for_each(|k| state[k] = states[k][index]);
        for lane in 0..LANES {
            let old = std::array::from_fn(|k| state[k][lane]);
            let (after, new, added) = pass.apply(parameter[lane], gradient[lane] * scale, old);
            parameter[lane] = after;
            (0..S).for_each(|k| state[k][lane] = new[k]);
            (0..K).for_each(|k| terms[k][lane] = terms[k][lane] + if lane < valid { added[k] } else { E::default() });
        }
        if P::WRITES_PARAMETER {
            parameters[index] = parameter;
        }
        if P::WRITES_STATE {
            (0..S).for_each(|k| states[k][index] = state[k]);
        }
    }
    terms
}

/// The sum of the squares of all elements; not finite if and only if an element is not (or squares overflow 64 bits).
pub(crate) fn sum_squares(tensor: &Tensor) -> f64 {
    if let Some(rows) = tensor.rows() {
        return sum_squares(rows.values());
    }
    if let Some(values) = tensor.as_slice::<f32>() {
        return blocked(values, values, block_squares);
    }
    if let Some(values) = tensor.as_slice::<f64>() {
        return blocked(values, values, block_squares);
    }
    wide_squares(tensor, squares_on_device(tensor).scalar())
}

/// [`sum_squares`] where a device found this: all elements come from there only if their squares overflowed its type.
pub(crate) fn wide_squares(tensor: &Tensor, found: f64) -> f64 {
    if found.is_finite() { found } else { tensor.to_f64().iter().map(|value| value * value).sum() }
}

/// The sum of the products of two arrays' elements.
pub(crate) fn dot(a: &Tensor, b: &Tensor) -> f64 {
    if let (Some(a), Some(b)) = (a.as_slice::<f32>(), b.as_slice::<f32>()) {
        return blocked(a, b, block_products);
    }
    if let (Some(a), Some(b)) = (a.as_slice::<f64>(), b.as_slice::<f64>()) {
        return blocked(a, b, block_products);
    }
    sum(a.clone() * b.clone())
}

/// Adds up what `block` makes of each block, the same for any number of threads.
fn blocked<E: Real>(a: &[E], b: &[E], block: impl Fn(&[E], &[E]) -> f64 + Sync) -> f64 {
    let mut sums = Block::full(a.len().div_ceil(BLOCK), 0.0);
    let work = |first: usize, sums: &mut [f64]| {
        let blocks = a[first * BLOCK..].chunks(BLOCK).zip(b[first * BLOCK..].chunks(BLOCK));
        sums.iter_mut().zip(blocks).for_each(|(sum, (a, b))| *sum = block(a, b));
    };
    let length = cpu::piece(a.len()).div_ceil(BLOCK);
    cpu::for_chunks(&mut sums, length, work);
    sums.iter().sum()
}

fn block_products<E: Real>(a: &[E], b: &[E]) -> f64 {
    cpu::vectorised!({
        let mut sums = [E::default(); LANES];
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        for (a, b) in a.iter().zip(b) {
            for lane in 0..LANES {
                sums[lane] = sums[lane] + a[lane] * b[lane];
            }
        }
        let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a.to_f64() * b.to_f64()).sum();
        sums.iter().map(|value| value.to_f64()).sum::<f64>() + rest
    })
}

fn block_squares<E: Real>(block: &[E], _: &[E]) -> f64 {
    let sum = block_products(block, block);
    if sum.is_infinite() {
        // Squares of large 32-bit numbers overflow: again in 64 bits.
        return block.iter().map(|value| value.to_f64() * value.to_f64()).sum();
    }
    sum
}
