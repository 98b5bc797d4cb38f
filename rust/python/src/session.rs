//! A program on a device: predict, evaluate, train.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use burnish_engine::gradient::Method;
use burnish_engine::tensor::DType;
use burnish_engine::trainer::{ArrayView, Arrays, Chunk, Inputs, OptimizerConfig, Records, Update};
use burnish_engine::{Device, Error, Interrupt, Result};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;

use crate::arrays::{self, HostArray};
use crate::door::{enter, enter_long};
use crate::program::{Program, copy};
use crate::types::{self, Array, Named, Numbers};

/// A program on a device with its parameters, buffers and optimizer.
#[pyclass(frozen, module = "burnish._burnish")]
#[derive(Debug)]
pub struct Session {
    session: Mutex<burnish_engine::Session>,
    device: String,
    precision: &'static str,
}

fn precision(name: &str) -> Result<DType> {
    match name {
        "float32" => Ok(DType::F32),
        "float64" => Ok(DType::F64),
        _ => Err(Error::value(format!("precision must be 'float32' or 'float64', got {name:?}"))),
    }
}

fn views(arrays: &types::Arrays<'_>) -> PyResult<Inputs> {
    arrays.0.iter().map(|(name, array)| Ok((name.clone(), arrays::view(name, array)?))).collect()
}

fn tensors(arrays: &types::Arrays<'_>) -> PyResult<Arrays> {
    let cpu = Device::cpu();
    arrays.0.iter().map(|(name, array)| Ok((name.clone(), arrays::tensor(name, array, &cpu)?))).collect()
}

fn weight_view(array: Option<&Array<'_>>) -> PyResult<Option<ArrayView>> {
    array.map(|array| arrays::view("sample_weight", array)).transpose()
}

fn fetch(arrays: Arrays) -> Result<Vec<(String, HostArray)>> {
    arrays.into_iter().map(|(path, tensor)| Ok((path, HostArray::new(tensor)?))).collect()
}

fn dict(py: Python<'_>, arrays: Vec<(String, HostArray)>) -> PyResult<types::Arrays<'_>> {
    Ok(Named(arrays.into_iter().map(|(path, array)| Ok((path, array.into_array(py)?))).collect::<PyResult<_>>()?))
}

impl Session {
    fn run<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut burnish_engine::Session, &Interrupt) -> Result<T> + Send,
    ) -> PyResult<T> {
        enter_long(py, &self.session, work)
    }
}

#[pymethods]
impl Session {
    /// Parameters start from their initializers, or from `state` where it has their path.
    #[new]
    #[pyo3(signature = (program, device = "cpu", precision = "float32", seed = 0, state = None))]
    fn new(
        py: Python<'_>,
        program: &Program,
        device: &str,
        precision: &str,
        seed: u64,
        state: Option<types::Arrays<'_>>,
    ) -> PyResult<Self> {
        let mut arrays = tensors(&state.unwrap_or_default())?;
        enter(py, || {
            let dtype = self::precision(precision)?;
            let device = Device::open(device)?;
            let name = device.name();
            let program = Arc::new(copy(program));
            let session = burnish_engine::Session::new(program, device, dtype, seed, &mut arrays)?;
            Ok(Self { session: Mutex::new(session), device: name, precision: dtype.name() })
        })
    }

    /// The device's name.
    #[getter]
    fn device(&self) -> &str {
        &self.device
    }

    /// "float32" or "float64".
    #[getter]
    fn precision(&self) -> &'static str {
        self.precision
    }

    /// Parameters and buffers by path, copied.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<types::Arrays<'py>> {
        let arrays = self.run(py, |session, _| fetch(session.state()))?;
        dict(py, arrays)
    }

    /// Replaces parameters and buffers; nothing changes if one does not fit.
    fn load_state(&self, py: Python<'_>, arrays: types::Arrays<'_>) -> PyResult<()> {
        let arrays = tensors(&arrays)?;
        self.run(py, |session, _| session.load_state(arrays))
    }

    /// Sets the optimizer from JSON; its state starts anew.
    fn optimizer(&self, py: Python<'_>, config: &str) -> PyResult<()> {
        self.run(py, |session, _| {
            let config: OptimizerConfig =
                serde_json::from_str(config).map_err(|error| Error::value(format!("optimizer: {error}")))?;
            session.set_optimizer(&config)
        })
    }

    /// The optimizer's arrays by name and path, copied.
    fn optimizer_state<'py>(&self, py: Python<'py>) -> PyResult<types::Arrays<'py>> {
        let arrays = self.run(py, |session, _| fetch(session.optimizer_state()?))?;
        dict(py, arrays)
    }

    /// Replaces the optimizer's arrays by those that `optimizer_state` gave.
    fn load_optimizer_state(&self, py: Python<'_>, arrays: types::Arrays<'_>) -> PyResult<()> {
        let arrays = tensors(&arrays)?;
        self.run(py, |session, _| session.load_optimizer_state(arrays))
    }

    /// Trains on micro-batches of the rows in `order` (all in sequence if None); returns a record of each.
    #[pyo3(signature = (inputs, order, *, batch_size, learning_rates, sample_weight = None, epoch = 0, first_step = 0))]
    #[allow(clippy::too_many_arguments)]
    fn train<'py>(
        &self,
        py: Python<'py>,
        inputs: types::Arrays<'py>,
        order: Option<Numbers<i64>>,
        batch_size: usize,
        learning_rates: Numbers<f64>,
        sample_weight: Option<Array<'py>>,
        epoch: u64,
        first_step: u64,
    ) -> PyResult<types::Arrays<'py>> {
        let views = views(&inputs)?;
        let weight = weight_view(sample_weight.as_ref())?;
        let records = self.run(py, |session, interrupt| {
            let chunk = Chunk {
                order: order.as_ref().map(|order| order.0.as_slice()),
                batch_size,
                learning_rates: &learning_rates.0,
                sample_weight: weight.as_ref(),
                epoch,
                first_step,
            };
            session.train(&views, &chunk, interrupt)
        })?;
        Ok(records_dict(py, records))
    }

    /// Closes an open accumulation group with an update; None if there is none.
    fn flush(&self, py: Python<'_>, learning_rate: f64) -> PyResult<Option<Named<f64>>> {
        let update = self.run(py, |session, _| session.flush(learning_rate))?;
        let named = |update: Update| {
            let Update { gradient_norm, update_ratio, finite } = update;
            let finite = f64::from(u8::from(finite));
            let all = [("gradient_norm", gradient_norm), ("update_ratio", update_ratio), ("finite", finite)];
            Named(all.map(|(name, value)| (name.to_owned(), value)).into())
        };
        Ok(update.map(named))
    }

    /// Weighted means of the loss and the metrics over all rows.
    #[pyo3(signature = (inputs, *, batch_size, sample_weight = None))]
    fn evaluate(
        &self,
        py: Python<'_>,
        inputs: types::Arrays<'_>,
        batch_size: usize,
        sample_weight: Option<Array<'_>>,
    ) -> PyResult<Named<f64>> {
        let views = views(&inputs)?;
        let weight = weight_view(sample_weight.as_ref())?;
        self.run(py, |session, interrupt| session.evaluate(&views, batch_size, weight.as_ref(), interrupt)).map(Named)
    }

    /// The named outputs for all rows.
    #[pyo3(signature = (inputs, *, batch_size, outputs))]
    fn predict<'py>(
        &self,
        py: Python<'py>,
        inputs: types::Arrays<'py>,
        batch_size: usize,
        outputs: Vec<String>,
    ) -> PyResult<Vec<Array<'py>>> {
        let views = views(&inputs)?;
        let arrays = self.run(py, |session, interrupt| {
            let parts = session.predict(&views, batch_size, &outputs, interrupt)?;
            parts.into_iter().map(HostArray::joined).collect::<Result<Vec<_>>>()
        })?;
        arrays.into_iter().map(|array| array.into_array(py)).collect()
    }

    /// Gradients of the weighted mean training loss over all rows, by path.
    #[pyo3(signature = (inputs, *, method = "autodiff", sample_weight = None))]
    fn gradients<'py>(
        &self,
        py: Python<'py>,
        inputs: types::Arrays<'py>,
        method: &str,
        sample_weight: Option<Array<'py>>,
    ) -> PyResult<types::Arrays<'py>> {
        let views = views(&inputs)?;
        let weight = weight_view(sample_weight.as_ref())?;
        let arrays = self.run(py, |session, interrupt| {
            fetch(session.gradients(&views, Method::parse(method)?, weight.as_ref(), interrupt)?)
        })?;
        dict(py, arrays)
    }
}

fn records_dict(py: Python<'_>, records: Records) -> types::Arrays<'_> {
    let Records { loss, weight, gradient_norm, update_ratio, finite, metrics } = records;
    let array = |values: Vec<f64>| Array(PyArray1::from_vec(py, values).as_untyped().clone());
    let mut all: BTreeMap<String, Array<'_>> = metrics.into_iter().map(|(name, means)| (name, array(means))).collect();
    for (name, values) in
        [("loss", loss), ("weight", weight), ("gradient_norm", gradient_norm), ("update_ratio", update_ratio)]
    {
        all.insert(name.to_owned(), array(values));
    }
    all.insert("finite".to_owned(), Array(PyArray1::from_vec(py, finite).as_untyped().clone()));
    Named(all)
}
