//! Devices by name, with what Python's packages bring for them.

use pyo3::prelude::*;

/// Lets `cuda` find a toolkit among Python's packages, before a device of that name (or, without a name, any) is asked for.
#[cfg(feature = "cuda")]
pub fn prepare(py: Python<'_>, device: Option<&str>) -> PyResult<()> {
    if device.is_none_or(|device| device.starts_with("cuda")) {
        py.import("burnish._toolkit")?.call_method0("provide")?;
    }
    Ok(())
}

/// Nothing: this build has no `cuda`.
#[cfg(not(feature = "cuda"))]
pub fn prepare(_: Python<'_>, _: Option<&str>) -> PyResult<()> {
    Ok(())
}
