//! Arguments and results as Python's type checkers name them: the stub is generated from what stands here.

use std::collections::BTreeMap;

use numpy::{PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::inspect::{PyStaticConstant, PyStaticExpr};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping, PyTuple};
use pyo3::{Borrowed, FromPyObject, IntoPyObject, type_hint_identifier, type_hint_subscript};

const ANY: PyStaticExpr = type_hint_identifier!("typing", "Any");
const STR: PyStaticExpr = type_hint_identifier!("builtins", "str");
const DICT: PyStaticExpr = type_hint_identifier!("builtins", "dict");
const ELLIPSIS: PyStaticExpr = PyStaticExpr::Constant { value: PyStaticConstant::Ellipsis };

const fn array_of(element: &'static PyStaticExpr) -> PyStaticExpr {
    PyStaticExpr::Subscript { value: &type_hint_identifier!("numpy.typing", "NDArray"), slice: element }
}

/// An array of any type and shape.
#[derive(Clone, Debug)]
pub struct Array<'py>(pub Bound<'py, PyUntypedArray>);

impl<'py> FromPyObject<'_, 'py> for Array<'py> {
    type Error = PyErr;
    const INPUT_TYPE: PyStaticExpr = array_of(&ANY);

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(object.cast::<PyUntypedArray>()?.to_owned()))
    }
}

impl<'py> IntoPyObject<'py> for Array<'py> {
    type Target = PyUntypedArray;
    type Output = Bound<'py, PyUntypedArray>;
    type Error = std::convert::Infallible;
    const OUTPUT_TYPE: PyStaticExpr = array_of(&ANY);

    fn into_pyobject(self, _: Python<'py>) -> Result<Self::Output, Self::Error> {
        Ok(self.0)
    }
}

/// A number that arrays of one axis hold.
pub trait Number: numpy::Element + Copy {
    /// NumPy's type.
    const HINT: PyStaticExpr;
}

impl Number for i64 {
    const HINT: PyStaticExpr = type_hint_identifier!("numpy", "int64");
}

impl Number for f64 {
    const HINT: PyStaticExpr = type_hint_identifier!("numpy", "float64");
}

/// The numbers of an array of one axis and this very type.
#[derive(Clone, Debug)]
pub struct Numbers<T>(pub Vec<T>);

impl<T: Number> FromPyObject<'_, '_> for Numbers<T> {
    type Error = PyErr;
    const INPUT_TYPE: PyStaticExpr = array_of(&T::HINT);

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let array: PyReadonlyArray1<'_, T> = object.extract()?;
        Ok(Self(array.as_array().to_vec()))
    }
}

impl<'py, T: Number> IntoPyObject<'py> for Numbers<T> {
    type Target = PyArray1<T>;
    type Output = Bound<'py, PyArray1<T>>;
    type Error = std::convert::Infallible;
    const OUTPUT_TYPE: PyStaticExpr = array_of(&T::HINT);

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Self::Error> {
        Ok(PyArray1::from_vec(py, self.0))
    }
}

/// Rows of numbers, one behind the other.
#[derive(Debug)]
pub struct Rows<'py>(PyReadonlyArray2<'py, f64>);

impl Rows<'_> {
    /// The numbers of a row.
    pub fn width(&self) -> usize {
        self.0.as_array().ncols()
    }

    /// All numbers.
    pub fn values(&self) -> &[f64] {
        self.0.as_slice().expect("checked when it came")
    }
}

impl<'py> FromPyObject<'_, 'py> for Rows<'py> {
    type Error = PyErr;
    const INPUT_TYPE: PyStaticExpr = array_of(&f64::HINT);

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let array: PyReadonlyArray2<'py, f64> = object.extract()?;
        if array.is_c_contiguous() {
            return Ok(Self(array));
        }
        Err(PyValueError::new_err("expected rows of numbers that lie one behind the other"))
    }
}

/// Rows of numbers that come out.
#[derive(Debug)]
pub struct Table<'py>(pub Bound<'py, PyArray2<f64>>);

impl<'py> IntoPyObject<'py> for Table<'py> {
    type Target = PyArray2<f64>;
    type Output = Bound<'py, PyArray2<f64>>;
    type Error = std::convert::Infallible;
    const OUTPUT_TYPE: PyStaticExpr = array_of(&f64::HINT);

    fn into_pyobject(self, _: Python<'py>) -> Result<Self::Output, Self::Error> {
        Ok(self.0)
    }
}

/// A tuple of names.
#[derive(Debug)]
pub struct Names<'py>(pub Bound<'py, PyTuple>);

impl<'py> IntoPyObject<'py> for Names<'py> {
    type Target = PyTuple;
    type Output = Bound<'py, PyTuple>;
    type Error = std::convert::Infallible;
    const OUTPUT_TYPE: PyStaticExpr = type_hint_subscript!(type_hint_identifier!("builtins", "tuple"), STR, ELLIPSIS);

    fn into_pyobject(self, _: Python<'py>) -> Result<Self::Output, Self::Error> {
        Ok(self.0)
    }
}

/// A mapping from names; comes out as a dict.
#[derive(Clone, Debug)]
pub struct Named<V>(pub BTreeMap<String, V>);

/// Arrays by name.
pub type Arrays<'py> = Named<Array<'py>>;

impl<V> Default for Named<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'py, V: FromPyObjectOwned<'py>> FromPyObject<'_, 'py> for Named<V> {
    type Error = PyErr;
    const INPUT_TYPE: PyStaticExpr =
        type_hint_subscript!(type_hint_identifier!("collections.abc", "Mapping"), STR, V::INPUT_TYPE);

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let mut named = BTreeMap::new();
        for item in object.cast::<PyMapping>()?.items()? {
            let (name, value): (String, Bound<'py, PyAny>) = item.extract()?;
            let value = value.extract().map_err(|error: V::Error| {
                let error: PyErr = error.into();
                PyTypeError::new_err(format!("{name}: {}", error.value(object.py())))
            })?;
            named.insert(name, value);
        }
        Ok(Self(named))
    }
}

impl<'py, V: IntoPyObject<'py>> IntoPyObject<'py> for Named<V> {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;
    const OUTPUT_TYPE: PyStaticExpr = type_hint_subscript!(DICT, STR, V::OUTPUT_TYPE);

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        self.0.into_pyobject(py)
    }
}

/// The lengths of axes: any sequence in, a tuple out.
#[derive(Clone, Debug)]
pub struct Shape<T>(pub Vec<T>);

impl<'py, T: FromPyObjectOwned<'py>> FromPyObject<'_, 'py> for Shape<T> {
    type Error = PyErr;
    const INPUT_TYPE: PyStaticExpr =
        type_hint_subscript!(type_hint_identifier!("collections.abc", "Sequence"), T::INPUT_TYPE);

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        object.extract().map(Self)
    }
}

impl<'py, T: IntoPyObject<'py>> IntoPyObject<'py> for Shape<T> {
    type Target = PyTuple;
    type Output = Bound<'py, PyTuple>;
    type Error = PyErr;
    const OUTPUT_TYPE: PyStaticExpr =
        type_hint_subscript!(type_hint_identifier!("builtins", "tuple"), T::OUTPUT_TYPE, ELLIPSIS);

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        PyTuple::new(py, self.0)
    }
}

/// Plain data from JSON: objects of objects of anything.
#[derive(Debug)]
pub struct Json<'py>(pub Bound<'py, PyDict>);

impl<'py> IntoPyObject<'py> for Json<'py> {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = std::convert::Infallible;
    const OUTPUT_TYPE: PyStaticExpr = type_hint_subscript!(DICT, STR, type_hint_subscript!(DICT, STR, ANY));

    fn into_pyobject(self, _: Python<'py>) -> Result<Self::Output, Self::Error> {
        Ok(self.0)
    }
}
