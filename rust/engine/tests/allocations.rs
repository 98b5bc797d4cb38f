//! A steady step asks the allocator for nothing: what one step leaves, the next one takes.

#[path = "../benches/networks/mod.rs"]
mod networks;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use burnish_engine::trainer::Chunk;
use burnish_engine::{Interrupt, Program};

use networks::{Data, cnn, mlp, session};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BATCH_SIZE: usize = 32;

/// How often a chunk of so many steps asks the allocator.
fn allocations(program: Program, data: &Data, steps: usize) -> usize {
    let mut session = session(program);
    let inputs = data.inputs();
    let order: Vec<i64> = (0..(steps * BATCH_SIZE) as i64).map(|row| row % 64).collect();
    let rates = vec![1e-3; steps];
    let mut train = || {
        let chunk = Chunk {
            order: Some(&order),
            batch_size: BATCH_SIZE,
            learning_rates: &rates,
            sample_weight: None,
            epoch: 0,
            // Zero activations are counted in steps 0, 16, ... of an epoch, for the record, which grows.
            first_step: 1,
            diagnose: false,
        };
        let before = ALLOCATIONS.load(Relaxed);
        session.train(&inputs, &chunk, &Interrupt::default()).expect("a chunk");
        ALLOCATIONS.load(Relaxed) - before
    };
    train();
    train()
}

/// A chunk that is ten steps longer asks no more often, but for memory that threads happened to need at the same time.
fn check(name: &str, program: fn() -> Program, shape: &[usize]) {
    let data = Data::new(shape, 10);
    let mut growth = (0..5).map(|_| {
        let [few, many] = [5, 15].map(|steps| allocations(program(), &data, steps));
        many.saturating_sub(few)
    });
    assert!(growth.any(|more| more == 0), "{name}: a step allocates");
}

#[test]
fn a_steady_step_allocates_nothing() {
    // As the bindings do: among the threads that share the work.
    rayon::scope(|_| {
        check("mlp", || mlp(&[784, 256, 128, 10]), &[64, 784]);
        check("cnn", cnn, &[64, 28, 28, 1]);
    });
}
