//! Views, joins and parts: operations that move values and compute nothing.

use serde::Deserialize;
use smallvec::smallvec;

use super::reduction::{checked_axes, position, positions, sum_to};
use super::{Arithmetic, Context, Entry, Evaluation, Gradients, Keeps, Kept, Operation, Reach, Tensors, entry};
use crate::program::{Dim, Kind, Type, show};
use crate::tensor::{DType, Lengths, Tensor};

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] = &[
    entry::<Reshape>("reshape", 1, Some(1)),
    entry::<Transpose>("transpose", 1, Some(1)),
    entry::<BroadcastTo>("broadcast_to", 1, Some(1)),
    entry::<Concatenate>("concatenate", 1, None),
    entry::<Slice>("slice", 1, Some(1)),
    entry::<Pad>("pad", 1, Some(1)),
    entry::<Flip>("flip", 1, Some(1)),
];

/// The same elements in row-major order under `shape`, in which -1 is the axis that holds the batch (or the rest).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reshape {
    shape: Vec<i64>,
}

impl Reshape {
    /// The product of the known lengths.
    fn known(&self) -> Option<usize> {
        let known = self.shape.iter().filter(|&&length| length != -1);
        known.copied().try_fold(1usize, |product, length| product.checked_mul(usize::try_from(length).ok()?))
    }
}

impl Operation for Reshape {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let x = inputs[0];
        let free = self.shape.iter().filter(|&&length| length == -1).count();
        let known = self.known().filter(|&known| known > 0 && free <= 1);
        let Some(known) = known else {
            return Err(format!("the new shape must hold positive lengths and at most one -1, got {:?}", self.shape));
        };
        let total: usize = x.shape.iter().map(|dim| dim.count).product();
        let batches = x.shape.iter().filter(|dim| dim.batch).count();
        let fits = if free == 1 { total.is_multiple_of(known) } else { total == known };
        let reason = match batches {
            0 if fits => None,
            1 if fits && free == 1 => None,
            1 if free == 0 => Some("the axis that holds the batch must be -1"),
            0 | 1 => Some("the numbers of elements differ"),
            _ => Some("it has more than one batch axis"),
        };
        if let Some(reason) = reason {
            return Err(format!("cannot reshape {} to {:?}: {reason}", show(&x.shape), self.shape));
        }
        let free = Dim { count: total / known, batch: batches == 1 };
        let length = |&length: &i64| if length == -1 { free } else { Dim::known(length as usize) };
        Ok(Type { kind: x.kind, shape: self.shape.iter().map(length).collect() })
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Moves
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let x = inputs.remove(0);
        let free = x.len() / self.known().expect("the shape rule checked it");
        let length = |&length: &i64| if length == -1 { free } else { length as usize };
        let shape: Lengths = self.shape.iter().map(length).collect();
        x.reshape(&shape).into()
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }

    fn gradient(&self, kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        smallvec![Some(gradient.reshape(&kept.shapes[0]))]
    }
}

/// Axis `i` of the output is axis `axes[i]` of the input; none reverses all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Transpose {
    #[serde(default)]
    axes: Option<Vec<i64>>,
}

impl Transpose {
    fn order(&self, rank: usize) -> Vec<usize> {
        match &self.axes {
            Some(axes) => axes.iter().map(|&axis| position(axis, rank)).collect(),
            None => (0..rank).rev().collect(),
        }
    }
}

impl Operation for Transpose {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let x = inputs[0];
        let found = checked_axes(x, self.axes.as_deref())?;
        if found.len() != x.rank() {
            return Err(format!("axes must name each axis of shape {} once, got {:?}", show(&x.shape), found));
        }
        let shape = self.order(x.rank()).into_iter().map(|axis| x.shape[axis]).collect();
        Ok(Type { kind: x.kind, shape })
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Moves
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let x = inputs.remove(0);
        let order = self.order(x.rank());
        x.permute(&order).into()
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }

    fn gradient(&self, _: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        let order = self.order(gradient.rank());
        let mut inverse = vec![0; order.len()];
        order.into_iter().enumerate().for_each(|(to, from)| inverse[from] = to);
        smallvec![Some(gradient.permute(&inverse))]
    }
}

/// Repeats axes of length 1 (and adds leading ones) to get `shape`, in which -1 keeps an axis as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BroadcastTo {
    shape: Vec<i64>,
}

impl BroadcastTo {
    /// `shape` beside the axes of the input, which has fewer or as many.
    fn beside<'a, L: Copy>(&'a self, shape: &'a [L]) -> impl Iterator<Item = (i64, Option<L>)> + 'a {
        let added = self.shape.len() - shape.len();
        self.shape
            .iter()
            .enumerate()
            .map(move |(axis, &length)| (length, axis.checked_sub(added).map(|axis| shape[axis])))
    }
}

impl Operation for BroadcastTo {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let x = inputs[0];
        let refuse = || format!("cannot broadcast {} to {:?} (-1 keeps an axis)", show(&x.shape), self.shape);
        if self.shape.len() < x.rank() {
            return Err(refuse());
        }
        let one = Dim::known(1);
        let length = |(to, from): (i64, Option<Dim>)| match (usize::try_from(to), from) {
            (Err(_), Some(from)) if to == -1 => Ok(from),
            (Ok(to), from) if to > 0 && [one, Dim::known(to)].contains(&from.unwrap_or(one)) => Ok(Dim::known(to)),
            _ => Err(refuse()),
        };
        Ok(Type { kind: x.kind, shape: self.beside(&x.shape).map(length).collect::<Result<_, _>>()? })
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Any
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let x = inputs.remove(0);
        let mine = x.shape();
        let length = |(to, from): (i64, Option<usize>)| if to == -1 { from.unwrap_or(1) } else { to as usize };
        let shape: Vec<usize> = self.beside(&mine).map(length).collect();
        x.broadcast_to(&shape).into()
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }

    fn gradient(&self, kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        smallvec![Some(sum_to(gradient, &kept.shapes[0]))]
    }
}

/// Joins values along `axis` (default 0); their other axes agree.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Concatenate {
    #[serde(default)]
    axis: i64,
}

impl Operation for Concatenate {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let first = inputs[0];
        let axis = first.axis(self.axis)?;
        let mut joined = first.clone();
        for &next in &inputs[1..] {
            let fits = next.kind == first.kind
                && next.rank() == first.rank()
                && next.shape[axis].batch == first.shape[axis].batch
                && (0..first.rank()).all(|other| other == axis || next.shape[other] == first.shape[other]);
            if !fits {
                return Err(format!("cannot join {first} and {next} along axis {axis}"));
            }
            let count = joined.shape[axis].count.checked_add(next.shape[axis].count);
            joined.shape[axis].count = count.ok_or("the joined axis is too long")?;
        }
        Ok(joined)
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Moves
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, inputs: Tensors, _: &Context) -> Evaluation {
        let axis = position(self.axis, inputs[0].rank());
        Tensor::concatenate(inputs.into_vec(), axis).into()
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }

    fn gradient(&self, kept: Kept, gradient: Tensor, wanted: &[bool]) -> Gradients {
        let axis = position(self.axis, gradient.rank());
        let mut start = 0;
        let part = |(shape, &wanted): (&Lengths, &bool)| {
            let mut region = Region::whole(&gradient.shape());
            (region.starts[axis], region.stops[axis]) = (start, start + shape[axis]);
            start += shape[axis];
            wanted.then(|| region.of(gradient.clone()))
        };
        kept.shapes.iter().zip(wanted).map(part).collect()
    }
}

/// A part of a tensor: ascending, with steps; what descends is flipped afterwards.
#[derive(Debug)]
struct Region {
    starts: Vec<usize>,
    stops: Vec<usize>,
    steps: Vec<usize>,
    flipped: Vec<usize>,
}

impl Region {
    fn whole(shape: &[usize]) -> Self {
        let rank = shape.len();
        Self { starts: vec![0; rank], stops: shape.to_vec(), steps: vec![1; rank], flipped: Vec::new() }
    }

    fn of(&self, x: Tensor) -> Tensor {
        self.flip(x.slice(&self.starts, &self.stops, &self.steps))
    }

    /// `part` in its place in `x`.
    fn placed(&self, x: Tensor, part: Tensor) -> Tensor {
        x.slice_assign(&self.starts, &self.stops, &self.steps, self.flip(part))
    }

    fn flip(&self, x: Tensor) -> Tensor {
        if self.flipped.is_empty() { x } else { x.flip(&self.flipped) }
    }
}

/// `x[start:stop:step, …]` with one entry an axis, as Python counts: from the end if negative, cut to what there is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slice {
    starts: Vec<i64>,
    stops: Vec<Option<i64>>,
    steps: Vec<i64>,
}

/// First index and number of elements of Python's `start:stop:step` in an axis; `step` is not 0.
fn chosen(length: usize, start: i64, stop: Option<i64>, step: i64) -> (usize, usize) {
    let length = length as i64;
    let (least, greatest) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let inside = |index: i64| if index < 0 { (index + length).max(least) } else { index.min(greatest) };
    let first = inside(start);
    let end = stop.map_or(if step > 0 { greatest } else { least }, inside);
    let span = if step > 0 { end - first } else { first - end };
    let count = if span > 0 { (span as u64 - 1) / step.unsigned_abs() + 1 } else { 0 };
    (first.max(0) as usize, count as usize)
}

impl Slice {
    fn is_whole(&self, axis: usize) -> bool {
        (self.starts[axis], self.stops[axis], self.steps[axis]) == (0, None, 1)
    }

    fn region(&self, shape: &[usize]) -> Region {
        let mut region = Region::whole(shape);
        for (axis, &length) in shape.iter().enumerate() {
            let (first, count) = chosen(length, self.starts[axis], self.stops[axis], self.steps[axis]);
            // A step beyond one element is never made, and might overflow.
            let step = if count > 1 { self.steps[axis].unsigned_abs() as usize } else { 1 };
            let reach = (count - 1) * step;
            let start = if self.steps[axis] > 0 { first } else { first - reach };
            region.starts[axis] = start;
            region.stops[axis] = start + reach + 1;
            region.steps[axis] = step;
            if self.steps[axis] < 0 {
                region.flipped.push(axis);
            }
        }
        region
    }
}

impl Operation for Slice {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let x = inputs[0];
        if [self.starts.len(), self.stops.len(), self.steps.len()] != [x.rank(); 3] {
            return Err(format!("expected one start, stop and step for each axis of shape {}", show(&x.shape)));
        }
        let mut shape = x.shape.clone();
        for (axis, dim) in shape.iter_mut().enumerate() {
            if self.steps[axis] == 0 {
                return Err("a step must not be 0".into());
            }
            if dim.batch && !self.is_whole(axis) {
                return Err(format!(
                    "axis {axis} of shape {} holds the batch and can only be taken whole",
                    show(&x.shape)
                ));
            }
            if !dim.batch {
                dim.count = chosen(dim.count, self.starts[axis], self.stops[axis], self.steps[axis]).1;
            }
            if dim.count == 0 {
                return Err(format!("nothing is left of axis {axis} of shape {}", show(&x.shape)));
            }
        }
        Ok(Type { kind: x.kind, shape })
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Moves
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let x = inputs.remove(0);
        self.region(&x.shape()).of(x).into()
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }

    fn gradient(&self, kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        let shape = &kept.shapes[0];
        let zeros = Tensor::full(shape, 0.0, gradient.dtype(), &gradient.device());
        smallvec![Some(self.region(shape).placed(zeros, gradient))]
    }
}

/// Puts `widths[axis] = [before, after]` elements of `value` (default 0) around.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pad {
    widths: Vec<[usize; 2]>,
    #[serde(default)]
    value: f64,
}

impl Pad {
    /// Where the input lies in the output.
    fn region(&self, shape: &[usize]) -> Region {
        let mut region = Region::whole(shape);
        for (axis, &[before, _]) in self.widths.iter().enumerate() {
            region.starts[axis] = before;
            region.stops[axis] += before;
        }
        region
    }
}

impl Operation for Pad {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let x = inputs[0];
        if x.kind == Kind::Bool {
            return Err(format!("expected float or int values, got {x}"));
        }
        if x.kind == Kind::Int && f64::from(self.value as i32) != self.value {
            return Err(format!("int values can only be padded with an integer, got {}", self.value));
        }
        if self.widths.len() != x.rank() {
            return Err(format!("expected widths for each axis of shape {}, got {:?}", show(&x.shape), self.widths));
        }
        let mut shape = x.shape.clone();
        for (dim, &[before, after]) in shape.iter_mut().zip(&self.widths) {
            if dim.batch && [before, after] != [0, 0] {
                return Err(format!("the axis of the batch cannot be padded: got shape {}", show(&x.shape)));
            }
            let count = dim.count.checked_add(before).and_then(|count| count.checked_add(after));
            dim.count = count.ok_or_else(|| format!("widths {:?} are too large", self.widths))?;
        }
        Ok(Type { kind: x.kind, shape })
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Moves
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let x = inputs.remove(0);
        let lengths = x.shape();
        let grown = |(length, &[before, after]): (&usize, &[usize; 2])| length + before + after;
        let shape: Vec<usize> = lengths.iter().zip(&self.widths).map(grown).collect();
        let around = if x.dtype() == DType::I32 {
            Tensor::from_values(vec![self.value as i32; shape.iter().product()], &shape, &x.device())
        } else {
            Tensor::full(&shape, self.value, x.dtype(), &x.device())
        };
        self.region(&lengths).placed(around, x).into()
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }

    fn gradient(&self, kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        smallvec![Some(self.region(&kept.shapes[0]).of(gradient))]
    }
}

/// Reverses `axes`, all of them for none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flip {
    #[serde(default)]
    axes: Option<Vec<i64>>,
}

impl Flip {
    fn apply(&self, x: Tensor) -> Tensor {
        let axes = positions(self.axes.as_deref(), x.rank());
        if axes.is_empty() { x } else { x.flip(&axes) }
    }
}

impl Operation for Flip {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        checked_axes(inputs[0], self.axes.as_deref())?;
        Ok(inputs[0].clone())
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Moves
    }

    fn reach(&self, inputs: &[&Type]) -> Reach {
        let axes = positions(self.axes.as_deref(), inputs[0].rank());
        if axes.contains(&0) { Reach::Everything } else { Reach::Sample }
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        self.apply(inputs.remove(0)).into()
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }

    fn gradient(&self, _: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        smallvec![Some(self.apply(gradient))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        Tensor::from_vec((1..=count).map(|index| index as f64).collect::<Vec<f64>>(), shape)
    }

    fn gradient(operation: &dyn Operation, x: &Tensor, gradient: Tensor) -> Vec<f64> {
        let kept =
            Kept { inputs: Default::default(), shapes: smallvec![x.shape()], output: None, saved: Default::default() };
        operation.gradient(kept, gradient, &[true])[0].as_ref().expect("wanted").to_f64()
    }

    #[test]
    fn chosen_counts_as_python_does() {
        assert_eq!(chosen(10, 1, Some(-1), 3), (1, 3));
        assert_eq!(chosen(10, -1, None, -1), (9, 10));
        assert_eq!(chosen(10, 8, Some(2), -3), (8, 2));
        assert_eq!(chosen(10, 20, Some(-20), -4), (9, 3));
        assert_eq!(chosen(10, 3, Some(3), 1).1, 0);
        assert_eq!(chosen(3, i64::MIN, Some(i64::MAX), i64::MAX), (0, 1));
        assert_eq!(chosen(3, i64::MAX, Some(i64::MIN), i64::MIN), (2, 1));
    }

    #[test]
    fn slice_and_its_gradient_follow_steps_both_ways() {
        let x = counting(&[2, 5]);
        let slice = Slice { starts: vec![0, -1], stops: vec![None, None], steps: vec![1, -2] };
        assert_eq!(slice.region(&[2, 5]).of(x.clone()).to_f64(), [5.0, 3.0, 1.0, 10.0, 8.0, 6.0]);
        let back = gradient(&slice, &x, counting(&[2, 3]));
        assert_eq!(back, [3.0, 0.0, 2.0, 0.0, 1.0, 6.0, 0.0, 5.0, 0.0, 4.0]);
    }

    #[test]
    fn pad_and_its_gradient_are_inverse() {
        let pad = Pad { widths: vec![[1, 0], [0, 2]], value: 9.0 };
        let region = pad.region(&[1, 2]);
        let around = Tensor::from_vec(vec![9.0; 8], &[2, 4]);
        let padded = region.placed(around, counting(&[1, 2]));
        assert_eq!(padded.to_f64(), [9.0, 9.0, 9.0, 9.0, 1.0, 2.0, 9.0, 9.0]);
        assert_eq!(gradient(&pad, &counting(&[1, 2]), padded), [1.0, 2.0]);
    }
}
