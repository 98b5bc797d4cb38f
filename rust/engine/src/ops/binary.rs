//! Functions of two numbers with NumPy broadcasting.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Deserialize;
use smallvec::smallvec;

use super::reduction::sum_to;
use super::{Arithmetic, Context, Entry, Evaluation, Gradients, Keeps, Kept, Operation, Reach, Tensors, entry};
use crate::Number;
use crate::cpu;
use crate::memory::Block;
use crate::program::{Kind, Type, broadcast, broadcast_lengths};
use crate::tensor::{Comparison, DType, Real, Tensor};

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] = &[
    entry::<Binary<Add>>("add", 2, Some(2)),
    entry::<Binary<Subtract>>("subtract", 2, Some(2)),
    entry::<Binary<Multiply>>("multiply", 2, Some(2)),
    entry::<Binary<Divide>>("divide", 2, Some(2)),
    entry::<Binary<Power>>("power", 2, Some(2)),
    entry::<Binary<Maximum>>("maximum", 2, Some(2)),
    entry::<Binary<Minimum>>("minimum", 2, Some(2)),
];

/// A function of two numbers: once for CPU loops, once for tensors.
trait Formula {
    fn real<E: Real>(a: E, b: E) -> E;
    fn tensor(a: Tensor, b: Tensor) -> Tensor;
}

/// A formula with its gradients, which come in the shape of the output.
trait Pair: Formula + Debug + Send + Sync {
    /// Whether it is defined for integers too.
    const INTS: bool;
    const KEEPS: Keeps;
    const ARITHMETIC: Arithmetic = Arithmetic::Any;
    fn left(kept: &Kept, gradient: Tensor) -> Tensor;
    fn right(kept: &Kept, gradient: Tensor) -> Tensor;
}

/// The operation of a [`Pair`]: shapes `a` and `b` broadcast.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
struct Binary<P> {
    #[serde(skip)]
    pair: PhantomData<P>,
}

impl<P: Pair> Operation for Binary<P> {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let (a, b) = (inputs[0], inputs[1]);
        if a.kind != b.kind {
            return Err(format!("expected two values of one kind, got {a} and {b}"));
        }
        if !(a.kind == Kind::Float || P::INTS && a.kind == Kind::Int) {
            let kinds = if P::INTS { "float or int" } else { "float" };
            return Err(format!("expected {kinds} values, got {a} and {b}"));
        }
        Ok(Type { kind: a.kind, shape: broadcast(&[&a.shape, &b.shape])? })
    }

    fn arithmetic(&self) -> Arithmetic {
        P::ARITHMETIC
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let (b, a) = (inputs.pop().expect("b"), inputs.pop().expect("a"));
        apply::<P>(a, b).into()
    }

    fn keeps(&self) -> Keeps {
        P::KEEPS
    }

    fn gradient(&self, kept: Kept, gradient: Tensor, wanted: &[bool]) -> Gradients {
        let left = wanted[0].then(|| sum_to(P::left(&kept, gradient.clone()), &kept.shapes[0]));
        let right = wanted[1].then(|| sum_to(P::right(&kept, gradient), &kept.shapes[1]));
        smallvec![left, right]
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Element
    }
}

/// The operation of [`multiply`].
pub(super) fn product() -> Arc<dyn Operation> {
    Arc::new(Binary::<Multiply> { pair: PhantomData })
}

/// `a · b`, broadcasting.
pub(super) fn multiply(a: Tensor, b: Tensor) -> Tensor {
    apply::<Multiply>(a, b)
}

/// `a / b`, broadcasting.
pub(super) fn divide(a: Tensor, b: Tensor) -> Tensor {
    apply::<Divide>(a, b)
}

fn apply<F: Formula>(a: Tensor, b: Tensor) -> Tensor {
    match a.dtype() {
        DType::F32 if a.is_cpu() => apply_cpu::<f32, F>(a, b),
        DType::F64 if a.is_cpu() => apply_cpu::<f64, F>(a, b),
        _ => F::tensor(a, b),
    }
}

fn apply_cpu<E: Real, F: Formula>(a: Tensor, b: Tensor) -> Tensor {
    let shape = broadcast_lengths(&[&a.shape(), &b.shape()]);
    let count: usize = shape.iter().product();
    let patterns = (Pattern::of(&a.shape(), &shape), Pattern::of(&b.shape(), &shape));
    let (Some(left), Some(right)) = patterns else {
        return F::tensor(a, b);
    };
    let contiguous = |tensor: Tensor| tensor.contiguous::<E>();
    let (mut a, mut b) = (contiguous(a), contiguous(b));
    let width = left.run_length().min(right.run_length());
    // Equal shapes, not only lengths: the output takes over the shape with the storage.
    if a.shape() == shape
        && let Some(out) = a.as_mut_slice::<E>()
    {
        let b = b.elements::<E>();
        for_runs(out, width, |offset, out| merge(out, right.run(b, offset, out.len()), F::real));
        return a;
    }
    if b.shape() == shape
        && let Some(out) = b.as_mut_slice::<E>()
    {
        let a = a.elements::<E>();
        for_runs(out, width, |offset, out| merge(out, left.run(a, offset, out.len()), |y, x| F::real(x, y)));
        return b;
    }
    let (a, b) = (a.elements::<E>(), b.elements::<E>());
    let mut out = Block::<E>::uninitialised(count);
    for_runs(&mut out, width, |offset, out| {
        place(out, left.run(a, offset, out.len()));
        merge(out, right.run(b, offset, out.len()), F::real);
    });
    Tensor::from_block(out, &shape)
}

/// How an operand repeats in the output: output element `i` reads its element `i / repeat % period`.
#[derive(Clone, Copy, Debug)]
struct Pattern {
    period: usize,
    repeat: usize,
}

impl Pattern {
    /// The pattern of a shape in a broader one, if its own axes are adjacent.
    fn of(shape: &[usize], out: &[usize]) -> Option<Self> {
        let added = out.len() - shape.len();
        let Some(first) = shape.iter().position(|&length| length != 1) else {
            return Some(Self { period: 1, repeat: out.iter().product() });
        };
        let end = shape.iter().rposition(|&length| length != 1).map_or(shape.len(), |last| last + 1);
        let own = &out[added + first..added + end];
        (own == &shape[first..end])
            .then(|| Self { period: own.iter().product(), repeat: out[added + end..].iter().product() })
    }

    /// How many neighbours in the output read either one element or neighbours.
    fn run_length(self) -> usize {
        if self.repeat == 1 { self.period } else { self.repeat }
    }

    /// What `length` elements of the output from `offset` on read, all within one run.
    #[inline(always)]
    fn run<E: Real>(self, values: &[E], offset: usize, length: usize) -> Run<'_, E> {
        if self.repeat == 1 && self.period > 1 {
            let start = offset % self.period;
            Run::Slice(&values[start..start + length])
        } else {
            Run::Value(values[offset / self.repeat % self.period])
        }
    }
}

enum Run<'a, E> {
    Slice(&'a [E]),
    Value(E),
}

/// Elements that are copied and combined while they stay in the first cache.
const BLOCK: usize = 2048;

/// Calls `body(offset, run)` on runs of at most `width` elements, which never straddle a multiple of `width`.
fn for_runs<E: Real>(out: &mut [E], width: usize, body: impl Fn(usize, &mut [E]) + Sync) {
    let whole = width == out.len();
    let step = if whole { BLOCK } else { width };
    let pieces = |start: usize, piece: &mut [E]| {
        cpu::vectorised!({
            for (index, run) in piece.chunks_mut(step).enumerate() {
                body(start + index * step, run);
            }
        });
    };
    if out.is_empty() {
        return;
    }
    if whole {
        return cpu::for_pieces(out, pieces);
    }
    cpu::for_rows(out, width, |row, rows| pieces(row * width, rows));
}

#[inline(always)]
fn place<E: Real>(out: &mut [E], run: Run<'_, E>) {
    match run {
        Run::Slice(values) => out.copy_from_slice(values),
        Run::Value(value) => out.fill(value),
    }
}

/// `out = function(out, run)`
#[inline(always)]
fn merge<E: Real>(out: &mut [E], run: Run<'_, E>, function: impl Fn(E, E) -> E) {
    match run {
        Run::Slice(values) => {
            for (out, &value) in out.iter_mut().zip(values) {
                *out = function(*out, value);
            }
        }
        Run::Value(value) => {
            for out in out {
                *out = function(*out, value);
            }
        }
    }
}

/// Declares formulas: name, for numbers, for tensors.
macro_rules! formulas {
    ($($(#[$doc:meta])* $type:ident, |$a:ident, $b:ident| $real:expr, |$x:ident, $y:ident| $tensor:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            struct $type;

            impl Formula for $type {
                #[inline(always)]
                fn real<E: Real>($a: E, $b: E) -> E { $real }
                fn tensor($x: Tensor, $y: Tensor) -> Tensor { $tensor }
            }
        )*
    };
}

formulas! {
    /// `a + b`
    Add, |a, b| a + b, |a, b| a + b;
    /// `a - b`
    Subtract, |a, b| a - b, |a, b| a - b;
    /// `a · b`
    Multiply, |a, b| a * b, |a, b| a * b;
    /// `a / b`
    Divide, |a, b| a / b, |a, b| a / b;
    /// `a ^ b`
    Power, |a, b| E::from_f64(a.to_f64().powf(b.to_f64())), |a, b| a.power(b);
    /// The larger of two; NaN if either is
    Maximum, |a, b| a.greater_of(b), |a, b| a.greater_of(b);
    /// The smaller of two; NaN if either is
    Minimum, |a, b| a.lesser_of(b), |a, b| a.lesser_of(b);
    /// How much of `maximum(a, b)` is `a`: ties are shared, as PyTorch does
    Share, |a, b| E::from_f64(if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 }), |a, b| share(a, b);
}

fn share(a: Tensor, b: Tensor) -> Tensor {
    let dtype = a.dtype();
    let above = a.clone().compare(Comparison::Greater, b.clone()).cast(dtype);
    above + a.compare(Comparison::Equal, b).cast(dtype).times(0.5)
}

/// The part of a gradient that goes to `a` in `maximum(a, b)`.
fn share_of(kept: &Kept, a: usize, b: usize, gradient: Tensor) -> Tensor {
    multiply(gradient, apply::<Share>(kept.inputs[a].clone(), kept.inputs[b].clone()))
}

impl Pair for Add {
    const INTS: bool = true;
    const KEEPS: Keeps = Keeps::NOTHING;
    fn left(_: &Kept, gradient: Tensor) -> Tensor {
        gradient
    }
    fn right(_: &Kept, gradient: Tensor) -> Tensor {
        gradient
    }
}

impl Pair for Subtract {
    const INTS: bool = true;
    const KEEPS: Keeps = Keeps::NOTHING;
    fn left(_: &Kept, gradient: Tensor) -> Tensor {
        gradient
    }
    fn right(_: &Kept, gradient: Tensor) -> Tensor {
        -gradient
    }
}

impl Pair for Multiply {
    const INTS: bool = true;
    const KEEPS: Keeps = Keeps::INPUTS;
    fn left(kept: &Kept, gradient: Tensor) -> Tensor {
        multiply(gradient, kept.inputs[1].clone())
    }
    fn right(kept: &Kept, gradient: Tensor) -> Tensor {
        multiply(gradient, kept.inputs[0].clone())
    }
}

/// `da = g / b`, `db = -(g / b) · (a / b)`
impl Pair for Divide {
    const INTS: bool = false;
    const KEEPS: Keeps = Keeps::INPUTS;
    fn left(kept: &Kept, gradient: Tensor) -> Tensor {
        divide(gradient, kept.inputs[1].clone())
    }
    fn right(kept: &Kept, gradient: Tensor) -> Tensor {
        let (a, b) = (kept.inputs[0].clone(), kept.inputs[1].clone());
        -multiply(divide(gradient, b.clone()), divide(a, b))
    }
}

/// `da = g · b · a^(b-1)`, 0 where `b = 0`; `db = g · y · ln a`, 0 where `a = 0` and `b ≥ 0`
impl Pair for Power {
    const INTS: bool = false;
    const KEEPS: Keeps = Keeps::BOTH;
    const ARITHMETIC: Arithmetic = Arithmetic::Full;

    fn left(kept: &Kept, gradient: Tensor) -> Tensor {
        let (a, b) = (kept.inputs[0].clone(), kept.inputs[1].clone());
        let slope = multiply(apply::<Power>(a, b.clone().plus(-1.0)), b.clone());
        multiply(gradient, slope).filled(b.compare_with(Comparison::Equal, 0.0), 0.0)
    }

    fn right(kept: &Kept, gradient: Tensor) -> Tensor {
        let (a, b) = (kept.inputs[0].clone(), kept.inputs[1].clone());
        let flat = a.clone().compare_with(Comparison::Equal, 0.0);
        let flat = flat.and(b.compare_with(Comparison::GreaterEqual, 0.0));
        let slope = multiply(kept.output().clone(), a.log());
        multiply(gradient, slope).filled(flat, 0.0)
    }
}

impl Pair for Maximum {
    const INTS: bool = true;
    const KEEPS: Keeps = Keeps::INPUTS;
    fn left(kept: &Kept, gradient: Tensor) -> Tensor {
        share_of(kept, 0, 1, gradient)
    }
    fn right(kept: &Kept, gradient: Tensor) -> Tensor {
        share_of(kept, 1, 0, gradient)
    }
}

impl Pair for Minimum {
    const INTS: bool = true;
    const KEEPS: Keeps = Keeps::INPUTS;
    fn left(kept: &Kept, gradient: Tensor) -> Tensor {
        share_of(kept, 1, 0, gradient)
    }
    fn right(kept: &Kept, gradient: Tensor) -> Tensor {
        share_of(kept, 0, 1, gradient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        Tensor::from_vec((0..count).map(|index| index as f64 + 1.0).collect::<Vec<f64>>(), shape)
    }

    #[test]
    fn every_way_of_broadcasting_agrees_with_whole_tensors() {
        let shapes: [(&[usize], &[usize]); 8] = [
            (&[2, 3, 4], &[2, 3, 4]),
            (&[2, 3, 4], &[4]),
            (&[3, 4], &[2, 3, 4]),
            (&[2, 3, 4], &[2, 1, 1]),
            (&[2, 1, 4], &[3, 1]),
            (&[1, 1], &[5]),
            (&[2, 3], &[]),
            (&[3, 1], &[1, 4]),
        ];
        for (a, b) in shapes {
            let (a, b) = (tensor(a), tensor(b));
            let expected = Subtract::tensor(a.clone(), b.clone());
            let (kept_a, kept_b) = (a.clone(), b.clone());
            let shared = apply::<Subtract>(kept_a.clone(), kept_b.clone());
            drop((kept_a, kept_b));
            let unique = apply::<Subtract>(a, b);
            assert_eq!(shared.to_f64(), expected.to_f64());
            assert_eq!(unique.to_f64(), expected.to_f64());
            assert_eq!(unique.shape(), expected.shape());
        }
    }
}
