//! Whole training steps, from gathering the rows to the update. `cargo bench -p burnish-engine --bench training`.

mod networks;

use burnish_engine::gradient::Method;
use burnish_engine::trainer::Chunk;
use burnish_engine::{Interrupt, Program};
use divan::Bencher;

use networks::{Data, cnn, mlp, session};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs where the bindings run it: among the threads that share the work.
fn main() {
    rayon::scope(|_| divan::main());
}

const ROWS: usize = 1024;

fn bench(bencher: Bencher, program: Program, data: &Data, batch_size: usize) {
    let mut session = session(program);
    let inputs = data.inputs();
    let order: Vec<i64> = (0..batch_size as i64).map(|row| row * 5 % ROWS as i64).collect();
    bencher.bench_local(|| {
        let chunk = Chunk {
            order: Some(&order),
            batch_size,
            learning_rates: &[1e-3],
            sample_weight: None,
            epoch: 0,
            first_step: 0,
            diagnose: false,
        };
        session.train(&inputs, &chunk, &Interrupt::default()).expect("a step")
    });
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
    bench(bencher, mlp(&[784, 256, 128, 10]), &Data::new(&[ROWS, 784], 10), batch_size);
}

#[divan::bench]
fn mlp_30_64_64_2_batch_32(bencher: Bencher) {
    bench(bencher, mlp(&[30, 64, 64, 2]), &Data::new(&[ROWS, 30], 2), 32);
}

#[divan::bench]
fn cnn_batch_64(bencher: Bencher) {
    bench(bencher, cnn(), &Data::new(&[ROWS, 28, 28, 1], 10), 64);
}
