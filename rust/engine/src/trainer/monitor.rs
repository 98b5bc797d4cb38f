//! What activations are zero, looked at now and then: units that never answer learn nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cpu;
use crate::program::{Plan, Program, Source, ValueId};
use crate::tensor::{Comparison, DType, Real, Tensor};

/// Activations are looked at in the first of every so many micro-batches of an epoch.
pub const ACTIVATIONS_EVERY: u64 = 16;

/// Zeros among the activations of one layer in one micro-batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Zeros {
    /// The part of the activations that is 0.
    pub fraction: f64,
    /// The part of the units (places along the last axis) that are 0 for every sample.
    pub dead: f64,
}

/// Counts of one node.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    elements: f64,
    zeros: f64,
    units: f64,
    dead: f64,
}

/// What is known of one node.
#[derive(Clone, Debug)]
enum Seen {
    Counted(Counts),
    /// The zeros of each unit, on a device that may not have counted them yet, and how many activations a unit has.
    Unread(Tensor, usize),
}

/// Collects counts while a program runs forwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch(Arc<Mutex<BTreeMap<ValueId, Seen>>>);

impl Watch {
    /// Takes in the value of a node that rectifies.
    pub fn see(&self, id: ValueId, value: &Tensor) {
        let seen = seen(value);
        self.nodes().insert(id, seen);
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<ValueId, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What devices have yet to count.
    pub fn unread(&self) -> Vec<Tensor> {
        let tensor = |seen: &Seen| if let Seen::Unread(zeros, _) = seen { Some(zeros.clone()) } else { None };
        self.nodes().values().filter_map(tensor).collect()
    }

    /// Takes in the numbers of [`Self::unread`], the first of `numbers`.
    pub fn read(&self, numbers: &mut &[f64]) {
        for seen in self.nodes().values_mut() {
            if let Seen::Unread(zeros, rows) = seen {
                let per_unit = numbers.split_off(..zeros.len()).expect("a number for each unit");
                *seen = Seen::Counted(Counts::new(per_unit, *rows));
            }
        }
    }

    /// The counts by layer, in the order of [`layers`]; what devices have yet to count is waited for.
    pub fn by_layer(&self, program: &Program, plan: &Plan) -> Vec<Zeros> {
        let unread = self.unread();
        if !unread.is_empty() {
            self.read(&mut &*Tensor::numbers_of(unread));
        }
        let nodes = self.nodes();
        let counts = |id: &ValueId| match nodes.get(id) {
            Some(Seen::Counted(counts)) => Some(*counts),
            _ => None,
        };
        let sum = |ids: &Vec<ValueId>| {
            let all = ids.iter().filter_map(counts).fold(Counts::default(), |a, b| Counts {
                elements: a.elements + b.elements,
                zeros: a.zeros + b.zeros,
                units: a.units + b.units,
                dead: a.dead + b.dead,
            });
            Zeros { fraction: all.zeros / all.elements, dead: all.dead / all.units }
        };
        layers(program, plan).iter().map(|(_, ids)| sum(ids)).collect()
    }
}

/// Layers whose activations are 0 where they do not answer, in the program's order, with the nodes that compute these.
pub(crate) fn layers(program: &Program, plan: &Plan) -> Vec<(String, Vec<ValueId>)> {
    let mut layers: Vec<(String, Vec<ValueId>)> = Vec::new();
    for &id in plan.nodes() {
        let Source::Node(node) = &program.values()[id].source else {
            continue;
        };
        if !node.operation.rectifies() {
            continue;
        }
        let layer = node.layer_of_activation();
        match layers.iter_mut().find(|(known, _)| known == layer) {
            Some((_, nodes)) => nodes.push(id),
            None => layers.push((layer.to_owned(), vec![id])),
        }
    }
    layers
}

impl Counts {
    /// From the zeros of each unit, of which there are so many activations.
    fn new(per_unit: &[f64], rows: usize) -> Self {
        let rows = rows as f64;
        Self {
            elements: rows * per_unit.len() as f64,
            zeros: per_unit.iter().sum(),
            units: per_unit.len() as f64,
            dead: per_unit.iter().filter(|&&zeros| zeros == rows).count() as f64,
        }
    }
}

fn seen(value: &Tensor) -> Seen {
    let width = value.shape().last().copied().unwrap_or(1).max(1);
    let rows = value.len() / width;
    match value.dtype() {
        DType::F32 if value.is_cpu() => Seen::Counted(Counts::new(&zeros_per_unit::<f32>(value, width), rows)),
        DType::F64 if value.is_cpu() => Seen::Counted(Counts::new(&zeros_per_unit::<f64>(value, width), rows)),
        _ => Seen::Unread(zeros_of_tensor(value, [rows, width]), rows),
    }
}

fn zeros_per_unit<E: Real>(value: &Tensor, width: usize) -> Vec<f64> {
    let value = value.clone().contiguous::<E>();
    let values = value.elements::<E>();
    let mut counts = vec![0u32; width];
    let zero = E::default();
    cpu::vectorised!({
        for row in values.chunks_exact(width) {
            for (count, &value) in counts.iter_mut().zip(row) {
                *count += u32::from(value == zero);
            }
        }
    });
    counts.into_iter().map(f64::from).collect()
}

fn zeros_of_tensor(value: &Tensor, shape: [usize; 2]) -> Tensor {
    let value = value.clone().cast(DType::F32).reshape(&shape);
    value.compare_with(Comparison::Equal, 0.0).cast(DType::F32).sum_axes(&[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn zeros_are_counted_by_unit_on_every_device() {
        let values = vec![0.0, 1.0, 0.0, 0.0, 0.0, 2.0];
        for device in [Device::cpu(), Device::ndarray()] {
            for dtype in [DType::F32, DType::F64] {
                let watch = Watch::default();
                watch.see(0, &Tensor::from_f64(&values, &[2, 1, 3], dtype, &device));
                let unread = watch.unread();
                assert_eq!(unread.len(), usize::from(!device.is_cpu()));
                let numbers = Tensor::numbers_of(unread);
                watch.read(&mut &*numbers);
                let Some(Seen::Counted(counts)) = watch.nodes().get(&0).cloned() else { panic!("read") };
                let found = [counts.elements, counts.zeros, counts.units, counts.dead];
                assert_eq!(found, [6.0, 4.0, 3.0, 1.0]);
            }
        }
    }
}
