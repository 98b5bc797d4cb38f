//! Activations that the operation before them applies itself: one pass over memory less, forwards and backwards.

use std::sync::Arc;

use super::{Node, Program, Source, ValueId};
use crate::ops::Activation;

impl Program {
    /// The same program with activations fused into what they are applied to, where nothing else reads that.
    ///
    /// The places of all other values stay; those of such activations are read by nobody.
    pub(crate) fn fused(self: &Arc<Self>) -> Arc<Self> {
        // Most programs have none: layers apply their own. A copy would hold all constants twice.
        let activates =
            |source: &Source| matches!(source, Source::Node(node) if node.operation.as_activation().is_some());
        if !self.values.iter().any(|value| activates(&value.source)) {
            return Arc::clone(self);
        }
        let mut program = Self::clone(self);
        let uses = self.uses();
        let mut moved: Vec<ValueId> = (0..self.values.len()).collect();
        for id in 0..self.values.len() {
            let Source::Node(node) = &self.values[id].source else {
                continue;
            };
            let inputs: Vec<ValueId> = node.inputs.iter().map(|&input| moved[input]).collect();
            if let &[before] = inputs.as_slice()
                && uses[node.inputs[0]] == 1
                && let Some(activation) = node.operation.as_activation()
                && program.activate(before, activation, &node.scope)
            {
                moved[id] = before;
            } else if let Source::Node(node) = &mut program.values[id].source {
                node.inputs = inputs;
            }
        }
        program.outputs.values_mut().chain(program.assignments.values_mut()).for_each(|id| *id = moved[*id]);
        Arc::new(program)
    }

    /// How often each value is read, or asked for.
    fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.values.len()];
        let read = self.values.iter().filter_map(|value| match &value.source {
            Source::Node(node) => Some(&node.inputs),
            _ => None,
        });
        read.flatten().chain(self.outputs.values()).chain(self.assignments.values()).for_each(|&id| uses[id] += 1);
        uses
    }

    /// Whether the node at `id` now applies the activation of a layer too.
    fn activate(&mut self, id: ValueId, activation: Activation, layer: &str) -> bool {
        let Source::Node(node) = &mut self.values[id].source else {
            return false;
        };
        let Some(operation) = node.operation.activated(activation) else {
            return false;
        };
        node.operation = operation;
        node.activated_by = Some(layer.to_owned());
        true
    }
}

impl Node {
    /// The layer that its activation belongs to.
    pub(crate) fn layer_of_activation(&self) -> &str {
        self.activated_by.as_deref().unwrap_or(&self.scope)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::program::{Dim, Kind, Plan};

    /// x, then operations on the value before, each with its layer.
    fn chain(operations: &[(&str, usize)]) -> Arc<Program> {
        let mut program = Program::default();
        let x = program.input("x", vec![Dim::BATCH, Dim::known(4)], Kind::Float).expect("a new name");
        let mut last = x;
        for (place, &(name, vectors)) in operations.iter().enumerate() {
            program.set_scope(&format!("{name}_{place}"));
            let mut inputs = vec![last];
            let shape = if name == "linear" { vec![4, 4] } else { vec![4] };
            for _ in 0..vectors {
                let values = vec![0.5; shape.iter().product()];
                let shape = shape.clone();
                inputs.push(
                    program.constant(crate::program::Constant { values, shape, kind: Kind::Float }).expect("numbers"),
                );
            }
            last = program.apply(name, inputs, json!({})).expect("fits");
        }
        program.output("y", last).expect("a value");
        Arc::new(program)
    }

    /// Names and layers of activations of what runs for `y`.
    fn runs(program: &Program) -> Vec<(&str, &str)> {
        let plan = Plan::new(program, &[program.find_output("y").expect("named")]);
        let node = |&id: &ValueId| match &program.values()[id].source {
            Source::Node(node) => (node.name.as_str(), node.layer_of_activation()),
            _ => unreachable!("plans hold nodes"),
        };
        plan.nodes().iter().map(node).collect()
    }

    #[test]
    fn relu_moves_into_the_operation_before_it() {
        let program = chain(&[("linear", 1), ("relu", 0), ("batch_norm", 4), ("relu", 0), ("linear", 1)]).fused();
        assert_eq!(runs(&program), [("linear", "relu_1"), ("batch_norm", "relu_3"), ("linear", "linear_4")]);
    }

    #[test]
    fn it_stays_where_an_operation_has_one_or_none_can_take_it() {
        let program = chain(&[("linear", 1), ("relu", 0), ("relu", 0), ("exp", 0), ("relu", 0)]).fused();
        let expected = [("linear", "relu_1"), ("relu", "relu_2"), ("exp", "exp_3"), ("relu", "relu_4")];
        assert_eq!(runs(&program), expected);
    }

    #[test]
    fn what_others_read_stays_as_it_is() {
        let mut program = chain(&[("linear", 1), ("relu", 0)]);
        let before = program.find_output("y").expect("named") - 1;
        Arc::make_mut(&mut program).output("z", before).expect("a value");
        assert_eq!(runs(&program.fused()), [("linear", "linear_0"), ("relu", "relu_1")]);
    }
}
