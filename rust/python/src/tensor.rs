//! Eager tensors.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use burnish_engine::gradient::{Variable, apply};
use burnish_engine::{Device, Error};
use pyo3::prelude::*;

use crate::arrays::{self, HostArray};
use crate::device::prepare;
use crate::door::{enter, exception, lock};
use crate::types::{Array, Shape};

/// A value on a device, computed at once, with gradients on request.
#[pyclass(frozen, module = "burnish._burnish")]
#[derive(Debug)]
pub struct Tensor(Mutex<Option<Variable>>);

/// Each operation that draws random numbers draws others.
static DRAWS: AtomicU64 = AtomicU64::new(0);

impl Tensor {
    fn wrap(variable: Variable) -> Self {
        Self(Mutex::new(Some(variable)))
    }

    fn variable(&self) -> PyResult<Variable> {
        lock(&self.0)
            .clone()
            .ok_or_else(|| exception(Error::Value("the tensor was freed by .free() and holds nothing any more".into())))
    }
}

#[pymethods]
impl Tensor {
    /// Copies an array to a device: float64 stays, other floats become float32, integers int32.
    #[new]
    #[pyo3(signature = (array, requires_grad = false, device = "cpu"))]
    fn new(py: Python<'_>, array: Array<'_>, requires_grad: bool, device: &str) -> PyResult<Self> {
        let view = arrays::view("array", &array)?;
        prepare(py, Some(device))?;
        let variable = enter(py, || {
            let tensor = view.to_tensor(&Device::open(device)?)?;
            if requires_grad && !tensor.dtype().is_float() {
                return Err(Error::Type(format!("requires_grad needs floats, got {}", tensor.dtype().name())));
            }
            Ok(Variable::new(tensor, requires_grad))
        })?;
        Ok(Self::wrap(variable))
    }

    /// The lengths of the axes.
    #[getter]
    fn shape(&self) -> PyResult<Shape<usize>> {
        Ok(Shape(self.variable()?.tensor.shape().to_vec()))
    }

    /// NumPy's name of the element type.
    #[getter]
    fn dtype(&self) -> PyResult<&'static str> {
        Ok(self.variable()?.tensor.dtype().name())
    }

    /// The device's name.
    #[getter]
    fn device(&self) -> PyResult<String> {
        Ok(self.variable()?.tensor.device().name())
    }

    /// Whether gradients reach it.
    #[getter]
    fn requires_grad(&self) -> PyResult<bool> {
        Ok(self.variable()?.requires_grad())
    }

    /// The gradient that `backward` left here, or None.
    #[getter]
    fn grad(&self) -> PyResult<Option<Self>> {
        Ok(self.variable()?.gradient().map(|gradient| Self::wrap(Variable::new(gradient, false))))
    }

    /// Forgets the gradient.
    fn zero_grad(&self) -> PyResult<()> {
        self.variable()?.clear_gradient();
        Ok(())
    }

    /// The values as an array of its own.
    fn numpy<'py>(&self, py: Python<'py>) -> PyResult<Array<'py>> {
        let tensor = self.variable()?.tensor;
        enter(py, || HostArray::new(tensor))?.into_array(py)
    }

    /// Adds the gradient of this scalar to every leaf with requires_grad that it was made from.
    fn backward(&self, py: Python<'_>) -> PyResult<()> {
        let variable = self.variable()?;
        enter(py, || variable.backward())
    }

    /// Gives the memory back now; the tensor holds nothing any more.
    fn free(&self) {
        lock(&self.0).take();
    }

    /// The same values without gradients.
    fn detach(&self) -> PyResult<Self> {
        Ok(Self::wrap(self.variable()?.detach()))
    }

    /// Applies an operation of the table; attributes are JSON.
    #[staticmethod]
    #[pyo3(signature = (operation, inputs, attributes = "{}"))]
    fn apply(py: Python<'_>, operation: &str, inputs: Vec<PyRef<'_, Self>>, attributes: &str) -> PyResult<Self> {
        let inputs = inputs.iter().map(|input| input.variable()).collect::<PyResult<Vec<_>>>()?;
        let variable = enter(py, || {
            let attributes =
                serde_json::from_str(attributes).map_err(|error| Error::value(format!("attributes: {error}")))?;
            apply(operation, &inputs, &attributes, DRAWS.fetch_add(1, Ordering::Relaxed))
        })?;
        Ok(Self::wrap(variable))
    }
}
