//! The tape of eager tensors: each value remembers the operation that made it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value as Json;

use crate::ops::{self, Context, Kept, Operation, Tensors};
use crate::program::{Dim, Kind, Type, show_lengths};
use crate::random::{Purpose, Stream};
use crate::tensor::{DType, Tensor};
use crate::trainer::Observers;
use crate::{Error, Result};

/// An eager value, and what it was made from if gradients are wanted.
#[derive(Clone, Debug)]
pub struct Variable {
    /// The value.
    pub tensor: Tensor,
    origin: Option<Arc<Origin>>,
}

#[derive(Debug)]
struct Origin {
    /// Grows along the tape, so that going back by number visits every user before its inputs.
    number: u64,
    leaf: bool,
    made_by: Mutex<Option<MadeBy>>,
    gradient: Mutex<Option<Tensor>>,
}

#[derive(Debug)]
struct MadeBy {
    operation: Arc<dyn Operation>,
    kept: Kept,
    inputs: Vec<Option<Arc<Origin>>>,
}

static COUNTER: AtomicU64 = AtomicU64::new(0);

impl Origin {
    fn new(made_by: Option<MadeBy>) -> Arc<Self> {
        Arc::new(Self {
            number: COUNTER.fetch_add(1, Ordering::Relaxed),
            leaf: made_by.is_none(),
            made_by: Mutex::new(made_by),
            gradient: Mutex::new(None),
        })
    }

    fn take(&self) -> Option<MadeBy> {
        lock(&self.made_by).take()
    }
}

impl Drop for Origin {
    /// Long chains are taken apart one by one: recursion would overflow the stack.
    fn drop(&mut self) {
        let mut pending: Vec<MadeBy> = self.take().into_iter().collect();
        while let Some(made_by) = pending.pop() {
            for input in made_by.inputs.into_iter().flatten() {
                if let Some(input) = Arc::into_inner(input) {
                    pending.extend(input.take());
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Variable {
    /// A value; a leaf of the tape if gradients are wanted.
    pub fn new(tensor: Tensor, requires_grad: bool) -> Self {
        Self { tensor, origin: requires_grad.then(|| Origin::new(None)) }
    }

    /// Whether gradients reach it.
    pub fn requires_grad(&self) -> bool {
        self.origin.is_some()
    }

    /// The same value off the tape.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self { tensor: self.tensor.clone(), origin: None }
    }

    /// The gradient that [`Self::backward`] left, if this is a leaf.
    pub fn gradient(&self) -> Option<Tensor> {
        self.origin.as_ref().and_then(|origin| lock(&origin.gradient).clone())
    }

    /// Forgets the gradient.
    pub fn clear_gradient(&self) {
        if let Some(origin) = &self.origin {
            lock(&origin.gradient).take();
        }
    }

    /// Adds the gradient of this scalar to every leaf that it was made from; the tape is used up.
    pub fn backward(&self) -> Result<()> {
        let origin = self
            .origin
            .clone()
            .ok_or_else(|| Error::value("backward: nothing that this tensor was made from has requires_grad=True"))?;
        if self.tensor.len() != 1 {
            return Err(Error::value(format!(
                "backward: expected a tensor of one element (a loss), got shape {}",
                show_lengths(&self.tensor.shape())
            )));
        }
        let one = Tensor::full(&self.tensor.shape(), 1.0, self.tensor.dtype(), &self.tensor.device());
        let mut pending = BTreeMap::from([(origin.number, (origin, one))]);
        while let Some((_, (origin, gradient))) = pending.pop_last() {
            match origin.take() {
                Some(made_by) => propagate(made_by, gradient, &mut pending),
                None if !origin.leaf => {
                    return Err(Error::value(
                        "backward: was called before on what this was made from; compute it again",
                    ));
                }
                None => {
                    let mut sum = lock(&origin.gradient);
                    *sum = Some(gradient.added_to(sum.take()));
                }
            }
        }
        Ok(())
    }
}

fn propagate(made_by: MadeBy, gradient: Tensor, pending: &mut BTreeMap<u64, (Arc<Origin>, Tensor)>) {
    let MadeBy { operation, kept, inputs } = made_by;
    let wanted: Vec<bool> = inputs.iter().map(Option::is_some).collect();
    for (input, gradient) in inputs.into_iter().zip(operation.gradient(kept, gradient, &wanted)) {
        let (Some(input), Some(gradient)) = (input, gradient) else {
            continue;
        };
        let sum = pending.remove(&input.number).map(|(_, sum)| sum);
        pending.insert(input.number, (input, gradient.added_to(sum)));
    }
}

/// Applies an operation of the table to eager values, checking shapes and devices first.
///
/// `seed` addresses the random numbers of operations that draw some.
pub fn apply(name: &str, inputs: &[Variable], attributes: &Json, seed: u64) -> Result<Variable> {
    let operation = ops::parse(name, attributes, inputs.len())?;
    let types: Vec<Type> = inputs.iter().map(|input| type_of(&input.tensor)).collect();
    let ty = operation
        .infer(&types.iter().collect::<Vec<_>>())
        .map_err(|message| Error::value(format!("{name}: {message}")))?;
    let (device, dtype) = common(name, inputs)?;
    let tracked = operation.differentiable() && inputs.iter().any(Variable::requires_grad);
    let tensors: Tensors = inputs.iter().map(|input| input.tensor.clone()).collect();
    let keeps = operation.keeps();
    let kept_inputs = if tracked && keeps.inputs { tensors.clone() } else { Default::default() };
    let stream = Stream::new(seed, Purpose::Noise);
    let shapes = tensors.iter().map(Tensor::shape).collect();
    let observers = Observers::default();
    let mut evaluation = operation.evaluate(tensors, &Context { device, dtype, half: None, stream, observers });
    if ty.rank() == 0 {
        evaluation.value = evaluation.value.into_number();
    }
    let origin = tracked.then(|| {
        let output = keeps.output.then(|| evaluation.value.clone());
        let kept = Kept { inputs: kept_inputs, shapes, output, saved: evaluation.saved };
        let inputs = inputs.iter().map(|input| input.origin.clone()).collect();
        Origin::new(Some(MadeBy { operation, kept, inputs }))
    });
    Ok(Variable { tensor: evaluation.value, origin })
}

fn type_of(tensor: &Tensor) -> Type {
    let kind = match tensor.dtype() {
        DType::Bool => Kind::Bool,
        dtype if dtype.is_int() => Kind::Int,
        _ => Kind::Float,
    };
    Type { kind, shape: tensor.shape().into_iter().map(Dim::known).collect() }
}

/// The one device of all inputs, and the one type of the float ones.
fn common(name: &str, inputs: &[Variable]) -> Result<(crate::Device, DType)> {
    let device = inputs.first().map_or_else(crate::Device::cpu, |input| input.tensor.device());
    if let Some(other) = inputs.iter().map(|input| input.tensor.device()).find(|other| *other != device) {
        return Err(Error::value(format!(
            "{name}: expected tensors on one device, got {} and {}",
            device.name(),
            other.name()
        )));
    }
    let mut dtypes: Vec<DType> = inputs.iter().map(|input| input.tensor.dtype()).collect();
    for group in [DType::is_float, DType::is_int] {
        let mut same = dtypes.iter().filter(|dtype| group(**dtype));
        if let Some(first) = same.next()
            && let Some(other) = same.find(|other| *other != first)
        {
            return Err(Error::Type(format!(
                "{name}: expected tensors of one type, got {} and {}; make both of one type",
                first.name(),
                other.name()
            )));
        }
    }
    dtypes.retain(|dtype| dtype.is_float());
    Ok((device, dtypes.first().copied().unwrap_or(DType::F32)))
}
