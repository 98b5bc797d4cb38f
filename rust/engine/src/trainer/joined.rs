//! Parameters that a device updates together: their arrays lie end to end in one, so that each kernel passes over all of them.
//!
//! What is asked of a device costs some microseconds, however few the elements are.

use std::collections::BTreeMap;

use super::update::{Gradients, Training};
use crate::Number;
use crate::optimizer::sum_on_device;
use crate::program::ValueId;
use crate::tensor::{BRIEF, Lengths, Tensor};

/// Arrays begin at multiples of so many elements, which devices can read from, and sums are those of so many.
const UNIT: usize = 1024;

/// Arrays that are joined, at most: for each element a kernel looks among them and the zeros behind them.
pub(super) const MOST: usize = 16;

/// The arrays of one parameter in its own shape, or those of several, `(elements,)` with zeros between.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The parameters and their shapes.
    pub members: Vec<(ValueId, Lengths)>,
}

/// Parameters that are updated together.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub layout: Layout,
    pub gradient: Tensor,
}

/// The zeros between arrays, by their count: the same in every step.
#[derive(Debug, Default)]
pub(super) struct Padding(BTreeMap<usize, Tensor>);

impl Padding {
    fn zeros(&mut self, count: usize, like: &Tensor) -> Tensor {
        let zeros = || Tensor::full(&[count], 0.0, like.dtype(), &like.device());
        self.0.entry(count).or_insert_with(zeros).clone()
    }
}

impl Layout {
    /// The parameters.
    pub fn ids(&self) -> impl Iterator<Item = ValueId> {
        self.members.iter().map(|(id, _)| *id)
    }

    /// The parameter, if it is one alone.
    pub fn alone(&self) -> Option<ValueId> {
        if let [(id, _)] = self.members[..] { Some(id) } else { None }
    }

    /// One array of arrays of the parameters' shapes.
    pub fn join(&self, arrays: impl Iterator<Item = Tensor>, padding: &mut Padding) -> Tensor {
        let mut arrays = arrays.peekable();
        if self.alone().is_some() {
            return arrays.next().expect("an array for each parameter");
        }
        let like = arrays.peek().expect("an array for each parameter").clone();
        let mut ends = Vec::with_capacity(2 * self.members.len());
        for array in arrays {
            let count = array.len();
            ends.push(array.reshape(&[count]));
            let rest = count.next_multiple_of(UNIT) - count;
            if rest > 0 {
                ends.push(padding.zeros(rest, &like));
            }
        }
        Tensor::concatenate(ends, 0)
    }

    /// The arrays of which one was made.
    pub fn split(&self, joined: Tensor) -> Vec<Tensor> {
        if self.alone().is_some() {
            return vec![joined];
        }
        let mut start = 0;
        let part = |(_, shape): &(ValueId, Lengths)| {
            let count: usize = shape.iter().product();
            let part = joined.clone().slice(&[start], &[start + count], &[1]).reshape(shape);
            start += count.next_multiple_of(UNIT);
            part
        };
        self.members.iter().map(part).collect()
    }

    /// The numbers of [`Self::sums`] that belong to each parameter.
    fn numbers(&self) -> impl Iterator<Item = usize> {
        let alone = self.alone().is_some();
        let units = |shape: &[usize]| shape.iter().product::<usize>().div_ceil(UNIT);
        self.members.iter().map(move |(_, shape)| if alone { 1 } else { units(shape) })
    }

    /// Sums over such arrays in 32 bits or more, one array's behind the other's, as [`Self::read`] adds them up.
    pub fn sums(&self, arrays: Vec<Tensor>) -> Tensor {
        if self.alone().is_some() {
            return Tensor::joined(arrays.into_iter().map(sum_on_device).collect());
        }
        let all = Tensor::joined(arrays);
        let units = all.len() / UNIT;
        all.reshape(&[units, UNIT]).sum_axes(&[1]).reshape(&[units])
    }

    /// The sum over each parameter, from the first of `numbers`.
    pub fn read(&self, numbers: &mut &[f64]) -> Vec<f64> {
        let sum = |count| numbers.split_off(..count).expect("as many numbers as tensors had").iter().sum();
        self.numbers().map(sum).collect()
    }
}

impl Part {
    /// The sums of the squares of each parameter's gradient, as [`Layout::sums`].
    pub fn squares(&self) -> Tensor {
        self.layout.sums(vec![self.gradient.clone().square()])
    }

    /// Each parameter's gradient.
    pub fn split(self) -> impl Iterator<Item = (ValueId, Tensor)> {
        let gradients = self.layout.split(self.gradient);
        self.layout.members.into_iter().map(|(id, _)| id).zip(gradients)
    }
}

impl Training {
    /// Gradients as the rule can take them together, in the order of each part's first parameter.
    pub(super) fn parts(&mut self, mut gradients: Gradients) -> Vec<Part> {
        let joins = self.rule.joins();
        let mut companies: Vec<Company> = Vec::new();
        for (id, gradient) in gradients.drain(..) {
            let kind = (joins && gradient.len() <= BRIEF).then(|| self.kind(id));
            let fits = |other: &&mut Company| kind.is_some() && other.kind == kind && other.gradients.len() < MOST;
            match companies.iter_mut().find(fits) {
                Some(company) => company.gradients.push((id, gradient)),
                None => companies.push(Company { kind, gradients: vec![(id, gradient)] }),
            }
        }
        companies.into_iter().map(|company| company.part(&mut self.padding)).collect()
    }

    /// What parameters have in common that are updated together.
    fn kind(&self, id: ValueId) -> Kind {
        let settings = &self.settings[&id];
        Kind {
            learning_rate: settings.learning_rate,
            weight_decay: settings.weight_decay,
            clip: settings.clip,
            updates: self.state.get(&id).map_or(0, |state| state.updates),
        }
    }
}

/// See [`Training::kind`].
#[derive(Clone, Copy, Debug, PartialEq)]
struct Kind {
    learning_rate: f64,
    weight_decay: f64,
    clip: bool,
    updates: u64,
}

/// Gradients of parameters of one kind; `None` of one that stays alone.
struct Company {
    kind: Option<Kind>,
    gradients: Vec<(ValueId, Tensor)>,
}

impl Company {
    fn part(self, padding: &mut Padding) -> Part {
        let members = self.gradients.iter().map(|(id, gradient)| (*id, gradient.shape())).collect();
        let layout = Layout { members };
        let gradients = self.gradients.into_iter().map(|(_, gradient)| gradient);
        Part { gradient: layout.join(gradients, padding), layout }
    }
}
