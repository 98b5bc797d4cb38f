//! The part of a program that a parameter reaches, and how a change of one element passes each operation of it.

use std::sync::Arc;

use super::super::Problem;
use super::columns::{contiguous, padded};
use crate::ops::{Affine, Context, Operation, Reach, Tensors};
use crate::program::{Dim, Kind, Leaves, Node, Plan, Source, Type, ValueId};
use crate::random::Stream;
use crate::tensor::{DType, Tensor};

/// What an operation is applied to.
// A handful a plan: a box for each would save nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub(super) enum Operand {
    /// The perturbed parameter.
    Parameter,
    /// The output of an earlier step.
    Step(usize),
    /// A value of the base run, and whether its axis 0 holds the samples.
    Fixed(Tensor, bool),
}

/// How a change passes an operation.
pub(super) enum Rule<'a> {
    /// The perturbed element moves one column of `z`, which comes as `(columns, positions)`.
    Moved { affine: &'a dyn Affine, input: usize, inputs: Vec<Tensor>, z: Tensor },
    /// Element by element, so that a change of one column stays one; operands of the base run come as `(columns, positions)`.
    Columnwise,
    /// A change of one column of the input moves `z` by its product with a row of the kernel.
    /// Both come with [`padded`] rows.
    RankOne { affine: &'a dyn Affine, z: Tensor, kernel: Tensor },
    /// Sample by sample: evaluated once on the stacked copies.
    Stacked,
    /// Evaluated for one copy after the other.
    OneByOne,
}

/// What the copies of a value look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// They differ from the base run in one column.
    Columns,
    /// They stand stacked along the batch.
    Stacked,
    /// They stand apart.
    Apart,
}

/// An operation of the suffix.
pub(super) struct Step<'a> {
    pub operation: Arc<dyn Operation>,
    pub operands: Vec<Operand>,
    pub rule: Rule<'a>,
    pub form: Form,
    pub context: Context,
    /// The output of the base run.
    pub base: Tensor,
    /// The same as `(columns, positions)` on the `cpu` device; of [`Form::Columns`] alone.
    pub columns: Option<Tensor>,
    /// Whether the output has no axis.
    pub number: bool,
    /// Steps whose output is not needed any more.
    pub done: Vec<usize>,
    /// Whether samples that do not differ from the base run may be left out from here on.
    pub narrows: bool,
}

/// The steps from a parameter to the loss.
pub(super) struct Suffix<'a> {
    pub parameter: Tensor,
    pub steps: Vec<Step<'a>>,
    /// The number of samples.
    pub batch: usize,
    /// The loss of each sample in the base run.
    pub losses: Vec<f64>,
}

/// Whether axis 0 holds the batch, and no other axis does.
fn of_samples(ty: &Type) -> bool {
    ty.shape.first() == Some(&Dim::BATCH) && !ty.shape[1..].iter().any(|dim| dim.batch)
}

fn without_batch(ty: &Type) -> bool {
    !ty.shape.iter().any(|dim| dim.batch)
}

/// The values of all positions (axes but the last), column by column, on the `cpu` device.
fn by_columns(x: &Tensor) -> Tensor {
    let width = x.shape().last().copied().expect("an axis").max(1);
    contiguous(x.clone().into_cpu().reshape(&[x.len() / width, width]).transpose())
}

impl<'a> Suffix<'a> {
    /// The suffix of a parameter; `None` if the loss does not depend on it.
    pub(super) fn new(problem: &Problem<'a>, plan: &Plan, values: &Leaves, parameter: ValueId) -> Option<Self> {
        let mut builder = Builder { problem, values, parameter, steps: Vec::new(), places: vec![None; values.len()] };
        for (id, value) in problem.program.values().iter().enumerate().filter(|(id, _)| plan.needs(*id)) {
            if let Source::Node(node) = &value.source {
                builder.push(id, node);
            }
        }
        builder.places[problem.loss]?;
        let losses = builder.base(problem.loss).to_f64();
        let parameter = builder.base(parameter);
        let mut suffix = Self { parameter, steps: builder.steps, batch: problem.weight.len(), losses };
        suffix.find_last_uses();
        Some(suffix)
    }

    /// Elements of the largest value that a copy adds.
    pub(super) fn elements_per_copy(&self) -> usize {
        let elements = |step: &Step<'_>| match &step.columns {
            Some(columns) => columns.shape()[1],
            None => step.base.len(),
        };
        self.steps.iter().map(elements).max().unwrap_or_default().max(1)
    }

    fn find_last_uses(&mut self) {
        let mut last = vec![0; self.steps.len()];
        let mut parameter = 0;
        for (place, step) in self.steps.iter().enumerate() {
            for operand in &step.operands {
                match operand {
                    Operand::Parameter => parameter = place,
                    Operand::Step(of) => last[*of] = place,
                    Operand::Fixed(..) => {}
                }
            }
        }
        let by_samples = |step: &Step<'_>| !matches!(step.rule, Rule::OneByOne | Rule::Moved { .. });
        let mut before = parameter;
        for place in 0..self.steps.len() {
            let behind = self.steps[place + 1..].iter().all(by_samples);
            let step = &mut self.steps[place];
            // Whatever differs goes through this one value.
            step.narrows = step.form == Form::Columns && before <= place && behind;
            step.done = (0..place).filter(|&of| last[of] == place).collect();
            before = before.max(last[place]);
        }
    }
}

struct Builder<'b, 'a> {
    problem: &'b Problem<'a>,
    values: &'b Leaves,
    parameter: ValueId,
    steps: Vec<Step<'a>>,
    /// The step of each value that depends on the parameter.
    places: Vec<Option<usize>>,
}

impl<'a> Builder<'_, 'a> {
    fn push(&mut self, id: ValueId, node: &'a Node) {
        let types = self.types(node);
        let depends = node.inputs.iter().any(|&input| input == self.parameter || self.places[input].is_some());
        if !depends || node.operation.reach(&types) == Reach::Nothing {
            return;
        }
        let inputs: Tensors = node.inputs.iter().map(|&input| self.base(input)).collect();
        let mut operands: Vec<Operand> = node.inputs.iter().map(|&input| self.operand(input)).collect();
        let context = self.context(id, self.problem.noise);
        let mut operation = Arc::clone(&node.operation);
        if let Some((without_chance, drawn)) = operation.drawn(&inputs, &context) {
            operands.push(Operand::Fixed(drawn, of_samples(types[0])));
            operation = without_chance;
        }
        let base = self.base(id);
        let rule = self.rule(id, node, operation.as_ref(), &operands, inputs);
        let form = self.form(id, &rule);
        let columns = (form == Form::Columns).then(|| by_columns(&base));
        if matches!(rule, Rule::Columnwise) {
            spread(&mut operands, &base.shape());
        }
        let number = self.ty(id).rank() == 0;
        self.places[id] = Some(self.steps.len());
        let (done, narrows) = (Vec::new(), false);
        self.steps.push(Step { operation, operands, rule, form, context, base, columns, number, done, narrows });
    }

    fn ty(&self, id: ValueId) -> &'a Type {
        &self.problem.program.values()[id].ty
    }

    fn types(&self, node: &Node) -> Vec<&'a Type> {
        node.inputs.iter().map(|&input| self.ty(input)).collect()
    }

    fn base(&self, id: ValueId) -> Tensor {
        self.values[id].clone().expect("the base run keeps everything")
    }

    fn context(&self, id: ValueId, noise: Stream) -> Context {
        Context { stream: noise.fork(id as u64), ..self.problem.context.clone() }
    }

    fn operand(&self, id: ValueId) -> Operand {
        match self.places[id] {
            _ if id == self.parameter => Operand::Parameter,
            Some(place) => Operand::Step(place),
            None => Operand::Fixed(self.base(id), of_samples(self.ty(id))),
        }
    }

    fn rule(
        &self,
        id: ValueId,
        node: &'a Node,
        operation: &dyn Operation,
        operands: &[Operand],
        inputs: Tensors,
    ) -> Rule<'a> {
        let types = self.types(node);
        let reach = operation.reach(&types);
        let fits = |ty: &&Type| of_samples(ty) || without_batch(ty);
        let by_samples = reach != Reach::Everything && of_samples(self.ty(id)) && types.iter().all(fits);
        if !by_samples {
            return Rule::OneByOne;
        }
        let affine = node.operation.affine(&types).filter(|_| self.is_real(id));
        let changed: Vec<usize> =
            (0..operands.len()).filter(|&place| !matches!(operands[place], Operand::Fixed(..))).collect();
        if let (Some(affine), &[place]) = (affine, changed.as_slice()) {
            if matches!(operands[place], Operand::Parameter) && affine.moves(place) {
                let z = by_columns(&affine.before_activation(inputs.clone()));
                return Rule::Moved { affine, input: place, inputs: inputs.into_vec(), z };
            }
            if place == 0 && affine.is_product() && self.has_form(&operands[0], Form::Columns) {
                let kernel = padded(&inputs[1]);
                let z = affine.before_activation(inputs);
                let width = z.shape().last().copied().expect("an axis").max(1);
                let z = padded(&z.clone().reshape(&[z.len() / width, width]));
                return Rule::RankOne { affine, z, kernel };
            }
        }
        if reach == Reach::Element && self.is_columnwise(id, operands, &types) {
            return Rule::Columnwise;
        }
        let apart = |operand: &Operand| matches!(operand, Operand::Parameter) || self.has_form(operand, Form::Apart);
        if operands.iter().any(apart) { Rule::OneByOne } else { Rule::Stacked }
    }

    fn form(&self, id: ValueId, rule: &Rule<'_>) -> Form {
        match rule {
            Rule::Moved { .. } | Rule::Columnwise => Form::Columns,
            Rule::OneByOne if !of_samples(self.ty(id)) => Form::Apart,
            _ => Form::Stacked,
        }
    }

    fn has_form(&self, operand: &Operand, form: Form) -> bool {
        matches!(operand, Operand::Step(place) if self.steps[*place].form == form)
    }

    /// Whether the kernels of columns know the type: that of the parameter.
    fn is_real(&self, id: ValueId) -> bool {
        let dtype = self.base(id).dtype();
        matches!(dtype, DType::F32 | DType::F64) && dtype == self.base(self.parameter).dtype()
    }

    /// The number of columns of the parameter, which is that of every value of [`Form::Columns`].
    fn width(&self) -> usize {
        self.base(self.parameter).shape().last().copied().unwrap_or(1)
    }

    fn is_columnwise(&self, id: ValueId, operands: &[Operand], types: &[&Type]) -> bool {
        let (base, ty, width) = (self.base(id), self.ty(id), self.width());
        let fits = |operand: &Operand| match operand {
            Operand::Parameter => self.base(self.parameter).len() == width,
            Operand::Step(_) => self.has_form(operand, Form::Columns),
            Operand::Fixed(value, _) => value.dtype() == base.dtype(),
        };
        ty.rank() > 1
            && self.is_real(id)
            && base.shape().last() == Some(&width)
            && types.iter().all(|ty| ty.kind == Kind::Float)
            && operands.iter().all(fits)
            && types.iter().zip(operands).all(|(operand_ty, operand)| {
                // Broadcasting would change what a column is.
                matches!(operand, Operand::Fixed(..) | Operand::Parameter) || operand_ty.shape == ty.shape
            })
    }
}

/// Lays the fixed operands of a column-wise operation out as `(columns, positions)` of its output.
fn spread(operands: &mut [Operand], shape: &[usize]) {
    for operand in operands {
        if let Operand::Fixed(value, _) = operand {
            *value = by_columns(&value.clone().into_cpu().broadcast_to(shape));
        }
    }
}
