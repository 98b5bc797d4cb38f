//! Element-wise functions of one float: each formula written once, for CPU loops and for tensors.

use serde::Deserialize;
use smallvec::smallvec;

use super::reduction::widen;
use super::{Arithmetic, Context, Entry, Evaluation, Gradients, Keeps, Kept, Operation, Reach, Tensors, entry};
use crate::Number;
use crate::cpu;
use crate::memory::Block;
use crate::program::{Kind, Type};
use crate::tensor::{DType, Real, Tensor};

/// A differentiable function of one number.
pub(crate) trait Function: std::fmt::Debug + Send + Sync {
    /// Which of `x` and `y` the slope reads.
    const KEEPS: Keeps;
    /// Whether it is [`Relu`], whose value is 0 where a unit does not answer.
    const RECTIFIES: bool = false;
    /// What it computes in where precision is mixed.
    const ARITHMETIC: Arithmetic = Arithmetic::Any;
    /// `y = f(x)`.
    fn value<N: Number>(&self, x: N) -> N;
    /// `dy/dx` at `x`, where `y = f(x)`; what [`Self::KEEPS`] leaves out is any number.
    fn slope<N: Number>(&self, x: N, y: N) -> N;
}

impl<F: Function> Operation for F {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        inputs[0].expect_kind(Kind::Float)?;
        Ok(inputs[0].clone())
    }

    fn arithmetic(&self) -> Arithmetic {
        F::ARITHMETIC
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let x = inputs.remove(0);
        match x.dtype() {
            DType::F32 if x.is_cpu() => map::<f32, F>(self, x),
            DType::F64 if x.is_cpu() => map::<f64, F>(self, x),
            _ => self.value(x),
        }
        .into()
    }

    fn keeps(&self) -> Keeps {
        F::KEEPS
    }

    fn rectifies(&self) -> bool {
        F::RECTIFIES
    }

    fn as_activation(&self) -> Option<Activation> {
        F::RECTIFIES.then_some(Activation::Relu)
    }

    fn gradient(&self, mut kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        let x = kept.inputs.pop();
        let y = kept.output.take();
        smallvec![Some(slope(self, x, y, gradient))]
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Element
    }
}

/// `f(x)` on the CPU, in place if nobody else holds `x`.
fn map<E: Real, F: Function>(function: &F, x: Tensor) -> Tensor {
    let mut x = x.contiguous::<E>();
    let shape = x.shape();
    if let Some(values) = x.as_mut_slice::<E>() {
        map_slice(function, values);
        return x;
    }
    let values = x.elements::<E>();
    let mut out = Block::<E>::uninitialised(values.len());
    cpu::for_pieces(&mut out, |offset, piece| {
        cpu::vectorised!({
            for (y, &x) in piece.iter_mut().zip(&values[offset..]) {
                *y = function.value(x);
            }
        });
    });
    Tensor::from_block(out, &shape)
}

fn map_slice<E: Real, F: Function>(function: &F, values: &mut [E]) {
    cpu::for_pieces(values, |_, piece| {
        cpu::vectorised!({
            for value in piece {
                *value = function.value(*value);
            }
        });
    });
}

fn slope<F: Function>(function: &F, x: Option<Tensor>, y: Option<Tensor>, gradient: Tensor) -> Tensor {
    match gradient.dtype() {
        DType::F32 if gradient.is_cpu() => slope_cpu::<f32, F>(function, x, y, gradient),
        DType::F64 if gradient.is_cpu() => slope_cpu::<f64, F>(function, x, y, gradient),
        narrow if gradient.is_narrow_cpu() => {
            let [x, y] = [x, y].map(|tensor| tensor.map(widen));
            slope_cpu::<f32, F>(function, x, y, widen(gradient)).cast(narrow)
        }
        _ => {
            let any = gradient.clone();
            let (x, y) = (x.unwrap_or_else(|| any.clone()), y.unwrap_or(any));
            function.slope(x, y) * gradient
        }
    }
}

fn slope_cpu<E: Real, F: Function>(function: &F, x: Option<Tensor>, y: Option<Tensor>, gradient: Tensor) -> Tensor {
    let [x, y] = [x, y].map(|tensor| tensor.map(Tensor::contiguous::<E>));
    let [x, y] = [&x, &y].map(|tensor| tensor.as_ref().map(Tensor::elements::<E>));
    let mut gradient = gradient.unique::<E>();
    slope_slice(function, x, y, gradient.elements_mut::<E>());
    gradient
}

/// `gradient *= f'(x)`.
fn slope_slice<E: Real, F: Function>(function: &F, x: Option<&[E]>, y: Option<&[E]>, gradient: &mut [E]) {
    cpu::for_pieces(gradient, |offset, piece| {
        let Some(known) = x.or(y) else {
            // The slope reads neither: any number will do.
            cpu::vectorised!(piece.iter_mut().for_each(|g| *g = *g * function.slope(*g, *g)));
            return;
        };
        let (x, y) = (&known[offset..], &y.unwrap_or(known)[offset..]);
        cpu::vectorised!({
            for ((gradient, &x), &y) in piece.iter_mut().zip(x).zip(y) {
                *gradient = *gradient * function.slope(x, y);
            }
        });
    });
}

/// Functions without attributes: name, what the slope keeps, what it computes in, value, slope.
macro_rules! functions {
    ($($(#[$doc:meta])* $type:ident, $name:literal, $keeps:ident, $arithmetic:ident, |$x:ident| $value:expr, |$sx:pat_param, $sy:pat_param| $slope:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Default, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $type {}

            impl Function for $type {
                const KEEPS: Keeps = Keeps::$keeps;
                const ARITHMETIC: Arithmetic = Arithmetic::$arithmetic;
                #[inline(always)]
                fn value<N: Number>(&self, $x: N) -> N { $value }
                #[inline(always)]
                fn slope<N: Number>(&self, $sx: N, $sy: N) -> N { $slope }
            }
        )*

        /// The lines of the table.
        pub(super) const ENTRIES: &[Entry] = &[
            entry::<Gelu>("gelu", 1, Some(1)),
            entry::<Relu>("relu", 1, Some(1)),
            entry::<LeakyRelu>("leaky_relu", 1, Some(1)),
            entry::<Elu>("elu", 1, Some(1)),
            $(entry::<$type>($name, 1, Some(1))),*
        ];
    };
}

functions! {
    /// `-x`
    Negative, "neg", NOTHING, Any, |x| -x, |x, _| x.constant(-1.0);
    /// `e^x`
    Exp, "exp", OUTPUT, Full, |x| x.exp(), |_, y| y;
    /// `e^x - 1`
    Expm1, "expm1", INPUTS, Full, |x| x.expm1(), |x, _| x.exp();
    /// `ln x`
    Log, "log", INPUTS, Full, |x| x.log(), |x, _| x.recip_of(1.0);
    /// `ln(1 + x)`
    Log1p, "log1p", INPUTS, Full, |x| x.log1p(), |x, _| x.plus(1.0).recip_of(1.0);
    /// `√x`
    Sqrt, "sqrt", OUTPUT, Any, |x| x.sqrt(), |_, y| y.recip_of(0.5);
    /// `1/√x`
    Rsqrt, "rsqrt", BOTH, Full, |x| x.sqrt().recip_of(1.0), |x, y| y.times(-0.5) / x;
    /// `1/x`
    Reciprocal, "reciprocal", OUTPUT, Full, |x| x.recip_of(1.0), |_, y| -y.square();
    /// `x²`
    Square, "square", INPUTS, Full, |x| x.square(), |x, _| x.times(2.0);
    /// `|x|`, slope 0 at 0
    Abs, "abs", INPUTS, Any, |x| x.abs(), |x, _| x.sign();
    /// -1, 0 or 1
    Sign, "sign", NOTHING, Any, |x| x.sign(), |x, _| x.constant(0.0);
    /// Sine of radians
    Sin, "sin", INPUTS, Any, |x| x.sin(), |x, _| x.cos();
    /// Cosine of radians
    Cos, "cos", INPUTS, Any, |x| x.cos(), |x, _| -x.sin();
    /// Hyperbolic tangent
    Tanh, "tanh", OUTPUT, Any, |x| x.tanh(), |_, y| -y.square().plus(-1.0);
    /// `1/(1 + e^-x)`
    Sigmoid, "sigmoid", OUTPUT, Any, |x| x.sigmoid(), |_, y| y.clone() * (-y).plus(1.0);
    /// `ln(1 + e^x)`, never overflowing
    Softplus, "softplus", INPUTS, Full, |x| x.clone().at_least(0.0) + (-x.abs()).exp().log1p(), |x, _| x.sigmoid();
    /// Error function
    Erf, "erf", INPUTS, Any, |x| x.erf(), |x, _| (-x.square()).exp().times(std::f64::consts::FRAC_2_SQRT_PI);
    /// Largest integer not above
    Floor, "floor", NOTHING, Any, |x| x.floor(), |x, _| x.constant(0.0);
    /// Smallest integer not below
    Ceil, "ceil", NOTHING, Any, |x| x.ceil(), |x, _| x.constant(0.0);
    /// Nearest integer, ties to even
    Round, "round", NOTHING, Any, |x| x.round(), |x, _| x.constant(0.0);
    /// `x · sigmoid(x)`
    Silu, "silu", INPUTS, Any, |x| x.clone() * x.sigmoid(), |x, _| {
        let s = x.clone().sigmoid();
        s.clone() * (x * (-s).plus(1.0)).plus(1.0)
    };
}

/// Gaussian error linear unit (Hendrycks and Gimpel, 2016): `x·Φ(x)`, or its tanh approximation.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gelu {
    #[serde(default)]
    approximate: bool,
}

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;

impl Gelu {
    /// `tanh(√(2/π)·(x + 0.044715·x³))`
    #[inline(always)]
    fn curve<N: Number>(x: N) -> N {
        let cubic = x.clone().square().times(0.044715).plus(1.0) * x;
        cubic.times(SQRT_2_OVER_PI).tanh()
    }
}

impl Function for Gelu {
    const KEEPS: Keeps = Keeps::INPUTS;

    #[inline(always)]
    fn value<N: Number>(&self, x: N) -> N {
        let curve = if self.approximate {
            Self::curve(x.clone())
        } else {
            x.clone().times(std::f64::consts::FRAC_1_SQRT_2).erf()
        };
        x * curve.plus(1.0).times(0.5)
    }

    #[inline(always)]
    fn slope<N: Number>(&self, x: N, _: N) -> N {
        if self.approximate {
            let curve = Self::curve(x.clone());
            let inner = x.clone().square().times(3.0 * 0.044715).plus(1.0).times(SQRT_2_OVER_PI);
            let rise = (-curve.clone().square()).plus(1.0) * inner * x;
            return (curve.plus(1.0) + rise).times(0.5);
        }
        let density = x.clone().square().times(-0.5).exp().times(0.5 * SQRT_2_OVER_PI);
        let cumulative = x.clone().times(std::f64::consts::FRAC_1_SQRT_2).erf().plus(1.0).times(0.5);
        cumulative + x * density
    }
}

/// `max(x, 0)`, slope 0 at 0.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relu {}

impl Function for Relu {
    const KEEPS: Keeps = Keeps::OUTPUT;
    const RECTIFIES: bool = true;

    #[inline(always)]
    fn value<N: Number>(&self, x: N) -> N {
        x.at_least(0.0)
    }

    #[inline(always)]
    fn slope<N: Number>(&self, _: N, y: N) -> N {
        y.step()
    }
}

/// `x` where positive, else `slope·x`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeakyRelu {
    slope: f64,
}

impl Function for LeakyRelu {
    const KEEPS: Keeps = Keeps::INPUTS;

    #[inline(always)]
    fn value<N: Number>(&self, x: N) -> N {
        x.clone().at_least(0.0) + x.at_most(0.0).times(self.slope)
    }

    #[inline(always)]
    fn slope<N: Number>(&self, x: N, _: N) -> N {
        x.step().times(1.0 - self.slope).plus(self.slope)
    }
}

/// `x` where positive, else `alpha·(e^x - 1)` (Clevert et al., 2015).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elu {
    alpha: f64,
}

impl Function for Elu {
    const KEEPS: Keeps = Keeps::INPUTS;

    #[inline(always)]
    fn value<N: Number>(&self, x: N) -> N {
        x.clone().at_least(0.0) + x.at_most(0.0).expm1().times(self.alpha)
    }

    #[inline(always)]
    fn slope<N: Number>(&self, x: N, _: N) -> N {
        let positive = x.clone().step();
        let negative = (-positive.clone()).plus(1.0);
        positive + negative * x.at_most(0.0).exp().times(self.alpha)
    }
}

/// `min(max(x + 3, 0), 6) / 6`, slope 0 at the ends.
#[derive(Debug)]
pub struct HardSigmoid {}

impl Function for HardSigmoid {
    const KEEPS: Keeps = Keeps::OUTPUT;

    #[inline(always)]
    fn value<N: Number>(&self, x: N) -> N {
        x.plus(3.0).at_least(0.0).at_most(6.0).times(1.0 / 6.0)
    }

    #[inline(always)]
    fn slope<N: Number>(&self, _: N, y: N) -> N {
        (y.clone().step() * (-y).plus(1.0).step()).times(1.0 / 6.0)
    }
}

/// An activation that kernels apply to their own output: one whose slope needs only that output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The output as it is.
    #[default]
    None,
    /// [`Relu`]
    Relu,
    /// [`Tanh`]
    Tanh,
    /// [`Sigmoid`]
    Sigmoid,
    /// [`HardSigmoid`]
    HardSigmoid,
}

impl Activation {
    /// Applies it to a piece of output on the current thread.
    pub(crate) fn apply<E: Real>(self, values: &mut [E]) {
        cpu::vectorised!(self.apply_inline(values));
    }

    /// [`Self::apply`] with the instructions of the caller.
    #[inline(always)]
    pub(crate) fn apply_inline<E: Real>(self, values: &mut [E]) {
        #[inline(always)]
        fn each<E: Real, F: Function>(function: &F, values: &mut [E]) {
            for value in values {
                *value = function.value(*value);
            }
        }
        match self {
            Self::None => {}
            Self::Relu => each(&Relu {}, values),
            Self::Tanh => each(&Tanh {}, values),
            Self::Sigmoid => each(&Sigmoid {}, values),
            Self::HardSigmoid => each(&HardSigmoid {}, values),
        }
    }

    /// Turns gradients after the activation into those before it, which take the place of the outputs too, with the
    /// instructions of the caller.
    #[inline(always)]
    pub(crate) fn backward_inline<E: Real>(self, outputs: &mut [E], gradients: &mut [E]) {
        #[inline(always)]
        fn each<E: Real, F: Function>(function: &F, outputs: &mut [E], gradients: &mut [E]) {
            for (gradient, y) in gradients.iter_mut().zip(outputs) {
                *gradient = *gradient * function.slope(*y, *y);
                *y = *gradient;
            }
        }
        match self {
            Self::None => outputs.copy_from_slice(gradients),
            Self::Relu => each(&Relu {}, outputs, gradients),
            Self::Tanh => each(&Tanh {}, outputs, gradients),
            Self::Sigmoid => each(&Sigmoid {}, outputs, gradients),
            Self::HardSigmoid => each(&HardSigmoid {}, outputs, gradients),
        }
    }

    /// Applies it to a tensor on any device; on the `cpu` device in place if nobody else holds it.
    pub(crate) fn of_tensor(self, mut x: Tensor) -> Tensor {
        match x.dtype() {
            DType::F32 if x.is_cpu() => cpu::for_pieces(x.elements_mut::<f32>(), |_, piece| self.apply(piece)),
            DType::F64 if x.is_cpu() => cpu::for_pieces(x.elements_mut::<f64>(), |_, piece| self.apply(piece)),
            _ => return self.value(x),
        }
        x
    }

    /// Applies it to a tensor.
    pub(crate) fn value(self, x: Tensor) -> Tensor {
        match self {
            Self::None => x,
            Self::Relu => Relu {}.value(x),
            Self::Tanh => Tanh {}.value(x),
            Self::Sigmoid => Sigmoid {}.value(x),
            Self::HardSigmoid => HardSigmoid {}.value(x),
        }
    }

    /// The gradient before the activation, from that after it and the output.
    pub(crate) fn backward(self, output: Option<Tensor>, gradient: Tensor) -> Tensor {
        match self {
            Self::None => gradient,
            Self::Relu => slope(&Relu {}, None, output, gradient),
            Self::Tanh => slope(&Tanh {}, None, output, gradient),
            Self::Sigmoid => slope(&Sigmoid {}, None, output, gradient),
            Self::HardSigmoid => slope(&HardSigmoid {}, None, output, gradient),
        }
    }

    /// Whether the output is 0 where a unit does not answer.
    pub(crate) fn rectifies(self) -> bool {
        self == Self::Relu
    }

    /// What [`Self::backward`] reads besides what the operation itself keeps.
    pub(crate) fn needs_output(self) -> bool {
        self != Self::None
    }
}
