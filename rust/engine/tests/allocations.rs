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
            // Zero activations are counted in steps 0, 16, ... of an epoch, for the record, which grows.
            first_step: 1,
            ..Chunk::new(BATCH_SIZE, &rates)
        };
        let before = ALLOCATIONS.load(Relaxed);
        session.train(&inputs, &chunk, &Interrupt::default()).expect("a chunk");
        ALLOCATIONS.load(Relaxed) - before
    };
    train();
    train()
}

/// How often a chunk that is ten steps longer asks more.
fn growth(program: fn() -> Program, shape: &[usize]) -> usize {
    let data = Data::new(shape, 10);
    let [few, many] = [5, 15].map(|steps| allocations(program(), &data, steps));
    many.saturating_sub(few)
}

/// Where several threads share the work, they may need memory at the same time that they did not before.
#[test]
fn a_steady_step_allocates_nothing() {
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| {
            let mlp = || growth(|| mlp(&[784, 256, 128, 10]), &[64, 784]);
            let cnn = || growth(cnn, &[64, 28, 28, 1]);
            let least = [(0..5).map(|_| mlp()).min(), (0..5).map(|_| cnn()).min()];
            let allowed = if threads == 1 { 0 } else { 9 };
            assert!(
                least.iter().flatten().all(|&more| more <= allowed),
                "{least:?} calls in 10 steps of {threads} threads"
            );
        });
    }
}
