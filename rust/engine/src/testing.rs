//! What the tests of several modules share.

use std::cell::Cell;

use crate::Tensor;
use crate::device::Room;
use crate::ops::Context;
use crate::random::{Purpose, Stream};
use crate::tensor::{Element, Real};
use crate::trainer::Observers;

/// Numbers between -1 and 1, the same for the same seed.
pub fn numbers(seed: u64, count: usize) -> Vec<f64> {
    let stream = Stream::new(seed, Purpose::Noise);
    (0..count as u64).map(|index| 2.0 * stream.uniform(index) - 1.0).collect()
}

/// [`numbers`] rounded to a type.
pub fn reals<E: Real>(seed: u64, count: usize) -> Vec<E> {
    numbers(seed, count).into_iter().map(E::from_f64).collect()
}

/// A tensor on the `cpu` device of [`numbers`].
pub fn tensor<E: Real>(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::from_vec(reals::<E>(seed, shape.iter().product()), shape)
}

/// The same values on the `ndarray` device.
pub fn on_ndarray<E: Element + bytemuck::Pod>(tensor: &Tensor) -> Tensor {
    let shape = tensor.shape();
    Tensor::from_values(tensor.clone().into_vec::<E>(), &shape, &crate::Device::ndarray())
}

/// Fails unless each pair differs by at most `tolerance`, relative to the larger of 1 and the expected number.
#[track_caller]
pub fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        let close = (a - b).abs() <= tolerance * b.abs().max(1.0) || a.to_bits() == b.to_bits();
        assert!(close, "element {index}: {a}, expected {b}");
    }
}

/// The same work among 1, 2 and 3 threads.
pub fn on_threads<T: Send>(work: impl Fn() -> T + Sync) -> [T; 3] {
    [1, 2, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(&work)
    })
}

thread_local! {
    static READS: Cell<usize> = const { Cell::new(0) };
    static WRITES: Cell<usize> = const { Cell::new(0) };
    static ROOM: Cell<Option<Room>> = const { Cell::new(None) };
    static WINDOW: Cell<Option<usize>> = const { Cell::new(None) };
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Has devices answer this thread no longer, or again.
pub fn set_silent(silent: bool) {
    SILENT.set(silent);
}

/// The steps of a window on this thread from now on: 0 has every step wait.
pub fn set_window(most: Option<usize>) {
    WINDOW.set(most);
}

/// The steps of a window, unless [`set_window`] says otherwise.
pub fn window(most: usize) -> usize {
    WINDOW.get().map_or(most, |window| window.min(most))
}

/// Counts what is copied from a device.
pub fn reading(tensor: &Tensor) {
    READS.set(READS.get() + usize::from(!tensor.is_cpu()));
    assert!(tensor.is_cpu() || !SILENT.get(), "the device does not answer");
}

/// How often this thread has waited for a device.
pub fn reads() -> usize {
    READS.get()
}

/// Counts what is copied to a device.
pub fn writing(elements: usize, device: &crate::Device) {
    WRITES.set(WRITES.get() + usize::from(!device.is_cpu() && elements > 1));
}

/// How often this thread has copied more than one number to a device.
pub fn writes() -> usize {
    WRITES.get()
}

/// What devices have room for on this thread from now on.
pub fn set_room(room: Option<Room>) {
    ROOM.set(room);
}

/// What devices have room for, unless [`set_room`] says otherwise.
pub fn room(found: Room) -> Room {
    ROOM.get().unwrap_or(found)
}

/// What an operation on `x` is evaluated in.
pub fn context(x: &Tensor) -> Context {
    let stream = Stream::new(0, Purpose::Noise);
    Context { device: x.device(), dtype: x.dtype(), half: None, stream, observers: Observers::default() }
}
