//! The one table of primitive operations: shape rule, evaluation and gradient of each.
//!
//! Eager use, tracing, gradients and checks all read this table. A new operation is a file (or a struct in its
//! family's file) and one line in that file's `ENTRIES`.

mod binary;
mod comparison;
mod convolution;
mod elementwise;
mod index;
mod linear;
mod loss;
mod matmul;
mod normalization;
mod pooling;
mod random;
mod reduction;
mod shaping;
mod softmax;
mod window;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) use window::Window;

use crate::program::Type;
use crate::random::Stream;
use crate::tensor::{DType, Tensor};
use crate::{Device, Error, Result};

/// What an evaluation may depend on besides its inputs.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where new tensors are made.
    pub device: Device,
    /// The floating-point type of the session.
    pub dtype: DType,
    /// The random stream of this node in this step.
    pub stream: Stream,
}

/// The value of an operation, and what only its gradient reads.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The output.
    pub value: Tensor,
    /// By-products kept for the gradient: masks, indices, statistics.
    pub saved: Vec<Tensor>,
}

impl From<Tensor> for Evaluation {
    fn from(value: Tensor) -> Self {
        Self { value, saved: Vec::new() }
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
    pub inputs: Vec<Tensor>,
    /// The shapes of the inputs, always.
    pub shapes: Vec<Vec<usize>>,
    /// The output, if [`Keeps::output`].
    pub output: Option<Tensor>,
    /// [`Evaluation::saved`].
    pub saved: Vec<Tensor>,
}

impl Kept {
    /// The kept output; a bug if the operation did not ask for it.
    pub fn output(&self) -> &Tensor {
        self.output.as_ref().expect("the operation keeps its output")
    }
}

/// A primitive operation with its attributes.
pub trait Operation: Debug + Send + Sync {
    /// The shape rule: the type of the output, or what was expected and what came.
    fn infer(&self, inputs: &[&Type]) -> std::result::Result<Type, String>;

    /// The value. Inputs that nobody else needs arrive with unique storage, so that it may be reused.
    fn evaluate(&self, inputs: Vec<Tensor>, context: &Context) -> Evaluation;

    /// What [`Self::gradient`] reads.
    fn keeps(&self) -> Keeps {
        Keeps::INPUTS
    }

    /// Whether gradients pass through.
    fn differentiable(&self) -> bool {
        true
    }

    /// The gradient with respect to each wanted input, from that of the output.
    fn gradient(&self, kept: Kept, gradient: Tensor, wanted: &[bool]) -> Vec<Option<Tensor>>;
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
        loss::ENTRIES,
        random::ENTRIES,
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
