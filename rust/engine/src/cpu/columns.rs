//! Copies that turn vectors of adjacent elements into columns.

/// Copies vectors, `step` bytes apart, to the columns of `to`, a matrix with rows of `width`.
///
/// # Safety
/// The vectors must be readable (aligned or not), `length` elements each, and `to` have room for as many rows.
#[inline(always)]
pub(super) unsafe fn to_columns<E: Copy>(
    from: *const E,
    step: isize,
    to: *mut E,
    width: usize,
    [vectors, length]: [usize; 2],
) {
    debug_assert!(vectors <= width, "a matrix without room");
    // SAFETY: as the caller promised.
    unsafe {
        let whole = squares(from, step, to, width, [vectors, length]);
        for vector in 0..vectors {
            let first = if vector < whole[0] { whole[1] } else { 0 };
            let from = from.wrapping_byte_offset(vector as isize * step);
            for element in first..length {
                to.add(element * width + vector).write(from.add(element).read_unaligned());
            }
        }
    }
}

/// Copies what fills squares of registers, and tells how many vectors, and how much of each, that is.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn squares<E>(_: *const E, _: isize, _: *mut E, _: usize, _: [usize; 2]) -> [usize; 2] {
    [0, 0]
}

#[cfg(target_arch = "x86_64")]
use x86::squares;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// Copies what fills squares of registers, and tells how many vectors, and how much of each, that is.
    ///
    /// # Safety
    /// As for [`to_columns`](super::to_columns).
    pub unsafe fn squares<E>(from: *const E, step: isize, to: *mut E, width: usize, sizes: [usize; 2]) -> [usize; 2] {
        let side = size_of::<__m256>() / size_of::<E>();
        if !matches!(side, 4 | 8) || !is_x86_feature_detected!("avx") {
            return [0, 0];
        }
        let whole = sizes.map(|size| size - size % side);
        // SAFETY: as the caller promised.
        unsafe { whole_squares(from, step, to, width, whole) };
        whole
    }

    #[target_feature(enable = "avx")]
    unsafe fn whole_squares<E>(from: *const E, step: isize, to: *mut E, width: usize, [vectors, length]: [usize; 2]) {
        let side = size_of::<__m256>() / size_of::<E>();
        for vector in (0..vectors).step_by(side) {
            for element in (0..length).step_by(side) {
                let from = from.wrapping_byte_offset(vector as isize * step).wrapping_add(element);
                // SAFETY: as the caller promised.
                unsafe {
                    let to = to.add(element * width + vector);
                    if side == 8 {
                        square_of_8(from.cast(), step, to.cast(), width);
                    } else {
                        square_of_4(from.cast(), step, to.cast(), width);
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx")]
    unsafe fn square_of_8(from: *const f32, step: isize, to: *mut f32, width: usize) {
        let row = |row: usize| from.wrapping_byte_offset(row as isize * step);
        for half in [0, 4] {
            // SAFETY: as the caller promised.
            let [a, b, c, d] = std::array::from_fn(|index| unsafe {
                let [near, far] = [row(index), row(index + 4)].map(|row| _mm_loadu_ps(row.add(half)));
                _mm256_set_m128(far, near)
            });
            let [low, high] = [_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)].map(|ab| _mm256_castps_pd(ab));
            let [low_, high_] = [_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d)].map(|cd| _mm256_castps_pd(cd));
            let columns = [
                _mm256_unpacklo_pd(low, low_),
                _mm256_unpackhi_pd(low, low_),
                _mm256_unpacklo_pd(high, high_),
                _mm256_unpackhi_pd(high, high_),
            ];
            for (index, column) in columns.into_iter().enumerate() {
                // SAFETY: as the caller promised.
                unsafe { _mm256_storeu_ps(to.add((half + index) * width), _mm256_castpd_ps(column)) };
            }
        }
    }

    #[target_feature(enable = "avx")]
    unsafe fn square_of_4(from: *const f64, step: isize, to: *mut f64, width: usize) {
        let row = |row: usize| from.wrapping_byte_offset(row as isize * step);
        for half in [0, 2] {
            // SAFETY: as the caller promised.
            let [a, b] = std::array::from_fn(|index| unsafe {
                let [near, far] = [row(index), row(index + 2)].map(|row| _mm_loadu_pd(row.add(half)));
                _mm256_set_m128d(far, near)
            });
            // SAFETY: as the caller promised.
            unsafe {
                _mm256_storeu_pd(to.add(half * width), _mm256_unpacklo_pd(a, b));
                _mm256_storeu_pd(to.add((half + 1) * width), _mm256_unpackhi_pd(a, b));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check<E: Copy + PartialEq + std::fmt::Debug>(sizes: [usize; 2], gaps: [usize; 2], value: impl Fn(usize) -> E) {
        let [vectors, length] = sizes;
        let (step, width) = (length + gaps[0], vectors + gaps[1]);
        let from: Vec<E> = (0..vectors * step + 1).map(&value).collect();
        let mut to = vec![value(usize::MAX); length * width];
        // SAFETY: both have as many elements as the sizes say.
        unsafe { to_columns(from[1..].as_ptr(), (step * size_of::<E>()) as isize, to.as_mut_ptr(), width, sizes) };
        for (element, row) in to.chunks(width.max(1)).enumerate() {
            for (vector, &found) in row.iter().enumerate() {
                let untouched = vector >= vectors;
                assert_eq!(found, if untouched { value(usize::MAX) } else { from[1 + vector * step + element] });
            }
        }
    }

    proptest! {
        #[test]
        fn vectors_become_columns_and_nothing_else_is_written(
            sizes in [0usize..40, 0usize..40],
            gaps in [0usize..5, 0usize..5],
        ) {
            check(sizes, gaps, |index| index as u16);
            check(sizes, gaps, |index| index as u32);
            check(sizes, gaps, |index| index as u64);
        }
    }
}
