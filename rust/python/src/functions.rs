//! Functions without a class: what there is, and checks of data.

use burnish_engine::{Device, DeviceInfo, Precision, ops, optimizer, random};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arrays;
use crate::device::prepare;
use crate::door::enter;
use crate::types::{Array, Json, Named, Numbers, Rows, Shape};

/// Name, least and greatest number of inputs (None: any) of every operation.
#[pyfunction]
pub fn operations() -> Vec<(&'static str, usize, Option<usize>)> {
    ops::table().map(|entry| (entry.name, entry.least, entry.most)).collect()
}

/// Hyperparameters of every optimizer with their defaults, `learning_rate` among them.
#[pyfunction]
pub fn optimizers(py: Python<'_>) -> PyResult<Json<'_>> {
    let text = serde_json::to_string(&optimizer::defaults()).expect("plain numbers");
    Ok(Json(py.import("json")?.call_method1("loads", (text,))?.cast_into()?))
}

/// The devices that this machine really has: dicts with name and description.
#[pyfunction]
pub fn devices(py: Python<'_>) -> PyResult<Vec<Named<String>>> {
    prepare(py, None)?;
    let found = enter(py, || Ok(Device::available()))?;
    let dict = |device: DeviceInfo| [("name", device.name), ("description", device.description)];
    let named = |pairs: [(&str, String); 2]| Named(pairs.map(|(key, value)| (key.to_owned(), value)).into());
    Ok(found.into_iter().map(dict).map(named).collect())
}

/// Raises ValueError unless a device has the types of a precision.
#[pyfunction]
pub fn check_precision(py: Python<'_>, device: &str, precision: &str) -> PyResult<()> {
    prepare(py, Some(device))?;
    enter(py, || Precision::parse(precision)?.check(&Device::open(device)?))
}

/// The order of the samples in an epoch.
#[pyfunction]
pub fn permutation(py: Python<'_>, seed: u64, epoch: u64, rows: usize) -> PyResult<Numbers<i64>> {
    enter(py, || Ok(Numbers(random::permutation(seed, epoch, rows))))
}

/// The index of the first NaN or infinity, or None.
#[pyfunction]
pub fn check_finite(py: Python<'_>, array: Array<'_>) -> PyResult<Option<Shape<usize>>> {
    let view = arrays::view("array", &array)?;
    enter(py, || Ok(view.first_not_finite().map(Shape)))
}

/// The first row whose label is not a whole number in `0..classes`: row, label, "range" or "fraction"; or None.
#[pyfunction]
pub fn check_labels(py: Python<'_>, array: Array<'_>, classes: usize) -> PyResult<Option<(usize, f64, &'static str)>> {
    let view = arrays::view("array", &array)?;
    let bad = enter(py, || Ok(view.first_bad_label(classes)))?;
    Ok(bad.map(|(row, label)| {
        let fraction = label.is_finite() && label.fract() != 0.0;
        (row, label, if fraction { "fraction" } else { "range" })
    }))
}

/// Sums with more rows added one by one, so that it does not matter how they were cut into pieces: of the first column, the
/// weights; of as many others as there are sums, the products with them. What has no weight counts for nothing, whatever it is.
#[pyfunction]
pub fn add_weighted(sums: Numbers<f64>, rows: Rows<'_>) -> PyResult<Numbers<f64>> {
    let Numbers(mut sums) = sums;
    let width = rows.width();
    check_columns(width >= sums.len(), sums.len(), width)?;
    for row in rows.values().chunks_exact(width.max(1)) {
        let weight = row[0];
        let products = row.iter().map(|value| if weight > 0.0 { value * weight } else { 0.0 });
        sums.iter_mut().zip(std::iter::once(weight).chain(products.skip(1))).for_each(|(sum, term)| *sum += term);
    }
    Ok(Numbers(sums))
}

/// Sums of each column and then counts of each, with what is finite in more rows added one by one.
#[pyfunction]
pub fn add_finite(totals: Numbers<f64>, rows: Rows<'_>) -> PyResult<Numbers<f64>> {
    let Numbers(mut totals) = totals;
    let width = rows.width();
    check_columns(2 * width == totals.len(), totals.len() / 2, width)?;
    let (sums, counts) = totals.split_at_mut(width);
    for row in rows.values().chunks_exact(width.max(1)) {
        for ((sum, count), value) in sums.iter_mut().zip(&mut *counts).zip(row).filter(|(_, value)| value.is_finite()) {
            *sum += value;
            *count += 1.0;
        }
    }
    Ok(Numbers(totals))
}

fn check_columns(fit: bool, expected: usize, found: usize) -> PyResult<()> {
    if fit { Ok(()) } else { Err(PyValueError::new_err(format!("rows: expected {expected} columns, got {found}"))) }
}
