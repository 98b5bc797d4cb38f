//! Updates on devices that work by themselves: what an update needs and leaves stays there until somebody reads it.
//!
//! The finite check comes first where an update waits for it, and last where steps run ahead; the arithmetic is the same.

use super::Session;
use super::joined::{Layout, Part};
use super::update::{Gradients, Training, Update, clip_value};
use crate::optimizer::{Change, Squares, sum_on_device, wide_squares};
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
    /// The sum of the squares of all that are to be clipped by norm, after clipping by value, `(1,)`; `None` if none is.
    limited: Option<Tensor>,
    /// The sums of squares of each part before clipping, and that of all that are to be clipped by norm.
    squares: Option<Tensor>,
}

/// An update that was made of gradients that nobody has looked at.
pub(super) struct Ahead {
    /// The parameters that got a gradient.
    layouts: Vec<Layout>,
    /// What gradients are multiplied by.
    scale: f64,
    /// Whether gradients were clipped by norm.
    limited: bool,
    /// The parameters that were changed, of which squares are known.
    changed: Vec<Layout>,
    /// What is to be read: the squares of gradients, then of changes.
    pub numbers: Vec<Tensor>,
}

/// What an update did: in numbers, and what a device has yet to find.
#[derive(Default)]
struct Changes {
    known: Squares,
    layouts: Vec<Layout>,
    /// The sums of squares of each.
    unread: Vec<Tensor>,
}

impl Training {
    /// Clips gradients by value, and asks for the numbers that say whether they are finite and how long.
    fn look_at(&self, parts: &mut [Part], scale: f64, device: &Device) -> Unseen {
        let of_each: Vec<Tensor> = parts.iter().map(Part::squares).collect();
        for part in parts.iter_mut().filter(|part| self.clips(&part.layout)) {
            if let Some(limit) = self.clip_value {
                part.gradient = clip_value(part.gradient.clone(), limit / scale);
            }
        }
        let limited = self.clip_norm.and_then(|_| {
            let clipped = parts.iter().zip(&of_each).filter(|(part, _)| self.clips(&part.layout));
            let squares = |(part, squares): (&Part, &Tensor)| {
                if self.clip_value.is_some() { part.squares() } else { squares.clone() }
            };
            let limited: Vec<Tensor> = clipped.map(squares).collect();
            (!limited.is_empty()).then(|| sum_on_device(Tensor::joined(limited)))
        });
        let squares = underway(of_each.into_iter().chain(limited.clone()).collect(), device);
        Unseen { limited, squares }
    }

    /// Whether gradients of parameters that are updated together may be clipped.
    fn clips(&self, layout: &Layout) -> bool {
        layout.ids().all(|id| self.settings[&id].clip)
    }

    /// Gradients times `min(1, limit / norm)`, which is exactly 1 at the limit.
    fn clip_on_device(&self, parts: &mut [Part], limited: Option<Tensor>, scale: f64) {
        let Some((limit, limited)) = self.clip_norm.zip(limited) else {
            return;
        };
        let norm = limited.sqrt().times(scale);
        let factor = (norm.constant(limit) / norm).at_most(1.0);
        for part in parts.iter_mut().filter(|part| self.clips(&part.layout)) {
            part.gradient = part.gradient.clone() * factor.clone();
        }
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
        let mut parts = self.parts(gradients);
        let before = parts.clone();
        let Unseen { limited, squares } = self.look_at(&mut parts, scale, &device);
        let found = squares.map_or_else(Vec::new, |squares| squares.to_f64());
        let (ids, squares) = squares_of(&before, &found);
        let mut update = self.begun(ids.into_iter(), &squares, scale);
        if !update.finite {
            return update;
        }
        let scales = if found.iter().all(|number| number.is_finite()) {
            self.clip_on_device(&mut parts, limited, scale);
            [scale; 2]
        } else {
            // The device's type is too narrow for the squares.
            let gradients = before.iter().flat_map(|part| part.clone().split()).collect();
            let (gradients, clipped_scale) = self.clip(gradients, squares.into(), scale);
            parts = self.parts(gradients);
            [scale, clipped_scale]
        };
        drop(before);
        let changes = self.change(state, parts, scales, learning_rate, &mut update);
        let found = underway(changes.unread, &device).map_or_else(Vec::new, |squares| squares.to_f64());
        self.settle(&mut update, changes.known, &changes.layouts, &mut &*found);
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
        let mut parts = self.parts(gradients);
        let Unseen { limited, squares } = self.look_at(&mut parts, scale, device);
        let layouts = parts.iter().map(|part| part.layout.clone()).collect();
        let is_limited = limited.is_some();
        self.clip_on_device(&mut parts, limited, scale);
        let mut update = self.begun(std::iter::empty(), &[], scale);
        let Changes { layouts: changed, unread, .. } =
            self.change(state, parts, [scale; 2], learning_rate, &mut update);
        let numbers = squares.into_iter().chain(underway(unread, device)).collect();
        Ahead { layouts, scale, limited: is_limited, changed, numbers }
    }

    /// Makes an update, of parameters that are not clipped and of those that are by gradients times the two scales.
    fn change(
        &mut self,
        state: &mut Leaves,
        parts: Vec<Part>,
        [scale, clipped_scale]: [f64; 2],
        learning_rate: f64,
        update: &mut Update,
    ) -> Changes {
        let mut changes = Changes::default();
        for Part { layout, gradient } in parts {
            let scale = if self.clips(&layout) { clipped_scale } else { scale };
            let change = match layout.alone() {
                Some(id) => self.update_one(state, id, gradient, scale, learning_rate),
                None => self.update_joined(state, &layout, gradient, scale, learning_rate),
            };
            match change {
                Change::Known(squares) => {
                    layout.ids().for_each(|id| changes.known.add(squares, &mut update.parameters[self.place(id)]));
                }
                Change::OnDevice(squares) => {
                    changes.unread.push(layout.sums(squares.into()));
                    changes.layouts.push(layout);
                }
            }
        }
        self.updated(state);
        changes
    }

    /// Updates parameters together.
    fn update_joined(
        &mut self,
        state: &mut Leaves,
        layout: &Layout,
        gradient: Tensor,
        scale: f64,
        learning_rate: f64,
    ) -> Change {
        let parameters: Vec<Tensor> = layout.ids().map(|id| state[id].clone().expect("initialised")).collect();
        let begun = layout.ids().zip(&parameters);
        let steps = begun.map(|(id, parameter)| self.begin_update(id, parameter, scale, learning_rate));
        let step = steps.last().expect("several parameters");
        let first = layout.ids().next().expect("several parameters");
        let mut parameter = layout.join(parameters.into_iter(), &mut self.padding);
        let mut moments: Vec<Tensor> = (0..self.state[&first].moments.len())
            .map(|slot| {
                let arrays = layout.ids().map(|id| self.state[&id].moments[slot].clone());
                layout.join(arrays, &mut self.padding)
            })
            .collect();
        let change = self.rule.update(&self.settings[&first].target, &mut parameter, gradient, &mut moments, &step);
        for (id, parameter) in layout.ids().zip(layout.split(parameter)) {
            state[id] = Some(parameter);
        }
        for (slot, moment) in moments.into_iter().enumerate() {
            for (id, moment) in layout.ids().zip(layout.split(moment)) {
                self.state.get_mut(&id).expect("begun").moments[slot] = moment;
            }
        }
        change
    }

    /// Records what an update did, from the squares that were known at once and those that a device has found since.
    fn settle(&self, update: &mut Update, mut all: Squares, changed: &[Layout], squares: &mut &[f64]) {
        for layout in changed {
            let [before, change] = [layout.read(squares), layout.read(squares)];
            for ((id, before), change) in layout.ids().zip(before).zip(change) {
                all.add(Squares::of([before, change]), &mut update.parameters[self.place(id)]);
            }
        }
        update.update_ratio = all.ratio();
    }
}

/// The parameters of parts, and the squares of their gradients from the first of the numbers that a device found.
fn squares_of(parts: &[Part], mut found: &[f64]) -> (Vec<ValueId>, Vec<f64>) {
    let of_part = |part: &Part| {
        let found = part.layout.read(&mut found);
        if found.iter().all(|squares| squares.is_finite()) {
            return part.layout.ids().zip(found).collect::<Vec<_>>();
        }
        let gradients = part.clone().split().zip(found);
        gradients.map(|((id, gradient), found)| (id, wide_squares(&gradient, found))).collect()
    };
    parts.iter().flat_map(of_part).unzip()
}

impl Ahead {
    /// The update in numbers, the first of `numbers`; `None` if it should not have been made like that.
    pub fn read(&self, numbers: &mut &[f64], training: &Training) -> Option<Update> {
        let ids = self.layouts.iter().flat_map(Layout::ids);
        let squares: Vec<f64> = self.layouts.iter().flat_map(|layout| layout.read(numbers)).collect();
        let limited = numbers.split_off(..usize::from(self.limited)).expect("as many numbers as tensors had");
        let mut update = training.begun(ids, &squares, self.scale);
        training.settle(&mut update, Squares::default(), &self.changed, numbers);
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
