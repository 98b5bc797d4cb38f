//! Update rules: each formula written once, run as a fused loop over CPU slices or over tensors of any device.

mod adadelta;
mod adafactor;
mod adagrad;
mod adam;
mod adamax;
mod asgd;
mod fused;
mod lamb;
mod lars;
mod lbfgs;
mod lion;
mod muon;
mod nadam;
mod piece;
mod radam;
mod rmsprop;
mod rprop;
mod sgd;
#[cfg(test)]
mod tests;
mod wolfe;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use fused::{Elementwise, Formula, Pass, run, slots, squares, sum};
pub(crate) use fused::{dot, squares_on_device, sum_on_device, sum_squares, wide_squares};
pub use lbfgs::Lbfgs;
pub(crate) use lbfgs::{Last, Memory, Pair, Value};

use crate::program::Role;
use crate::tensor::Tensor;
use crate::{Error, Number, Result};

/// What one update of one parameter depends on besides its arrays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The count of updates of this parameter, from 1.
    pub number: u64,
    /// The learning rate.
    pub learning_rate: f64,
    /// The weight decay of this parameter.
    pub weight_decay: f64,
    /// What the gradient is multiplied by first: clipping, and the mean over accumulated samples.
    pub gradient_scale: f64,
}

/// Sums of squares that an update leaves behind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Squares {
    /// Of the parameter before the update.
    pub parameter: f64,
    /// Of the change.
    pub update: f64,
}

impl Squares {
    /// From the two numbers.
    pub(crate) fn of([parameter, update]: [f64; 2]) -> Self {
        Self { parameter, update }
    }

    /// The norm of the change over that of the parameter.
    pub fn ratio(&self) -> f64 {
        (self.update / self.parameter).sqrt()
    }
}

/// What an update did to a parameter.
#[derive(Clone, Debug)]
pub enum Change {
    /// In numbers.
    Known(Squares),
    /// The squares whose sums [`Squares`] are, on a device that may not have found them yet.
    OnDevice([Tensor; 2]),
}

impl Change {
    /// In numbers, which are waited for.
    pub(crate) fn squares(self) -> Squares {
        match self {
            Self::Known(squares) => squares,
            Self::OnDevice(squares) => Squares::of(squares.map(sum)),
        }
    }
}

impl From<Squares> for Change {
    fn from(squares: Squares) -> Self {
        Self::Known(squares)
    }
}

/// What a rule may know of a parameter besides its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The lengths of the axes.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
    /// Whether another kernel is used behind it: it is no part of the output layer.
    pub hidden: bool,
}

/// An array that a rule keeps for a parameter; it starts at 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: &'static str,
    /// The lengths of the axes.
    pub shape: Vec<usize>,
}

/// An update rule with its hyperparameters.
pub trait Rule: std::fmt::Debug + Send + Sync {
    /// The arrays that it keeps for a parameter.
    fn state(&self, target: &Target) -> Vec<Slot>;
    /// The weight decay of parameters that no group says otherwise of.
    fn weight_decay(&self) -> f64;
    /// Updates a parameter and its state in place.
    fn update(
        &self,
        target: &Target,
        parameter: &mut Tensor,
        gradient: Tensor,
        state: &mut [Tensor],
        step: &Step,
    ) -> Change;
    /// Whether parameters can be updated as one array with zeros between: each element by itself, and zeros stay.
    fn joins(&self) -> bool {
        false
    }
    /// Whether [`Self::update`] waits for numbers of the device that holds the parameter.
    fn waits(&self) -> bool {
        true
    }
    /// What makes the updates where the rule has to evaluate the loss itself; [`Self::update`] is then not called.
    fn solver(&self) -> Option<&Lbfgs> {
        None
    }
}

/// What weight decay does to one update: `p *= shrink`, `g += coupled·p`.
#[derive(Clone, Copy, Debug)]
struct Decay {
    shrink: f64,
    coupled: f64,
}

impl Decay {
    /// Through the gradient, before any moment.
    fn coupled(step: &Step) -> Self {
        Self { shrink: 1.0, coupled: step.weight_decay }
    }

    /// Of the parameter itself, at the learning rate.
    fn decoupled(step: &Step) -> Self {
        Self { shrink: 1.0 - step.learning_rate * step.weight_decay, coupled: 0.0 }
    }

    fn new(step: &Step, decoupled: bool) -> Self {
        if decoupled { Self::decoupled(step) } else { Self::coupled(step) }
    }

    /// The decayed parameter and the gradient.
    #[inline(always)]
    fn apply<N: Number>(&self, parameter: N, gradient: N) -> (N, N) {
        let gradient = gradient + parameter.clone().times(self.coupled);
        (parameter.times(self.shrink), gradient)
    }
}

/// `keep·old + (1 - keep)·new`.
#[inline(always)]
fn average<N: Number>(old: N, new: N, keep: f64) -> N {
    old.times(keep) + new.times(1.0 - keep)
}

/// `1 - beta^t`: what a running mean that starts at 0 has seen so far.
fn seen(beta: f64, t: u64) -> f64 {
    1.0 - beta.powf(t as f64)
}

/// A line of the list of optimizers.
struct Entry {
    name: &'static str,
    make: fn(Json) -> std::result::Result<Box<dyn Rule>, serde_json::Error>,
    defaults: fn() -> Json,
}

/// Optimizers by name: hyperparameters with their defaults, and the rule that they give.
trait Hyperparameters: DeserializeOwned + serde::Serialize + Default {
    /// The learning rate when none is given.
    const LEARNING_RATE: f64;
    /// The rule.
    fn rule(self) -> Box<dyn Rule>;
}

const fn entry<H: Hyperparameters>(name: &'static str) -> Entry {
    Entry {
        name,
        make: |json| Ok(serde_json::from_value::<H>(json)?.rule()),
        defaults: || {
            let mut json = serde_json::to_value(H::default()).expect("plain numbers");
            json["learning_rate"] = H::LEARNING_RATE.into();
            json
        },
    }
}

const OPTIMIZERS: &[Entry] = &[
    entry::<sgd::Sgd>("sgd"),
    entry::<adam::Adam>("adam"),
    entry::<adam::AdamW>("adamw"),
    entry::<rmsprop::RmsProp>("rmsprop"),
    entry::<adagrad::Adagrad>("adagrad"),
    entry::<adadelta::Adadelta>("adadelta"),
    entry::<nadam::NAdam>("nadam"),
    entry::<radam::RAdam>("radam"),
    entry::<adamax::Adamax>("adamax"),
    entry::<lion::Lion>("lion"),
    entry::<lamb::Lamb>("lamb"),
    entry::<lars::Lars>("lars"),
    entry::<adafactor::Adafactor>("adafactor"),
    entry::<muon::Muon>("muon"),
    entry::<rprop::Rprop>("rprop"),
    entry::<asgd::Asgd>("asgd"),
    entry::<Lbfgs>("lbfgs"),
];

/// The rule of a name with its hyperparameters.
pub fn rule(name: &str, hyperparameters: Json) -> Result<Box<dyn Rule>> {
    let entry = OPTIMIZERS
        .iter()
        .find(|entry| entry.name == name)
        .ok_or_else(|| Error::Missing(format!("unknown optimizer {name:?}")))?;
    (entry.make)(hyperparameters).map_err(|error| Error::value(format!("optimizer {name}: {error}")))
}

/// Every optimizer's hyperparameters with their defaults, `learning_rate` among them.
pub fn defaults() -> BTreeMap<&'static str, Json> {
    OPTIMIZERS.iter().map(|entry| (entry.name, (entry.defaults)())).collect()
}
