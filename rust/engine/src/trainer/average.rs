//! The running average of the weights.

use std::collections::BTreeMap;

use crate::program::{Leaves, ValueId};
use crate::tensor::{DType, Real, Tensor};
use crate::{Number, cpu};

/// Averages of the parameters: `average = decay·average + (1 - decay)·parameter` after each update, the first one a copy.
///
/// Parameters that were never trained have none: theirs would be themselves. Those that are trained no longer keep theirs, which
/// comes near them with each update of the others.
#[derive(Clone, Debug, Default)]
pub(super) struct Average {
    /// What each update keeps.
    pub decay: f64,
    /// By place; empty before the first update.
    pub arrays: BTreeMap<ValueId, Tensor>,
}

impl Average {
    pub fn new(decay: f64) -> Self {
        Self { decay, arrays: BTreeMap::new() }
    }

    /// The weights to predict with: averages where there are any.
    pub fn apply(&self, leaves: &mut Leaves) {
        for (&id, average) in &self.arrays {
            leaves[id] = Some(average.clone());
        }
    }

    /// Takes in the parameters after an update of those that are trained.
    pub fn add(&mut self, state: &Leaves, trained: &[ValueId]) {
        for (&id, average) in &mut self.arrays {
            blend(average, parameter(state, id), self.decay);
        }
        self.begin(state, trained);
    }

    /// Begins the averages that are not there yet.
    pub fn begin(&mut self, state: &Leaves, trained: &[ValueId]) {
        for &id in trained {
            self.arrays.entry(id).or_insert_with(|| copied(parameter(state, id)));
        }
    }

    /// Begins an average anew, if there is one.
    pub fn begin_anew(&mut self, state: &Leaves, id: ValueId) {
        if let Some(average) = self.arrays.get_mut(&id) {
            *average = copied(parameter(state, id));
        }
    }
}

fn parameter(state: &Leaves, id: ValueId) -> &Tensor {
    state[id].as_ref().expect("parameters are initialised")
}

/// A copy with storage of its own, so that the next update finds the parameter's unshared.
fn copied(parameter: &Tensor) -> Tensor {
    match parameter.dtype() {
        DType::F32 if parameter.is_cpu() => parameter.clone().unique::<f32>(),
        DType::F64 if parameter.is_cpu() => parameter.clone().unique::<f64>(),
        _ => parameter.clone().times(1.0),
    }
}

fn blend(average: &mut Tensor, parameter: &Tensor, decay: f64) {
    fn in_place<E: Real>(average: &mut Tensor, parameter: &Tensor, decay: f64) {
        let parameter = parameter.clone().contiguous::<E>();
        let parameter = parameter.elements::<E>();
        cpu::for_pieces(average.elements_mut::<E>(), |offset, piece| {
            cpu::vectorised!({
                for (average, &parameter) in piece.iter_mut().zip(&parameter[offset..]) {
                    *average = blended(*average, parameter, decay);
                }
            });
        });
    }
    match average.dtype() {
        DType::F32 if average.is_cpu() => in_place::<f32>(average, parameter, decay),
        DType::F64 if average.is_cpu() => in_place::<f64>(average, parameter, decay),
        _ => *average = blended(average.clone(), parameter.clone(), decay),
    }
}

#[inline(always)]
fn blended<N: Number>(average: N, parameter: N, decay: f64) -> N {
    average.times(decay) + parameter.times(1.0 - decay)
}
