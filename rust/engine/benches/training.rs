//! Whole training steps, from gathering the rows to the update. `cargo bench --workspace --bench training`.

use burnish_engine::gradient::Method;
use burnish_engine::{Interrupt, Program};
use divan::Bencher;

mod batches;
mod networks;
mod sequences;

use batches::Training;
use networks::{Data, cnn, mlp, session};
use sequences::{lstm, transformer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs where the bindings run it: among the threads that share the work.
fn main() {
    rayon::scope(|_| divan::main());
}

fn bench(bencher: Bencher, program: Program, features: &[usize], classes: i64, batch_size: usize) {
    let mut training = Training::new(program, features, classes, batch_size);
    bencher.bench_local(|| training.step());
}

const WIDTHS: [&[usize]; 4] = [&[784, 128, 10], &[784, 112, 64, 10], &[64, 128, 10], &[24, 32, 6]];

/// The gradient of a network by central differences, batch 32.
#[divan::bench(args = [0, 1, 2, 3])]
fn central_differences(bencher: Bencher, network: usize) {
    let widths = WIDTHS[network];
    let data = Data::new(&[32, widths[0]], widths[widths.len() - 1] as i64);
    let mut session = session(mlp(widths));
    let inputs = data.inputs();
    bencher
        .bench_local(|| session.gradients(&inputs, Method::Numerical, None, &Interrupt::default()).expect("gradients"));
}

#[divan::bench(args = [128, 32])]
fn mlp_784_256_128_10(bencher: Bencher, batch_size: usize) {
    bench(bencher, mlp(&[784, 256, 128, 10]), &[784], 10, batch_size);
}

#[divan::bench]
fn mlp_30_64_64_2_batch_32(bencher: Bencher) {
    bench(bencher, mlp(&[30, 64, 64, 2]), &[30], 2, 32);
}

#[divan::bench]
fn cnn_batch_64(bencher: Bencher) {
    bench(bencher, cnn(), &[28, 28, 1], 10, 64);
}

#[divan::bench]
fn lstm_64_over_50_steps_batch_32(bencher: Bencher) {
    bench(bencher, lstm(), &[50, 16], 10, 32);
}

#[divan::bench]
fn transformer_128_over_64_positions_batch_8(bencher: Bencher) {
    bench(bencher, transformer(), &[64, 128], 10, 8);
}
