//! From gradients to an update: accumulate, mean, finite check, clip by value, clip by norm, decay, rule, average.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Session;
use super::average::Average;
use super::config::{OptimizerConfig, Settings};
use super::joined::Padding;
use super::loss_scale::LossScale;
use crate::gradient::Method;
use crate::memory::{Block, List, listed};
use crate::optimizer::{Change, Memory, Rule, Squares, Step, sum_squares};
use crate::program::{Checkpoint, Leaves, Reverse, ValueId};
use crate::tensor::{DType, Real, Tensor};
use crate::{Error, Number, Result, cpu};

listed!((ValueId, Tensor), Movement);

/// The optimizer of a session and its state.
#[derive(Debug)]
pub(super) struct Training {
    pub rule: Box<dyn Rule>,
    pub method: Method,
    pub accumulate: usize,
    /// Whether a value's gradient is wanted, by place.
    pub wanted: Vec<bool>,
    /// The parameters that are trained, in the program's order.
    pub trained: Vec<ValueId>,
    /// Of every parameter.
    pub settings: BTreeMap<ValueId, Settings>,
    pub state: BTreeMap<ValueId, ParameterState>,
    pub updates: u64,
    pub group: Group,
    pub average: Option<Average>,
    pub loss_scale: Option<LossScale>,
    pub checkpoint: Checkpoint,
    /// How gradients go back over the training plan; found when first needed.
    pub reverse: Option<Arc<Reverse>>,
    /// What a solver keeps between updates.
    pub memory: Memory,
    pub padding: Padding,
    pub clip_norm: Option<f64>,
    pub clip_value: Option<f64>,
}

/// Gradients (or new values), by place.
pub(super) type Gradients = List<(ValueId, Tensor)>;

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
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The global gradient norm before clipping.
    pub gradient_norm: f64,
    /// The norm of the update over that of the parameters; NaN if none was made.
    pub update_ratio: f64,
    /// Whether the gradient was finite and the update made.
    pub finite: bool,
    /// The same of each parameter, in the order of [`Session::trained`].
    pub parameters: List<Movement>,
}

/// What an update did to one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Movement {
    /// The norm of its gradient before clipping; NaN if it got none.
    pub gradient_norm: f64,
    /// The norm of its change over its own; NaN if it was not changed.
    pub update_ratio: f64,
}

impl Movement {
    /// Of a parameter that was not touched.
    pub const NONE: Self = Self { gradient_norm: f64::NAN, update_ratio: f64::NAN };
}

impl Session {
    /// The paths of the parameters that are trained, in the program's order.
    pub fn trained(&self) -> Result<Vec<String>> {
        Ok(self.training()?.trained.iter().map(|&id| self.path(id).to_owned()).collect())
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
        let group = training.take_group();
        Ok(group.map(|(mean, scale)| training.update_unscaled(&mut self.state, mean, &[], scale, learning_rate)))
    }

    /// Takes in the gradients of one micro-batch; updates if the group is complete.
    ///
    /// With groups of one, gradients are means; otherwise sums over the micro-batch. `squares` are the sums of squares of
    /// gradients, by place, where these are known.
    pub(super) fn take_gradients(
        &mut self,
        gradients: Gradients,
        squares: &[Option<f64>],
        weight: f64,
        learning_rate: f64,
    ) -> Result<Option<Update>> {
        let training = self.training.as_mut().ok_or_else(not_compiled)?;
        let group = training.collect(gradients, weight);
        Ok(group.map(|(mean, scale)| training.update_unscaled(&mut self.state, mean, squares, scale, learning_rate)))
    }
}

impl Training {
    /// An optimizer that has not made an update yet.
    pub fn new(
        rule: Box<dyn Rule>,
        method: Method,
        config: &OptimizerConfig,
        settings: BTreeMap<ValueId, Settings>,
        values: usize,
    ) -> Self {
        Self {
            wanted: (0..values).map(|id| settings.get(&id).is_some_and(|settings| settings.trained)).collect(),
            trained: settings.iter().filter(|(_, settings)| settings.trained).map(|(&id, _)| id).collect(),
            rule,
            method,
            accumulate: config.accumulate_gradients.max(1),
            settings,
            state: BTreeMap::new(),
            updates: 0,
            group: Group::default(),
            average: config.average.map(Average::new),
            loss_scale: config.loss_scale.map(LossScale::new),
            checkpoint: config.checkpoint_activations.clone(),
            reverse: None,
            memory: Memory::default(),
            padding: Padding::default(),
            clip_norm: config.clip_norm,
            clip_value: config.clip_value,
        }
    }

    /// Takes in the gradients of one micro-batch; if the group is complete, returns what its mean is when multiplied by the
    /// number, and begins another.
    pub(super) fn collect(&mut self, mut gradients: Gradients, weight: f64) -> Option<(Gradients, f64)> {
        if self.accumulate == 1 {
            return Some((gradients, 1.0));
        }
        for (id, gradient) in gradients.drain(..) {
            let sum = self.group.sums.remove(&id);
            self.group.sums.insert(id, gradient.added_to(sum));
        }
        self.group.weight += weight;
        self.group.batches += 1;
        if self.group.batches < self.accumulate { None } else { self.take_group() }
    }

    /// [`Self::collect`] of a group that may not be full; `None` if it is empty.
    fn take_group(&mut self) -> Option<(Gradients, f64)> {
        if self.group.batches == 0 {
            return None;
        }
        let group = std::mem::take(&mut self.group);
        let scale = if group.weight > 0.0 { group.weight.recip() } else { 0.0 };
        Some((group.sums.into_iter().collect(), scale))
    }

    /// One update of every parameter that got a gradient; nothing moves if the gradient is not finite.
    pub(super) fn update(
        &mut self,
        state: &mut Leaves,
        gradients: Gradients,
        squares: &[Option<f64>],
        scale: f64,
        learning_rate: f64,
    ) -> Update {
        if gradients.iter().any(|(_, gradient)| !gradient.is_cpu()) {
            return self.update_on_device(state, gradients, scale, learning_rate);
        }
        let squares = measured(&gradients, squares);
        let mut update = self.begun(gradients.iter().map(|(id, _)| *id), &squares, scale);
        if !update.finite {
            return update;
        }
        let (gradients, clipped_scale) = self.clip(gradients, squares, scale);
        self.apply(state, gradients, [scale, clipped_scale], learning_rate, &mut update);
        update
    }

    /// What is known of an update before it is made: from the sums of squares of gradients.
    pub(super) fn begun(&self, ids: impl Iterator<Item = ValueId>, squares: &[f64], scale: f64) -> Update {
        let gradient_norm = scale * squares.iter().sum::<f64>().sqrt();
        let mut parameters = List::filled(self.trained.len(), || Movement::NONE);
        for (id, squares) in ids.zip(squares) {
            parameters[self.place(id)].gradient_norm = scale * squares.sqrt();
        }
        Update { gradient_norm, update_ratio: f64::NAN, finite: gradient_norm.is_finite(), parameters }
    }

    /// Makes an update, of parameters that are not clipped and of those that are by gradients times the two scales.
    fn apply(
        &mut self,
        state: &mut Leaves,
        mut gradients: Gradients,
        [scale, clipped_scale]: [f64; 2],
        learning_rate: f64,
        update: &mut Update,
    ) {
        let mut all = Squares::default();
        for (id, gradient) in gradients.drain(..) {
            let scale = if self.settings[&id].clip { clipped_scale } else { scale };
            let change = self.update_one(state, id, gradient, scale, learning_rate);
            all.add(change.squares(), &mut update.parameters[self.place(id)]);
        }
        update.update_ratio = all.ratio();
        self.updated(state);
    }

    /// Counts an update that was made.
    pub(super) fn updated(&mut self, state: &Leaves) {
        self.updates += 1;
        if let Some(average) = &mut self.average {
            average.add(state, &self.trained);
        }
    }

    /// The place of a parameter among those that are trained, which are in order.
    pub(super) fn place(&self, id: ValueId) -> usize {
        self.trained.binary_search(&id).expect("gradients are those of trained parameters")
    }

    /// Clips by value, and says by what the gradients that may be clipped are then to be multiplied.
    pub(super) fn clip(&self, mut gradients: Gradients, mut squares: Block<f64>, scale: f64) -> (Gradients, f64) {
        let clips = |id: &ValueId| self.settings[id].clip;
        if let Some(limit) = self.clip_value {
            gradients = self.clip_values(gradients, limit / scale);
            squares = measured(&gradients, &[]);
        }
        let clipped = gradients.iter().zip(&*squares).filter(|((id, _), _)| clips(id));
        let norm = scale * clipped.map(|(_, squares)| squares).sum::<f64>().sqrt();
        let factor = self.clip_norm.filter(|&limit| norm > limit).map_or(1.0, |limit| limit / norm);
        (gradients, scale * factor)
    }

    /// Gradients whose elements are in `±limit`, but for those of parameters that are not clipped.
    fn clip_values(&self, mut gradients: Gradients, limit: f64) -> Gradients {
        let clips = |id: &ValueId| self.settings[id].clip;
        let clipped = |(id, gradient)| (id, if clips(&id) { clip_value(gradient, limit) } else { gradient });
        gradients.drain(..).map(clipped).collect()
    }

    /// Updates a parameter.
    pub(super) fn update_one(
        &mut self,
        state: &mut Leaves,
        id: ValueId,
        gradient: Tensor,
        gradient_scale: f64,
        learning_rate: f64,
    ) -> Change {
        let parameter = state[id].as_mut().expect("parameters are initialised");
        let step = self.begin_update(id, parameter, gradient_scale, learning_rate);
        let state = self.state.get_mut(&id).expect("begun");
        self.rule.update(&self.settings[&id].target, parameter, gradient, &mut state.moments, &step)
    }

    /// Counts one more update of a parameter, whose state begins with the first, and says what it depends on.
    pub(super) fn begin_update(
        &mut self,
        id: ValueId,
        parameter: &Tensor,
        gradient_scale: f64,
        learning_rate: f64,
    ) -> Step {
        let Settings { target, learning_rate: factor, weight_decay, .. } = &self.settings[&id];
        let state = self.state.entry(id).or_insert_with(|| ParameterState {
            moments: self
                .rule
                .state(target)
                .iter()
                .map(|slot| Tensor::full(&slot.shape, 0.0, parameter.dtype(), &parameter.device()))
                .collect(),
            updates: 0,
        });
        state.updates += 1;
        let learning_rate = learning_rate * factor;
        Step { number: state.updates, learning_rate, weight_decay: *weight_decay, gradient_scale }
    }
}

impl Squares {
    /// Adds those of a parameter, and records what its update did.
    pub(super) fn add(&mut self, other: Self, movement: &mut Movement) {
        movement.update_ratio = other.ratio();
        self.parameter += other.parameter;
        self.update += other.update;
    }
}

/// The sums of squares of gradients, some of which may be known already.
fn measured(gradients: &[(ValueId, Tensor)], known: &[Option<f64>]) -> Block<f64> {
    Block::collect(gradients.iter().map(|(id, gradient)| {
        let known = known.get(*id).copied().flatten();
        known.unwrap_or_else(|| sum_squares(gradient))
    }))
}

/// Every element brought into `±limit`.
pub(super) fn clip_value(gradient: Tensor, limit: f64) -> Tensor {
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

pub(super) fn not_compiled() -> Error {
    Error::value("the session has no optimizer: set one before training")
}
