//! Training: a program on a device with its parameters, buffers and optimizer.

mod ahead;
mod average;
mod config;
mod data;
mod diagnose;
mod held;
mod joined;
mod loss_scale;
mod monitor;
mod observers;
mod offsets;
mod profile;
mod records;
mod solver;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod unseen;
mod update;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use config::{GroupConfig, OptimizerConfig};
pub use data::{ArrayView, Format};
pub(crate) use diagnose::Sentry;
pub use diagnose::{Diagnosis, Origin};
pub use loss_scale::LossScaleConfig;
pub(crate) use monitor::Watch;
pub use monitor::{ACTIVATIONS_EVERY, Zeros};
pub(crate) use observers::Observers;
pub(crate) use profile::Profiler;
pub use profile::{Cost, Phase, Profile, ProfileRow};
pub use update::{Movement, Update};

use crate::ops::Context;
use crate::program::{Leaves, Plan, Precision, Reverse, Source, ValueId};
use crate::random::{Purpose, Stream};
use crate::tensor::{DType, Tensor};
use crate::{Device, Error, Program, Result};

/// Lent arrays by input name.
pub type Inputs = BTreeMap<String, ArrayView>;

/// Arrays by path.
pub type Arrays = BTreeMap<String, Tensor>;

/// A program on a device, ready to predict, evaluate and train.
#[derive(Debug)]
pub struct Session {
    /// As it was described.
    described: Arc<Program>,
    /// As it runs, with the same places.
    program: Arc<Program>,
    device: Device,
    precision: Precision,
    /// The type of parameters and state.
    dtype: DType,
    seed: u64,
    /// Parameters, buffers and constants, by place.
    state: Leaves,
    training: Option<update::Training>,
    plans: BTreeMap<String, Arc<Outputs>>,
    diagnosis: Option<Diagnosis>,
    profiler: Option<Profiler>,
    held: held::Held,
}

/// The outputs of one purpose, with their plan.
#[derive(Debug)]
struct Outputs {
    plan: Plan,
    /// The loss of each sample.
    loss: ValueId,
    /// What is averaged besides: metrics by name.
    metrics: Vec<(String, ValueId)>,
}

/// A run over rows of lent arrays.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// The rows in the order of their use; `None` for all in sequence.
    pub order: Option<&'a [i64]>,
    /// Rows of one micro-batch; the last may be shorter.
    pub batch_size: usize,
    /// The learning rate of each micro-batch, if no update is skipped; one that is leaves its rate to the next.
    pub learning_rates: &'a [f64],
    /// The weight of each row of the arrays; `None` for 1.
    pub sample_weight: Option<&'a ArrayView>,
    /// The epoch, which addresses random numbers.
    pub epoch: u64,
    /// The place of the first micro-batch within the epoch, likewise.
    pub first_step: u64,
    /// Whether the first micro-batch with a number that is not finite is run again to find out where that came from.
    pub diagnose: bool,
}

impl<'a> Chunk<'a> {
    /// All rows in sequence and of weight 1, in the first epoch.
    pub fn new(batch_size: usize, learning_rates: &'a [f64]) -> Self {
        Self { order: None, batch_size, learning_rates, sample_weight: None, epoch: 0, first_step: 0, diagnose: false }
    }
}

/// What a chunk of training leaves behind, a number per micro-batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    /// The learning rate of the update that the micro-batch belongs to.
    pub learning_rate: Vec<f64>,
    /// The factor of the loss, if it is scaled.
    pub loss_scale: Vec<f64>,
    /// The weighted mean loss.
    pub loss: Vec<f64>,
    /// The sum of the weights.
    pub weight: Vec<f64>,
    /// The global gradient norm before clipping; NaN where no update was due.
    pub gradient_norm: Vec<f64>,
    /// The norm of the update over that of the parameters; NaN where no update was made.
    pub update_ratio: Vec<f64>,
    /// Whether the gradient was finite; an update that was not is skipped.
    pub finite: Vec<bool>,
    /// What the update did to each parameter, in the order of [`Session::trained`]; [`Movement::NONE`] where no update was due.
    pub parameters: Vec<Movement>,
    /// Micro-batches (by their place in the chunk) whose zero activations were counted, by layer as in [`Session::rectified`].
    pub activations: Vec<(usize, Vec<Zeros>)>,
    /// The weighted means of the metrics.
    pub metrics: BTreeMap<String, Vec<f64>>,
    /// How many updates were made.
    pub updates: usize,
}

impl Session {
    /// A session whose parameters start from their initializers, or from `arrays` where it has their path.
    pub fn new(
        program: Arc<Program>,
        device: Device,
        precision: impl Into<Precision>,
        seed: u64,
        arrays: &mut Arrays,
    ) -> Result<Self> {
        let precision: Precision = precision.into();
        precision.check(&device)?;
        let mut session = Self {
            state: Leaves::filled(program.values().len(), || None),
            program: program.fused(),
            described: program,
            device,
            precision,
            dtype: precision.master(),
            seed,
            training: None,
            plans: BTreeMap::new(),
            diagnosis: None,
            profiler: None,
            held: held::Held::default(),
        };
        session.initialise(arrays)?;
        Ok(session)
    }

    fn initialise(&mut self, arrays: &mut Arrays) -> Result<()> {
        let program = Arc::clone(&self.program);
        let streams = Stream::new(self.seed, Purpose::Initialize);
        for (id, value) in program.values().iter().enumerate() {
            let (path, shape, initializer) = match &value.source {
                Source::Parameter(parameter) => (&parameter.path, &parameter.shape, &parameter.initializer),
                Source::Buffer(buffer) => (&buffer.path, &buffer.shape, &buffer.initializer),
                Source::Constant(constant) => {
                    self.state[id] = Some(self.constant(constant));
                    continue;
                }
                _ => continue,
            };
            self.state[id] = Some(match arrays.remove(path) {
                Some(array) => self.fit(path, shape, array)?,
                None => {
                    let values = initializer.values(shape, streams.fork_name(path));
                    Tensor::from_f64(&values, shape, self.dtype, &self.device)
                }
            });
        }
        Ok(())
    }

    fn constant(&self, constant: &crate::program::Constant) -> Tensor {
        use crate::program::Kind;
        let float = if constant.kind == Kind::Float { self.dtype } else { DType::F64 };
        if constant.kind == Kind::Float {
            return Tensor::from_f64(&constant.values, &constant.shape, float, &self.device);
        }
        let values: Vec<i32> = constant.values.iter().map(|&value| value as i32).collect();
        let tensor = Tensor::from_values(values, &constant.shape, &self.device);
        if constant.kind == Kind::Bool { tensor.cast(DType::Bool) } else { tensor }
    }

    /// Lets the operations before activations apply them, or not.
    fn run_fused(&mut self, fused: bool) {
        if fused == Arc::ptr_eq(&self.program, &self.described) {
            self.program = if fused { self.described.fused() } else { Arc::clone(&self.described) };
            self.plans.clear();
        }
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What it computes in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    fn context(&self) -> Context {
        let stream = Stream::new(self.seed, Purpose::Noise);
        Context {
            device: self.device.clone(),
            dtype: self.dtype,
            half: self.precision.half(),
            stream,
            observers: Observers { profiler: self.profiler.clone(), ..Observers::default() },
        }
    }

    /// [`Self::context`] with one more who looks on.
    fn observed(&self, add: impl FnOnce(&mut Observers)) -> Context {
        let mut context = self.context();
        add(&mut context.observers);
        context
    }

    /// How gradients of the training loss go back to the parameters that train.
    fn reverse(&mut self, outputs: &Outputs) -> Result<Arc<Reverse>> {
        let program = Arc::clone(&self.program);
        let training = self.training_mut()?;
        let (wanted, checkpoint) = (&training.wanted, &training.checkpoint);
        let measured = training.accumulate == 1 && training.rule.solver().is_none();
        let found = || {
            let reverse = Reverse::new(&program, &outputs.plan, outputs.loss, wanted, checkpoint);
            Arc::new(if measured { reverse.measuring(&outputs.plan, wanted) } else { reverse })
        };
        Ok(Arc::clone(training.reverse.get_or_insert_with(found)))
    }

    /// Loss, metrics and plan of `"training"` or `"evaluation"`.
    fn outputs(&mut self, purpose: &str) -> Result<Arc<Outputs>> {
        if let Some(outputs) = self.plans.get(purpose) {
            return Ok(Arc::clone(outputs));
        }
        let program = &self.program;
        let loss = program.find_output(&format!("{purpose}.loss"))?;
        let prefix = format!("{purpose}.metric.");
        let metrics: Vec<(String, ValueId)> = program
            .outputs()
            .iter()
            .filter_map(|(name, &id)| Some((name.strip_prefix(&prefix)?.to_owned(), id)))
            .collect();
        let mut ids = vec![loss];
        ids.extend(metrics.iter().map(|(_, id)| *id));
        if purpose == "training" {
            ids.extend(program.assignments().values());
        }
        let outputs = Arc::new(Outputs { plan: Plan::new(program, &ids), loss, metrics });
        self.plans.insert(purpose.to_owned(), Arc::clone(&outputs));
        Ok(outputs)
    }
}

/// The number of rows that all lent arrays have.
fn common_rows(inputs: &Inputs) -> Result<usize> {
    let mut rows = None;
    for (name, view) in inputs {
        match rows {
            None => rows = Some((name, view.rows())),
            Some((first, expected)) if expected != view.rows() => {
                return Err(Error::value(format!(
                    "{name} must have {expected} rows like {first}, got {}",
                    view.rows()
                )));
            }
            Some(_) => {}
        }
    }
    rows.map(|(_, rows)| rows).ok_or_else(|| Error::value("expected at least one array, got none"))
}
