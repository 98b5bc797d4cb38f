//! The graph that Python describes: inputs, parameters, buffers, constants and operations in order, shapes checked as it grows.

mod checkpoint;
mod evaluate;
mod fusion;
mod initializer;
mod json;
mod precision;
mod shape;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value as Json;

pub use checkpoint::Checkpoint;
pub(crate) use checkpoint::Reverse;
pub(crate) use evaluate::{Evaluator, Leaves, Measured, Plan, Retention, forward};
pub use initializer::Initializer;
pub use precision::Precision;
pub use shape::{Dim, Kind, Type, broadcast, broadcast_lengths, show, show_lengths};

use crate::ops::{self, Operation};
use crate::{Error, Result};

/// A value's place in [`Program::values`].
pub type ValueId = usize;

/// Where a value comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Data, by name.
    Input(String),
    /// Learnt numbers.
    Parameter(Parameter),
    /// Numbers that training updates without gradients.
    Buffer(Buffer),
    /// Fixed numbers.
    Constant(Constant),
    /// The output of an operation.
    Node(Node),
}

/// Learnt numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Stable dotted path.
    pub path: String,
    /// The lengths of the axes.
    pub shape: Vec<usize>,
    /// What it is for, which decides weight decay.
    pub role: Role,
    /// How it starts.
    pub initializer: Initializer,
}

/// Numbers that training updates without gradients, such as running means.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    /// Stable dotted path.
    pub path: String,
    /// The lengths of the axes.
    pub shape: Vec<usize>,
    /// How it starts.
    pub initializer: Initializer,
}

/// Fixed numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// The elements in row-major order.
    pub values: Vec<f64>,
    /// The lengths of the axes.
    pub shape: Vec<usize>,
    /// What they are.
    pub kind: Kind,
}

/// An operation applied to values.
#[derive(Clone, Debug)]
pub struct Node {
    /// The operation's name in the table.
    pub name: String,
    /// Its attributes.
    pub attributes: Json,
    /// What it is applied to.
    pub inputs: Vec<ValueId>,
    /// The dotted name of the layer that emitted it.
    pub scope: String,
    /// The operation itself.
    pub operation: Arc<dyn Operation>,
    /// The layer whose activation the operation applies, if that is another one.
    activated_by: Option<String>,
}

/// What a parameter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Weights of a linear map.
    Kernel,
    /// Rows of a table.
    Embedding,
    /// An offset.
    Bias,
    /// A factor, as of a normalisation.
    Scale,
}

impl Role {
    const ALL: [Self; 4] = [Self::Kernel, Self::Embedding, Self::Bias, Self::Scale];

    /// Its name in programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Embedding => "embedding",
            Self::Bias => "bias",
            Self::Scale => "scale",
        }
    }

    /// The role of a name.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == name)
            .ok_or_else(|| Error::value(format!("role must be kernel, embedding, bias or scale, got {name:?}")))
    }
}

/// A value of the program: its type and where it comes from.
#[derive(Clone, Debug)]
pub struct Value {
    /// Kind and shape.
    pub ty: Type,
    /// Where it comes from.
    pub source: Source,
}

/// A network with its losses and metrics, ready to be checked, run, differentiated and saved.
#[derive(Clone, Debug, Default)]
pub struct Program {
    values: Vec<Value>,
    by_path: HashMap<String, ValueId>,
    outputs: BTreeMap<String, ValueId>,
    assignments: BTreeMap<String, ValueId>,
    scope: String,
}

/// More elements than this in one value are a mistake (or an attack), not a network.
const GREATEST_SIZE: usize = 1 << 40;

impl Program {
    /// All values, in an order in which each can be computed.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The named outputs.
    pub fn outputs(&self) -> &BTreeMap<String, ValueId> {
        &self.outputs
    }

    /// Buffers and the values that a training step assigns to them.
    pub fn assignments(&self) -> &BTreeMap<String, ValueId> {
        &self.assignments
    }

    /// The value of an output.
    pub fn find_output(&self, name: &str) -> Result<ValueId> {
        self.outputs.get(name).copied().ok_or_else(|| Error::Missing(format!("the program has no output {name:?}")))
    }

    /// Places and descriptions of the parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = (ValueId, &Parameter)> {
        self.values.iter().enumerate().filter_map(|(id, value)| match &value.source {
            Source::Parameter(parameter) => Some((id, parameter)),
            _ => None,
        })
    }

    /// Places and descriptions of the buffers, in order.
    pub fn buffers(&self) -> impl Iterator<Item = (ValueId, &Buffer)> {
        self.values.iter().enumerate().filter_map(|(id, value)| match &value.source {
            Source::Buffer(buffer) => Some((id, buffer)),
            _ => None,
        })
    }

    /// Places and names of the inputs, in order.
    pub fn inputs(&self) -> impl Iterator<Item = (ValueId, &str)> {
        self.values.iter().enumerate().filter_map(|(id, value)| match &value.source {
            Source::Input(name) => Some((id, name.as_str())),
            _ => None,
        })
    }

    /// Of each value, whether a node that uses it lies before another kernel: a kernel of which that holds is not in the output
    /// layer.
    pub(crate) fn hidden(&self) -> Vec<bool> {
        let is_kernel = |&id: &ValueId| matches!(&self.values[id].source, Source::Parameter(parameter) if parameter.role == Role::Kernel);
        let mut hidden = vec![false; self.values.len()];
        let mut before_kernel = vec![false; self.values.len()];
        for (id, value) in self.values.iter().enumerate().rev() {
            let Source::Node(node) = &value.source else {
                continue;
            };
            let uses_kernel = node.inputs.iter().any(is_kernel);
            for &input in &node.inputs {
                hidden[input] |= before_kernel[id];
                before_kernel[input] |= before_kernel[id] || (uses_kernel && !is_kernel(&input));
            }
        }
        hidden
    }

    /// Names the layer whose operations come next, for errors and summaries.
    pub fn set_scope(&mut self, scope: &str) {
        scope.clone_into(&mut self.scope);
    }

    /// Declares data; axis 0 is the batch.
    pub fn input(&mut self, name: &str, shape: Vec<Dim>, kind: Kind) -> Result<ValueId> {
        if shape.first() != Some(&Dim::BATCH) || shape[1..].iter().any(|dim| dim.batch) {
            return Err(Error::value(format!(
                "input {name:?}: the shape must start with the batch, and with no other, got {}",
                show(&shape)
            )));
        }
        if self.inputs().any(|(_, known)| known == name) {
            return Err(Error::value(format!("input {name:?} is declared twice")));
        }
        checked_size(&format!("input {name:?}"), &shape)?;
        Ok(self.push(Type { kind, shape }, Source::Input(name.to_owned())))
    }

    /// Declares a parameter, or finds the one declared before under this path.
    pub fn parameter(&mut self, parameter: Parameter) -> Result<ValueId> {
        let ty = self.checked_type(&parameter.path, &parameter.shape)?;
        match self.declared(&parameter.path, &ty)? {
            Some(id) => Ok(id),
            None => Ok(self.push_path(parameter.path.clone(), ty, Source::Parameter(parameter))),
        }
    }

    /// Declares a buffer, or finds the one declared before under this path.
    pub fn buffer(&mut self, buffer: Buffer) -> Result<ValueId> {
        let ty = self.checked_type(&buffer.path, &buffer.shape)?;
        match self.declared(&buffer.path, &ty)? {
            Some(id) => Ok(id),
            None => Ok(self.push_path(buffer.path.clone(), ty, Source::Buffer(buffer))),
        }
    }

    /// Adds fixed numbers.
    pub fn constant(&mut self, constant: Constant) -> Result<ValueId> {
        let shape = known(&constant.shape);
        let size = checked_size("constant", &shape)?;
        if size != constant.values.len() {
            return Err(Error::value(format!(
                "constant: shape {} has {size} elements, got {}",
                show(&shape),
                constant.values.len()
            )));
        }
        Ok(self.push(Type { kind: constant.kind, shape }, Source::Constant(constant)))
    }

    /// Applies an operation: its shape rule runs at once.
    pub fn apply(&mut self, name: &str, inputs: Vec<ValueId>, attributes: Json) -> Result<ValueId> {
        let operation = ops::parse(name, &attributes, inputs.len()).map_err(|error| self.located(error))?;
        let types: Vec<&Type> = inputs
            .iter()
            .map(|&id| self.values.get(id).map(|value| &value.ty))
            .collect::<Option<_>>()
            .ok_or_else(|| Error::value(format!("{name}: an input is not a value of this program")))?;
        let ty = operation.infer(&types).map_err(|message| self.located(Error::value(format!("{name}: {message}"))))?;
        checked_size(name, &ty.shape).map_err(|error| self.located(error))?;
        let scope = self.scope.clone();
        let node = Node { name: name.to_owned(), attributes, inputs, scope, operation, activated_by: None };
        Ok(self.push(ty, Source::Node(node)))
    }

    /// Lets a training step store a value in a buffer.
    pub fn assign(&mut self, path: &str, value: ValueId) -> Result<()> {
        let buffer = *self
            .by_path
            .get(path)
            .filter(|&&id| matches!(self.values[id].source, Source::Buffer(_)))
            .ok_or_else(|| Error::Missing(format!("there is no buffer {path:?}")))?;
        let (expected, got) = (&self.values[buffer].ty, &self.value(value)?.ty);
        if expected != got {
            return Err(Error::value(format!("buffer {path:?} holds {expected}, got {got}")));
        }
        self.assignments.insert(path.to_owned(), value);
        Ok(())
    }

    /// Names an output.
    pub fn output(&mut self, name: &str, value: ValueId) -> Result<()> {
        self.value(value)?;
        self.outputs.insert(name.to_owned(), value);
        Ok(())
    }

    /// A value by its place.
    pub fn value(&self, id: ValueId) -> Result<&Value> {
        self.values.get(id).ok_or_else(|| Error::value(format!("there is no value {id} in this program")))
    }

    fn push(&mut self, ty: Type, source: Source) -> ValueId {
        self.values.push(Value { ty, source });
        self.values.len() - 1
    }

    fn push_path(&mut self, path: String, ty: Type, source: Source) -> ValueId {
        let id = self.push(ty, source);
        self.by_path.insert(path, id);
        id
    }

    fn checked_type(&self, path: &str, shape: &[usize]) -> Result<Type> {
        if path.is_empty() {
            return Err(Error::value("a path must not be empty"));
        }
        let shape = known(shape);
        checked_size(path, &shape)?;
        Ok(Type::float(shape))
    }

    fn declared(&self, path: &str, ty: &Type) -> Result<Option<ValueId>> {
        let Some(&id) = self.by_path.get(path) else {
            return Ok(None);
        };
        if self.values[id].ty == *ty {
            return Ok(Some(id));
        }
        Err(Error::value(format!(
            "{path:?} was declared with shape {}, now with {}",
            show(&self.values[id].ty.shape),
            show(&ty.shape)
        )))
    }

    fn located(&self, error: Error) -> Error {
        match error {
            Error::Value(message) if !self.scope.is_empty() => Error::Value(format!("{}: {message}", self.scope)),
            other => other,
        }
    }
}

fn known(shape: &[usize]) -> Vec<Dim> {
    shape.iter().map(|&count| Dim::known(count)).collect()
}

/// The number of elements (of one sample): at least 1, and no more than memory could hold.
fn checked_size(what: &str, shape: &[Dim]) -> Result<usize> {
    if shape.iter().any(|dim| dim.count == 0) {
        return Err(Error::value(format!("{what}: every axis must have a length of at least 1, got {}", show(shape))));
    }
    shape
        .iter()
        .try_fold(1usize, |size, dim| size.checked_mul(dim.count))
        .filter(|&size| size <= GREATEST_SIZE)
        .ok_or_else(|| Error::value(format!("{what}: shape {} has too many elements", show(shape))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn refused<T: std::fmt::Debug>(result: Result<T>, expected: &str) {
        match result {
            Err(Error::Value(message)) => assert!(message.contains(expected), "{message}"),
            other => panic!("expected a value error, got {other:?}"),
        }
    }

    #[test]
    fn axes_without_length_are_refused_in_words() {
        let mut program = Program::default();
        let zero = Initializer::Zeros {};
        let shape = vec![Dim::BATCH, Dim::known(0)];
        refused(
            program.input("x", shape, Kind::Float),
            "input \"x\": every axis must have a length of at least 1, got (batch, 0)",
        );
        let kernel =
            |shape| Parameter { path: "dense.kernel".to_owned(), shape, role: Role::Kernel, initializer: zero.clone() };
        refused(
            program.parameter(kernel(vec![4, 0])),
            "dense.kernel: every axis must have a length of at least 1, got (4, 0)",
        );
        let buffer = Buffer { path: "mean".to_owned(), shape: vec![0], initializer: zero.clone() };
        refused(program.buffer(buffer), "mean: every axis must have a length of at least 1, got (0,)");
        let constant = Constant { values: Vec::new(), shape: vec![0], kind: Kind::Int };
        refused(program.constant(constant), "constant: every axis must have a length of at least 1, got (0,)");
        refused(program.parameter(kernel(vec![1 << 30, 1 << 30])), "too many elements");
        refused(program.parameter(kernel(vec![usize::MAX, 2])), "too many elements");
        assert!(program.values().is_empty());
    }

    #[test]
    fn errors_name_the_scope_and_what_came() {
        let mut program = Program::default();
        let x = program.input("x", vec![Dim::BATCH, Dim::known(3)], Kind::Float).expect("a new name");
        program.set_scope("encoder.dense");
        refused(
            program.apply("sum", vec![x], json!({"axes": [2]})),
            "encoder.dense: sum: axis 2 is outside shape (batch, 3)",
        );
        refused(program.apply("add", vec![x, 7], json!({})), "not a value of this program");
        refused(program.apply("add", vec![x], json!({})), "expected 2 inputs, got 1");
        refused(program.apply("elu", vec![x], json!({"beta": 1})), "attributes");
        refused(program.input("x", vec![Dim::BATCH], Kind::Float), "declared twice");
        refused(program.input("y", vec![Dim::known(2)], Kind::Float), "must start with the batch");
    }
}
