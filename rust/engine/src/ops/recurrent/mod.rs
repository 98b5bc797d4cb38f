//! Recurrent layers: one operation over the whole sequence, forwards and back through time.
//!
//! The `cpu` device runs each cell's formula over slices, each core the whole sequence of its share of the batch (`slices`);
//! other devices run it over tensors (`steps`). Products that do not wait for a step before are one product over all steps.

mod gru;
mod lstm;
mod simple;
mod slices;
mod steps;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::marker::PhantomData;

use serde::Deserialize;

use super::elementwise::Activation;
use super::{Arithmetic, Context, Entry, Evaluation, Gradients, Kept, Operation, Reach, Tensors, entry};
use crate::program::{Dim, Kind, Type, show};
use crate::tensor::{DType, Real, Tensor};

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] = &[
    entry::<Recurrent<lstm::Lstm>>("lstm", 3, None),
    entry::<Recurrent<gru::Gru>>("gru", 3, None),
    entry::<Recurrent<simple::Simple>>("rnn", 3, None),
];

/// The activations of a cell.
#[derive(Clone, Copy, Debug)]
struct Functions {
    /// Of the candidate and the output.
    activation: Activation,
    /// Of the gates.
    recurrent: Activation,
}

/// A recurrent cell: the formula of one step and its gradient, over the slices of one sample and over tensors of a batch.
///
/// A state is `h`, followed by the memory `c` of an LSTM. `gates` are blocks of `units` columns in Keras's order.
trait Cell: Debug + Send + Sync + 'static {
    /// Blocks of the kernels' columns.
    const GATES: usize;
    /// Blocks that a step keeps besides its gates and its state.
    const EXTRA: usize;
    /// Whether there is `c`.
    const MEMORY: bool;
    /// Whether the last gate takes `h · recurrent_kernel` otherwise than added, so that it has a bias and a gradient of its own,
    /// the latter in the extra block.
    const APART: bool;

    /// One step of a sample.
    fn forward_row<E: Real>(functions: Functions, row: Row<'_, E>);

    /// Its gradient.
    fn backward_row<E: Real>(functions: Functions, row: BackwardRow<'_, E>);

    /// One step of a batch, from `x · kernel + bias`, `h · recurrent_kernel` and the state: what its gradient reads, and the
    /// state after it.
    fn forward_step(functions: Functions, x: Tensor, product: Tensor, state: &[Tensor]) -> [Vec<Tensor>; 2];

    /// From what was kept, the state before and the gradient of the state after: the gradients of `x · kernel`, of
    /// `h · recurrent_kernel`, and of the state before as far as it does not pass through that product.
    fn backward_step(functions: Functions, kept: &[Tensor], before: &[Tensor], gradient: &[Tensor]) -> StepGradient;
}

/// The slices of one step of one sample.
struct Row<'a, E> {
    /// `x · kernel`; becomes the values of the gates.
    gates: &'a mut [E],
    /// `h · recurrent_kernel`.
    product: &'a [E],
    /// The rows of the bias one after the other.
    bias: &'a [E],
    /// [`Cell::EXTRA`] blocks to be filled.
    extra: &'a mut [E],
    /// The state before; becomes that after.
    h: &'a mut [E],
    /// The same of the memory.
    c: &'a mut [E],
}

/// The slices of the gradient of one step of one sample.
struct BackwardRow<'a, E> {
    /// The values of the gates; becomes the gradient of `x · kernel`.
    gates: &'a mut [E],
    /// Becomes the gradient of `h · recurrent_kernel`.
    product: &'a mut [E],
    /// What the step kept, not needed after it; of a cell that is [`Cell::APART`], becomes the last block of `product`.
    extra: &'a mut [E],
    /// The state before.
    before: [&'a [E]; 2],
    /// The gradient of `h` after the step; becomes that before it, as far as it does not pass through the product.
    dh: &'a mut [E],
    /// The same of the memory.
    dc: &'a mut [E],
}

/// See [`Cell::backward_step`].
struct StepGradient {
    x: Tensor,
    product: Tensor,
    state: Vec<Option<Tensor>>,
}

/// What comes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Returns {
    /// `h` after the last step, `(batch, units)`.
    #[default]
    Last,
    /// `h` after each step, at the step's own place, `(batch, time, units)`.
    Sequence,
    /// `h` and, of an LSTM, `c` behind it, `(batch, time, units)` or `(batch, time, 2 · units)`.
    States,
}

/// A cell along a sequence. Inputs: x `(batch, time, features)`, kernel `(features, gates · units)`, recurrent kernel
/// `(units, gates · units)` and, if the attribute says so, in this order: `bias` `(gates · units,)`, of a GRU `(2, gates · units)`
/// (row 0 is added to `x · kernel`, row 1 to `h · recurrent_kernel`); `initial_state`, `(batch, units)` each; `mask`, `(batch, time)`
/// truth values: where false, the state passes a step unchanged; `recurrent_factors` `(batch, units)`, which multiply `h` before
/// every product with the recurrent kernel (dropout).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
struct Recurrent<C> {
    #[serde(default = "tanh")]
    activation: Activation,
    #[serde(default = "sigmoid")]
    recurrent_activation: Activation,
    #[serde(default)]
    returns: Returns,
    #[serde(default)]
    go_backwards: bool,
    #[serde(default)]
    bias: bool,
    #[serde(default)]
    initial_state: bool,
    #[serde(default)]
    mask: bool,
    #[serde(default)]
    recurrent_factors: bool,
    #[serde(skip)]
    cell: PhantomData<C>,
}

fn tanh() -> Activation {
    Activation::Tanh
}

fn sigmoid() -> Activation {
    Activation::Sigmoid
}

/// The inputs by name.
struct Parts<T> {
    x: T,
    kernel: T,
    recurrent_kernel: T,
    bias: Option<T>,
    initial: Vec<T>,
    mask: Option<T>,
    factors: Option<T>,
}

/// The lengths of the axes.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    steps: usize,
    features: usize,
    units: usize,
}

impl<C: Cell> Recurrent<C> {
    const STATES: usize = 1 + C::MEMORY as usize;

    fn functions(&self) -> Functions {
        Functions { activation: self.activation, recurrent: self.recurrent_activation }
    }

    /// The names of the inputs after the third.
    fn extras(&self) -> Vec<&'static str> {
        let states = if C::MEMORY { vec!["initial h", "initial c"] } else { vec!["initial h"] };
        let given = [
            (self.bias, vec!["bias"]),
            (self.initial_state, states),
            (self.mask, vec!["mask"]),
            (self.recurrent_factors, vec!["recurrent factors"]),
        ];
        given.into_iter().filter(|(given, _)| *given).flat_map(|(_, names)| names).collect()
    }

    fn parts<T>(&self, inputs: impl IntoIterator<Item = T>) -> Parts<T> {
        let mut inputs = inputs.into_iter();
        let mut next = || inputs.next().expect("as many inputs as the shape rule counted");
        Parts {
            x: next(),
            kernel: next(),
            recurrent_kernel: next(),
            bias: self.bias.then(&mut next),
            initial: if self.initial_state { (0..Self::STATES).map(|_| next()).collect() } else { Vec::new() },
            mask: self.mask.then(&mut next),
            factors: self.recurrent_factors.then(&mut next),
        }
    }

    /// The columns of the output.
    fn width(&self, units: usize) -> usize {
        if self.returns == Returns::States { Self::STATES * units } else { units }
    }

    /// The output of an empty batch.
    fn without_samples(&self, parts: &Parts<Tensor>) -> Tensor {
        let Sizes { steps, units, .. } = parts.sizes();
        let shape = [0, steps, self.width(units)];
        let tensor = Tensor::full(&shape, 0.0, parts.x.dtype(), &parts.x.device());
        if self.returns == Returns::Last { tensor.reshape(&[0, units]) } else { tensor }
    }

    /// The place in time of a step.
    fn place(&self, step: usize, steps: usize) -> usize {
        if self.go_backwards { steps - 1 - step } else { step }
    }

    fn check_count(&self, count: usize) -> Result<(), String> {
        let extras = self.extras();
        if count == 3 + extras.len() {
            return Ok(());
        }
        let names: Vec<&str> = ["x", "kernel", "recurrent kernel"].into_iter().chain(extras).collect();
        Err(format!("expected {} inputs ({}), got {count}", names.len(), names.join(", ")))
    }

    /// The shapes of the inputs after the third.
    fn extra_shapes(&self, batch: Dim, time: Dim, units: usize) -> Vec<Vec<Dim>> {
        let width = Dim::known(C::GATES * units);
        let state = vec![batch, Dim::known(units)];
        let bias = if C::APART { vec![Dim::known(2), width] } else { vec![width] };
        let shapes = Parts {
            x: None,
            kernel: None,
            recurrent_kernel: None,
            bias: self.bias.then_some(Some(bias)),
            initial: vec![Some(state.clone()); if self.initial_state { Self::STATES } else { 0 }],
            mask: self.mask.then(|| Some(vec![batch, time])),
            factors: self.recurrent_factors.then_some(Some(state)),
        };
        shapes.into_vec().into_iter().flatten().collect()
    }
}

impl<T> Parts<T> {
    fn into_vec(self) -> Vec<T> {
        let first = [self.x, self.kernel, self.recurrent_kernel];
        first.into_iter().chain(self.bias).chain(self.initial).chain(self.mask).chain(self.factors).collect()
    }
}

impl Parts<Tensor> {
    fn sizes(&self) -> Sizes {
        let x = self.x.shape();
        Sizes { batch: x[0], steps: x[1], features: x[2], units: self.recurrent_kernel.shape()[0] }
    }
}

impl<C: Cell> Operation for Recurrent<C> {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        self.check_count(inputs.len())?;
        let (x, kernel, recurrent) = (inputs[0], inputs[1], inputs[2]);
        inputs[..3].iter().try_for_each(|input| input.expect_kind(Kind::Float))?;
        let &[batch, time, features] = x.shape.as_slice() else {
            return Err(format!("the input must have shape (batch, time, features), got {}", show(&x.shape)));
        };
        if time.batch || features.batch || time.count == 0 || features.count == 0 {
            return Err(format!(
                "time and features must have known lengths of at least 1, got shape {}",
                show(&x.shape)
            ));
        }
        let units = recurrent.shape.first().map_or(0, |units| if units.batch { 0 } else { units.count });
        let width = Dim::known(C::GATES * units);
        if units == 0 || recurrent.shape != [Dim::known(units), width] {
            let gates = C::GATES;
            let got = show(&recurrent.shape);
            return Err(format!("the recurrent kernel must have shape (units, {gates} · units), got {got}"));
        }
        if kernel.shape != [features, width] {
            let got = show(&kernel.shape);
            return Err(format!("the kernel must have shape ({features}, {width}), got {got}"));
        }
        for ((name, shape), input) in self.extras().iter().zip(self.extra_shapes(batch, time, units)).zip(&inputs[3..])
        {
            input.expect_kind(if *name == "mask" { Kind::Bool } else { Kind::Float })?;
            if input.shape != shape {
                return Err(format!("the {name} must have shape {}, got {}", show(&shape), show(&input.shape)));
            }
        }
        let width = Dim::known(self.width(units));
        Ok(Type::float(if self.returns == Returns::Last { vec![batch, width] } else { vec![batch, time, width] }))
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Half
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, inputs: Tensors, _: &Context) -> Evaluation {
        let parts = self.parts(inputs);
        if parts.x.is_empty() {
            return self.without_samples(&parts).into();
        }
        match parts.x.dtype() {
            DType::F32 if parts.x.is_cpu() => slices::forward::<f32, C>(self, parts),
            DType::F64 if parts.x.is_cpu() => slices::forward::<f64, C>(self, parts),
            _ => steps::forward(self, parts),
        }
    }

    fn gradient(&self, kept: Kept, gradient: Tensor, wanted: &[bool]) -> Gradients {
        if kept.inputs[0].is_empty() {
            let zeros = |input: &Tensor| Tensor::full(&input.shape(), 0.0, gradient.dtype(), &gradient.device());
            return kept.inputs.iter().map(|input| input.dtype().is_float().then(|| zeros(input))).collect();
        }
        let parts = self.parts(kept.inputs);
        let found = match gradient.dtype() {
            DType::F32 if gradient.is_cpu() => slices::backward::<f32, C>(self, parts, kept.saved, gradient, wanted),
            DType::F64 if gradient.is_cpu() => slices::backward::<f64, C>(self, parts, kept.saved, gradient, wanted),
            _ => steps::backward(self, parts, kept.saved, gradient, wanted),
        };
        found.into_vec().into()
    }
}
