//! Comparisons, truth values, choices, and changes of kind.

use std::fmt::Debug;
use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, de};
use smallvec::smallvec;

use super::reduction::sum_to;
use super::{
    Arithmetic, Context, Entry, Evaluation, Gradients, Keeps, Kept, Operation, Reach, Tensors, entry, exactly,
};
use crate::Number;
use crate::program::{Kind, Type, broadcast};
use crate::tensor::{Comparison, DType, Tensor};

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] = &[
    entry::<Truth<Equal>>("equal", 2, Some(2)),
    entry::<Truth<NotEqual>>("not_equal", 2, Some(2)),
    entry::<Truth<Greater>>("greater", 2, Some(2)),
    entry::<Truth<GreaterEqual>>("greater_equal", 2, Some(2)),
    entry::<Truth<Less>>("less", 2, Some(2)),
    entry::<Truth<LessEqual>>("less_equal", 2, Some(2)),
    entry::<Truth<And>>("logical_and", 2, Some(2)),
    entry::<Truth<Or>>("logical_or", 2, Some(2)),
    entry::<Not>("logical_not", 1, Some(1)),
    entry::<Where>("where", 3, Some(3)),
    entry::<Cast>("cast", 1, Some(1)),
    entry::<StopGradient>("stop_gradient", 1, Some(1)),
];

/// A relation of two values.
trait Relation: Debug + Send + Sync {
    /// Whether it relates truth values; else it relates numbers of one kind.
    const LOGICAL: bool;
    fn holds(a: Tensor, b: Tensor) -> Tensor;
}

/// The operation of a [`Relation`]: shapes `a` and `b` broadcast, the result is bool.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
struct Truth<R> {
    #[serde(skip)]
    relation: PhantomData<R>,
}

impl<R: Relation> Operation for Truth<R> {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let (a, b) = (inputs[0], inputs[1]);
        if (a.kind == Kind::Bool) != R::LOGICAL || a.kind != b.kind {
            let expected = if R::LOGICAL { "bool values" } else { "two float or two int values" };
            return Err(format!("expected {expected}, got {a} and {b}"));
        }
        Ok(Type { kind: Kind::Bool, shape: broadcast(&[&a.shape, &b.shape])? })
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Any
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let (b, a) = (inputs.pop().expect("b"), inputs.pop().expect("a"));
        R::holds(a, b).into()
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Element
    }

    fn differentiable(&self) -> bool {
        false
    }
}

macro_rules! relations {
    ($($(#[$doc:meta])* $type:ident, $logical:literal, |$a:ident, $b:ident| $holds:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            struct $type;

            impl Relation for $type {
                const LOGICAL: bool = $logical;
                fn holds($a: Tensor, $b: Tensor) -> Tensor { $holds }
            }
        )*
    };
}

relations! {
    /// `a == b`
    Equal, false, |a, b| a.compare(Comparison::Equal, b);
    /// `a != b`
    NotEqual, false, |a, b| a.compare(Comparison::NotEqual, b);
    /// `a > b`
    Greater, false, |a, b| a.compare(Comparison::Greater, b);
    /// `a >= b`
    GreaterEqual, false, |a, b| a.compare(Comparison::GreaterEqual, b);
    /// `a < b`
    Less, false, |a, b| a.compare(Comparison::Less, b);
    /// `a <= b`
    LessEqual, false, |a, b| a.compare(Comparison::LessEqual, b);
    /// Both true
    And, true, |a, b| a.and(b);
    /// Either true
    Or, true, |a, b| a.or(b);
}

/// The opposite of a truth value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Not {}

impl Operation for Not {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        inputs[0].expect_kind(Kind::Bool)?;
        Ok(inputs[0].clone())
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        inputs.remove(0).negated().into()
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Element
    }

    fn differentiable(&self) -> bool {
        false
    }
}

/// `condition ? a : b`, all three broadcasting; `a` and `b` are of one kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Where {}

impl Operation for Where {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let (condition, a, b) = (inputs[0], inputs[1], inputs[2]);
        condition.expect_kind(Kind::Bool).map_err(|message| format!("the condition: {message}"))?;
        if a.kind != b.kind || a.kind == Kind::Bool {
            return Err(format!("expected two float or two int values to choose from, got {a} and {b}"));
        }
        Ok(Type { kind: a.kind, shape: broadcast(&[&condition.shape, &a.shape, &b.shape])? })
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Any
    }

    fn evaluate(&self, inputs: Tensors, _: &Context) -> Evaluation {
        let [condition, a, b] = exactly(inputs);
        Tensor::choose(condition, a, b).into()
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Element
    }

    fn gradient(&self, mut kept: Kept, gradient: Tensor, wanted: &[bool]) -> Gradients {
        let condition = kept.inputs.swap_remove(0);
        let zero = gradient.constant(0.0);
        let a = wanted[1].then(|| Tensor::choose(condition.clone(), gradient.clone(), zero.clone()));
        let b = wanted[2].then(|| Tensor::choose(condition, zero, gradient));
        smallvec![None, a.map(|a| sum_to(a, &kept.shapes[1])), b.map(|b| sum_to(b, &kept.shapes[2]))]
    }
}

/// The same values as another kind: floats are cut to integers towards 0; what is not 0 is true.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cast {
    #[serde(deserialize_with = "kind")]
    kind: Kind,
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
    let name = String::deserialize(deserializer)?;
    Kind::parse(&name).ok_or_else(|| de::Error::custom(format!("expected kind float, int or bool, got {name:?}")))
}

impl Operation for Cast {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        Ok(Type { kind: self.kind, shape: inputs[0].shape.clone() })
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Any
    }

    fn evaluate(&self, mut inputs: Tensors, context: &Context) -> Evaluation {
        let dtype = match self.kind {
            Kind::Float => context.dtype,
            Kind::Int => DType::I32,
            Kind::Bool => DType::Bool,
        };
        inputs.remove(0).cast(dtype).into()
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Element
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }

    fn differentiable(&self) -> bool {
        self.kind == Kind::Float
    }

    fn gradient(&self, _: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        smallvec![Some(gradient)]
    }
}

/// The value itself, as a constant to gradients.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StopGradient {}

impl Operation for StopGradient {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        Ok(inputs[0].clone())
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Moves
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        inputs.remove(0).into()
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Element
    }

    fn differentiable(&self) -> bool {
        false
    }
}
