//! Training arrays that live on the device, where the rows of a batch are gathered.

use std::collections::BTreeMap;

use super::data::Place;
use super::{ArrayView, Inputs, Session};
use crate::program::{Kind, ValueId};
use crate::tensor::{DType, Tensor};
use crate::{Device, Result};

/// Bytes of an array that go to the device at once.
const PIECE_BYTES: usize = 64 << 20;

/// Copies of lent arrays by the inputs' names.
#[derive(Debug, Default)]
pub(super) struct Held(BTreeMap<String, Copied>);

#[derive(Debug)]
struct Copied {
    place: Place,
    /// All rows, of the input's type; truth values as integers.
    rows: Tensor,
}

impl Session {
    /// Keeps copies of arrays on the device for the steps of [`Self::train`] on them, until [`Self::release`]: of those that
    /// fit, the smallest first. Returns their names; on the `cpu` device none.
    ///
    /// The arrays must stay where they are meanwhile; what is written to them is not seen.
    pub fn hold(&mut self, inputs: &Inputs) -> Result<Vec<String>> {
        self.release();
        let Some(room) = self.device.room() else {
            return Ok(Vec::new());
        };
        let mut left = room.bytes;
        for (bytes, id, name) in self.sizes(inputs) {
            if bytes <= left.min(room.largest) && inputs[&name].rows() <= i32::MAX as usize {
                left -= bytes;
                let view = &inputs[&name];
                let rows = copied(view, self.program.values()[id].ty.kind, self.dtype, &self.device);
                self.held.0.insert(name, Copied { place: view.place(), rows });
            }
        }
        Ok(self.held.0.keys().cloned().collect())
    }

    /// Drops what [`Self::hold`] keeps.
    pub fn release(&mut self) {
        self.held = Held::default();
    }

    /// The bytes that arrays take on the device, in ascending order, with the inputs' places and names.
    fn sizes(&self, inputs: &Inputs) -> Vec<(usize, ValueId, String)> {
        let known = self.program.inputs().filter_map(|(id, name)| Some((id, name, inputs.get(name)?)));
        let mut sizes: Vec<_> = known
            .map(|(id, name, view)| {
                let size =
                    if self.program.values()[id].ty.kind == Kind::Float { self.dtype } else { DType::I32 }.size();
                let elements = view.shape().iter().fold(1usize, |all, &length| all.saturating_mul(length));
                (elements.saturating_mul(size), id, name.to_owned())
            })
            .collect();
        sizes.sort();
        sizes
    }

    /// Rows by number on the device, if any of the arrays is held there.
    pub(super) fn picks(&self, inputs: &Inputs, rows: &[i64]) -> Option<Tensor> {
        let held = inputs.iter().any(|(name, view)| self.held.has(name, view));
        let numbers = || Tensor::from_elements(rows.iter().map(|&row| row as i32), &[rows.len()], &self.device);
        held.then(numbers)
    }

    /// Some rows of an array, if it is held.
    pub(super) fn picked(&self, name: &str, view: &ArrayView, kind: Kind, picks: &Tensor) -> Option<Tensor> {
        let rows = self.held.find(name, view)?.rows.clone().select(0, picks.clone());
        Some(if kind == Kind::Bool { rows.cast(DType::Bool) } else { rows })
    }
}

impl Held {
    /// Whether there is a copy of an array.
    pub(super) fn has(&self, name: &str, view: &ArrayView) -> bool {
        self.find(name, view).is_some()
    }

    fn find(&self, name: &str, view: &ArrayView) -> Option<&Copied> {
        self.0.get(name).filter(|copied| view.is_at(&copied.place))
    }
}

/// All rows as [`ArrayView::gather`] gives them, converted and sent piece by piece, so that the host never holds another copy.
fn copied(view: &ArrayView, kind: Kind, dtype: DType, device: &Device) -> Tensor {
    let row_bytes = view.shape().iter().skip(1).product::<usize>() * size_of::<f64>();
    let piece = (PIECE_BYTES / row_bytes.max(1)).max(1);
    let all: Vec<i64> = (0..view.rows() as i64).collect();
    let pieces = all.chunks(piece).map(|rows| {
        let rows = view.gather(rows, kind, dtype, device);
        if kind == Kind::Bool { rows.cast(DType::I32) } else { rows }
    });
    let mut pieces: Vec<Tensor> = pieces.collect();
    if pieces.len() == 1 { pieces.remove(0) } else { Tensor::concatenate(pieces, 0) }
}
