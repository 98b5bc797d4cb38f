//! Where the time of training goes: every operation timed, forwards and backwards, with the bytes that it moves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::{Chunk, Inputs, Session};
use crate::program::{Source, ValueId};
use crate::tensor::Tensor;
use crate::{Device, Error, Interrupt, Result};

/// What a step consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Rows are gathered, converted and brought to the device.
    Gather,
    /// An operation computes its value.
    Forward,
    /// An operation computes gradients of its inputs.
    Backward,
    /// Gradients are added up, clipped and applied.
    Update,
}

impl Phase {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gather => "gather",
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Update => "update",
        }
    }
}

/// What one part of the step took, in all steps together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// How often it ran.
    pub calls: u64,
    /// How long that took, until the device was done.
    pub seconds: f64,
    /// The bytes of the tensors that it read and wrote.
    pub bytes: f64,
}

/// What one operation (or a whole phase, which has no operation) took.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileRow {
    /// The phase.
    pub phase: Phase,
    /// The node's place in the program.
    pub node: Option<ValueId>,
    /// The operation's name.
    pub operation: String,
    /// The layer of the operation; empty for what belongs to none.
    pub scope: String,
    /// What it took.
    pub cost: Cost,
}

/// All of a profiled run.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// How long the steps took from beginning to end, with what no row names.
    pub seconds: f64,
    /// Phases in order, the operations of each in the program's.
    pub rows: Vec<ProfileRow>,
}

type Costs = BTreeMap<(Phase, Option<ValueId>), Cost>;

/// Times the parts of steps while they run.
#[derive(Clone, Debug)]
pub(crate) struct Profiler {
    device: Device,
    costs: Arc<Mutex<Costs>>,
}

/// A part that is running.
#[derive(Debug)]
pub(crate) struct Running {
    profiler: Profiler,
    part: (Phase, Option<ValueId>),
    bytes: f64,
    began: Instant,
}

impl Profiler {
    fn new(device: Device) -> Self {
        Self { device, costs: Arc::default() }
    }

    /// Begins a part that reads some tensors.
    pub fn begin<'a>(
        &self,
        phase: Phase,
        node: Option<ValueId>,
        reads: impl IntoIterator<Item = &'a Tensor>,
    ) -> Running {
        let bytes = bytes(reads);
        Running { profiler: self.clone(), part: (phase, node), bytes, began: Instant::now() }
    }
}

impl Running {
    /// Ends the part, which wrote some tensors.
    pub fn end<'a>(self, writes: impl IntoIterator<Item = &'a Tensor>) {
        // What cannot be waited for will fail where it is read.
        let _ = self.profiler.device.wait();
        let seconds = self.began.elapsed().as_secs_f64();
        let mut costs = self.profiler.costs.lock().unwrap_or_else(PoisonError::into_inner);
        let cost = costs.entry(self.part).or_default();
        cost.calls += 1;
        cost.seconds += seconds;
        cost.bytes += self.bytes + bytes(writes);
    }
}

fn bytes<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> f64 {
    let elements = |tensor: &Tensor| tensor.rows().map_or(tensor.len(), |rows| rows.values().len());
    tensors.into_iter().map(|tensor| (elements(tensor) * tensor.dtype().size()) as f64).sum()
}

impl Session {
    /// Trains on a chunk like [`Self::train`] and tells what each operation took. On a device that works by itself, it
    /// is waited for after each of them: the parts add up, and their sum is more than steps take that nobody watches.
    pub fn profile(&mut self, inputs: &Inputs, chunk: &Chunk<'_>, interrupt: &Interrupt) -> Result<Profile> {
        let profiler = Profiler::new(self.device.clone());
        self.profiler = Some(profiler.clone());
        let began = Instant::now();
        let done = self.train(inputs, chunk, interrupt);
        let seconds = began.elapsed().as_secs_f64();
        self.profiler = None;
        // What was interrupted is no measurement.
        if done?.loss.len() < chunk.learning_rates.len() {
            return Err(Error::Interrupted);
        }
        let costs = std::mem::take(&mut *profiler.costs.lock().unwrap_or_else(PoisonError::into_inner));
        let row = |((phase, node), cost): ((Phase, Option<ValueId>), Cost)| {
            let (operation, scope) = node.map(|id| self.operation_of(id)).unwrap_or_default();
            ProfileRow { phase, node, operation, scope, cost }
        };
        Ok(Profile { seconds, rows: costs.into_iter().map(row).collect() })
    }

    fn operation_of(&self, id: ValueId) -> (String, String) {
        match &self.program.values()[id].source {
            Source::Node(node) => (node.name.clone(), node.scope.clone()),
            _ => Default::default(),
        }
    }
}
