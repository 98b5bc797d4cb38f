//! How parameters and buffers start: functions of (seed, path), the same on every device.

use serde::{Deserialize, Serialize};

use crate::memory::with_room;
use crate::random::Stream;

/// A distribution of starting values.
///
/// `fan_in` and `fan_out` are those of a kernel `(…, in, out)`, the leading axes being the receptive field (as Keras).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Initializer {
    /// All 0.
    Zeros {},
    /// All 1.
    Ones {},
    /// All `value`.
    Constant {
        /// The value.
        value: f64,
    },
    /// Uniform on `[low, high)`.
    Uniform {
        /// The least value.
        low: f64,
        /// The bound above.
        high: f64,
    },
    /// Normal.
    Normal {
        /// The mean.
        mean: f64,
        /// The standard deviation.
        stddev: f64,
    },
    /// Normal, values beyond two standard deviations drawn again.
    TruncatedNormal {
        /// The mean.
        mean: f64,
        /// The standard deviation before truncation.
        stddev: f64,
    },
    /// Uniform within `±√(6/(fan_in + fan_out))` (Glorot and Bengio, 2010).
    GlorotUniform {},
    /// Truncated normal of variance `2/(fan_in + fan_out)` (Glorot and Bengio, 2010).
    GlorotNormal {},
    /// Uniform within `±√(6/fan_in)` (He et al., 2015).
    HeUniform {},
    /// Truncated normal of variance `2/fan_in` (He et al., 2015).
    HeNormal {},
    /// Uniform within `±√(3/fan_in)` (LeCun et al., 1998).
    LecunUniform {},
    /// Truncated normal of variance `1/fan_in` (LeCun et al., 1998).
    LecunNormal {},
    /// A random matrix with orthonormal rows or columns, times `gain` (Saxe et al., 2014).
    Orthogonal {
        /// The factor.
        gain: f64,
    },
    /// Like `rest` but for ones in the second quarter, the bias of an LSTM's forget gates (Jozefowicz et al., 2015).
    UnitForget {
        /// How the other gates start.
        rest: Box<Self>,
    },
}

/// Standard deviation of a unit normal truncated at ±2.
const TRUNCATED_STDDEV: f64 = 0.879_625_661_034_239_8;

impl Initializer {
    /// The starting values of a shape from a stream.
    pub fn values(&self, shape: &[usize], stream: Stream) -> Vec<f64> {
        let count: usize = shape.iter().product();
        let (fan_in, fan_out) = fans(shape);
        let uniform = |limit: f64| draw(count, |index| (2.0 * stream.uniform(index) - 1.0) * limit);
        let scaled = |variance: f64| {
            let stddev = variance.sqrt() / TRUNCATED_STDDEV;
            draw(count, |index| stddev * truncated(stream, index))
        };
        match *self {
            Self::Zeros {} => draw(count, |_| 0.0),
            Self::Ones {} => draw(count, |_| 1.0),
            Self::Constant { value } => draw(count, |_| value),
            Self::Uniform { low, high } => draw(count, |index| low + (high - low) * stream.uniform(index)),
            Self::Normal { mean, stddev } => draw(count, |index| mean + stddev * stream.normal(index)),
            Self::TruncatedNormal { mean, stddev } => draw(count, |index| mean + stddev * truncated(stream, index)),
            Self::GlorotUniform {} => uniform((6.0 / (fan_in + fan_out)).sqrt()),
            Self::GlorotNormal {} => scaled(2.0 / (fan_in + fan_out)),
            Self::HeUniform {} => uniform((6.0 / fan_in).sqrt()),
            Self::HeNormal {} => scaled(2.0 / fan_in),
            Self::LecunUniform {} => uniform((3.0 / fan_in).sqrt()),
            Self::LecunNormal {} => scaled(1.0 / fan_in),
            Self::Orthogonal { gain } => orthogonal(shape, gain, stream),
            Self::UnitForget { ref rest } => {
                let mut values = rest.values(shape, stream);
                values[count / 4..count / 2].fill(1.0);
                values
            }
        }
    }
}

fn draw(count: usize, value: impl Fn(u64) -> f64) -> Vec<f64> {
    let mut values = with_room(count);
    values.extend((0..count as u64).map(value));
    values
}

fn fans(shape: &[usize]) -> (f64, f64) {
    let (fan_in, fan_out) = match shape {
        [] => (1, 1),
        [length] => (*length, *length),
        [field @ .., input, output] => {
            let field: usize = field.iter().product();
            (field * input, field * output)
        }
    };
    (fan_in.max(1) as f64, fan_out.max(1) as f64)
}

/// A normal number within two standard deviations: the first such of its own stream.
fn truncated(stream: Stream, index: u64) -> f64 {
    let attempts = stream.fork(index);
    (0..).map(|attempt| attempts.normal(attempt)).find(|value| value.abs() <= 2.0).expect("an endless range")
}

/// Modified Gram and Schmidt on a random normal matrix, over its shorter side.
fn orthogonal(shape: &[usize], gain: f64, stream: Stream) -> Vec<f64> {
    let columns = shape.last().copied().unwrap_or(1);
    let rows = shape.iter().product::<usize>() / columns.max(1);
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut vectors: Vec<Vec<f64>> = Vec::with_capacity(count);
    for vector in 0..count {
        let mut new = draw(length, |index| stream.normal((vector * length) as u64 + index));
        // A second pass removes what rounding left of the first.
        for _ in 0..2 {
            for known in &vectors {
                let along: f64 = new.iter().zip(known).map(|(a, b)| a * b).sum();
                new.iter_mut().zip(known).for_each(|(a, b)| *a -= along * b);
            }
        }
        let norm = new.iter().map(|value| value * value).sum::<f64>().sqrt();
        new.iter_mut().for_each(|value| *value /= norm);
        vectors.push(new);
    }
    let at = |row: usize, column: usize| {
        if rows <= columns { vectors[row][column] } else { vectors[column][row] }
    };
    (0..rows * columns).map(|place| gain * at(place / columns, place % columns)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    #[test]
    fn variance_is_what_the_formula_says() {
        let stream = Stream::new(0, Purpose::Initialize);
        let shape = [300, 200];
        for (initializer, variance) in [
            (Initializer::GlorotUniform {}, 2.0 / 500.0),
            (Initializer::GlorotNormal {}, 2.0 / 500.0),
            (Initializer::HeNormal {}, 2.0 / 300.0),
            (Initializer::LecunUniform {}, 1.0 / 300.0),
        ] {
            let values = initializer.values(&shape, stream);
            let measured = values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64;
            assert!((measured / variance - 1.0).abs() < 0.02, "{initializer:?}: {measured} {variance}");
        }
    }

    #[test]
    fn forget_gates_start_open() {
        let stream = Stream::new(1, Purpose::Initialize);
        let rest = Initializer::Normal { mean: 0.0, stddev: 1.0 };
        let [plain, open] = [rest.clone(), Initializer::UnitForget { rest: Box::new(rest) }]
            .map(|initializer| initializer.values(&[12], stream));
        assert_eq!((&open[..3], &open[3..6], &open[6..]), (&plain[..3], &[1.0; 3][..], &plain[6..]));
    }

    #[test]
    fn orthogonal_rows_are_orthonormal() {
        let values = Initializer::Orthogonal { gain: 2.0 }.values(&[4, 7], Stream::new(1, Purpose::Initialize));
        for a in 0..4 {
            for b in 0..4 {
                let dot: f64 = (0..7).map(|column| values[a * 7 + column] * values[b * 7 + column]).sum();
                assert!((dot - if a == b { 4.0 } else { 0.0 }).abs() < 1e-12);
            }
        }
    }
}
