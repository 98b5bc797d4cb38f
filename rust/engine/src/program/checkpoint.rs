//! Activation checkpointing (Chen et al., 2016, <https://arxiv.org/abs/1604.06174>): memory for time.
//!
//! Parts of a plan, segments, keep nothing for the gradient but what they read from outside. Backwards, each is run once more,
//! with the same random numbers, right before it is differentiated: the gradients are the same bits.

use std::ops::Range;

use serde::Deserialize;

use super::evaluate::Plan;
use super::{Program, Source, Type, ValueId};

/// Which activations are computed again instead of kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Checkpoint {
    /// None, or segments of about equal size over the whole network, where little crosses from one to the next.
    All(bool),
    /// Those of the layers of these paths, each a segment, and of the layers inside them.
    Layers(Vec<String>),
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self::All(false)
    }
}

/// What reverse mode has to know of a plan; found once for all steps.
#[derive(Debug)]
pub(crate) struct Reverse {
    /// The values that gradients pass through.
    pub reached: Vec<bool>,
    /// The parts that run again, in order.
    pub segments: Vec<Segment>,
    /// The values whose gradients' squares are summed as soon as they are there, while the processor's cache holds them.
    pub measured: Vec<bool>,
}

impl Reverse {
    /// For the gradients of `loss` with respect to the `wanted` values.
    pub(crate) fn new(program: &Program, plan: &Plan, loss: ValueId, wanted: &[bool], checkpoint: &Checkpoint) -> Self {
        let reached = plan.leading(program, loss, &plan.reached(program, wanted));
        let segments = Graph::new(program, plan, &reached).segments(checkpoint);
        let measured = vec![false; wanted.len()];
        Self { reached, segments, measured }
    }

    /// Has the gradients measured that one node alone contributes to.
    pub(crate) fn measuring(mut self, plan: &Plan, wanted: &[bool]) -> Self {
        self.measured = (0..wanted.len()).map(|id| wanted[id] && plan.is_used_once(id)).collect();
        self
    }
}

/// A part of a plan that is run again.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Its places in the plan's order.
    pub places: Range<usize>,
    /// The nodes that run again, in order.
    pub nodes: Vec<ValueId>,
    /// What they read from outside.
    pub inputs: Vec<ValueId>,
}

/// The rows that a batch is taken to have where values with and without a batch are compared.
const ROWS: f64 = 32.0;

/// The part of a kept tail, relative to the last segment, below which running that segment again gains nothing.
const TAIL: f64 = 0.125;

/// A plan with the sizes and lifetimes of its values, by place in its order.
struct Graph<'a> {
    program: &'a Program,
    nodes: &'a [ValueId],
    reached: &'a [bool],
    /// Whether a gradient reads the value, or needs it to compute one that it reads.
    needed: Vec<bool>,
    sizes: Vec<f64>,
    /// The place of the last node that needs the value.
    last_uses: Vec<usize>,
}

impl<'a> Graph<'a> {
    fn new(program: &'a Program, plan: &'a Plan, reached: &'a [bool]) -> Self {
        let nodes = plan.nodes();
        let mut needed = reached.to_vec();
        let mut last_by_value = vec![0; reached.len()];
        for (place, &id) in nodes.iter().enumerate().rev() {
            if let (true, Source::Node(node)) = (needed[id], &program.values()[id].source) {
                for &input in &node.inputs {
                    needed[input] = true;
                    last_by_value[input] = last_by_value[input].max(place);
                }
            }
        }
        let sizes = nodes.iter().map(|&id| size(&program.values()[id].ty)).collect();
        let last_uses = nodes.iter().map(|&id| last_by_value[id]).collect();
        Self { program, nodes, reached, needed, sizes, last_uses }
    }

    fn segments(&self, checkpoint: &Checkpoint) -> Vec<Segment> {
        let mut ranges = match checkpoint {
            Checkpoint::All(false) => Vec::new(),
            Checkpoint::All(true) => self.balanced(),
            Checkpoint::Layers(paths) => self.layers(paths),
        };
        ranges.retain(|range| self.kept(range.clone()) > 0.0);
        // Kept or not, the last one is there when the way back begins.
        if let Some(last) = ranges.last()
            && self.kept(last.end..self.nodes.len()) < TAIL * self.kept(last.clone())
        {
            ranges.pop();
        }
        ranges.into_iter().map(|range| self.segment(range)).collect()
    }

    /// The elements that a range keeps for the gradient.
    fn kept(&self, range: Range<usize>) -> f64 {
        range.filter(|&place| self.reached[self.nodes[place]]).map(|place| self.sizes[place]).sum()
    }

    /// The ranges for which the elements that cross from one to another, and those of the largest one, are fewest together.
    fn balanced(&self) -> Vec<Range<usize>> {
        let total = self.kept(0..self.nodes.len());
        let most = (4.0 * (self.nodes.len() as f64).sqrt()).ceil() as usize;
        let cuts = (1..=most).filter_map(|count| self.cut(total / count as f64));
        cuts.min_by(|a, b| a.0.total_cmp(&b.0)).map_or_else(Vec::new, |(_, ranges)| ranges)
    }

    /// The best ranges of at most `limit` elements each, with the elements that are then in memory at most.
    fn cut(&self, limit: f64) -> Option<(f64, Vec<Range<usize>>)> {
        let count = self.nodes.len();
        let mut crossing = vec![f64::INFINITY; count + 1];
        let mut starts = vec![0; count + 1];
        crossing[0] = 0.0;
        for end in 1..=count {
            let (mut kept, mut leaving) = (0.0, 0.0);
            for start in (0..end).rev() {
                kept += self.kept(start..start + 1);
                if kept > limit * (1.0 + 1e-9) {
                    break;
                }
                if self.last_uses[start] >= end {
                    leaving += self.sizes[start];
                }
                if crossing[start] + leaving <= crossing[end] {
                    (crossing[end], starts[end]) = (crossing[start] + leaving, start);
                }
            }
        }
        let mut ranges = Vec::new();
        let mut end = count;
        while end > 0 {
            ranges.push(starts[end]..end);
            end = starts[end];
        }
        ranges.reverse();
        crossing[count].is_finite().then_some((crossing[count] + limit, ranges))
    }

    /// Each run of nodes that one of the layers emitted.
    fn layers(&self, paths: &[String]) -> Vec<Range<usize>> {
        let layer = |place: &usize| match &self.program.values()[self.nodes[*place]].source {
            Source::Node(node) => paths.iter().position(|path| is_inside(&node.scope, path)),
            _ => None,
        };
        let places: Vec<usize> = (0..self.nodes.len()).collect();
        let runs = places.chunk_by(|a, b| layer(a) == layer(b));
        runs.filter(|run| layer(&run[0]).is_some()).map(|run| run[0]..run[0] + run.len()).collect()
    }

    fn segment(&self, places: Range<usize>) -> Segment {
        let nodes: Vec<ValueId> = self.nodes[places.clone()].iter().copied().filter(|&id| self.needed[id]).collect();
        let mut inputs: Vec<ValueId> = Vec::new();
        for &id in &nodes {
            if let Source::Node(node) = &self.program.values()[id].source {
                inputs.extend(node.inputs.iter().filter(|input| nodes.binary_search(input).is_err()));
            }
        }
        inputs.sort_unstable();
        inputs.dedup();
        Segment { places, nodes, inputs }
    }
}

/// Whether nodes of a scope belong to the layer of a path.
fn is_inside(scope: &str, path: &str) -> bool {
    scope.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn size(ty: &Type) -> f64 {
    ty.shape.iter().map(|dim| dim.count as f64 * if dim.batch { ROWS } else { 1.0 }).product()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gradient::{Method, Problem, solve};
    use crate::ops::Context;
    use crate::program::{Dim, Initializer, Kind, Parameter, Role};
    use crate::random::{Purpose, Stream};
    use crate::testing::tensor;
    use crate::trainer::Observers;
    use crate::{DType, Device, Interrupt, Tensor};

    const WIDTH: usize = 6;

    /// Layers `dropout(tanh(x · kernel))`, of which every third adds what came three before: skips that cross segments.
    fn network(layers: usize) -> (Program, ValueId) {
        let mut program = Program::default();
        let x = program.input("x", vec![Dim::BATCH, Dim::known(WIDTH)], Kind::Float).expect("a new name");
        let mut values = vec![x];
        for index in 0..layers {
            program.set_scope(&format!("block.{index}"));
            let parameter = Parameter {
                path: format!("block.{index}.kernel"),
                shape: vec![WIDTH, WIDTH],
                role: Role::Kernel,
                initializer: Initializer::Zeros {},
            };
            let kernel = program.parameter(parameter).expect("a new path");
            let mut apply = |name: &str, inputs: Vec<ValueId>, attributes| {
                program.apply(name, inputs, attributes).expect("fitting shapes")
            };
            let linear = apply("linear", vec![values[index], kernel], json!({"activation": "tanh"}));
            let mut y = apply("dropout", vec![linear], json!({"rate": 0.3}));
            if index % 3 == 2 {
                y = apply("add", vec![y, values[index - 2]], json!({}));
            }
            values.push(y);
        }
        program.set_scope("");
        let y = *values.last().expect("a layer");
        let squares = program.apply("square", vec![y], json!({})).expect("fitting shapes");
        let loss = program.apply("sum", vec![squares], json!({"axes": [1]})).expect("fitting shapes");
        let metric = program.apply("abs", vec![loss], json!({})).expect("fitting shapes");
        program.output("loss", loss).expect("a value");
        program.output("metric", metric).expect("a value");
        (program, loss)
    }

    fn wanted(program: &Program) -> Vec<bool> {
        program.values().iter().map(|value| matches!(value.source, Source::Parameter(_))).collect()
    }

    fn reverse(program: &Program, loss: ValueId, checkpoint: &Checkpoint) -> Reverse {
        let plan = Plan::new(program, &[loss, loss + 1]);
        Reverse::new(program, &plan, loss, &wanted(program), checkpoint)
    }

    fn gradients(program: &Program, loss: ValueId, checkpoint: &Checkpoint, half: Option<DType>) -> Vec<Vec<f64>> {
        let rows = 5;
        let leaf = |(id, value): (usize, &super::super::Value)| match &value.source {
            Source::Input(_) => Some(tensor::<f32>(99, &[rows, WIDTH])),
            Source::Parameter(parameter) => Some(tensor::<f32>(id as u64, &parameter.shape)),
            _ => None,
        };
        let leaves = program.values().iter().enumerate().map(leaf).collect();
        let noise = Stream::new(7, Purpose::Noise);
        let problem = Problem {
            program,
            plan: &Plan::new(program, &[loss, loss + 1]),
            leaves,
            loss,
            weight: Tensor::from_vec(vec![1.0f32; rows], &[rows]),
            wanted: &wanted(program),
            reverse: &reverse(program, loss, checkpoint),
            context: Context {
                device: Device::cpu(),
                dtype: DType::F32,
                half,
                stream: noise,
                observers: Observers::default(),
            },
            noise,
        };
        let solution = solve(problem, Method::Autodiff, &Interrupt::default()).expect("gradients");
        solution.gradients.iter().flatten().map(Tensor::to_f64).collect()
    }

    #[test]
    fn gradients_are_the_same_bits() {
        let (program, loss) = network(16);
        let scopes = |paths: &[&str]| Checkpoint::Layers(paths.iter().map(|&path| path.to_owned()).collect());
        for half in [None, Some(DType::F16), Some(DType::BF16)] {
            let expected = gradients(&program, loss, &Checkpoint::default(), half);
            assert_eq!(expected.len(), 16);
            let several = [Checkpoint::All(true), scopes(&["block"]), scopes(&["block.0", "block.2", "block.15"])];
            for checkpoint in several {
                assert_eq!(gradients(&program, loss, &checkpoint, half), expected, "{checkpoint:?}");
            }
        }
    }

    #[test]
    fn segments_lie_apart_and_hold_what_they_need() {
        let (program, loss) = network(36);
        let all = reverse(&program, loss, &Checkpoint::All(true));
        assert!((3..=12).contains(&all.segments.len()), "{}", all.segments.len());
        for pair in all.segments.windows(2) {
            assert!(pair[0].places.end <= pair[1].places.start);
        }
        for segment in &all.segments {
            let crossing = segment.inputs.iter().filter(|&&id| matches!(program.values()[id].source, Source::Node(_)));
            assert!(crossing.count() <= 2, "{segment:?}");
            assert!(!segment.nodes.contains(&loss));
        }
        let named = |paths: &[&str]| {
            let paths = paths.iter().map(|&path| path.to_owned()).collect();
            reverse(&program, loss, &Checkpoint::Layers(paths)).segments
        };
        let some = named(&["block.1", "block.20"]);
        assert_eq!(some.iter().map(|segment| segment.nodes.len()).collect::<Vec<_>>(), [2, 3]);
        assert!(named(&["block"]).is_empty(), "it would be run again for nothing");
    }

    #[test]
    fn what_no_gradient_passes_through_is_not_kept() {
        let (program, loss) = network(3);
        let reached = reverse(&program, loss, &Checkpoint::default()).reached;
        assert!(reached[loss] && !reached[loss + 1] && !reached[0]);
    }

    #[test]
    fn layers_are_named_by_whole_parts_of_paths() {
        assert!(is_inside("encoder.0.dense", "encoder.0") && is_inside("encoder", "encoder"));
        assert!(!is_inside("encoder.01", "encoder.0") && !is_inside("enc", "encoder"));
    }
}
