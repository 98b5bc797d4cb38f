//! The graph builder.

use std::sync::Mutex;

use burnish_engine::program::{self, Dim, Initializer, Kind, Role, Source, ValueId};
use burnish_engine::{Error, Result};
use numpy::{PyArrayDescrMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::arrays;
use crate::door::{enter, lock};
use crate::types::{Array, Shape};

/// A network with its losses and metrics: built value by value, each checked at once.
///
/// Values are numbers of places. A shape's None is the batch; negative lengths never come out, but a multiple of the
/// batch does as None too.
#[pyclass(frozen, module = "burnish._burnish")]
#[derive(Debug, Default)]
pub struct Program(pub Mutex<burnish_engine::Program>);

/// None is the batch.
type PyShape = Shape<Option<usize>>;

impl Program {
    fn build<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut burnish_engine::Program) -> Result<T> + Send,
    ) -> PyResult<T> {
        enter(py, || work(&mut lock(&self.0)))
    }
}

fn json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::value(format!("{what}: {error}")))
}

fn shape_out(shape: &[Dim]) -> PyShape {
    Shape(shape.iter().map(|dim| (!dim.batch).then_some(dim.count)).collect())
}

#[pymethods]
impl Program {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Declares data of a kind ("float", "int" or "bool"); the shape starts with None, the batch.
    fn input(&self, py: Python<'_>, name: &str, shape: PyShape, kind: &str) -> PyResult<ValueId> {
        let shape = shape.0.into_iter().map(|length| length.map_or(Dim::BATCH, Dim::known)).collect();
        self.build(py, |program| program.input(name, shape, parse_kind(kind)?))
    }

    /// Declares a parameter, or finds the one of this path; role: "kernel", "embedding", "bias" or "scale".
    fn parameter(
        &self,
        py: Python<'_>,
        path: String,
        shape: Shape<usize>,
        role: &str,
        initializer: &str,
    ) -> PyResult<ValueId> {
        self.build(py, |program| {
            let initializer: Initializer = json("initializer", initializer)?;
            program.parameter(program::Parameter { path, shape: shape.0, role: Role::parse(role)?, initializer })
        })
    }

    /// Declares a buffer, or finds the one of this path.
    fn buffer(&self, py: Python<'_>, path: String, shape: Shape<usize>, initializer: &str) -> PyResult<ValueId> {
        self.build(py, |program| {
            let initializer: Initializer = json("initializer", initializer)?;
            program.buffer(program::Buffer { path, shape: shape.0, initializer })
        })
    }

    /// Adds fixed numbers.
    fn constant(&self, py: Python<'_>, array: Array<'_>) -> PyResult<ValueId> {
        let kind = match array.0.dtype().kind() {
            b'f' => Kind::Float,
            b'b' => Kind::Bool,
            _ => Kind::Int,
        };
        let view = arrays::view("constant", &array)?;
        self.build(py, |program| {
            program.constant(program::Constant { values: view.to_f64(), shape: view.shape().to_vec(), kind })
        })
    }

    /// Applies an operation of the table; attributes are JSON.
    #[pyo3(signature = (operation, inputs, attributes = "{}"))]
    fn apply(&self, py: Python<'_>, operation: &str, inputs: Vec<ValueId>, attributes: &str) -> PyResult<ValueId> {
        self.build(py, |program| program.apply(operation, inputs, json("attributes", attributes)?))
    }

    /// Names the layer whose operations come next.
    fn scope(&self, name: &str) {
        lock(&self.0).set_scope(name);
    }

    /// Lets a training step store a value in a buffer.
    fn assign(&self, py: Python<'_>, path: &str, value: ValueId) -> PyResult<()> {
        self.build(py, |program| program.assign(path, value))
    }

    /// Names an output.
    fn output(&self, py: Python<'_>, name: &str, value: ValueId) -> PyResult<()> {
        self.build(py, |program| program.output(name, value))
    }

    /// The shape of a value.
    fn shape(&self, py: Python<'_>, value: ValueId) -> PyResult<PyShape> {
        self.build(py, |program| Ok(shape_out(&program.value(value)?.ty.shape)))
    }

    /// The kind of a value: "float", "int" or "bool".
    fn kind(&self, py: Python<'_>, value: ValueId) -> PyResult<&'static str> {
        self.build(py, |program| Ok(program.value(value)?.ty.kind.name()))
    }

    /// The program as JSON.
    fn to_json(&self, py: Python<'_>) -> PyResult<String> {
        self.build(py, |program| Ok(program.to_json()))
    }

    /// The program that a JSON text describes, wholly checked.
    #[staticmethod]
    fn from_json(py: Python<'_>, text: &str) -> PyResult<Self> {
        enter(py, || Ok(Self(Mutex::new(burnish_engine::Program::from_json(text)?))))
    }

    /// Path, shape and role of each parameter, in order.
    fn parameters(&self) -> Vec<(String, Shape<usize>, &'static str)> {
        lock(&self.0)
            .parameters()
            .map(|(_, parameter)| (parameter.path.clone(), Shape(parameter.shape.clone()), parameter.role.name()))
            .collect()
    }

    /// Path and shape of each buffer, in order.
    fn buffers(&self) -> Vec<(String, Shape<usize>)> {
        lock(&self.0).buffers().map(|(_, buffer)| (buffer.path.clone(), Shape(buffer.shape.clone()))).collect()
    }

    /// Name, shape and kind of each input, in order.
    fn inputs(&self) -> Vec<(String, PyShape, &'static str)> {
        let program = lock(&self.0);
        program
            .inputs()
            .map(|(id, name)| {
                let ty = &program.values()[id].ty;
                (name.to_owned(), shape_out(&ty.shape), ty.kind.name())
            })
            .collect()
    }

    /// The names of the outputs.
    fn outputs(&self) -> Vec<String> {
        lock(&self.0).outputs().keys().cloned().collect()
    }

    /// Scope, operation and output shape of each node, in order.
    fn nodes(&self) -> Vec<(String, String, PyShape)> {
        lock(&self.0)
            .values()
            .iter()
            .filter_map(|value| match &value.source {
                Source::Node(node) => Some((node.scope.clone(), node.name.clone(), shape_out(&value.ty.shape))),
                _ => None,
            })
            .collect()
    }
}

fn parse_kind(name: &str) -> Result<Kind> {
    Kind::parse(name).ok_or_else(|| Error::value(format!("kind must be float, int or bool, got {name:?}")))
}

/// The program itself, for a session.
pub fn copy(program: &Program) -> burnish_engine::Program {
    lock(&program.0).clone()
}
