//! Random numbers from counters: a number is a function of (seed, stream, epoch, step, node, index), so that a run
//! can be resumed anywhere and no state hides in a generator.

/// What a stream is for; streams never share numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The order of samples.
    Shuffle = 1,
    /// Initial parameters.
    Initialize = 2,
    /// Dropout and noise.
    Noise = 3,
}

/// A stream of random numbers addressed by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(u64);

/// SplitMix64's finalizer (Steele, Lea and Flood, 2014): a bijection in which every input bit reaches every output bit.
#[inline(always)]
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Stream {
    /// The stream of a seed and a purpose.
    pub fn new(seed: u64, purpose: Purpose) -> Self {
        Self(mix(seed.wrapping_add(GOLDEN))).fork(purpose as u64)
    }

    /// An independent stream for each `part`: an epoch, a step, a node.
    #[must_use]
    pub fn fork(self, part: u64) -> Self {
        Self(mix(self.0 ^ mix(part.wrapping_mul(GOLDEN).wrapping_add(0x632b_e59b_d9b4_e019))))
    }

    /// An independent stream for a name.
    #[must_use]
    pub fn fork_name(self, name: &str) -> Self {
        name.bytes().fold(self.fork(name.len() as u64), |stream, byte| stream.fork(u64::from(byte)))
    }

    /// 64 random bits at `index`.
    #[inline(always)]
    pub fn bits(self, index: u64) -> u64 {
        mix(self.0.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN)))
    }

    /// A number in [0, 1), of 53 bits.
    #[inline(always)]
    pub fn uniform(self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A standard normal number, by Box and Muller's transform.
    pub fn normal(self, index: u64) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform(2 * index)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform(2 * index + 1)).cos()
    }

    /// A number in `0..bound`, without bias worth the name (2^-32 at most).
    pub fn below(self, index: u64, bound: u64) -> u64 {
        ((u128::from(self.bits(index)) * u128::from(bound)) >> 64) as u64
    }
}

/// The order of the samples in an epoch: a function of (seed, epoch), by Fisher and Yates's shuffle.
pub fn permutation(seed: u64, epoch: u64, rows: usize) -> Vec<i64> {
    let stream = Stream::new(seed, Purpose::Shuffle).fork(epoch);
    let mut order: Vec<i64> = (0..rows as i64).collect();
    for last in (1..rows).rev() {
        order.swap(last, stream.below(last as u64, last as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutation_has_every_row_once_and_differs_by_epoch() {
        let mut first = permutation(3, 0, 1000);
        assert_ne!(first, permutation(3, 1, 1000));
        assert_ne!(first, permutation(4, 0, 1000));
        first.sort_unstable();
        assert_eq!(first, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn moments_of_uniform_and_normal() {
        let stream = Stream::new(1, Purpose::Noise);
        let count = 100_000;
        let mean = |draw: &dyn Fn(u64) -> f64| (0..count).map(draw).sum::<f64>() / count as f64;
        assert!((mean(&|index| stream.uniform(index)) - 0.5).abs() < 0.005);
        assert!(mean(&|index| stream.normal(index)).abs() < 0.015);
        assert!((mean(&|index| stream.normal(index).powi(2)) - 1.0).abs() < 0.02);
    }
}
