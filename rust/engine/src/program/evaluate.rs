//! Running a program forwards, and backwards over what was kept.

use smallvec::SmallVec;

use super::checkpoint::{Reverse, Segment};
use super::precision::{Casts, Rounding};
use super::{Node, Program, Source, ValueId};
use crate::memory::{Block, List, listed};
use crate::ops::{Context, Gradients, Kept, Tensors};
use crate::optimizer::sum_squares;
use crate::random::Stream;
use crate::tensor::Tensor;
use crate::trainer::Phase;
use crate::{Interrupt, Result};

/// The nodes that some outputs need, in order, and how often each value is used.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    nodes: Vec<ValueId>,
    uses: Vec<u32>,
    outputs: Vec<ValueId>,
}

impl Plan {
    /// The plan for a set of outputs.
    pub(crate) fn new(program: &Program, outputs: &[ValueId]) -> Self {
        let values = program.values();
        let mut uses = vec![0; values.len()];
        let mut needed = vec![false; values.len()];
        for &output in outputs {
            needed[output] = true;
        }
        for (id, value) in values.iter().enumerate().rev() {
            if let (true, Source::Node(node)) = (needed[id], &value.source) {
                for &input in &node.inputs {
                    needed[input] = true;
                    uses[input] += 1;
                }
            }
        }
        let is_node = |&id: &ValueId| needed[id] && matches!(values[id].source, Source::Node(_));
        let nodes = (0..values.len()).filter(is_node).collect();
        Self { nodes, uses, outputs: outputs.to_vec() }
    }

    /// What runs, in order.
    pub(crate) fn nodes(&self) -> &[ValueId] {
        &self.nodes
    }

    /// Whether a value is computed from (or is) one of the marked ones, along differentiable operations.
    pub(crate) fn reached(&self, program: &Program, marked: &[bool]) -> Vec<bool> {
        let mut reached = marked.to_vec();
        for &id in &self.nodes {
            if let Source::Node(node) = &program.values()[id].source {
                reached[id] = node.operation.differentiable() && node.inputs.iter().any(|&input| reached[input]);
            }
        }
        reached
    }

    /// Which of the `reached` values the gradient of `output` passes through.
    pub(crate) fn leading(&self, program: &Program, output: ValueId, reached: &[bool]) -> Vec<bool> {
        let mut leading = vec![false; reached.len()];
        leading[output] = true;
        for &id in self.nodes.iter().rev() {
            leading[id] &= reached[id];
            if let (true, Source::Node(node)) = (leading[id], &program.values()[id].source) {
                node.inputs.iter().for_each(|&input| leading[input] = reached[input]);
            }
        }
        leading
    }

    /// Whether one node alone uses a value, once.
    pub(crate) fn is_used_once(&self, id: ValueId) -> bool {
        self.uses[id] == 1 && !self.outputs.contains(&id)
    }

    /// Whether a value has to be known before the plan runs.
    pub(crate) fn needs(&self, id: ValueId) -> bool {
        self.uses[id] > 0 || self.outputs.contains(&id)
    }
}

/// Values that are known before a program runs, by place.
pub(crate) type Leaves = List<Option<Tensor>>;

/// Sums of squares of gradients, by place, where they are known.
pub(crate) type Measured = List<Option<f64>>;

listed!(Option<Tensor>, Option<Step>, Option<f64>);

/// The values of one run that are still needed.
#[derive(Debug)]
pub(crate) struct Forward {
    /// Leaves and outputs (and everything, if nothing was to be released).
    pub values: Leaves,
    kept: List<Option<Step>>,
    /// What each segment that runs again reads from outside it.
    borders: Vec<Vec<(ValueId, Tensor)>>,
}

/// What one evaluation left for its gradient.
#[derive(Debug)]
struct Step {
    kept: Kept,
    casts: Option<Casts>,
}

impl Step {
    /// What the gradient is computed from.
    fn reads<'a>(&'a self, gradient: &'a Tensor) -> impl Iterator<Item = &'a Tensor> {
        let kept = &self.kept;
        kept.inputs.iter().chain(&kept.output).chain(&kept.saved).chain([gradient])
    }

    fn gradient(self, node: &Node, gradient: Tensor, wanted: &[bool]) -> Gradients {
        let operation = node.operation.as_ref();
        match self.casts {
            None => operation.gradient(self.kept, gradient, wanted),
            Some(casts) => casts.gradient(operation, self.kept, gradient, wanted),
        }
    }
}

/// What becomes of values that no node still needs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Retention<'a> {
    /// They are freed, or their storage reused.
    Release,
    /// They stay, for runs of a part.
    Everything,
    /// They are freed, but for what gradients read.
    Gradients(&'a Reverse),
}

/// The values that nodes still need, and how often.
struct Live {
    values: Leaves,
    uses: Block<u32>,
    release: bool,
}

impl Live {
    /// A value for one of its uses, and whether that was the last.
    fn take(&mut self, id: ValueId) -> (Tensor, bool) {
        self.uses[id] -= 1;
        let last = self.release && self.uses[id] == 0;
        let value = &mut self.values[id];
        (if last { value.take() } else { value.clone() }.expect("computed before"), last)
    }
}

/// Evaluates one node after another.
pub(crate) struct Evaluator<'a> {
    program: &'a Program,
    context: &'a mut Context,
    noise: Stream,
    interrupt: &'a Interrupt,
    rounding: Rounding,
}

/// Runs a plan.
pub(crate) fn forward(
    program: &Program,
    plan: &Plan,
    leaves: Leaves,
    context: &mut Context,
    noise: Stream,
    retention: Retention<'_>,
    interrupt: &Interrupt,
) -> Result<Forward> {
    Evaluator::new(program, context, noise, interrupt).forward(plan, leaves, retention)
}

impl<'a> Evaluator<'a> {
    /// An evaluator of one run.
    pub(crate) fn new(program: &'a Program, context: &'a mut Context, noise: Stream, interrupt: &'a Interrupt) -> Self {
        Self { program, context, noise, interrupt, rounding: Rounding::default() }
    }

    /// Runs a plan.
    pub(crate) fn forward(&mut self, plan: &Plan, leaves: Leaves, retention: Retention<'_>) -> Result<Forward> {
        let mut kept = List::filled(leaves.len(), || None);
        let mut borders = Vec::new();
        let release = !matches!(retention, Retention::Everything);
        let mut live = Live { values: leaves, uses: Block::copy(&plan.uses), release };
        plan.outputs.iter().for_each(|&output| live.uses[output] += 1);
        let (reached, segments) = match retention {
            Retention::Gradients(reverse) => (reverse.reached.as_slice(), reverse.segments.as_slice()),
            _ => (&[][..], &[][..]),
        };
        for (place, &id) in plan.nodes.iter().enumerate() {
            self.interrupt.check()?;
            if let Some(segment) = segments.get(borders.len()).filter(|segment| segment.places.start == place) {
                borders.push(segment.inputs.iter().map(|&id| (id, live.values[id].clone().expect("known"))).collect());
            }
            let again = borders.len().checked_sub(1).is_some_and(|last| segments[last].places.contains(&place));
            let keep = !again && reached.get(id).is_some_and(|&reached| reached);
            kept[id] = self.node(id, &mut live, keep);
        }
        self.rounding = Rounding::default();
        let mut values = live.values;
        for &output in &plan.outputs {
            values[output] = values[output].take().map(|value| self.unrounded(value));
        }
        Ok(Forward { values, kept, borders })
    }

    /// An output as those outside see it, whatever it was rounded to.
    fn unrounded(&self, value: Tensor) -> Tensor {
        if value.dtype().is_half() { value.cast(self.context.dtype) } else { value }
    }

    fn node(&mut self, id: ValueId, live: &mut Live, keep: bool) -> Option<Step> {
        let Source::Node(node) = &self.program.values()[id].source else {
            return None;
        };
        let (inputs, casts) = self.inputs(node, live);
        let keeps = node.operation.keeps();
        let mut kept = keep.then(|| Kept {
            shapes: inputs.iter().map(Tensor::shape).collect(),
            inputs: if keeps.inputs { inputs.clone() } else { Default::default() },
            output: None,
            saved: Default::default(),
        });
        let inputs = casts.iter().fold(inputs, |inputs, casts| casts.inputs(inputs));
        self.context.stream = self.noise.fork(id as u64);
        let profiler = self.context.observers.profiler.as_ref();
        let running = profiler.map(|profiler| profiler.begin(Phase::Forward, Some(id), &inputs));
        let mut evaluation = node.operation.evaluate(inputs, self.context);
        running.into_iter().for_each(|running| running.end([&evaluation.value].into_iter().chain(&evaluation.saved)));
        if self.program.values()[id].ty.rank() == 0 {
            evaluation.value = evaluation.value.into_number();
        }
        if let Some(watch) = self.context.observers.watch.as_ref().filter(|_| node.operation.rectifies()) {
            watch.see(id, &evaluation.value);
        }
        let value = casts.iter().fold(evaluation.value, |value, casts| casts.output(value));
        if let Some(sentry) = &self.context.observers.sentry {
            sentry.see(id, &value);
        }
        if let Some(kept) = &mut kept {
            kept.output = keeps.output.then(|| value.clone());
            kept.saved = evaluation.saved;
        }
        live.values[id] = Some(value);
        kept.map(|kept| Step { kept, casts })
    }

    fn inputs(&mut self, node: &Node, live: &mut Live) -> (Tensors, Option<Casts>) {
        let Some(half) = self.context.half else {
            return (node.inputs.iter().map(|&input| live.take(input).0).collect(), None);
        };
        let operand = |&input: &ValueId| {
            let (value, last) = live.take(input);
            (input, value, last)
        };
        let operands = node.inputs.iter().map(operand).collect();
        let (inputs, casts) = self.rounding.inputs(self.program, node.operation.as_ref(), operands, half);
        (inputs, Some(casts))
    }

    /// Carries gradients from `seeds` back to the values that are reached; returns those of the leaves, by place, and the
    /// squares of those that are to be measured.
    pub(crate) fn backward(
        &mut self,
        plan: &Plan,
        mut run: Forward,
        seeds: impl IntoIterator<Item = (ValueId, Tensor)>,
        reverse: &Reverse,
    ) -> Result<(Leaves, Measured)> {
        run.values.clear();
        let mut gradients: Leaves = List::filled(reverse.reached.len(), || None);
        let mut squares: Measured = List::filled(reverse.reached.len(), || None);
        for (id, seed) in seeds {
            gradients[id] = Some(seed.added_to(gradients[id].take()));
        }
        for (place, &id) in plan.nodes.iter().enumerate().rev() {
            self.interrupt.check()?;
            let last = run.borders.len().checked_sub(1).map(|last| &reverse.segments[last]);
            if let Some(segment) = last.filter(|segment| segment.places.end == place + 1) {
                self.again(segment, &reverse.reached, &mut run)?;
            }
            let (Source::Node(node), Some(step)) = (&self.program.values()[id].source, run.kept[id].take()) else {
                continue;
            };
            let Some(gradient) = gradients[id].take() else {
                continue;
            };
            let wanted: SmallVec<[bool; 8]> = node.inputs.iter().map(|&input| reverse.reached[input]).collect();
            let profiler = self.context.observers.profiler.as_ref();
            let running = profiler.map(|profiler| profiler.begin(Phase::Backward, Some(id), step.reads(&gradient)));
            let found = step.gradient(node, gradient, &wanted);
            for (&input, gradient) in node.inputs.iter().zip(&found) {
                // What is on a device would have to be waited for.
                if let (true, Some(gradient)) = (reverse.measured[input], gradient)
                    && gradient.is_cpu()
                {
                    squares[input] = Some(sum_squares(gradient));
                }
            }
            running.into_iter().for_each(|running| running.end(found.iter().flatten()));
            for ((&input, wanted), gradient) in node.inputs.iter().zip(wanted).zip(found) {
                if let (true, Some(gradient)) = (wanted, gradient) {
                    if let Some(sentry) = &self.context.observers.sentry {
                        sentry.see_gradient(id, input, &gradient);
                    }
                    gradients[input] = Some(gradient.added_to(gradients[input].take()));
                }
            }
        }
        Ok((gradients, squares))
    }

    /// Runs a segment once more, with the same random numbers, this time keeping what its gradients read.
    fn again(&mut self, segment: &Segment, reached: &[bool], run: &mut Forward) -> Result<()> {
        // What was seen the first time is not to be seen again.
        self.context.observers.watch = None;
        let mut live =
            Live { values: List::filled(reached.len(), || None), uses: Block::full(reached.len(), 0), release: true };
        for (id, value) in run.borders.pop().expect("one for each segment") {
            live.values[id] = Some(value);
        }
        for &id in &segment.nodes {
            if let Source::Node(node) = &self.program.values()[id].source {
                node.inputs.iter().for_each(|&input| live.uses[input] += 1);
            }
        }
        for &id in &segment.nodes {
            self.interrupt.check()?;
            run.kept[id] = self.node(id, &mut live, reached[id]);
        }
        self.rounding = Rounding::default();
        Ok(())
    }
}
