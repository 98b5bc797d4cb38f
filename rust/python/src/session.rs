//! A program on a device: predict, evaluate, train.

use std::sync::{Arc, Mutex, MutexGuard};

use burnish_engine::gradient::Method;
use burnish_engine::trainer::{
    self, ArrayView, Arrays, Chunk, Diagnosis, Inputs, Movement, OptimizerConfig, Update, Zeros,
};
use burnish_engine::{Device, Error, Interrupt, Precision, Result};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyTuple;
use rayon::prelude::*;

use crate::arrays::{self, HostArray};
use crate::device::prepare;
use crate::door::{enter, enter_long, lock};
use crate::program::{Program, copy};
use crate::types::{self, Array, Named, Names, Numbers, Table};

/// A program on a device with its parameters, buffers and optimizer.
#[pyclass(frozen, module = "burnish._burnish")]
#[derive(Debug)]
pub struct Session {
    session: Mutex<burnish_engine::Session>,
    /// What a signal raised while the last run trained.
    signal: Mutex<Option<PyErr>>,
    device: String,
    precision: &'static str,
    /// What the columns of the last records were.
    columns: Mutex<Option<Py<PyTuple>>>,
}

/// What training on some micro-batches left behind.
#[pyclass(frozen, module = "burnish._burnish")]
#[derive(Debug)]
pub struct Records {
    columns: Py<PyTuple>,
    rows: Py<PyArray2<f64>>,
    movements: Py<PyArray2<f64>>,
    zeros: Py<PyArray2<f64>>,
    /// How many updates were made.
    #[pyo3(get)]
    updates: usize,
    /// How many updates were skipped, because their gradient was not finite.
    #[pyo3(get)]
    skipped: usize,
}

#[pymethods]
impl Records {
    /// What `rows` tells: "weight", "loss", "metric.<name>" of each metric, "epoch", "step", "learning_rate",
    /// "gradient_norm", "update_ratio", "finite", and "loss_scale" where the loss is scaled; the same tuple as long as it is.
    #[getter]
    fn columns<'py>(&self, py: Python<'py>) -> Names<'py> {
        Names(self.columns.bind(py).clone())
    }

    /// A row for each micro-batch.
    #[getter]
    fn rows<'py>(&self, py: Python<'py>) -> Table<'py> {
        Table(self.rows.bind(py).clone())
    }

    /// A row for each micro-batch: gradient norm and update ratio of each parameter of `Session.trained`, NaN where no update
    /// was due.
    #[getter]
    fn movements<'py>(&self, py: Python<'py>) -> Table<'py> {
        Table(self.movements.bind(py).clone())
    }

    /// A row for each micro-batch whose zero activations were counted: zeros and dead units of each layer of
    /// `Session.rectified`.
    #[getter]
    fn zeros<'py>(&self, py: Python<'py>) -> Table<'py> {
        Table(self.zeros.bind(py).clone())
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
    arrays.into_par_iter().map(|(path, tensor)| Ok((path, HostArray::new(tensor)?))).collect()
}

fn dict(py: Python<'_>, arrays: Vec<(String, HostArray)>) -> PyResult<types::Arrays<'_>> {
    Ok(Named(arrays.into_iter().map(|(path, array)| Ok((path, array.into_array(py)?))).collect::<PyResult<_>>()?))
}

impl Session {
    /// The engine's session, for short work.
    pub(crate) fn lock(&self) -> MutexGuard<'_, burnish_engine::Session> {
        lock(&self.session)
    }

    fn run<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut burnish_engine::Session, &Interrupt) -> Result<T> + Send,
    ) -> PyResult<T> {
        enter_long(py, &self.session, self.device == "cpu", work)
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
        prepare(py, Some(device))?;
        enter(py, || {
            let precision = Precision::parse(precision)?;
            let device = Device::open(device)?;
            let name = device.name();
            let program = Arc::new(copy(program));
            let session = burnish_engine::Session::new(program, device, precision, seed, &mut arrays)?;
            Ok(Self {
                session: Mutex::new(session),
                signal: Mutex::default(),
                device: name,
                precision: precision.name(),
                columns: Mutex::default(),
            })
        })
    }

    /// The device's name.
    #[getter]
    fn device(&self) -> &str {
        &self.device
    }

    /// "float32", "float64", "mixed_float16" or "mixed_bfloat16".
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

    /// Begins, goes on or (None) ends to average the weights: what part of the average each update keeps.
    fn average(&self, py: Python<'_>, decay: Option<f64>) -> PyResult<()> {
        self.run(py, |session, _| session.set_average(decay))
    }

    /// Averages of the parameters by path, copied; none before the first update.
    fn averages<'py>(&self, py: Python<'py>) -> PyResult<types::Arrays<'py>> {
        let arrays = self.run(py, |session, _| fetch(session.averages()))?;
        dict(py, arrays)
    }

    /// The paths of the parameters that are trained: columns of "parameters.gradient_norm" and "parameters.update_ratio".
    fn trained(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.run(py, |session, _| session.trained())
    }

    /// The layers whose zero activations are counted: columns of "activations.zeros" and "activations.dead".
    fn rectified(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.run(py, |session, _| session.rectified())
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

    /// Keeps copies of training arrays on the device, of those that fit, until `release`; returns their names. On "cpu" none.
    ///
    /// The arrays must stay where they are meanwhile; what is written to them is not seen.
    fn hold(&self, py: Python<'_>, inputs: types::Arrays<'_>) -> PyResult<Vec<String>> {
        let views = views(&inputs)?;
        self.run(py, |session, _| session.hold(&views))
    }

    /// Drops what `hold` keeps.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        self.run(py, |session, _| {
            session.release();
            Ok(())
        })
    }

    /// Trains on micro-batches of the rows in `order` (all in sequence if None); returns a record of each that was done: of
    /// some if a signal came, whose exception `signalled` raises.
    #[pyo3(signature = (inputs, order, *, batch_size, learning_rates, sample_weight = None, epoch = 0, first_step = 0, diagnose = false))]
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
        diagnose: bool,
    ) -> PyResult<Records> {
        self.signalled()?;
        let views = views(&inputs)?;
        let weight = weight_view(sample_weight.as_ref())?;
        let mut done = None;
        let outcome = self.run(py, |session, interrupt| {
            let chunk = Chunk {
                order: order.as_ref().map(|order| order.0.as_slice()),
                batch_size,
                learning_rates: &learning_rates.0,
                sample_weight: weight.as_ref(),
                epoch,
                first_step,
                diagnose,
            };
            done = Some(session.train(&views, &chunk, interrupt)?);
            Ok(())
        });
        let Some(records) = done else {
            return Err(outcome.expect_err("nothing was done"));
        };
        // Of work that succeeded, the only error is a signal's.
        *lock(&self.signal) = outcome.err();
        self.told(py, records, [epoch, first_step])
    }

    /// Trains like `train`, once over the rows, and tells how long the whole took and of each operation: phase, place in the
    /// program (None for a whole phase), name, layer, how often it ran, seconds, bytes read and written.
    #[pyo3(signature = (inputs, order, *, batch_size, learning_rates, sample_weight = None))]
    fn profile<'py>(
        &self,
        py: Python<'py>,
        inputs: types::Arrays<'py>,
        order: Option<Numbers<i64>>,
        batch_size: usize,
        learning_rates: Numbers<f64>,
        sample_weight: Option<Array<'py>>,
    ) -> PyResult<(f64, Vec<ProfileRow>)> {
        let views = views(&inputs)?;
        let weight = weight_view(sample_weight.as_ref())?;
        let profile = self.run(py, |session, interrupt| {
            let chunk = Chunk {
                order: order.as_ref().map(|order| order.0.as_slice()),
                sample_weight: weight.as_ref(),
                ..Chunk::new(batch_size, &learning_rates.0)
            };
            session.profile(&views, &chunk, interrupt)
        })?;
        let row = |row: trainer::ProfileRow| {
            let trainer::Cost { calls, seconds, bytes } = row.cost;
            (row.phase.name(), row.node, row.operation, row.scope, calls, seconds, bytes)
        };
        Ok((profile.seconds, profile.rows.into_iter().map(row).collect()))
    }

    /// Raises the exception of the signal that came while `train` last ran, if one did, once.
    fn signalled(&self) -> PyResult<()> {
        lock(&self.signal).take().map_or(Ok(()), Err)
    }

    /// Where the first number that is not finite came from, since the last call and in training with `diagnose`: epoch, step,
    /// "input", "parameter", "activation", "loss" or "gradient", name, layer, how many of how many elements, row.
    fn take_diagnosis(&self, py: Python<'_>) -> PyResult<Option<Finding>> {
        Ok(self.run(py, |session, _| Ok(session.take_diagnosis()))?.map(finding))
    }

    /// Closes an open accumulation group with an update and returns its gradient norm, its update ratio, whether it was made, and
    /// a row as of `Records.movements`; None if there is none.
    fn flush<'py>(&self, py: Python<'py>, learning_rate: f64) -> PyResult<Option<(f64, f64, bool, Table<'py>)>> {
        let update = self.run(py, |session, _| session.flush(learning_rate))?;
        let told = |update: Update| {
            let movements = movements(py, &update.parameters, [1, update.parameters.len()])?;
            Ok((update.gradient_norm, update.update_ratio, update.finite, Table(movements)))
        };
        update.map(told).transpose()
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

    /// The weighted mean training loss over all rows, with the parameters moved by each of `steps` times `direction`.
    #[pyo3(signature = (inputs, direction, steps, *, sample_weight = None))]
    fn losses_along(
        &self,
        py: Python<'_>,
        inputs: types::Arrays<'_>,
        direction: types::Arrays<'_>,
        steps: Numbers<f64>,
        sample_weight: Option<Array<'_>>,
    ) -> PyResult<Vec<f64>> {
        let (views, direction) = (views(&inputs)?, tensors(&direction)?);
        let weight = weight_view(sample_weight.as_ref())?;
        self.run(py, |session, interrupt| session.losses_along(&views, direction, &steps.0, weight.as_ref(), interrupt))
    }
}

type ProfileRow = (&'static str, Option<usize>, String, String, u64, f64, f64);

type Finding = (u64, u64, &'static str, String, String, usize, usize, Option<i64>);

fn finding(diagnosis: Diagnosis) -> Finding {
    let Diagnosis { address: [epoch, step], origin, name, scope, count, elements, row } = diagnosis;
    (epoch, step, origin.name(), name, scope, count, elements, row)
}

fn table(py: Python<'_>, values: Vec<f64>, shape: [usize; 2]) -> PyResult<Bound<'_, PyArray2<f64>>> {
    PyArray1::from_vec(py, values).reshape(shape)
}

/// What updates did to each parameter: a row an update, two columns a parameter.
fn movements<'py>(py: Python<'py>, rows: &[Movement], shape: [usize; 2]) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let values = rows.iter().flat_map(|movement| [movement.gradient_norm, movement.update_ratio]);
    table(py, values.collect(), [shape[0], 2 * shape[1]])
}

/// Zeros among the activations: the micro-batches that were looked at, a row each, two columns a layer.
fn zeros<'py>(py: Python<'py>, seen: &[(usize, Vec<Zeros>)]) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let layers = seen.first().map_or(0, |(_, layers)| layers.len());
    let values = seen.iter().flat_map(|(_, layers)| layers).flat_map(|zeros| [zeros.fraction, zeros.dead]);
    table(py, values.collect(), [seen.len(), 2 * layers])
}

impl Session {
    /// Records of a piece that began at an epoch and a step.
    fn told(&self, py: Python<'_>, records: trainer::Records, at: [u64; 2]) -> PyResult<Records> {
        let count = records.loss.len();
        let parameters = records.parameters.len() / count.max(1);
        let finite: Vec<f64> = records.finite.iter().map(|&finite| f64::from(u8::from(finite))).collect();
        let [epoch, first] = at.map(|number| number as f64);
        let places = [vec![epoch; count], (0..count).map(|step| first + step as f64).collect()];
        let mut columns: Vec<(&str, &[f64])> = vec![("weight", &records.weight), ("loss", &records.loss)];
        columns.extend(records.metrics.iter().map(|(name, means)| (&**name, &**means)));
        columns.extend([
            ("epoch", &*places[0]),
            ("step", &*places[1]),
            ("learning_rate", &*records.learning_rate),
            ("gradient_norm", &*records.gradient_norm),
            ("update_ratio", &*records.update_ratio),
            ("finite", &*finite),
        ]);
        if !records.loss_scale.is_empty() {
            columns.push(("loss_scale", &records.loss_scale));
        }
        let rows = (0..count).flat_map(|row| columns.iter().map(move |(_, column)| column[row])).collect();
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        Ok(Records {
            columns: self.columns(py, &names)?,
            rows: table(py, rows, [count, columns.len()])?.unbind(),
            movements: movements(py, &records.parameters, [count, parameters])?.unbind(),
            zeros: zeros(py, &records.activations)?.unbind(),
            updates: records.updates,
            skipped: records.finite.iter().filter(|finite| !**finite).count(),
        })
    }

    /// The names as a tuple: that of the last records if they are the same, which tells so at once.
    fn columns(&self, py: Python<'_>, names: &[&str]) -> PyResult<Py<PyTuple>> {
        let mut last = lock(&self.columns);
        if let Some(known) = &*last
            && known.bind(py).extract::<Vec<PyBackedStr>>()? == names
        {
            return Ok(known.clone_ref(py));
        }
        Ok(last.insert(PyTuple::new(py, names)?.unbind()).clone_ref(py))
    }
}
