//! From gradients to an update: accumulate, mean, finite check, clip by value, clip by norm, decay, rule.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde_json::Value as Json;

use super::Session;
use crate::gradient::Method;
use crate::optimizer::{self, Rule, Squares, Step, sum_squares};
use crate::program::{Role, ValueId};
use crate::tensor::{DType, Real, Tensor};
use crate::{Error, Number, Result, cpu};

/// How a session trains, as Python says it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The rule's name.
    pub name: String,
    /// The rule's hyperparameters; absent ones have their defaults.
    #[serde(default)]
    pub hyperparameters: serde_json::Map<String, Json>,
    /// The greatest global gradient norm.
    #[serde(default)]
    pub clip_norm: Option<f64>,
    /// The greatest absolute value of a gradient's element.
    #[serde(default)]
    pub clip_value: Option<f64>,
    /// Micro-batches per update.
    #[serde(default = "one")]
    pub accumulate_gradients: usize,
    /// `"autodiff"`, `"numerical"` or `"numerical_batch"`.
    #[serde(default = "autodiff")]
    pub gradient_method: String,
    /// The roles that weight decay applies to.
    #[serde(default = "decay_roles")]
    pub decay_roles: Vec<String>,
    /// Paths of parameters that stay as they are.
    #[serde(default)]
    pub frozen: Vec<String>,
}

fn one() -> usize {
    1
}

fn autodiff() -> String {
    "autodiff".to_owned()
}

fn decay_roles() -> Vec<String> {
    [Role::Kernel, Role::Embedding].map(|role| role.name().to_owned()).to_vec()
}

/// The optimizer of a session and its state.
#[derive(Debug)]
pub(super) struct Training {
    pub rule: Box<dyn Rule>,
    pub method: Method,
    pub accumulate: usize,
    pub wanted: Vec<bool>,
    pub state: BTreeMap<ValueId, ParameterState>,
    pub updates: u64,
    pub group: Group,
    clip_norm: Option<f64>,
    clip_value: Option<f64>,
    decayed: HashSet<ValueId>,
}

/// What the rule keeps for one parameter.
#[derive(Clone, Debug)]
pub(super) struct ParameterState {
    pub moments: Vec<Tensor>,
    pub updates: u64,
}

/// Gradients summed since the last update: `Σ nᵢ·gᵢ` and `Σ nᵢ`.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub sums: BTreeMap<ValueId, Tensor>,
    pub weight: f64,
    pub batches: usize,
}

/// What an update reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// The global gradient norm before clipping.
    pub gradient_norm: f64,
    /// The norm of the update over that of the parameters; NaN if none was made.
    pub update_ratio: f64,
    /// Whether the gradient was finite and the update made.
    pub finite: bool,
}

impl Session {
    /// Sets the optimizer; its state starts anew.
    pub fn set_optimizer(&mut self, config: &OptimizerConfig) -> Result<()> {
        let known: HashSet<&str> = self.program.parameters().map(|(_, parameter)| parameter.path.as_str()).collect();
        if let Some(path) = config.frozen.iter().find(|path| !known.contains(path.as_str())) {
            return Err(Error::Missing(format!("frozen: there is no parameter {path:?}")));
        }
        let roles = config.decay_roles.iter().map(|role| Role::parse(role)).collect::<Result<HashSet<_>>>()?;
        let mut hyperparameters = config.hyperparameters.clone();
        hyperparameters.remove("learning_rate");
        let mut wanted = vec![false; self.program.values().len()];
        let mut decayed = HashSet::new();
        for (id, parameter) in self.program.parameters() {
            wanted[id] = !config.frozen.contains(&parameter.path);
            if roles.contains(&parameter.role) {
                decayed.insert(id);
            }
        }
        self.training = Some(Training {
            rule: optimizer::rule(&config.name, Json::Object(hyperparameters))?,
            method: Method::parse(&config.gradient_method)?,
            accumulate: config.accumulate_gradients.max(1),
            wanted,
            state: BTreeMap::new(),
            updates: 0,
            group: Group::default(),
            clip_norm: config.clip_norm,
            clip_value: config.clip_value,
            decayed,
        });
        Ok(())
    }

    pub(super) fn training(&self) -> Result<&Training> {
        self.training.as_ref().ok_or_else(not_compiled)
    }

    pub(super) fn training_mut(&mut self) -> Result<&mut Training> {
        self.training.as_mut().ok_or_else(not_compiled)
    }

    /// Closes an open accumulation group with an update; `None` if there is none.
    pub fn flush(&mut self, learning_rate: f64) -> Result<Option<Update>> {
        let training = self.training.as_mut().ok_or_else(not_compiled)?;
        if training.group.batches == 0 {
            return Ok(None);
        }
        let group = std::mem::take(&mut training.group);
        let scale = if group.weight > 0.0 { group.weight.recip() } else { 0.0 };
        let gradients = group.sums.into_iter().collect();
        Ok(Some(training.update(&mut self.state, gradients, scale, learning_rate)))
    }

    /// Takes in the gradients of one micro-batch; updates if the group is complete.
    ///
    /// With groups of one, gradients are means; otherwise sums over the micro-batch.
    pub(super) fn take_gradients(
        &mut self,
        gradients: Vec<(ValueId, Tensor)>,
        weight: f64,
        learning_rate: f64,
    ) -> Result<Option<Update>> {
        let training = self.training.as_mut().ok_or_else(not_compiled)?;
        if training.accumulate == 1 {
            return Ok(Some(training.update(&mut self.state, gradients, 1.0, learning_rate)));
        }
        for (id, gradient) in gradients {
            let sum = training.group.sums.remove(&id);
            training.group.sums.insert(id, gradient.added_to(sum));
        }
        training.group.weight += weight;
        training.group.batches += 1;
        if training.group.batches < training.accumulate {
            return Ok(None);
        }
        self.flush(learning_rate)
    }
}

impl Training {
    /// One update of every parameter that got a gradient; nothing moves if the gradient is not finite.
    fn update(
        &mut self,
        state: &mut [Option<Tensor>],
        mut gradients: Vec<(ValueId, Tensor)>,
        mut scale: f64,
        learning_rate: f64,
    ) -> Update {
        let norm = scale * gradients.iter().map(|(_, gradient)| sum_squares(gradient)).sum::<f64>().sqrt();
        if !norm.is_finite() {
            return Update { gradient_norm: norm, update_ratio: f64::NAN, finite: false };
        }
        let mut clipped = norm;
        if let Some(limit) = self.clip_value {
            let limit = limit / scale;
            gradients = gradients.into_iter().map(|(id, gradient)| (id, clip_value(gradient, limit))).collect();
            clipped = scale * gradients.iter().map(|(_, gradient)| sum_squares(gradient)).sum::<f64>().sqrt();
        }
        if let Some(limit) = self.clip_norm
            && clipped > limit
        {
            scale *= limit / clipped;
        }
        self.updates += 1;
        let mut squares = Squares::default();
        for (id, gradient) in gradients {
            let parameter = state[id].as_mut().expect("parameters are initialised");
            let sums = self.update_one(id, parameter, gradient, scale, learning_rate);
            squares.parameter += sums.parameter;
            squares.update += sums.update;
        }
        let update_ratio = (squares.update / squares.parameter).sqrt();
        Update { gradient_norm: norm, update_ratio, finite: true }
    }

    fn update_one(
        &mut self,
        id: ValueId,
        parameter: &mut Tensor,
        gradient: Tensor,
        gradient_scale: f64,
        learning_rate: f64,
    ) -> Squares {
        let names = self.rule.state();
        let state = self.state.entry(id).or_insert_with(|| ParameterState {
            moments: names
                .iter()
                .map(|_| Tensor::full(&parameter.shape(), 0.0, parameter.dtype(), &parameter.device()))
                .collect(),
            updates: 0,
        });
        state.updates += 1;
        let decay = self.decayed.contains(&id);
        let step = Step { number: state.updates, learning_rate, decay, gradient_scale };
        self.rule.update(parameter, gradient, &mut state.moments, &step)
    }
}

/// Every element brought into `±limit`.
fn clip_value(gradient: Tensor, limit: f64) -> Tensor {
    fn in_place<E: Real>(gradient: Tensor, limit: f64) -> Tensor {
        let mut gradient = gradient.unique::<E>();
        cpu::for_pieces(gradient.elements_mut::<E>(), |_, piece| {
            cpu::vectorised!({
                for value in piece {
                    *value = value.at_least(-limit).at_most(limit);
                }
            });
        });
        gradient
    }
    match gradient.dtype() {
        DType::F32 if gradient.is_cpu() => in_place::<f32>(gradient, limit),
        DType::F64 if gradient.is_cpu() => in_place::<f64>(gradient, limit),
        _ => gradient.at_least(-limit).at_most(limit),
    }
}

fn not_compiled() -> Error {
    Error::value("the session has no optimizer: set one before training")
}
