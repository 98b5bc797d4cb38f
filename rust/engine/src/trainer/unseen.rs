//! Updates on devices that work by themselves: what an update needs and leaves stays there until somebody reads it.
//!
//! The finite check comes first where an update waits for it, and last where steps run ahead; the arithmetic is the same.

use super::Session;
use super::update::{Gradients, Training, Update};
use crate::optimizer::{Squares, squares_on_device, sum_on_device, wide_squares};
use crate::program::{Leaves, ValueId};
use crate::tensor::Tensor;
use crate::{Device, Number, Result};

/// Numbers on their way, in the order in which they will be read; the device begins with what was asked of it so far.
///
/// Where results are read, operations are fused up to there; so that neither reading nor not reading changes a bit, they
/// are fused up to the same places in steps that run ahead.
pub(super) fn underway(tensors: Vec<Tensor>, device: &Device) -> Option<Tensor> {
    if tensors.is_empty() {
        return None;
    }
    let numbers = Tensor::joined(tensors);
    device.begin();
    Some(numbers)
}

/// Gradients whose numbers nobody has looked at.
struct Unseen {
    /// Clipped by value.
    gradients: Gradients,
    /// The sum of the squares of all that are to be clipped by norm, `(1,)`; `None` if none is.
    limited: Option<Tensor>,
    /// The sums of squares of each before clipping, and that of all that are to be clipped by norm.
    squares: Option<Tensor>,
}

/// An update that was made of gradients that nobody has looked at.
pub(super) struct Ahead {
    /// The parameters that got a gradient.
    ids: Vec<ValueId>,
    /// What gradients are multiplied by.
    scale: f64,
    /// Whether gradients were clipped by norm.
    limited: bool,
    /// The parameters that were changed, of which squares are known.
    changed: Vec<ValueId>,
    /// What is to be read: the squares of gradients, then of changes.
    pub numbers: Vec<Tensor>,
}

impl Training {
    fn unseen(&self, gradients: &Gradients, scale: f64, device: &Device) -> Unseen {
        let squares = |gradients: &Gradients| -> Vec<Tensor> {
            gradients.iter().map(|(_, gradient)| squares_on_device(gradient)).collect()
        };
        let of_each = squares(gradients);
        let clipped = self.clip_value.map(|limit| self.clip_values(gradients.clone(), limit / scale));
        let limited = self.clip_norm.and_then(|_| {
            let of_clipped = clipped.as_ref().map_or_else(|| of_each.clone(), squares);
            let limits = gradients.iter().zip(of_clipped).filter(|((id, _), _)| self.settings[id].clip);
            let limited: Vec<Tensor> = limits.map(|(_, squares)| squares).collect();
            (!limited.is_empty()).then(|| sum_on_device(Tensor::joined(limited)))
        });
        let squares = underway(of_each.into_iter().chain(limited.clone()).collect(), device);
        Unseen { gradients: clipped.unwrap_or_else(|| gradients.clone()), limited, squares }
    }

    /// Gradients times `min(1, limit / norm)`, which is exactly 1 at the limit.
    fn clip_on_device(&self, mut gradients: Gradients, limited: Option<Tensor>, scale: f64) -> Gradients {
        let Some((limit, limited)) = self.clip_norm.zip(limited) else {
            return gradients;
        };
        let norm = limited.sqrt().times(scale);
        let factor = (norm.constant(limit) / norm).at_most(1.0);
        let clipped = |(id, gradient): (ValueId, Tensor)| {
            let clip = self.settings[&id].clip;
            (id, if clip { gradient * factor.clone() } else { gradient })
        };
        gradients.drain(..).map(clipped).collect()
    }

    /// [`Self::update`] where the gradients are on a device, which is waited for.
    pub(super) fn update_on_device(
        &mut self,
        state: &mut Leaves,
        gradients: Gradients,
        scale: f64,
        learning_rate: f64,
    ) -> Update {
        let device = gradients[0].1.device();
        let Unseen { gradients: clipped, limited, squares } = self.unseen(&gradients, scale, &device);
        let found = squares.map_or_else(Vec::new, |squares| squares.to_f64());
        let wide = gradients.iter().zip(&found).map(|((_, gradient), &found)| wide_squares(gradient, found));
        let wide: Vec<f64> = wide.collect();
        let mut update = self.begun(gradients.iter().map(|(id, _)| *id), &wide, scale);
        if !update.finite {
            return update;
        }
        drop(gradients);
        let (gradients, scales) = if found.iter().all(|number| number.is_finite()) {
            (self.clip_on_device(clipped, limited, scale), [scale; 2])
        } else {
            // The device's type is too narrow for the squares.
            let (gradients, clipped_scale) = self.clip(clipped, wide.into(), scale);
            (gradients, [scale, clipped_scale])
        };
        let (known, unread) = self.apply(state, gradients, scales, learning_rate, &mut update);
        let (changed, squares): (Vec<ValueId>, Vec<Tensor>) = unread.into_iter().unzip();
        let squares = underway(squares, &device).map_or_else(Vec::new, |squares| squares.to_f64());
        self.settle(&mut update, known, &changed, &squares);
        update
    }

    /// An update as if its gradients were finite.
    fn update_ahead(
        &mut self,
        state: &mut Leaves,
        gradients: Gradients,
        scale: f64,
        learning_rate: f64,
        device: &Device,
    ) -> Ahead {
        let ids: Vec<ValueId> = gradients.iter().map(|(id, _)| *id).collect();
        let unseen = self.unseen(&gradients, scale, device);
        drop(gradients);
        let limited = unseen.limited.is_some();
        let gradients = self.clip_on_device(unseen.gradients, unseen.limited, scale);
        let mut update = self.begun(std::iter::empty(), &[], scale);
        let (_, unread) = self.apply(state, gradients, [scale; 2], learning_rate, &mut update);
        let (changed, squares): (Vec<ValueId>, Vec<Tensor>) = unread.into_iter().unzip();
        let numbers = unseen.squares.into_iter().chain(underway(squares, device)).collect();
        Ahead { ids, scale, limited, changed, numbers }
    }

    /// Records what an update did, from the squares that were known at once and those that a device has found since.
    fn settle(&self, update: &mut Update, mut all: Squares, changed: &[ValueId], squares: &[f64]) {
        for (&id, &squares) in changed.iter().zip(squares.as_chunks().0) {
            all.add(Squares::of(squares), &mut update.parameters[self.place(id)]);
        }
        update.update_ratio = all.ratio();
    }
}

impl Ahead {
    /// The update in numbers, the first of `numbers`; `None` if it should not have been made like that.
    pub fn read(&self, numbers: &mut &[f64], training: &Training) -> Option<Update> {
        let mut next = |count: usize| numbers.split_off(..count).expect("as many numbers as tensors had");
        let (squares, limited) = (next(self.ids.len()), next(self.limited.into()));
        let changes = next(2 * self.changed.len());
        let mut update = training.begun(self.ids.iter().copied(), squares, self.scale);
        training.settle(&mut update, Squares::default(), &self.changed, changes);
        let finite = update.finite && squares.iter().chain(limited).all(|number| number.is_finite());
        finite.then_some(update)
    }
}

impl Session {
    /// Takes in the gradients of one micro-batch like [`Self::take_gradients`], but looks at nothing: an update that is due
    /// is made as if they were finite.
    pub(super) fn take_gradients_ahead(
        &mut self,
        gradients: Gradients,
        weight: f64,
        learning_rate: f64,
    ) -> Result<Option<Ahead>> {
        let device = self.device.clone();
        let Self { training, state, .. } = self;
        let training = training.as_mut().ok_or_else(super::update::not_compiled)?;
        let Some((mean, scale)) = training.collect(gradients, weight) else {
            return Ok(None);
        };
        let ahead = training.update_ahead(state, mean, training.unscaled(scale), learning_rate, &device);
        training.note(true);
        Ok(Some(ahead))
    }
}
