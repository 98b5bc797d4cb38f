//! Functions without a class: what there is, and checks of data.

use burnish_engine::{Device, ops, optimizer, random};
use numpy::{PyArray1, PyUntypedArray};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::arrays;
use crate::door::enter;

/// Name, least and greatest number of inputs (None: any) of every operation.
#[pyfunction]
pub fn operations() -> Vec<(&'static str, usize, Option<usize>)> {
    ops::table().map(|entry| (entry.name, entry.least, entry.most)).collect()
}

/// Hyperparameters of every optimizer with their defaults, `learning_rate` among them.
#[pyfunction]
pub fn optimizers(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let text = serde_json::to_string(&optimizer::defaults()).expect("plain numbers");
    py.import("json")?.call_method1("loads", (text,))
}

/// The devices that this machine really has: dicts with name and description.
#[pyfunction]
pub fn devices(py: Python<'_>) -> PyResult<Vec<std::collections::BTreeMap<&'static str, String>>> {
    let found = enter(py, || Ok(Device::available()))?;
    Ok(found.into_iter().map(|device| [("name", device.name), ("description", device.description)].into()).collect())
}

/// The order of the samples in an epoch.
#[pyfunction]
pub fn permutation(py: Python<'_>, seed: u64, epoch: u64, rows: usize) -> PyResult<Bound<'_, PyArray1<i64>>> {
    let order = enter(py, || Ok(random::permutation(seed, epoch, rows)))?;
    Ok(PyArray1::from_vec(py, order))
}

/// The index of the first NaN or infinity, or None.
#[pyfunction]
pub fn check_finite<'py>(py: Python<'py>, array: &Bound<'py, PyUntypedArray>) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let view = arrays::view("array", array)?;
    let place = enter(py, || Ok(view.first_not_finite()))?;
    place.map(|place| PyTuple::new(py, place)).transpose()
}

/// The first row whose label is not a whole number in `0..classes`: row, label, "range" or "fraction"; or None.
#[pyfunction]
pub fn check_labels(
    py: Python<'_>,
    array: &Bound<'_, PyUntypedArray>,
    classes: usize,
) -> PyResult<Option<(usize, f64, &'static str)>> {
    let view = arrays::view("array", array)?;
    let bad = enter(py, || Ok(view.first_bad_label(classes)))?;
    Ok(bad.map(|(row, label)| {
        let fraction = label.is_finite() && label.fract() != 0.0;
        (row, label, if fraction { "fraction" } else { "range" })
    }))
}
