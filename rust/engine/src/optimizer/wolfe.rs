//! The line search for the strong Wolfe conditions: bracket a good length, then narrow the bracket by cubics.

use crate::Result;
use crate::tensor::Tensor;

/// Sufficient decrease.
const C1: f64 = 1e-4;

/// Curvature.
const C2: f64 = 0.9;

/// The loss along a line.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// The place on the line; where it starts, 0.
    pub length: f64,
    /// Infinite where loss or gradient are not finite.
    pub loss: f64,
    /// The derivative along the line.
    pub slope: f64,
    pub gradient: Tensor,
}

impl Sample {
    /// Whether the loss fell by too little for so long a step.
    fn too_high(&self, start: &Self) -> bool {
        self.loss > start.loss + C1 * self.length * start.slope
    }

    fn flat_enough(&self, start: &Self) -> bool {
        self.slope.abs() <= -C2 * start.slope
    }
}

/// The best place found from `start` on with at most `tries` evaluations after the first, at `length`.
///
/// Two ends nearer than `smallest` are not told apart. Source: Nocedal and Wright 2006, Algorithms 3.5 and 3.6, as PyTorch
/// (there from Schmidt's minFunc) does them.
pub(super) fn search(
    start: Sample,
    length: f64,
    smallest: f64,
    tries: usize,
    sample: &mut dyn FnMut(f64) -> Result<Sample>,
) -> Result<Sample> {
    let (mut previous, mut current) = (start.clone(), sample(length)?);
    let mut made = 0;
    while made < tries {
        if current.too_high(&start) || (made > 1 && current.loss >= previous.loss) {
            return zoom(&start, [previous, current], smallest, tries - made, sample);
        }
        if current.flat_enough(&start) {
            return Ok(current);
        }
        if current.slope >= 0.0 {
            return zoom(&start, [previous, current], smallest, tries - made, sample);
        }
        let bounds = [current.length + 0.01 * (current.length - previous.length), current.length * 10.0];
        let next = sample(lowest(&previous, &current, bounds))?;
        previous = std::mem::replace(&mut current, next);
        made += 1;
    }
    Ok(if start.loss <= current.loss { start } else { current })
}

/// Narrows a bracket until an end satisfies the conditions; returns the lower end.
fn zoom(
    start: &Sample,
    mut bracket: [Sample; 2],
    smallest: f64,
    tries: usize,
    sample: &mut dyn FnMut(f64) -> Result<Sample>,
) -> Result<Sample> {
    let lower = |bracket: &[Sample; 2]| usize::from(bracket[0].loss > bracket[1].loss);
    let mut low = lower(&bracket);
    let mut stalled = false;
    for _ in 0..tries {
        let [least, most] = ends(&bracket);
        if most - least < smallest {
            break;
        }
        let length;
        (length, stalled) = next_length(&bracket, stalled);
        let next = sample(length)?;
        if next.too_high(start) || next.loss >= bracket[low].loss {
            bracket[1 - low] = next;
            low = lower(&bracket);
            continue;
        }
        let done = next.flat_enough(start);
        let beyond = next.slope * (bracket[1 - low].length - bracket[low].length) >= 0.0;
        let old = std::mem::replace(&mut bracket[low], next);
        if !done && beyond {
            bracket[1 - low] = old;
        }
        if done {
            break;
        }
    }
    let [first, second] = bracket;
    Ok(if low == 0 { first } else { second })
}

fn ends(bracket: &[Sample; 2]) -> [f64; 2] {
    let [a, b] = [bracket[0].length, bracket[1].length];
    [a.min(b), a.max(b)]
}

/// The next place inside a bracket, and whether it is near an end: not twice in a row, nor at the end itself.
fn next_length(bracket: &[Sample; 2], stalled: bool) -> (f64, bool) {
    let [least, most] = ends(bracket);
    let length = lowest(&bracket[0], &bracket[1], [least, most]);
    let margin = 0.1 * (most - least);
    if (most - length).min(length - least) >= margin {
        return (length, false);
    }
    if !stalled && length < most && length > least {
        return (length, true);
    }
    let nearer_the_end = (length - most).abs() < (length - least).abs();
    (if nearer_the_end { most - margin } else { least + margin }, false)
}

/// The minimum of the cubic through two samples, within bounds; the middle where there is none.
fn lowest(a: &Sample, b: &Sample, [least, most]: [f64; 2]) -> f64 {
    let inner = a.slope + b.slope - 3.0 * (a.loss - b.loss) / (a.length - b.length);
    let square = inner * inner - a.slope * b.slope;
    let (near, far) = if a.length <= b.length { (a, b) } else { (b, a) };
    let root = square.sqrt();
    let share = (far.slope + root - inner) / (far.slope - near.slope + 2.0 * root);
    let place = far.length - (far.length - near.length) * share;
    if square >= 0.0 && !place.is_nan() { place.max(least).min(most) } else { 0.5 * (least + most) }
}
