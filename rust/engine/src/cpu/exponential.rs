//! Exponentials, logarithms, hyperbolic tangent and error function of `f32` without a branch, so that loops over them vectorise.
//!
//! Ranges are reduced and polynomials chosen as in Cephes (Moshier, 1992, `expf.c`, `logf.c`, `tanhf.c`). Multiply-adds are fused
//! by name, so that every processor gives the same bits. The largest errors over all numbers, in units in the last place:
//! 0.9 (`exp`), 2.0 (`expm1`), 0.8 (`log`), 2.4 (`log1p`), 1.3 (`tanh`), 1.0 (`erf`).

/// Adding it rounds to an integer, which then stands in the low bits.
const ROUND: f32 = 12_582_912.0;
/// `ln 2` in two parts: products of the first with small integers are exact.
const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];

/// `coefficients[0]·x^(n-1) + … + coefficients[n-1]`
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    coefficients.into_iter().reduce(|sum, coefficient| sum.mul_add(x, coefficient)).unwrap_or_default()
}

/// 2^exponent, for -126 to 127.
#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// `rest`, `curve` and `exponent` of `e^x = 2^exponent · (1 + rest · curve)`, for x from -104 to 89; `rest` is at most 0.35.
#[inline(always)]
fn parts_of_exp(x: f32) -> (f32, f32, i32) {
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let count = shifted - ROUND;
    let rest = count.mul_add(-LN_2[1], count.mul_add(-LN_2[0], x));
    let curve =
        polynomial(rest, [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5, 1.0]);
    (rest, curve, shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32)
}

/// `e^x`
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Beyond these the result is 0 or infinite; NaN stays.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let (rest, curve, exponent) = parts_of_exp(x);
    // In two steps, so that numbers below the normal ones come out.
    let half = exponent >> 1;
    rest.mul_add(curve, 1.0) * power_of_two(half) * power_of_two(exponent.wrapping_sub(half))
}

/// `e^x - 1`
#[inline(always)]
pub(crate) fn expm1(x: f32) -> f32 {
    // Beyond these the result is -1 or infinite; NaN stays.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -20.0 { -20.0 } else { x };
    let (rest, curve, exponent) = parts_of_exp(x);
    // By half of the power of two, which the greatest x do not overflow.
    let half = power_of_two(exponent.wrapping_sub(1));
    2.0 * (rest * curve).mul_add(half, half - 0.5)
}

/// `ln x`
#[inline(always)]
pub(crate) fn log(x: f32) -> f32 {
    let small = x < f32::MIN_POSITIVE;
    let scaled = if small { x * 8_388_608.0 } else { x };
    // The exponent that leaves a mantissa between √½ and √2.
    let bits = scaled.to_bits().wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits());
    let exponent = (bits as i32) >> 23;
    let mantissa = f32::from_bits((bits & 0x007f_ffff).wrapping_add(std::f32::consts::FRAC_1_SQRT_2.to_bits()));
    let exponent = exponent as f32 - if small { 23.0 } else { 0.0 };
    let z = mantissa - 1.0;
    let curve = polynomial(
        z,
        [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    let square = z * z;
    let low = (-0.5f32).mul_add(square, (curve * z).mul_add(square, exponent * LN_2[1]));
    let value = exponent.mul_add(LN_2[0], z + low);
    let value = if x == 0.0 { f32::NEG_INFINITY } else { value };
    let value = if x < 0.0 { f32::NAN } else { value };
    // Infinity and NaN as they came.
    if x < f32::INFINITY { value } else { x }
}

/// `ln(1 + x)`, by the logarithm of the rounded sum and a correction for its rounding (Goldberg, 1991, theorem 4).
#[inline(always)]
pub(crate) fn log1p(x: f32) -> f32 {
    let sum = 1.0 + x;
    let taken = sum - 1.0;
    let value = log(sum) * (x / taken);
    let value = if taken == 0.0 { x } else { value };
    if x < f32::INFINITY { value } else { x }
}

/// `tanh x`
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let size = x.abs();
    // From here on it is 1; NaN stays.
    let twice = if size > 9.1 { 18.2 } else { size + size };
    let (rest, curve, exponent) = parts_of_exp(twice);
    let far = 1.0 - 2.0 / rest.mul_add(curve, 1.0).mul_add(power_of_two(exponent), 1.0);
    let square = x * x;
    let curve = polynomial(square, [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1]);
    let near = (curve * square).mul_add(x, x);
    // The sign of 0 stays, too.
    if size < 0.625 { near } else { far }.copysign(x)
}

/// `erf x`, by minimax polynomials: of it near 0, and of the logarithm of what it lacks to 1 elsewhere (Juffa, 2020).
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let (size, square) = (x.abs(), x * x);
    let high = size.mul_add(-1.728_534_7e-5, 3.831_971_3e-4);
    let low = size.mul_add(-3.883_964_4e-3, 2.425_462_2e-2);
    let curve = polynomial(size, [high.mul_add(square, low), -1.067_778_8e-1, -6.348_467e-1, -1.287_175_1e-1]);
    let far = 1.0 - exp(curve.mul_add(size, -size));
    let near = [-5.967_617e-4, 4.991_194_2e-3, -2.676_813_5e-2, 1.128_199_2e-1, -3.761_253_4e-1, 1.283_791_7e-1];
    let near = polynomial(square, near).mul_add(x, x);
    if size > 0.927_734_4 { far.copysign(x) } else { near }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cpu;

    type Case = (&'static str, fn(f32) -> f32, fn(f64) -> f64, f64);

    const CASES: [Case; 6] = [
        ("exp", exp, f64::exp, 0.9),
        ("expm1", expm1, f64::exp_m1, 2.0),
        ("log", log, f64::ln, 0.8),
        ("log1p", log1p, f64::ln_1p, 2.4),
        ("tanh", tanh, f64::tanh, 1.3),
        ("erf", erf, libm::erf, 1.0),
    ];

    /// The error in units in the last place of the right number.
    fn error(found: f32, expected: f64) -> f64 {
        let rounded = expected as f32;
        if rounded.is_nan() || !rounded.is_finite() || rounded == 0.0 {
            let same = found == rounded || found.is_nan() && rounded.is_nan();
            return if same { 0.0 } else { f64::INFINITY };
        }
        let below = f32::from_bits(rounded.abs().to_bits());
        let unit = f64::from(f32::from_bits(below.to_bits() + 1)) - f64::from(below);
        (f64::from(found) - expected).abs() / if unit.is_finite() { unit } else { 2f64.powi(104) }
    }

    /// A sample of all numbers, those below the normal ones, infinities and NaN among them.
    #[test]
    fn errors_are_as_told() {
        for (name, function, exact, bound) in CASES {
            let numbers = (0..=u32::MAX).step_by(487).map(f32::from_bits);
            let near = (0..2_000_000).map(|index| (index as f32 - 1e6) * 1e-4);
            let (worst, at) = numbers
                .chain(near)
                .map(|x| (error(function(x), exact(f64::from(x))), x))
                .fold((0.0, 0.0), |worst: (f64, f32), next| if next.0 > worst.0 { next } else { worst });
            println!("{name}: {worst} units in the last place at {at}");
            assert!(worst <= bound, "{name}: {worst} units in the last place at {at}");
        }
    }

    #[test]
    fn ends_of_the_range_are_right() {
        let infinity = f32::INFINITY;
        assert_eq!(
            [exp(infinity), exp(-infinity), exp(0.0), exp(89.0), exp(-104.0)],
            [infinity, 0.0, 1.0, infinity, 0.0]
        );
        assert_eq!(
            [expm1(infinity), expm1(-infinity), expm1(88.0), expm1(-20.0), expm1(1e-30)],
            [infinity, -1.0, 1.651_636_3e38, -1.0, 1e-30]
        );
        assert_eq!([log(infinity), log(0.0), log(-0.0), log(1.0)], [infinity, -infinity, -infinity, 0.0]);
        assert_eq!([tanh(infinity), tanh(-infinity), tanh(1e-30), tanh(1e-45)], [1.0, -1.0, 1e-30, 1e-45]);
        assert_eq!([log1p(infinity), log1p(-1.0), log1p(0.0), log1p(1e-20)], [infinity, -infinity, 0.0, 1e-20]);
        assert!(log1p(-1.5).is_nan() && log1p(f32::NAN).is_nan());
        assert_eq!(
            [erf(infinity), erf(-infinity), erf(1e-30), erf(9.0), erf(-3e38)],
            [1.0, -1.0, 1.128_379_1e-30, 1.0, -1.0]
        );
        assert_eq!([tanh(-0.0), erf(-0.0)].map(f32::to_bits), [(-0.0f32).to_bits(); 2]);
        assert!(
            [exp(f32::NAN), expm1(f32::NAN), log(f32::NAN), tanh(f32::NAN), erf(f32::NAN), log(-1.0), log(-infinity)]
                .iter()
                .all(|y| y.is_nan())
        );
    }

    proptest! {
        /// The bits do not depend on the vector instructions, nor on the place in a vector.
        #[test]
        fn loops_and_single_calls_agree(bits in proptest::collection::vec(any::<u32>(), 1..70)) {
            let numbers: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
            let mut found = CASES.map(|_| numbers.clone());
            let [exps, expm1s, logs, log1ps, tanhs, erfs] = &mut found;
            cpu::vectorised!(log1ps.iter_mut().for_each(|x| *x = log1p(*x)));
            cpu::vectorised!(exps.iter_mut().for_each(|x| *x = exp(*x)));
            cpu::vectorised!(expm1s.iter_mut().for_each(|x| *x = expm1(*x)));
            cpu::vectorised!(logs.iter_mut().for_each(|x| *x = log(*x)));
            cpu::vectorised!(tanhs.iter_mut().for_each(|x| *x = tanh(*x)));
            cpu::vectorised!(erfs.iter_mut().for_each(|x| *x = erf(*x)));
            for ((_, function, ..), found) in CASES.into_iter().zip(found) {
                for (&x, found) in numbers.iter().zip(found) {
                    let expected = function(x);
                    prop_assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan());
                }
            }
        }
    }
}
