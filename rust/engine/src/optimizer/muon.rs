//! Muon: momentum whose matrices are made orthogonal; AdamW for everything that is no hidden matrix.

use serde::{Deserialize, Serialize};

use super::adam::AdamW;
use super::{Change, Decay, Hyperparameters, Pass, Rule, Slot, Squares, Step, Target, run, slots, squares};
use crate::Number;
use crate::cpu;
use crate::cpu::gemm::{Matrix, gemm};
use crate::memory::Block;
use crate::program::Role;
use crate::tensor::{DType, Real, Tensor};

/// `buf = momentum·buf + g`; `u = g + momentum·buf` (Nesterov) or `buf`; `O` = 5 Newton-Schulz steps from `u/‖u‖`;
/// `p *= 1 - lr·weight_decay`; `p -= lr·√max(1, out/in)·O`.
///
/// A step of Newton and Schulz is `X = a·X + (b·A + c·A²)·X`, `A = X·Xᵀ`, which draws the singular values towards 1. For kernels
/// of rank 2 with another kernel behind them, stored `[in, out]`; all other parameters get AdamW at `adamw_ratio` times the
/// learning rate. Source: Jordan et al. 2024, defaults too; PyTorch's momentum differs by a factor that the norm takes out, its
/// iteration is in bfloat16, here in the parameter's type.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Muon {
    momentum: f64,
    nesterov: bool,
    newton_schulz_steps: u32,
    weight_decay: f64,
    adamw_ratio: f64,
    adamw_betas: [f64; 2],
    adamw_eps: f64,
}

impl Default for Muon {
    fn default() -> Self {
        Self {
            momentum: 0.95,
            nesterov: true,
            newton_schulz_steps: 5,
            weight_decay: 0.0,
            adamw_ratio: 0.015,
            adamw_betas: [0.9, 0.999],
            adamw_eps: 1e-8,
        }
    }
}

impl Hyperparameters for Muon {
    const LEARNING_RATE: f64 = 0.02;

    fn rule(self) -> Box<dyn Rule> {
        let rest = AdamW::new(self.adamw_betas, self.adamw_eps, self.weight_decay).rule();
        Box::new(Orthogonal { muon: self, rest })
    }
}

#[derive(Debug)]
struct Orthogonal {
    muon: Muon,
    rest: Box<dyn Rule>,
}

fn is_hidden_matrix(target: &Target) -> bool {
    target.role == Role::Kernel && target.shape.len() == 2 && target.hidden
}

impl Rule for Orthogonal {
    fn state(&self, target: &Target) -> Vec<Slot> {
        if is_hidden_matrix(target) { slots(["momentum"], target) } else { self.rest.state(target) }
    }

    fn weight_decay(&self) -> f64 {
        self.muon.weight_decay
    }

    fn update(
        &self,
        target: &Target,
        parameter: &mut Tensor,
        gradient: Tensor,
        state: &mut [Tensor],
        step: &Step,
    ) -> Change {
        if !is_hidden_matrix(target) {
            let step = Step { learning_rate: step.learning_rate * self.muon.adamw_ratio, ..*step };
            return self.rest.update(target, parameter, gradient, state, &step);
        }
        let momentum = Momentum { momentum: self.muon.momentum, nesterov: self.muon.nesterov };
        let mut direction = unwritten(&gradient);
        let [squares] = run(&momentum, &mut direction, &gradient, state, step.gradient_scale);
        let direction = orthogonal(direction, squares.sqrt(), self.muon.newton_schulz_steps);
        let [inputs, outputs] = [target.shape[0], target.shape[1]].map(|length| length as f64);
        let descent = Descent {
            shrink: Decay::decoupled(step).shrink,
            rate: step.learning_rate * (outputs / inputs).max(1.0).sqrt(),
        };
        Squares::of(run(&descent, parameter, &direction, &mut [], 1.0)).into()
    }
}

/// The first pass: the new momentum; the direction takes the parameter's place.
#[derive(Clone, Copy)]
struct Momentum {
    momentum: f64,
    nesterov: bool,
}

impl Pass<1, 1> for Momentum {
    #[inline(always)]
    fn apply<N: Number>(&self, _: N, gradient: N, [buffer]: [N; 1]) -> (N, [N; 1], [N; 1]) {
        let buffer = buffer.times(self.momentum) + gradient.clone();
        let ahead = || gradient + buffer.clone().times(self.momentum);
        let direction = if self.nesterov { ahead() } else { buffer.clone() };
        (direction.clone(), [buffer], [direction.square()])
    }
}

/// The last pass: the step along an orthogonal matrix.
#[derive(Clone, Copy)]
struct Descent {
    shrink: f64,
    rate: f64,
}

impl Pass<0, 2> for Descent {
    #[inline(always)]
    fn apply<N: Number>(&self, parameter: N, direction: N, _: [N; 0]) -> (N, [N; 0], [N; 2]) {
        let after = parameter.clone().times(self.shrink) - direction.times(self.rate);
        (after.clone(), [], squares(parameter, after))
    }
}

/// A tensor like another, to be written before it is read.
fn unwritten(like: &Tensor) -> Tensor {
    match like.dtype() {
        DType::F32 if like.is_cpu() => Tensor::from_block(Block::<f32>::uninitialised(like.len()), &like.shape()),
        DType::F64 if like.is_cpu() => Tensor::from_block(Block::<f64>::uninitialised(like.len()), &like.shape()),
        _ => like.clone(),
    }
}

/// The quintic's coefficients, chosen for the steepest rise at 0.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.775, 2.0315];

/// Norms below which a matrix is taken for 0.
const LEAST_NORM: f64 = 1e-7;

/// Newton and Schulz's iteration from `matrix / norm`.
fn orthogonal(matrix: Tensor, norm: f64, steps: u32) -> Tensor {
    let matrix = matrix.times(norm.max(LEAST_NORM).recip());
    match matrix.dtype() {
        DType::F32 if matrix.is_cpu() => iterate_cpu::<f32>(matrix, steps),
        DType::F64 if matrix.is_cpu() => iterate_cpu::<f64>(matrix, steps),
        _ => (0..steps).fold(matrix, |x, _| iterate_tensor(x)),
    }
}

/// On the shorter side, so that the square matrices are as small as they can be.
fn iterate_tensor(x: Tensor) -> Tensor {
    let [a, b, c] = COEFFICIENTS;
    let shape = x.shape();
    let wide = shape[0] <= shape[1];
    let transposed = x.clone().transpose();
    let gram = if wide { x.clone().matmul(transposed) } else { transposed.matmul(x.clone()) };
    let polynomial = gram.clone().times(b) + gram.clone().matmul(gram).times(c);
    let product = if wide { polynomial.matmul(x.clone()) } else { x.clone().matmul(polynomial) };
    x.times(a) + product
}

fn iterate_cpu<E: Real>(matrix: Tensor, steps: u32) -> Tensor {
    let shape = matrix.shape();
    let mut x = Block::from(matrix.into_vec::<E>());
    let [rows, columns] = [shape[0], shape[1]];
    let side = rows.min(columns);
    let [mut gram, mut polynomial] = [side * side; 2].map(Block::<E>::uninitialised);
    let mut next = Block::<E>::uninitialised(x.len());
    for _ in 0..steps {
        let matrix = Matrix::rows(&x, columns);
        let (left, right) = if rows <= columns { (matrix, matrix.t()) } else { (matrix.t(), matrix) };
        gemm(&mut gram, false, left, right, [side, rows.max(columns), side]);
        let square = Matrix::rows(&gram, side);
        gemm(&mut polynomial, false, square, square, [side; 3]);
        finish_polynomial(&mut polynomial, &gram, side);
        let square = Matrix::rows(&polynomial, side);
        let (left, right) = if rows <= columns { (square, matrix) } else { (matrix, square) };
        gemm(&mut next, false, left, right, [rows, side, columns]);
        std::mem::swap(&mut x, &mut next);
    }
    Tensor::from_block(x, &shape)
}

/// `a·I + b·A + c·A²` where `A²` stood.
fn finish_polynomial<E: Real>(polynomial: &mut [E], gram: &[E], side: usize) {
    let [a, b, c] = COEFFICIENTS;
    cpu::for_pieces(polynomial, |offset, piece| {
        cpu::vectorised!({
            for (value, &gram) in piece.iter_mut().zip(&gram[offset..]) {
                *value = value.times(c) + gram.times(b);
            }
        });
    });
    for value in polynomial.iter_mut().step_by(side + 1) {
        *value = value.plus(a);
    }
}
