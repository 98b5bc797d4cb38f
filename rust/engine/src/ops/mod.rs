//! The one table of primitive operations: shape rule, evaluation and gradient of each.
//!
//! Eager use, tracing, gradients and checks all read this table. A new operation is a file (or a struct in its
//! family's file) and one line in that file's `ENTRIES`.

mod attention;
mod batch_norm;
mod binary;
mod comparison;
mod convolution;
mod ctc;
mod elementwise;
mod index;
mod linear;
mod loss;
mod matmul;
mod normalization;
mod pooling;
mod random;
mod reach;
mod recurrent;
mod reduction;
mod shaping;
mod softmax;
mod window;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;
use serde_json::Value;
use smallvec::SmallVec;

pub use elementwise::Activation;
pub use reach::{Affine, Reach};
pub(crate) use reduction::{chunk_total, dot, row_max, rows};
pub(crate) use window::Window;

use crate::program::Type;
use crate::random::Stream;
use crate::tensor::{DType, Lengths, Tensor};
use crate::trainer::Observers;
use crate::{Device, Error, Result};

/// The values of a node's inputs, or by-products of its evaluation.
pub type Tensors = SmallVec<[Tensor; 3]>;

/// A gradient for each input of a node, where it is wanted.
pub type Gradients = SmallVec<[Option<Tensor>; 3]>;

/// As many tensors as the operation's rule let through.
fn exactly<const N: usize>(tensors: Tensors) -> [Tensor; N] {
    let mut tensors = tensors.into_iter();
    std::array::from_fn(|_| tensors.next().expect("the number was checked"))
}

/// What an evaluation may depend on besides its inputs.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where new tensors are made.
    pub device: Device,
    /// The floating-point type of the session.
    pub dtype: DType,
    /// The narrower type of the session, if its precision is mixed; see [`Arithmetic`].
    pub half: Option<DType>,
    /// The random stream of this node in this step.
    pub stream: Stream,
    /// Who looks on in this run.
    pub(crate) observers: Observers,
}

/// The value of an operation, and what only its gradient reads.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The output.
    pub value: Tensor,
    /// By-products kept for the gradient: masks, indices, statistics.
    pub saved: Tensors,
}

impl From<Tensor> for Evaluation {
    fn from(value: Tensor) -> Self {
        Self { value, saved: Tensors::new() }
    }
}

/// Which values of the forward pass a gradient reads; the rest is freed or reused at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeps {
    /// The inputs.
    pub inputs: bool,
    /// The output.
    pub output: bool,
}

impl Keeps {
    /// Shapes are enough.
    pub const NOTHING: Self = Self { inputs: false, output: false };
    /// The inputs.
    pub const INPUTS: Self = Self { inputs: true, output: false };
    /// The output.
    pub const OUTPUT: Self = Self { inputs: false, output: true };
    /// Both.
    pub const BOTH: Self = Self { inputs: true, output: true };
}

/// What was kept of one evaluation.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The inputs, if [`Keeps::inputs`].
    pub inputs: Tensors,
    /// The shapes of the inputs, always.
    pub shapes: SmallVec<[Lengths; 3]>,
    /// The output, if [`Keeps::output`].
    pub output: Option<Tensor>,
    /// [`Evaluation::saved`].
    pub saved: Tensors,
}

impl Kept {
    /// The kept output; a bug if the operation did not ask for it.
    pub fn output(&self) -> &Tensor {
        self.output.as_ref().expect("the operation keeps its output")
    }
}

/// What an operation computes in where precision is mixed (the lists are those of PyTorch's autocast).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Half precision, with sums of 32 bits: products of matrices, most of the work.
    Half,
    /// 32 bits: sums, exponentials, norms, losses.
    Full,
    /// The type that arrives; 32 bits where types mix.
    Any,
    /// Like [`Self::Any`]; elements only move or are made, in the gradient too, so that half precision needs no arithmetic.
    Moves,
}

/// A primitive operation with its attributes.
pub trait Operation: Debug + Send + Sync {
    /// The shape rule: the type of the output, or what was expected and what came.
    fn infer(&self, inputs: &[&Type]) -> std::result::Result<Type, String>;

    /// The value. Inputs that nobody else needs arrive with unique storage, so that it may be reused.
    fn evaluate(&self, inputs: Tensors, context: &Context) -> Evaluation;

    /// What it computes in where precision is mixed.
    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Full
    }

    /// Whether the `cpu` device computes it, and its gradient, in a 16-bit type, and not in float32 with what is rounded to that.
    fn has_kernel(&self, _: DType) -> bool {
        false
    }

    /// Whether gradients pass through.
    fn differentiable(&self) -> bool {
        true
    }

    /// Whether the value is 0 where a unit does not answer, as of relu.
    fn rectifies(&self) -> bool {
        false
    }

    /// The activation that this is, where it is one that other operations can apply themselves.
    fn as_activation(&self) -> Option<Activation> {
        None
    }

    /// The same operation followed by an activation, where it can apply that itself.
    fn activated(&self, _activation: Activation) -> Option<Arc<dyn Operation>> {
        None
    }

    /// What [`Self::gradient`] reads.
    fn keeps(&self) -> Keeps {
        Keeps::INPUTS
    }

    /// The gradient with respect to each wanted input, from that of the output; never asked for unless
    /// [`Self::differentiable`].
    fn gradient(&self, _kept: Kept, _gradient: Tensor, _wanted: &[bool]) -> Gradients {
        panic!("{self:?} has no gradient")
    }

    /// How far a change of an input reaches in the output; the safe default is anywhere.
    fn reach(&self, _inputs: &[&Type]) -> Reach {
        Reach::Everything
    }

    /// What was drawn at random in an evaluation, and the operation without chance that takes it as one more input.
    fn drawn(&self, _inputs: &[Tensor], _context: &Context) -> Option<(Arc<dyn Operation>, Tensor)> {
        None
    }

    /// How single elements of the inputs move the output, where that is known.
    fn affine(&self, _inputs: &[&Type]) -> Option<&dyn Affine> {
        None
    }
}

/// A line of the table.
#[derive(Debug)]
pub struct Entry {
    /// The operation's name.
    pub name: &'static str,
    /// The least number of inputs.
    pub least: usize,
    /// The greatest number of inputs; `None` for any.
    pub most: Option<usize>,
    parse: fn(Value) -> std::result::Result<Arc<dyn Operation>, serde_json::Error>,
}

/// A line for the operation `O`, whose fields are its attributes.
pub(crate) const fn entry<O: Operation + DeserializeOwned + 'static>(
    name: &'static str,
    least: usize,
    most: Option<usize>,
) -> Entry {
    Entry { name, least, most, parse: |attributes| Ok(Arc::new(serde_json::from_value::<O>(attributes)?)) }
}

/// All operations.
pub fn table() -> impl Iterator<Item = &'static Entry> {
    [
        elementwise::ENTRIES,
        binary::ENTRIES,
        comparison::ENTRIES,
        matmul::ENTRIES,
        linear::ENTRIES,
        reduction::ENTRIES,
        softmax::ENTRIES,
        shaping::ENTRIES,
        index::ENTRIES,
        convolution::ENTRIES,
        pooling::ENTRIES,
        normalization::ENTRIES,
        batch_norm::ENTRIES,
        attention::ENTRIES,
        loss::ENTRIES,
        ctc::ENTRIES,
        random::ENTRIES,
        recurrent::ENTRIES,
    ]
    .into_iter()
    .flatten()
}

/// The operation of a name with its attributes, checked against the number of inputs.
pub fn parse(name: &str, attributes: &Value, inputs: usize) -> Result<Arc<dyn Operation>> {
    static BY_NAME: OnceLock<HashMap<&str, &Entry>> = OnceLock::new();
    let by_name = BY_NAME.get_or_init(|| table().map(|entry| (entry.name, entry)).collect());
    let entry = by_name.get(name).ok_or_else(|| Error::Missing(format!("unknown operation {name:?}")))?;
    if inputs < entry.least || entry.most.is_some_and(|most| inputs > most) {
        return Err(Error::value(format!("{name}: expected {} inputs, got {inputs}", count(entry))));
    }
    (entry.parse)(attributes.clone()).map_err(|error| Error::value(format!("{name}: attributes {attributes}: {error}")))
}

fn count(entry: &Entry) -> String {
    match entry.most {
        Some(most) if most == entry.least => most.to_string(),
        Some(most) => format!("{} to {most}", entry.least),
        None => format!("at least {}", entry.least),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gradient::{Variable, apply};
    use crate::tensor::Real;

    /// Attributes for every operation that needs some.
    fn attributes(name: &str) -> Vec<Value> {
        match name {
            "attention" => vec![json!({"heads": 1, "scale": 1.0}), json!({"heads": 2, "scale": 1.0, "dropout": 0.5})],
            "leaky_relu" => vec![json!({"slope": 0.1})],
            "elu" => vec![json!({"alpha": 1.0})],
            "dropout" => vec![json!({"rate": 0.5})],
            "cast" => ["float", "int", "bool"].map(|kind| json!({"kind": kind})).to_vec(),
            "one_hot" => vec![json!({"depth": 3})],
            "reshape" => vec![json!({"shape": [-1]}), json!({"shape": [-1, 2]}), json!({"shape": [2, -1]})],
            "broadcast_to" => vec![json!({"shape": [3, -1, -1]}), json!({"shape": [2, 3, 4, 1]})],
            "slice" => (0..4)
                .map(|rank| json!({"starts": vec![0; rank], "stops": vec![(); rank], "steps": vec![-1; rank]}))
                .collect(),
            "pad" => (0..4).map(|rank| json!({"widths": vec![[1, 2]; rank]})).collect(),
            "max_pool2d" | "avg_pool2d" => vec![json!({"size": [1, 1], "strides": [1, 1]})],
            "sum" | "mean" | "max" | "min" => {
                vec![json!({}), json!({"axes": [0]}), json!({"axes": [-1], "keepdims": true})]
            }
            _ => vec![json!({})],
        }
    }

    fn filled<E: Real>(shape: &[usize]) -> Tensor {
        Tensor::from_vec(vec![E::from_f64(0.5); shape.iter().product()], shape)
    }

    /// Every operation on arrays without elements (eager tensors may have none) is an error or a value, never a panic.
    #[test]
    fn no_operation_panics_without_elements() {
        let shapes: &[&[usize]] = &[
            &[],
            &[0],
            &[2],
            &[0, 2],
            &[2, 0],
            &[0, 0],
            &[2, 2],
            &[0, 2, 2],
            &[2, 0, 2],
            &[2, 2, 0],
            &[0, 1, 1, 2],
            &[1, 0, 1, 2],
            &[1, 1, 1, 0],
            &[1, 1, 0, 0],
            &[1, 1, 2, 0],
            &[2, 1, 1, 2],
        ];
        let float: Vec<Tensor> = shapes.iter().map(|shape| filled::<f32>(shape)).collect();
        let int: Vec<Tensor> = shapes.iter().map(|shape| filled::<f32>(shape).cast(DType::I32)).collect();
        let truth: Vec<Tensor> = int.iter().map(|tensor| tensor.clone().cast(DType::Bool)).collect();
        let kinds = [&float, &int, &truth];
        let mut computed = 0;
        let mut panics = Vec::new();
        for entry in table() {
            for attributes in attributes(entry.name) {
                let most = entry.most.unwrap_or(2).min(3);
                for count in entry.least..=most {
                    for_choices(count, kinds.len() * shapes.len(), &mut |choice| {
                        let inputs: Vec<Variable> = choice
                            .iter()
                            .map(|&place| kinds[place / shapes.len()][place % shapes.len()].clone())
                            .map(|tensor| Variable::new(tensor.clone(), tensor.dtype().is_float()))
                            .collect();
                        if count > 2 && inputs[2].tensor.rank() > 1 && choice[2] != choice[1] {
                            return;
                        }
                        let run = || {
                            let y = apply(entry.name, &inputs, &attributes, 0)?;
                            if y.requires_grad() {
                                apply("sum", &[y], &json!({}), 0)?.backward()?;
                            }
                            Ok::<(), Error>(())
                        };
                        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
                        match outcome {
                            Ok(Ok(())) => computed += 1,
                            Ok(Err(_)) => {}
                            Err(_) => panics.push(format!(
                                "{} {attributes} {:?}",
                                entry.name,
                                inputs
                                    .iter()
                                    .map(|input| (input.tensor.dtype(), input.tensor.shape()))
                                    .collect::<Vec<_>>()
                            )),
                        }
                    });
                }
            }
        }
        assert!(panics.is_empty(), "{panics:#?}");
        assert!(computed > 500, "only {computed} combinations fitted");
    }

    fn for_choices(count: usize, of: usize, body: &mut dyn FnMut(&[usize])) {
        let mut choice = vec![0; count];
        loop {
            body(&choice);
            let Some(place) = choice.iter().rposition(|&place| place + 1 < of) else {
                return;
            };
            choice[place] += 1;
            choice[place + 1..].fill(0);
        }
    }
}
