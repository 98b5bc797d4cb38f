//! Where the first number that is not finite comes from: the failing micro-batch again, every value looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::records::Record;
use super::{Inputs, Session};
use crate::gradient::{Method, Problem, solve};
use crate::program::{Dim, Leaves, Node, Plan, Program, Reverse, Source, ValueId};
use crate::tensor::{DType, Real, Tensor};
use crate::{Interrupt, Result};

/// What kind of value was the first that is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Data.
    Input,
    /// A parameter, a buffer or a constant.
    Parameter,
    /// What an operation of a layer computed.
    Activation,
    /// What an operation of the loss computed.
    Loss,
    /// The gradient that an operation sent back.
    Gradient,
}

impl Origin {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Parameter => "parameter",
            Self::Activation => "activation",
            Self::Loss => "loss",
            Self::Gradient => "gradient",
        }
    }
}

/// The first value of a micro-batch that is not finite, in the order of computation.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// Epoch and micro-batch.
    pub address: [u64; 2],
    /// What kind of value it is.
    pub origin: Origin,
    /// The input's name, the parameter's path or the operation's name.
    pub name: String,
    /// The layer of the operation; empty for what belongs to none.
    pub scope: String,
    /// How many of its elements are not finite.
    pub count: usize,
    /// How many elements it has.
    pub elements: usize,
    /// The row of the data that the first of them belongs to, if it belongs to one.
    pub row: Option<i64>,
}

/// What is not finite in one value.
#[derive(Clone, Copy, Debug)]
struct Flaw {
    first: usize,
    count: usize,
    elements: usize,
}

impl Flaw {
    fn of(value: &Tensor) -> Option<Self> {
        match value.dtype() {
            DType::F32 if value.is_cpu() => Self::among::<f32>(value),
            DType::F64 if value.is_cpu() => Self::among::<f64>(value),
            dtype if dtype.is_float() => Self::in_order(value.to_f64().into_iter()),
            _ => None,
        }
    }

    fn among<E: Real>(value: &Tensor) -> Option<Self> {
        let value = value.clone().contiguous::<E>();
        Self::in_order(value.elements::<E>().iter().map(|value| value.to_f64()))
    }

    fn in_order(values: impl ExactSizeIterator<Item = f64>) -> Option<Self> {
        let elements = values.len();
        let mut bad = values.enumerate().filter(|(_, value)| !value.is_finite()).map(|(place, _)| place);
        let first = bad.next()?;
        Some(Self { first, count: 1 + bad.count(), elements })
    }
}

/// Looks at every value while a program runs forwards and backwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sentry(Arc<Mutex<Sightings>>);

#[derive(Debug, Default)]
struct Sightings {
    values: BTreeMap<ValueId, Flaw>,
    /// The node that sent back the first gradient that is not finite, and the value that this is the gradient of.
    gradient: Option<(ValueId, ValueId, Flaw)>,
}

impl Sentry {
    /// Takes in a value.
    pub fn see(&self, id: ValueId, value: &Tensor) {
        if let Some(flaw) = Flaw::of(value) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).values.insert(id, flaw);
        }
    }

    /// Takes in the gradient that a node sent back to one of its inputs.
    pub fn see_gradient(&self, node: ValueId, input: ValueId, gradient: &Tensor) {
        let mut sightings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sightings.gradient.is_none() {
            sightings.gradient = Flaw::of(gradient).map(|flaw| (node, input, flaw));
        }
    }
}

/// A micro-batch that failed.
pub(super) struct Failure<'a> {
    pub inputs: &'a Inputs,
    pub rows: &'a [i64],
    pub picks: Option<&'a Tensor>,
    pub weights: &'a [f64],
    pub address: [u64; 2],
}

impl Session {
    /// The first diagnosis that [`super::Chunk::diagnose`] led to since the last call.
    pub fn take_diagnosis(&mut self) -> Option<Diagnosis> {
        self.diagnosis.take()
    }

    /// Whether a micro-batch left a number that is not finite: a loss, an update, or the open accumulation group.
    pub(super) fn failed(&self, record: &Record) -> bool {
        let update = record.update.as_ref().is_some_and(|update| !update.finite);
        let mut sums = self.training.iter().flat_map(|training| training.group.sums.values());
        update || !record.loss.is_finite() || sums.any(|sum| Flaw::of(sum).is_some())
    }

    /// Runs a micro-batch again, whose update was not made, and keeps what it finds unless something was found before.
    pub(super) fn diagnose(&mut self, failure: &Failure<'_>, interrupt: &Interrupt) -> Result<()> {
        if self.diagnosis.is_some() {
            return Ok(());
        }
        let loss = self.described.find_output("training.loss")?;
        let plan = Plan::new(&self.described, &[loss]);
        let training = self.training()?;
        let reverse = Reverse::new(&self.described, &plan, loss, &training.wanted, &training.checkpoint);
        let sentry = Sentry::default();
        let leaves = self.leaves(failure.inputs, failure.rows, failure.picks, &plan);
        leaves_seen(&sentry, &leaves, &plan);
        let total: f64 = failure.weights.iter().sum();
        solve(
            Problem {
                program: &self.described,
                plan: &plan,
                leaves,
                loss,
                weight: self.sample_seed(failure.weights, if total > 0.0 { total.recip() } else { 0.0 }),
                wanted: &training.wanted,
                reverse: &reverse,
                context: self.observed(|observers| observers.sentry = Some(sentry.clone())),
                noise: self.noise(failure.address),
            },
            Method::Autodiff,
            interrupt,
        )?;
        let sightings = std::mem::take(&mut *sentry.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.diagnosis = self.first_flaw(&sightings, loss, failure);
        Ok(())
    }

    fn first_flaw(&self, sightings: &Sightings, loss: ValueId, failure: &Failure<'_>) -> Option<Diagnosis> {
        if !sightings.values.contains_key(&loss) {
            let (node, input, flaw) = sightings.gradient?;
            let (_, name, scope) = self.describe(node);
            return Some(self.diagnosis_of(Origin::Gradient, [name, scope], input, flaw, failure));
        }
        let id = root(&self.described, &sightings.values, loss);
        let (origin, name, scope) = self.describe(id);
        Some(self.diagnosis_of(origin, [name, scope], id, sightings.values[&id], failure))
    }

    fn diagnosis_of(
        &self,
        origin: Origin,
        [name, scope]: [String; 2],
        id: ValueId,
        flaw: Flaw,
        failure: &Failure<'_>,
    ) -> Diagnosis {
        let shape = &self.described.values()[id].ty.shape;
        let by_sample = shape.first() == Some(&Dim::BATCH);
        let width = flaw.elements / failure.rows.len();
        let row = by_sample.then(|| failure.rows[flaw.first / width]);
        Diagnosis { address: failure.address, origin, name, scope, count: flaw.count, elements: flaw.elements, row }
    }

    fn describe(&self, id: ValueId) -> (Origin, String, String) {
        let none = String::new();
        match &self.described.values()[id].source {
            Source::Input(name) => (Origin::Input, name.clone(), none),
            Source::Parameter(parameter) => (Origin::Parameter, parameter.path.clone(), none),
            Source::Buffer(buffer) => (Origin::Parameter, buffer.path.clone(), none),
            Source::Constant(_) => (Origin::Parameter, "constant".to_owned(), none),
            Source::Node(node) => (self.origin(id), node.name.clone(), node.scope.clone()),
        }
    }

    /// A node belongs to the loss if no prediction needs it.
    fn origin(&self, id: ValueId) -> Origin {
        let is_prediction = |(name, &id): (&String, &ValueId)| name.starts_with("training.prediction").then_some(id);
        let predictions: Vec<ValueId> = self.described.outputs().iter().filter_map(is_prediction).collect();
        let plan = Plan::new(&self.described, &predictions);
        if plan.nodes().contains(&id) { Origin::Activation } else { Origin::Loss }
    }
}

fn leaves_seen(sentry: &Sentry, leaves: &Leaves, plan: &Plan) {
    for (id, leaf) in leaves.iter().enumerate().filter(|(id, _)| plan.needs(*id)) {
        if let Some(leaf) = leaf {
            sentry.see(id, leaf);
        }
    }
}

/// Where a flaw of the loss began: the first value with a flaw, data before parameters before operations, that reaches the
/// loss through nothing but values with flaws. (An infinity that a mask takes out is none.)
fn root(program: &Program, flaws: &BTreeMap<ValueId, Flaw>, loss: ValueId) -> ValueId {
    let inputs = |id: ValueId| match &program.values()[id].source {
        Source::Node(Node { inputs, .. }) => inputs.iter().filter(|input| flaws.contains_key(input)).copied().collect(),
        _ => Vec::new(),
    };
    let mut seen = BTreeSet::from([loss]);
    let mut pending = vec![loss];
    let mut roots = Vec::new();
    while let Some(id) = pending.pop() {
        let before: Vec<ValueId> = inputs(id);
        if before.is_empty() {
            roots.push(id);
        }
        pending.extend(before.into_iter().filter(|&input| seen.insert(input)));
    }
    let order = |id: &ValueId| match program.values()[*id].source {
        Source::Input(_) => (0, *id),
        Source::Node(_) => (2, *id),
        _ => (1, *id),
    };
    roots.into_iter().min_by_key(order).unwrap_or(loss)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Device;
    use crate::program::{Initializer, Kind, Parameter, Role};
    use crate::trainer::{ArrayView, Arrays, Chunk, Format, Records};

    /// `function(x · scale.kernel)` as the layer, `|prediction| · other(y)` as the loss.
    fn session(function: &str, other: &str, accumulate: usize) -> Session {
        let mut program = Program::default();
        let dims = || vec![Dim::BATCH];
        let x = program.input("x", dims(), Kind::Float).expect("a new name");
        let y = program.input("y", dims(), Kind::Float).expect("a new name");
        program.set_scope("scale");
        let parameter = Parameter {
            path: "scale.kernel".to_owned(),
            shape: vec![1],
            role: Role::Kernel,
            initializer: Initializer::Constant { value: 1.0 },
        };
        let kernel = program.parameter(parameter).expect("a new path");
        let apply = |program: &mut Program, name: &str, inputs: &[ValueId]| {
            program.apply(name, inputs.to_vec(), json!({})).expect("fitting shapes")
        };
        let product = apply(&mut program, "multiply", &[x, kernel]);
        let prediction = apply(&mut program, function, &[product]);
        program.set_scope("");
        let masked = apply(&mut program, "log", &[x]);
        let size = apply(&mut program, "abs", &[prediction]);
        let target = apply(&mut program, other, &[y]);
        let loss = apply(&mut program, "multiply", &[size, target]);
        program.output("training.loss", loss).expect("a value");
        program.output("training.prediction", prediction).expect("a value");
        program.output("training.metric.log", masked).expect("a value");
        let device = Device::cpu();
        let mut session =
            Session::new(Arc::new(program), device, DType::F32, 1, &mut Arrays::new()).expect("a whole program");
        let config = json!({"name": "sgd", "accumulate_gradients": accumulate});
        session.set_optimizer(&serde_json::from_value(config).expect("a configuration")).expect("a known optimizer");
        session
    }

    fn train(session: &mut Session, x: &[f64], y: &[f64], diagnose: bool) -> Records {
        // SAFETY: the arrays outlive the call that reads them.
        let view = |values: &[f64]| unsafe {
            ArrayView::new(values.as_ptr().cast(), Format::F64, false, vec![values.len()], vec![8])
        };
        let inputs: Inputs = [("x", view(x)), ("y", view(y))].map(|(name, view)| (name.to_owned(), view)).into();
        let order: Vec<i64> = (0..x.len() as i64).rev().collect();
        let rates = vec![0.1; x.len().div_ceil(2)];
        let chunk = Chunk { order: Some(&order), epoch: 3, first_step: 5, diagnose, ..Chunk::new(2, &rates) };
        session.train(&inputs, &chunk, &Interrupt::default()).expect("steps")
    }

    fn found(
        function: &str,
        other: &str,
        x: &[f64],
        y: &[f64],
        accumulate: usize,
    ) -> (Origin, String, Option<i64>, u64) {
        let mut session = session(function, other, accumulate);
        train(&mut session, x, y, true);
        let diagnosis = session.take_diagnosis().expect("a failure");
        assert_eq!(session.take_diagnosis(), None);
        assert_eq!(diagnosis.address[0], 3);
        (diagnosis.origin, format!("{}/{}", diagnosis.scope, diagnosis.name), diagnosis.row, diagnosis.address[1])
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_named() {
        let one = [1.0; 6];
        let cases = [
            ("tanh", "abs", [1.0, f64::NAN, 1.0, 1.0, 1.0, 1.0], one, Origin::Input, "/x", 1),
            ("log", "abs", [1.0, 1.0, -2.0, 1.0, 1.0, 1.0], one, Origin::Activation, "scale/log", 2),
            ("exp", "log", [1.0; 6], [1.0, 1.0, 1.0, -1.0, 1.0, 1.0], Origin::Loss, "/log", 3),
            ("sqrt", "abs", [0.0, 1.0, 1.0, 1.0, 1.0, 1.0], one, Origin::Gradient, "scale/sqrt", 0),
        ];
        for (function, other, x, y, origin, name, row) in cases {
            for accumulate in [1, 2, 3] {
                let step = 5 + (5 - row as u64) / 2;
                assert_eq!(
                    found(function, other, &x, &y, accumulate),
                    (origin, name.to_owned(), Some(row), step),
                    "{name} with groups of {accumulate}"
                );
            }
        }
    }

    #[test]
    fn a_parameter_is_named_before_what_it_spoils() {
        let mut session = session("tanh", "abs", 1);
        let infinite = Tensor::full(&[1], f64::INFINITY, DType::F32, &Device::cpu());
        session.load_state([("scale.kernel".to_owned(), infinite)].into()).expect("a known path");
        train(&mut session, &[1.0, 0.0], &[1.0, 1.0], true);
        let diagnosis = session.take_diagnosis().expect("a failure");
        let expected = Diagnosis {
            address: [3, 5],
            origin: Origin::Parameter,
            name: "scale.kernel".to_owned(),
            scope: String::new(),
            count: 1,
            elements: 1,
            row: None,
        };
        assert_eq!(diagnosis, expected);
    }

    #[test]
    fn nothing_is_looked_for_unasked_or_without_failure() {
        let mut asked = session("sqrt", "abs", 1);
        train(&mut asked, &[1.0, 2.0, 0.5], &[1.0; 3], true);
        assert_eq!(asked.take_diagnosis(), None);
        let mut other = session("sqrt", "abs", 1);
        train(&mut other, &[0.0, 2.0], &[1.0; 2], false);
        assert_eq!(other.take_diagnosis(), None);
    }

    #[test]
    fn looking_changes_nothing() {
        let run = |diagnose| {
            let mut session = session("sqrt", "abs", 1);
            let records = train(&mut session, &[0.0, 2.0, 3.0, 4.0, 1.0, 1.0], &[1.0; 6], diagnose);
            (records.loss, records.finite, session.state()["scale.kernel"].to_f64())
        };
        assert_eq!(run(true), run(false));
    }
}
