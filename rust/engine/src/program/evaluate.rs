//! Running a program forwards, and backwards over what was kept.

use super::{Program, Source, ValueId};
use crate::ops::{Context, Kept};
use crate::random::Stream;
use crate::tensor::Tensor;
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

    /// Whether a value has to be known before the plan runs.
    pub(crate) fn needs(&self, id: ValueId) -> bool {
        self.uses[id] > 0 || self.outputs.contains(&id)
    }

    /// The part of the plan that depends on one value, its other inputs being given.
    pub(crate) fn downstream(&self, program: &Program, of: ValueId) -> Self {
        let mut depends = vec![false; program.values().len()];
        let mut uses = vec![0; program.values().len()];
        depends[of] = true;
        let mut nodes = Vec::new();
        for &id in &self.nodes {
            if let Source::Node(node) = &program.values()[id].source
                && node.inputs.iter().any(|&input| depends[input])
            {
                depends[id] = true;
                nodes.push(id);
                node.inputs.iter().for_each(|&input| uses[input] += 1);
            }
        }
        Self { nodes, uses, outputs: self.outputs.clone() }
    }
}

/// Values that are known before a program runs, by place.
pub(crate) type Leaves = Vec<Option<Tensor>>;

/// The values of one run that are still needed.
#[derive(Debug)]
pub(crate) struct Forward {
    /// Leaves and outputs (and everything, if nothing was to be released).
    pub values: Vec<Option<Tensor>>,
    kept: Vec<Option<Kept>>,
}

impl Forward {
    /// The value of an output.
    pub(crate) fn output(&self, id: ValueId) -> &Tensor {
        self.values[id].as_ref().expect("the plan computes it")
    }
}

/// What becomes of values that no node still needs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Retention<'a> {
    /// They are freed, or their storage reused.
    Release,
    /// They stay, for runs of a part.
    Everything,
    /// They are freed, but for what gradients through the marked values read.
    Gradients(&'a [bool]),
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
    let mut run = Forward { values: leaves, kept: Vec::new() };
    run.kept.resize_with(run.values.len(), || None);
    let mut remaining = plan.uses.clone();
    for &output in &plan.outputs {
        remaining[output] += 1;
    }
    let release = !matches!(retention, Retention::Everything);
    for &id in &plan.nodes {
        interrupt.check()?;
        let Source::Node(node) = &program.values()[id].source else {
            continue;
        };
        let inputs: Vec<Tensor> = node
            .inputs
            .iter()
            .map(|&input| {
                remaining[input] -= 1;
                let value = &mut run.values[input];
                let last = release && remaining[input] == 0;
                if last { value.take() } else { value.clone() }.expect("computed before")
            })
            .collect();
        let keep = matches!(retention, Retention::Gradients(reached) if reached[id]);
        let keeps = node.operation.keeps();
        let mut kept = keep.then(|| Kept {
            shapes: inputs.iter().map(Tensor::shape).collect(),
            inputs: if keeps.inputs { inputs.clone() } else { Vec::new() },
            output: None,
            saved: Vec::new(),
        });
        context.stream = noise.fork(id as u64);
        let mut evaluation = node.operation.evaluate(inputs, context);
        if program.values()[id].ty.rank() == 0 {
            evaluation.value = evaluation.value.into_number();
        }
        if let Some(watch) = context.watch.as_ref().filter(|_| node.operation.rectifies()) {
            watch.see(id, &evaluation.value);
        }
        if let Some(kept) = &mut kept {
            kept.output = keeps.output.then(|| evaluation.value.clone());
            kept.saved = evaluation.saved;
        }
        run.kept[id] = kept;
        run.values[id] = Some(evaluation.value);
    }
    Ok(run)
}

/// Carries gradients from `seeds` back to the values marked in `reached`; returns those of the leaves, by place.
pub(crate) fn backward(
    program: &Program,
    plan: &Plan,
    mut run: Forward,
    seeds: Vec<(ValueId, Tensor)>,
    reached: &[bool],
    interrupt: &Interrupt,
) -> Result<Vec<Option<Tensor>>> {
    run.values.clear();
    let mut gradients: Vec<Option<Tensor>> = Vec::new();
    gradients.resize_with(reached.len(), || None);
    for (id, seed) in seeds {
        gradients[id] = Some(seed.added_to(gradients[id].take()));
    }
    for &id in plan.nodes.iter().rev() {
        interrupt.check()?;
        let (Source::Node(node), Some(kept)) = (&program.values()[id].source, run.kept[id].take()) else {
            continue;
        };
        let Some(gradient) = gradients[id].take() else {
            continue;
        };
        let wanted: Vec<bool> = node.inputs.iter().map(|&input| reached[input]).collect();
        let found = node.operation.gradient(kept, gradient, &wanted);
        for ((&input, wanted), gradient) in node.inputs.iter().zip(wanted).zip(found) {
            if let (true, Some(gradient)) = (wanted, gradient) {
                gradients[input] = Some(gradient.added_to(gradients[input].take()));
            }
        }
    }
    Ok(gradients)
}
