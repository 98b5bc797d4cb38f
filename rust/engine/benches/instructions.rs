//! Work whose instructions `benches/instructions.py` has counted. `… --bench instructions` runs and names all of it, in
//! the order in which it is counted.

use std::hint::black_box;

use burnish_engine::optimizer::defaults;

mod batches;
mod networks;
mod sequences;
mod update;

use batches::Training;
use networks::{cnn, mlp};
use sequences::{lstm, transformer};
use update::Update;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As the bindings run it, but on one thread: how two share work is never twice the same.
fn main() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build_global();
    pool.expect("no threads yet");
    rayon::scope(|_| all());
}

fn all() {
    let step = |name, program, features: &[usize], classes, batch_size| {
        let mut training = Training::new(program, features, classes, batch_size);
        report(&format!("training step: {name}"), &mut || training.step());
    };
    // Batches are small because callgrind takes hundreds of times as long.
    step("MLP 784-256-128-10, batch 32", mlp(&[784, 256, 128, 10]), &[784], 10, 32);
    step("MLP 30-64-64-2, batch 32", mlp(&[30, 64, 64, 2]), &[30], 2, 32);
    step("CNN 28 x 28, batch 4", cnn(), &[28, 28, 1], 10, 4);
    step("LSTM 64 over 50 steps, batch 4", lstm(), &[50, 16], 10, 4);
    step("transformer 128 over 64 positions, batch 1", transformer(), &[64, 128], 10, 1);
    for name in defaults().keys().filter(|name| **name != "lbfgs") {
        let mut update = Update::new(name, 1 << 14);
        report(&format!("update of 16,384 parameters: {name}"), &mut || {
            update.run();
        });
    }
}

/// Says what was counted; the first time, something is set up.
fn report(name: &str, work: &mut dyn FnMut()) {
    work();
    counted(work);
    println!("{name}");
}

/// The instructions that are executed in here are those that count.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    black_box(work)();
}
