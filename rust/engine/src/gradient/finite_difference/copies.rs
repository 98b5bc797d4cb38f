//! A chunk of perturbed copies on their way through the suffix.

use super::columns::{Base, Rows, moved, rank_one};
use super::suffix::{Operand, Rule, Step, Suffix};
use crate::memory::Block;
use crate::ops::Affine;
use crate::tensor::{DType, Element, Real, Tensor};
use crate::{Device, Interrupt, Result};

/// A parameter with one element changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    pub element: usize,
    /// The element's value in the copy.
    pub value: f64,
    /// How far that is from the base run.
    pub step: f64,
}

/// The copies of a value.
enum Change {
    /// The perturbed column of each row, `(rows, inner)` on the `cpu` device.
    Columns(Tensor),
    /// All rows along axis 0.
    Stacked(Tensor),
    /// One by one.
    Apart(Vec<Tensor>),
}

/// Copies that run together.
pub(super) struct Copies<'a, E> {
    suffix: &'a Suffix<'a>,
    copies: &'a [Copy],
    /// The column that each copy changes.
    columns: Vec<usize>,
    rows: Rows,
    values: Vec<Option<Change>>,
    real: std::marker::PhantomData<E>,
}

impl<'a, E: Real> Copies<'a, E> {
    pub(super) fn new(suffix: &'a Suffix<'a>, copies: &'a [Copy]) -> Self {
        let width = suffix.parameter.shape().last().copied().unwrap_or(1);
        Self {
            suffix,
            copies,
            columns: copies.iter().map(|copy| copy.element % width).collect(),
            rows: Rows::all(copies.len(), suffix.batch),
            values: suffix.steps.iter().map(|_| None).collect(),
            real: std::marker::PhantomData,
        }
    }

    /// How much larger the weighted loss of each copy is than that of the base run.
    pub(super) fn changes(mut self, weight: &[f64], interrupt: &Interrupt) -> Result<Vec<f64>> {
        for (place, step) in self.suffix.steps.iter().enumerate() {
            interrupt.check()?;
            if self.rows.len() == 0 {
                return Ok(vec![0.0; self.copies.len()]);
            }
            self.values[place] = Some(self.evaluate(step));
            if step.narrows {
                self.narrow(place);
            }
            for &done in &step.done {
                self.values[done] = None;
            }
        }
        Ok(self.totals(weight))
    }

    fn evaluate(&self, step: &Step<'_>) -> Change {
        match &step.rule {
            Rule::Moved { affine, input, inputs, z } => self.moved(*affine, *input, inputs, z),
            Rule::Columnwise => self.column_wise(step),
            Rule::RankOne { affine, z, kernel } => self.rank_one(step, *affine, z, kernel),
            Rule::Stacked => {
                let inputs = step.operands.iter().map(|operand| self.stacked(operand)).collect();
                Change::Stacked(step.operation.evaluate(inputs, &step.context).value)
            }
            Rule::OneByOne => self.one_by_one(step),
        }
    }

    /// The positions of a sample in a value of which one column changes.
    fn inner(&self, columns: &Tensor) -> usize {
        columns.shape()[1] / self.suffix.batch
    }

    fn moved(&self, affine: &dyn Affine, input: usize, inputs: &[Tensor], z: &Tensor) -> Change {
        let [width, positions] = [z.shape()[0], z.shape()[1]];
        let of = |copy: &Copy| copy.element / width;
        let first = of(&self.copies[0]);
        let end = self.copies.last().map_or(first, of) + 1;
        let directions = affine.directions(inputs, input, first..end).contiguous::<E>();
        let (directions, z) = (directions.elements::<E>(), z.elements::<E>());
        let mut out = Block::<E>::uninitialised(self.copies.len() * positions);
        for ((copy, &column), out) in self.copies.iter().zip(&self.columns).zip(out.chunks_exact_mut(positions)) {
            let direction = &directions[(of(copy) - first) * positions..];
            moved(out, &z[column * positions..], direction, E::from_f64(copy.step));
        }
        let inner = positions / self.suffix.batch;
        Change::Columns(affine.activate(Tensor::from_block(out, &[self.rows.len(), inner])))
    }

    fn column_wise(&self, step: &Step<'_>) -> Change {
        let inner = self.inner(step.columns.as_ref().expect("the form of the step"));
        let shape = [self.rows.len(), inner];
        let operand = |operand: &Operand| match operand {
            Operand::Parameter => {
                let values = self.rows.pairs().map(|(copy, _)| E::from_f64(self.copies[copy].value));
                let repeated = values.flat_map(|value| std::iter::repeat_n(value, inner)).collect();
                Tensor::from_vec::<E>(repeated, &shape)
            }
            Operand::Step(of) => match self.value(*of) {
                Change::Columns(columns) => columns.clone(),
                _ => unreachable!("column-wise steps read columns"),
            },
            Operand::Fixed(base, _) => Tensor::from_vec(self.base(base).gather(&self.rows), &shape),
        };
        let inputs = step.operands.iter().map(operand).collect();
        let context = crate::ops::Context { device: Device::cpu(), ..step.context.clone() };
        Change::Columns(step.operation.evaluate(inputs, &context).value.contiguous::<E>())
    }

    /// A value of the base run that came as `(columns, positions)`.
    fn base<'b>(&'b self, columns: &'b Tensor) -> Base<'b, E> {
        let (positions, inner) = (columns.shape()[1], self.inner(columns));
        Base { values: columns.elements::<E>(), columns: &self.columns, positions, inner }
    }

    fn rank_one(&self, step: &Step<'_>, affine: &dyn Affine, z: &Tensor, kernel: &Tensor) -> Change {
        let &Operand::Step(of) = &step.operands[0] else { unreachable!("the input is a step") };
        let Change::Columns(columns) = self.value(of) else { unreachable!("the input is a column") };
        let base = self.base(self.suffix.steps[of].columns.as_ref().expect("the form of the step"));
        let [z, kernel] = [z, kernel].map(|tensor| tensor.elements::<E>());
        let width = *step.base.shape().last().expect("an axis");
        let out = rank_one(z, columns.elements::<E>(), base, kernel, &self.rows, width);
        Change::Stacked(affine.activate(self.on_device(out, step)))
    }

    /// Rows of the output of a step.
    fn on_device(&self, values: Vec<E>, step: &Step<'_>) -> Tensor {
        let mut shape = step.base.shape();
        shape[0] = self.rows.len();
        Tensor::from_values(values, &shape, &step.base.device())
    }

    fn value(&self, place: usize) -> &Change {
        self.values[place].as_ref().expect("steps are evaluated in order")
    }

    /// All rows of an operand.
    fn stacked(&self, operand: &Operand) -> Tensor {
        match operand {
            Operand::Parameter => unreachable!("a parameter has no samples"),
            Operand::Fixed(value, false) => value.clone(),
            Operand::Fixed(value, true) => repeated(value, &self.rows.sample),
            Operand::Step(place) => match self.value(*place) {
                Change::Stacked(value) => value.clone(),
                Change::Columns(columns) => self.filled(&self.suffix.steps[*place], columns),
                Change::Apart(_) => unreachable!("values without samples are evaluated one by one"),
            },
        }
    }

    /// The rows of the base run with the perturbed columns in their place.
    fn filled(&self, step: &Step<'_>, columns: &Tensor) -> Tensor {
        let base = step.columns.as_ref().expect("the form of the step");
        let (inner, width) = (self.inner(base), base.shape()[0]);
        let mut rows = repeated(&step.base.clone().into_cpu(), &self.rows.sample).into_vec::<E>();
        let places = rows.chunks_exact_mut(inner * width).zip(columns.elements::<E>().chunks_exact(inner));
        for ((copy, _), (row, values)) in self.rows.pairs().zip(places) {
            let column = row.iter_mut().skip(self.columns[copy]).step_by(width);
            column.zip(values).for_each(|(to, &value)| *to = value);
        }
        self.on_device(rows, step)
    }

    fn one_by_one(&self, step: &Step<'_>) -> Change {
        let whole: Vec<Option<Tensor>> = step.operands.iter().map(|operand| self.whole(operand)).collect();
        let one = |place: usize| {
            let operands = step.operands.iter().zip(&whole);
            let inputs = operands.map(|(operand, whole)| self.of_copy(operand, whole.as_ref(), place)).collect();
            let value = step.operation.evaluate(inputs, &step.context).value;
            if step.number { value.into_number() } else { value }
        };
        let outputs: Vec<Tensor> = (0..self.copies.len()).map(one).collect();
        match step.form {
            super::suffix::Form::Apart => Change::Apart(outputs),
            _ => Change::Stacked(Tensor::concatenate(outputs, 0)),
        }
    }

    /// What is stacked of an operand.
    fn whole(&self, operand: &Operand) -> Option<Tensor> {
        let Operand::Step(place) = operand else { return None };
        (!matches!(self.value(*place), Change::Apart(_))).then(|| self.stacked(operand))
    }

    fn of_copy(&self, operand: &Operand, whole: Option<&Tensor>, place: usize) -> Tensor {
        match (operand, whole) {
            (Operand::Parameter, _) => self.parameter(&self.copies[place]),
            (Operand::Fixed(value, _), _) => value.clone(),
            (Operand::Step(_), Some(whole)) => {
                let shape = whole.shape();
                let (mut starts, mut stops) = (vec![0; shape.len()], shape.clone());
                (starts[0], stops[0]) = (place * self.suffix.batch, (place + 1) * self.suffix.batch);
                whole.clone().slice(&starts, &stops, &vec![1; shape.len()])
            }
            (Operand::Step(of), None) => match self.value(*of) {
                Change::Apart(values) => values[place].clone(),
                _ => unreachable!("what is stacked came as a whole"),
            },
        }
    }

    fn parameter(&self, copy: &Copy) -> Tensor {
        let base = &self.suffix.parameter;
        let mut values = base.clone().into_vec::<E>();
        values[copy.element] = E::from_f64(copy.value);
        Tensor::from_values(values, &base.shape(), &base.device())
    }

    /// Leaves out the rows whose column is that of the base run.
    fn narrow(&mut self, place: usize) {
        let step = &self.suffix.steps[place];
        let Some(Change::Columns(columns)) = &self.values[place] else { unreachable!("the form of the step") };
        let base = step.columns.as_ref().expect("the form of the step");
        let inner = self.inner(base);
        let (rows, values) = self.base(base).differing(columns.elements::<E>(), &self.rows);
        self.values[place] = Some(Change::Columns(Tensor::from_vec(values, &[rows.len(), inner])));
        self.rows = rows;
    }

    fn totals(&self, weight: &[f64]) -> Vec<f64> {
        let Some(Some(Change::Stacked(losses))) = self.values.last() else {
            unreachable!("the loss has one number a sample")
        };
        let mut totals = vec![0.0; self.copies.len()];
        let mut add = |place: usize, loss: f64| {
            let (copy, sample) = (self.rows.copy[place] as usize, self.rows.sample[place] as usize);
            if weight[sample] != 0.0 {
                totals[copy] += weight[sample] * (loss - self.suffix.losses[sample]);
            }
        };
        match losses.as_slice::<E>() {
            Some(losses) => losses.iter().enumerate().for_each(|(place, loss)| add(place, loss.to_f64())),
            None => losses.to_f64().into_iter().enumerate().for_each(|(place, loss)| add(place, loss)),
        }
        totals
    }
}

/// The samples of a value in another order, many times over.
fn repeated(value: &Tensor, samples: &[u32]) -> Tensor {
    match value.dtype() {
        DType::F32 if value.is_cpu() => repeated_on_cpu::<f32>(value, samples),
        DType::F64 if value.is_cpu() => repeated_on_cpu::<f64>(value, samples),
        DType::I32 if value.is_cpu() => repeated_on_cpu::<i32>(value, samples),
        _ => {
            let samples: Vec<i32> = samples.iter().map(|&sample| sample as i32).collect();
            let count = samples.len();
            value.clone().select(0, Tensor::from_values(samples, &[count], &value.device()))
        }
    }
}

fn repeated_on_cpu<E: Element + bytemuck::Pod>(value: &Tensor, samples: &[u32]) -> Tensor {
    let value = value.clone().contiguous::<E>();
    let mut shape = value.shape();
    let length = value.len() / shape[0];
    let values = value.elements::<E>();
    shape[0] = samples.len();
    if length == 1 {
        let out = samples.iter().map(|&sample| values[sample as usize]).collect::<Vec<E>>();
        return Tensor::from_vec(out, &shape);
    }
    let mut out = Vec::with_capacity(samples.len() * length);
    for &sample in samples {
        out.extend_from_slice(&values[sample as usize * length..][..length]);
    }
    Tensor::from_vec(out, &shape)
}
