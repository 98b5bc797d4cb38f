//! Arrays that the caller lends: rows are gathered and converted, never the whole.

use burn_backend::Element;
use bytemuck::Pod;
use half::f16;
use rayon::prelude::*;

use super::offsets::{Offsets, unravel};
use crate::memory::Block;
use crate::program::{Kind, show, show_lengths};
use crate::tensor::{DType, Lengths, Tensor};
use crate::{Device, Error, Result, cpu};

/// The element types of lent arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
}

impl Format {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }
}

/// An array in memory that somebody else owns.
///
/// Elements are read one by one through raw pointers and never borrowed: if the owner writes meanwhile, values are
/// undefined but memory stays safe.
#[derive(Clone, Debug)]
pub struct ArrayView {
    pointer: *const u8,
    format: Format,
    swapped: bool,
    shape: Vec<usize>,
    strides: Vec<isize>,
}

/// Where an array lies and how it is read: what tells it from others while it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    address: usize,
    format: Format,
    swapped: bool,
    shape: Vec<usize>,
    strides: Vec<isize>,
}

// SAFETY: the view only reads, and whoever makes one keeps the memory mapped while it lives (see `ArrayView::new`).
unsafe impl Send for ArrayView {}
// SAFETY: as above.
unsafe impl Sync for ArrayView {}

impl ArrayView {
    /// A view of memory: `strides` in bytes, `swapped` if the byte order is not this machine's.
    ///
    /// # Safety
    /// Every element that `shape` and `strides` reach must stay readable while the view lives.
    pub unsafe fn new(
        pointer: *const u8,
        format: Format,
        swapped: bool,
        shape: Vec<usize>,
        strides: Vec<isize>,
    ) -> Self {
        assert_eq!(shape.len(), strides.len());
        Self { pointer, format, swapped, shape, strides }
    }

    /// The lengths of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The length of axis 0.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Where it lies.
    pub(super) fn place(&self) -> Place {
        let Self { format, swapped, .. } = *self;
        let (shape, strides) = (self.shape.clone(), self.strides.clone());
        Place { address: self.pointer.addr(), format, swapped, shape, strides }
    }

    /// Whether it lies there.
    pub(super) fn is_at(&self, place: &Place) -> bool {
        (self.pointer.addr(), self.format, self.swapped) == (place.address, place.format, place.swapped)
            && self.shape == place.shape
            && self.strides == place.strides
    }

    /// All elements as 64-bit numbers, in row-major order.
    pub fn to_f64(&self) -> Vec<f64> {
        let offsets = Offsets::new(&self.shape, &self.strides);
        self.convert::<f64>(&[0], &offsets).to_vec()
    }

    /// Rows as a tensor of the type that a program's input of this kind has.
    pub fn gather(&self, rows: &[i64], kind: Kind, dtype: DType, device: &Device) -> Tensor {
        let mut shape = Lengths::from(self.shape.as_slice());
        shape[0] = rows.len();
        let starts = Block::collect(rows.iter().map(|&row| row as isize * self.strides[0]));
        let inner = Offsets::new(&self.shape[1..], &self.strides[1..]);
        match (kind, dtype) {
            (Kind::Int, _) => Tensor::placed(self.convert::<i32>(&starts, &inner), &shape, device),
            (Kind::Bool, _) => {
                let values = self.convert::<f64>(&starts, &inner);
                let truth = values.iter().map(|&value| i32::from(value != 0.0));
                Tensor::from_elements(truth, &shape, device).cast(DType::Bool)
            }
            (Kind::Float, DType::F64) => Tensor::placed(self.convert::<f64>(&starts, &inner), &shape, device),
            (Kind::Float, _) => Tensor::placed(self.convert::<f32>(&starts, &inner), &shape, device).cast(dtype),
        }
    }

    /// The whole array as a tensor: float64, float32 (16 bits too), int32 or bool.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        let offsets = Offsets::new(&self.shape, &self.strides);
        let start = [0];
        Ok(match self.format {
            Format::F64 => Tensor::placed(self.convert::<f64>(&start, &offsets), &self.shape, device),
            Format::F16 | Format::F32 => Tensor::placed(self.convert::<f32>(&start, &offsets), &self.shape, device),
            Format::Bool => {
                let values = self.convert::<i32>(&start, &offsets);
                Tensor::placed(values, &self.shape, device).cast(DType::Bool)
            }
            _ => {
                let values = self.convert::<i64>(&start, &offsets);
                let values: std::result::Result<Vec<i32>, _> = values.iter().map(|&value| value.try_into()).collect();
                let values = values.map_err(|_| Error::value("integers must fit 32 bits"))?;
                Tensor::from_values(values, &self.shape, device)
            }
        })
    }

    /// The index of the first NaN or infinity.
    pub fn first_not_finite(&self) -> Option<Vec<usize>> {
        if !matches!(self.format, Format::F16 | Format::F32 | Format::F64) || self.shape.contains(&0) {
            return None;
        }
        let (row_step, inner_shape, inner_strides) = match self.strides.split_first() {
            Some((&step, inner)) => (step, &self.shape[1..], inner),
            None => (0, &[][..], &[][..]),
        };
        let inner = Offsets::new(inner_shape, inner_strides);
        let bad_row = (0..self.rows()).into_par_iter().by_exponential_blocks().find_first(|&row| {
            let start = row as isize * row_step;
            // A sum of zeros is not finite if and only if one number was not.
            !self.read_fold(start, &inner).is_finite()
        })?;
        let values = self.convert::<f64>(&[bad_row as isize * row_step], &inner);
        let place = values.iter().position(|value| !value.is_finite())?;
        let mut index = unravel(place, inner_shape);
        if !self.shape.is_empty() {
            index.insert(0, bad_row);
        }
        Some(index)
    }

    /// The first row whose label is not a whole number in `0..classes`, with the label.
    pub fn first_bad_label(&self, classes: usize) -> Option<(usize, f64)> {
        let values = self.to_f64();
        let place =
            values.iter().position(|&label| !(label >= 0.0 && label < classes as f64 && label.fract() == 0.0))?;
        let row_length = values.len() / self.rows().max(1);
        Some((place / row_length.max(1), values[place]))
    }

    fn read_fold(&self, start: isize, inner: &Offsets) -> f64 {
        macro_rules! sum {
            ($type:ty) => {
                self.fold(start, inner, 0.0, |sum, bytes| sum + <$type>::from_ne_bytes(bytes) as f64 * 0.0)
            };
        }
        match self.format {
            Format::F32 => sum!(f32),
            Format::F64 => sum!(f64),
            Format::F16 => self.fold(start, inner, 0.0, |sum, bytes| sum + f16::from_ne_bytes(bytes).to_f64() * 0.0),
            _ => 0.0,
        }
    }

    fn fold<const N: usize>(
        &self,
        start: isize,
        inner: &Offsets,
        first: f64,
        add: impl Fn(f64, [u8; N]) -> f64,
    ) -> f64 {
        let mut sum = first;
        inner.for_each(start, |offset| sum = add(sum, self.bytes::<N>(offset)));
        sum
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: isize) -> [u8; N] {
        debug_assert_eq!(N, self.format.size());
        // SAFETY: offsets come from this view's shape and strides, which `new` requires to be readable.
        let mut bytes = unsafe { self.pointer.offset(offset).cast::<[u8; N]>().read_unaligned() };
        if self.swapped {
            bytes.reverse();
        }
        bytes
    }

    /// Rows converted to `T`; integers out of its range become its extremes.
    fn convert<T: From64>(&self, starts: &[isize], inner: &Offsets) -> Block<T> {
        let mut out = Block::uninitialised(starts.len() * inner.len());
        macro_rules! rows {
            ($type:ty, $make:expr) => {{
                const SIZE: usize = size_of::<$type>();
                if !self.swapped && T::dtype() == <$type as Element>::dtype() && inner.is_contiguous(SIZE) {
                    // SAFETY: `T` is the array's own type, and a row is one run of readable bytes.
                    unsafe { self.copy_rows(starts, inner.len(), &mut out) };
                } else {
                    for (row, &start) in out.chunks_exact_mut(inner.len().max(1)).zip(starts) {
                        let mut row = row.iter_mut();
                        inner.for_each(start, |offset| {
                            let to = row.next().expect("a place for each element");
                            *to = $make(<$type>::from_ne_bytes(self.bytes::<SIZE>(offset)));
                        });
                    }
                }
            }};
        }
        match self.format {
            Format::F16 => rows!(f16, |value: f16| T::from_float(value.to_f64())),
            Format::F32 => rows!(f32, |value: f32| T::from_float(f64::from(value))),
            Format::F64 => rows!(f64, |value| T::from_float(value)),
            Format::I8 => rows!(i8, |value: i8| T::from_int(value.into())),
            Format::I16 => rows!(i16, |value: i16| T::from_int(value.into())),
            Format::I32 => rows!(i32, |value: i32| T::from_int(value.into())),
            Format::I64 => rows!(i64, |value: i64| T::from_int(value.into())),
            Format::U8 | Format::Bool => rows!(u8, |value: u8| T::from_int(value.into())),
            Format::U16 => rows!(u16, |value: u16| T::from_int(value.into())),
            Format::U32 => rows!(u32, |value: u32| T::from_int(value.into())),
            Format::U64 => rows!(u64, |value: u64| T::from_int(value.into())),
        }
        out
    }

    /// # Safety
    /// `T` must be the array's own type, and each row one run of `length` elements.
    unsafe fn copy_rows<T: Copy + Send>(&self, starts: &[isize], length: usize, out: &mut [T]) {
        let count = starts.len() * length;
        let rows = if count < cpu::PARALLEL_ELEMENTS {
            starts.len()
        } else {
            starts.len().div_ceil(rayon::current_num_threads())
        };
        let (rows, length) = (rows.max(1), length.max(1));
        out.par_chunks_mut(rows * length).zip(starts.par_chunks(rows)).for_each(|(room, starts)| {
            for (to, &start) in room.chunks_exact_mut(length).zip(starts) {
                // SAFETY: the caller's promise; byte copies need no alignment of the source.
                unsafe {
                    let to = to.as_mut_ptr().cast::<u8>();
                    self.pointer.offset(start).copy_to_nonoverlapping(to, length * size_of::<T>());
                }
            }
        });
    }
}

/// A number that arrays are converted to.
trait From64: Element + Pod {
    fn from_float(value: f64) -> Self;
    fn from_int(value: i128) -> Self;
}

macro_rules! from_64 {
    ($($float:ty),*; $($int:ty),*) => {
        $(impl From64 for $float {
            #[inline(always)]
            fn from_float(value: f64) -> Self { value as Self }
            #[inline(always)]
            fn from_int(value: i128) -> Self { value as Self }
        })*
        $(impl From64 for $int {
            #[inline(always)]
            fn from_float(value: f64) -> Self { value as Self }
            #[inline(always)]
            fn from_int(value: i128) -> Self { value.clamp(Self::MIN.into(), Self::MAX.into()) as Self }
        })*
    };
}

from_64!(f32, f64; i32, i64);

/// Refuses an array that does not fit an input of a program.
pub(crate) fn expect_shape(name: &str, view: &ArrayView, expected: &[crate::program::Dim]) -> Result<()> {
    let fits = view.shape.len() == expected.len()
        && view.shape.iter().zip(expected).skip(1).all(|(&got, dim)| dim.resolve(1) == got);
    if fits {
        return Ok(());
    }
    Err(Error::value(format!("{name}: expected shape {}, got {}", show(expected), show_lengths(&view.shape))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::numbers;

    const FORMATS: [Format; 12] = [
        Format::F16,
        Format::F32,
        Format::F64,
        Format::I8,
        Format::I16,
        Format::I32,
        Format::I64,
        Format::U8,
        Format::U16,
        Format::U32,
        Format::U64,
        Format::Bool,
    ];

    /// A number that the format holds exactly, from one in -1 to 1.
    fn exact(format: Format, number: f64) -> f64 {
        match format {
            Format::F16 | Format::F32 | Format::F64 => (number * 100.0).round() / 4.0,
            Format::I8 | Format::I16 | Format::I32 | Format::I64 => (number * 100.0).round(),
            Format::U8 | Format::U16 | Format::U32 | Format::U64 => (number.abs() * 100.0).round(),
            Format::Bool => f64::from(u8::from(number > 0.0)),
        }
    }

    fn encode(format: Format, value: f64, swapped: bool) -> Vec<u8> {
        let mut bytes = match format {
            Format::F16 => f16::from_f64(value).to_ne_bytes().to_vec(),
            Format::F32 => (value as f32).to_ne_bytes().to_vec(),
            Format::F64 => value.to_ne_bytes().to_vec(),
            Format::I8 => (value as i8).to_ne_bytes().to_vec(),
            Format::I16 => (value as i16).to_ne_bytes().to_vec(),
            Format::I32 => (value as i32).to_ne_bytes().to_vec(),
            Format::I64 => (value as i64).to_ne_bytes().to_vec(),
            Format::U8 | Format::Bool => vec![value as u8],
            Format::U16 => (value as u16).to_ne_bytes().to_vec(),
            Format::U32 => (value as u32).to_ne_bytes().to_vec(),
            Format::U64 => (value as u64).to_ne_bytes().to_vec(),
        };
        if swapped {
            bytes.reverse();
        }
        bytes
    }

    /// Memory, a view of it, and what the view shows, in row-major order.
    struct Sample {
        memory: Vec<u8>,
        view: ArrayView,
        values: Vec<f64>,
    }

    /// How an axis runs through memory: by whole lengths (C or Fortran order), backwards, by every second, or not at all.
    #[derive(Clone, Copy, Debug)]
    enum Way {
        Forwards,
        Backwards,
        EverySecond,
        Repeated,
    }

    impl Way {
        fn step(self) -> isize {
            match self {
                Self::Forwards => 1,
                Self::Backwards => -1,
                Self::EverySecond => 2,
                Self::Repeated => 0,
            }
        }
    }

    impl Sample {
        fn new(seed: u64, format: Format, swapped: bool, axes: &[(usize, Way)], fortran: bool) -> Self {
            let stored: Vec<usize> = axes
                .iter()
                .map(|&(length, way)| match way {
                    Way::EverySecond => 2 * length,
                    Way::Repeated => 1,
                    _ => length,
                })
                .collect();
            let mut steps = vec![0isize; axes.len()];
            let mut next = 1;
            let mut give = |axis: usize| {
                steps[axis] = next as isize;
                next *= stored[axis];
            };
            if fortran {
                (0..axes.len()).for_each(&mut give)
            } else {
                (0..axes.len()).rev().for_each(&mut give)
            }
            let elements: Vec<f64> = numbers(seed, next).into_iter().map(|number| exact(format, number)).collect();
            // One byte before, so that nothing is aligned.
            let mut memory = vec![0];
            memory.extend(elements.iter().flat_map(|&value| encode(format, value, swapped)));
            let start: isize = (axes.iter().zip(&steps))
                .map(|(&(length, way), step)| if way.step() < 0 { (length as isize - 1) * step } else { 0 })
                .sum();
            let steps: Vec<isize> = axes.iter().zip(&steps).map(|(&(_, way), step)| way.step() * step).collect();
            let shape: Vec<usize> = axes.iter().map(|&(length, _)| length).collect();
            let values = (0..shape.iter().product())
                .map(|place| {
                    let index = unravel(place, &shape);
                    let offset: isize = index.iter().zip(&steps).map(|(&index, step)| index as isize * step).sum();
                    elements[(start + offset) as usize]
                })
                .collect();
            let strides = steps.iter().map(|step| step * format.size() as isize).collect();
            let pointer = memory[1 + start as usize * format.size()..].as_ptr();
            // SAFETY: the memory moves into the sample beside the view, its bytes stay where they are.
            let view = unsafe { ArrayView::new(pointer, format, swapped, shape, strides) };
            Self { memory, view, values }
        }
    }

    fn axes() -> impl Strategy<Value = Vec<(usize, Way)>> {
        let way = prop_oneof![Just(Way::Forwards), Just(Way::Backwards), Just(Way::EverySecond), Just(Way::Repeated)];
        prop::collection::vec((1usize..5, way), 1..4)
    }

    fn truncated(value: f64) -> f64 {
        value.trunc()
    }

    proptest! {
        #[test]
        fn gather_reads_what_strides_say(
            seed: u64,
            format in prop::sample::select(&FORMATS[..]),
            swapped: bool,
            fortran: bool,
            axes in axes(),
            picks in prop::collection::vec(0usize..100, 0..6),
        ) {
            let sample = Sample::new(seed, format, swapped, &axes, fortran);
            prop_assert!(!sample.memory.is_empty());
            prop_assert_eq!(&sample.view.to_f64(), &sample.values);
            let rows: Vec<i64> = picks.iter().map(|pick| (pick % axes[0].0) as i64).collect();
            let length = sample.values.len() / axes[0].0;
            let expected: Vec<f64> =
                rows.iter().flat_map(|&row| sample.values[row as usize * length..][..length].to_vec()).collect();
            let mut shape = sample.view.shape().to_vec();
            shape[0] = rows.len();
            for device in [Device::cpu(), Device::ndarray()] {
                let gather = |kind, dtype| {
                    let tensor = sample.view.gather(&rows, kind, dtype, &device);
                    assert_eq!(tensor.shape(), shape);
                    (tensor.dtype(), tensor.to_f64())
                };
                prop_assert_eq!(gather(Kind::Float, DType::F32), (DType::F32, expected.clone()));
                prop_assert_eq!(gather(Kind::Float, DType::F64), (DType::F64, expected.clone()));
                let whole = expected.iter().copied().map(truncated).collect();
                prop_assert_eq!(gather(Kind::Int, DType::F32), (DType::I32, whole));
                let truth = expected.iter().map(|&value| f64::from(u8::from(value != 0.0))).collect();
                prop_assert_eq!(gather(Kind::Bool, DType::F32), (DType::Bool, truth));
            }
            let tensor = sample.view.to_tensor(&Device::cpu()).expect("small numbers");
            prop_assert_eq!(tensor.to_f64(), sample.values);
        }

        #[test]
        fn the_first_number_that_is_not_finite_is_found(
            seed: u64,
            format in prop::sample::select(&[Format::F16, Format::F32, Format::F64][..]),
            swapped: bool,
            shape in prop::collection::vec(1usize..7, 0..4),
            holes in prop::collection::vec((0usize..400, 0usize..3), 0..4),
        ) {
            let count: usize = shape.iter().product();
            let mut values: Vec<f64> = numbers(seed, count).into_iter().map(|number| exact(format, number)).collect();
            for (place, what) in holes {
                values[place % count] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][what];
            }
            let memory: Vec<u8> = values.iter().flat_map(|&value| encode(format, value, swapped)).collect();
            let mut strides = vec![format.size() as isize; shape.len()];
            for axis in (1..shape.len()).rev() {
                strides[axis - 1] = strides[axis] * shape[axis] as isize;
            }
            // SAFETY: the memory outlives the view.
            let view = unsafe { ArrayView::new(memory.as_ptr(), format, swapped, shape.clone(), strides) };
            let expected = values.iter().position(|value| !value.is_finite()).map(|place| unravel(place, &shape));
            prop_assert_eq!(view.first_not_finite(), expected);
        }

        #[test]
        fn the_first_label_outside_its_classes_is_found(
            labels in prop::collection::vec(prop_oneof![
                8 => (0u8..5).prop_map(f64::from),
                1 => prop::sample::select(&[-1.0, 5.0, 0.5, f64::NAN, f64::INFINITY, -0.0][..]),
            ], 2..24),
            width in 1usize..3,
        ) {
            let rows = labels.len() / width;
            let labels = &labels[..rows * width];
            // SAFETY: the labels outlive the view.
            let view = unsafe {
                let strides = vec![8 * width as isize, 8];
                ArrayView::new(labels.as_ptr().cast(), Format::F64, false, vec![rows, width], strides)
            };
            let good = [0.0, 1.0, 2.0, 3.0, 4.0];
            let expected = labels.iter().position(|label| !good.contains(label)).map(|place| place / width);
            prop_assert_eq!(view.first_bad_label(5).map(|(row, _)| row), expected);
        }
    }

    #[test]
    fn integers_out_of_range_become_extremes_or_are_refused() {
        let numbers = [i64::MIN, -1, i64::MAX];
        // SAFETY: the numbers outlive the view.
        let view = unsafe { ArrayView::new(numbers.as_ptr().cast(), Format::I64, false, vec![3], vec![8]) };
        let gathered = view.gather(&[0, 1, 2], Kind::Int, DType::F32, &Device::cpu()).to_f64();
        assert_eq!(gathered, [f64::from(i32::MIN), -1.0, f64::from(i32::MAX)]);
        assert!(matches!(view.to_tensor(&Device::cpu()), Err(Error::Value(_))));
    }

    #[test]
    fn arrays_without_elements_have_nothing_wrong() {
        let nothing: [f64; 0] = [];
        // SAFETY: no element is reached.
        let view = unsafe { ArrayView::new(nothing.as_ptr().cast(), Format::F64, false, vec![0, 3], vec![24, 8]) };
        assert_eq!((view.first_not_finite(), view.first_bad_label(2)), (None, None));
        assert_eq!(view.gather(&[], Kind::Float, DType::F32, &Device::cpu()).shape(), [0, 3]);
    }
}
