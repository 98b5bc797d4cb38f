//! Half precision on the `cpu` device: a way to store numbers, converted by whole slices.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::{DType, Element, Tensor};
use crate::cpu;
use crate::memory::Block;

/// A 16-bit type.
trait Half: Element + bytemuck::Pod + Send + Sync {
    /// Rounds to the nearest, ties to even; what is too large becomes infinite.
    fn narrow(from: &[f32], to: &mut [Self]);
    /// Exact.
    fn widen(from: &[Self], to: &mut [f32]);
}

impl Half for f16 {
    // The crate looks for the processor's own conversion.
    fn narrow(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
    fn widen(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }
}

impl Half for bf16 {
    fn narrow(from: &[f32], to: &mut [Self]) {
        cpu::vectorised!({
            for (to, &from) in to.iter_mut().zip(from) {
                *to = Self::from_f32(from);
            }
        });
    }
    fn widen(from: &[Self], to: &mut [f32]) {
        cpu::vectorised!({
            for (to, &from) in to.iter_mut().zip(from) {
                *to = from.to_f32();
            }
        });
    }
}

/// The same values in another type, if both are on the `cpu` device, one of 16 and one of 32 bits.
pub(super) fn convert(tensor: &Tensor, to: DType) -> Option<Tensor> {
    if !tensor.is_cpu() {
        return None;
    }
    match (tensor.dtype(), to) {
        (DType::F32, DType::F16) => Some(mapped(tensor, f16::narrow)),
        (DType::F32, DType::BF16) => Some(mapped(tensor, bf16::narrow)),
        (DType::F16, DType::F32) => Some(mapped(tensor, f16::widen)),
        (DType::BF16, DType::F32) => Some(mapped(tensor, bf16::widen)),
        _ => None,
    }
}

fn mapped<A, B>(tensor: &Tensor, convert: fn(&[A], &mut [B])) -> Tensor
where
    A: Element + bytemuck::Pod + Sync,
    B: Element + bytemuck::Pod + Send,
{
    let contiguous = tensor.clone().contiguous::<A>();
    let values = contiguous.elements::<A>();
    let mut out = Block::<B>::uninitialised(values.len());
    cpu::for_pieces(&mut out, |offset, piece| convert(&values[offset..][..piece.len()], piece));
    Tensor::from_block(out, &tensor.shape())
}

impl Tensor {
    /// Whether it is of 16 bits on the `cpu` device, where hardly a kernel computes in these.
    pub(crate) fn is_narrow_cpu(&self) -> bool {
        self.is_cpu() && self.dtype().is_half()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{numbers, on_threads};

    const CORNERS: [f32; 12] = [
        0.0,
        -0.0,
        65504.0,
        65519.996,
        65520.0,
        -1e30,
        f32::INFINITY,
        f32::NAN,
        6e-8,
        2.9e-8,
        1.000_488_3,
        1.003_906_3,
    ];

    /// One element at a time, as the crate documents it.
    fn expected(value: f32, to: DType) -> f32 {
        if to == DType::F16 { f16::from_f32(value).to_f32() } else { bf16::from_f32(value).to_f32() }
    }

    fn check(values: &[f32]) {
        for to in [DType::F16, DType::BF16] {
            let rounded = Tensor::from_vec(values.to_vec(), &[values.len()]).cast(to);
            assert_eq!(rounded.dtype(), to);
            let back = rounded.cast(DType::F32).into_vec::<f32>();
            for (&value, back) in values.iter().zip(back) {
                let expected = expected(value, to);
                assert!(back.to_bits() == expected.to_bits() || back.is_nan() && expected.is_nan(), "{value}: {back}");
            }
        }
    }

    #[test]
    fn slices_are_rounded_like_single_numbers() {
        check(&CORNERS);
        check(&numbers(3, 100_003).into_iter().map(|value| (value * 30.0).exp2() as f32).collect::<Vec<f32>>());
    }

    proptest! {
        #[test]
        fn any_bits_are_rounded_like_single_numbers(bits in prop::collection::vec(any::<u32>(), 1..40)) {
            check(&bits.into_iter().map(f32::from_bits).collect::<Vec<f32>>());
        }
    }

    #[test]
    fn views_are_converted_and_moved() {
        let x = Tensor::from_vec((0..6u8).map(f32::from).collect(), &[2, 3]);
        for dtype in [DType::F16, DType::BF16] {
            let narrow = x.clone().transpose().cast(dtype);
            assert_eq!(narrow.shape(), [3, 2]);
            assert_eq!(narrow.to_f64(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
            let back = narrow.clone().transpose().flip(&[1]).cast(DType::F32);
            assert_eq!(back.to_f64(), [2.0, 1.0, 0.0, 5.0, 4.0, 3.0]);
            let part = narrow.clone().slice(&[0, 1], &[3, 2], &[2, 1]);
            assert_eq!(part.to_f64(), [3.0, 5.0]);
            let placed = Tensor::full(&[3, 2], 0.0, dtype, &x.device()).slice_assign(&[0, 1], &[3, 2], &[2, 1], part);
            assert_eq!(placed.to_f64(), [0.0, 3.0, 0.0, 0.0, 0.0, 5.0]);
            assert_eq!(Tensor::concatenate(vec![narrow.clone(), narrow], 1).shape(), [3, 4]);
            assert_eq!(Tensor::from_vec(vec![2.5f32], &[]).cast(dtype).cast(DType::F32).scalar(), 2.5);
        }
    }

    #[test]
    fn sums_of_narrow_tensors_are_rounded_once() {
        let a = Tensor::from_vec(vec![1.0f32, 2048.0], &[2]).cast(DType::F16);
        let b = Tensor::from_vec(vec![0.5f32, 3.0], &[2]).cast(DType::F16);
        let sum = b.added_to(Some(a));
        assert_eq!((sum.dtype(), sum.to_f64()), (DType::F16, vec![1.5, 2052.0]));
    }

    #[test]
    fn threads_make_no_difference() {
        let x = Tensor::from_vec(numbers(4, 200_001).into_iter().map(|value| value as f32).collect(), &[200_001]);
        let [one, two, three] = on_threads(|| x.clone().cast(DType::BF16).to_f64());
        assert!(one == two && two == three);
    }
}
