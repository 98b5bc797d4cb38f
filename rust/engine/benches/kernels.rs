//! The kernels of one step against what the machine can do: every optimizer's update against a plain copy, and matrix products.
//!
//! `cargo bench --workspace --bench kernels`; throughput is in the last column, the table of updates comes at the end.
//! `… -- --update NAME ELEMENTS` times one update a line read, for benches/optimizer_step.py.

use std::io::BufRead;
use std::time::{Duration, Instant};

use burnish_engine::optimizer::defaults;
use burnish_engine::{DType, Device, Tensor};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rayon::prelude::*;

mod update;

use update::Update;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|argument| argument == "--update") {
        return serve(&arguments[place + 1], arguments[place + 2].parse().expect("a number of elements"));
    }
    divan::main();
    // What `cargo test` and filters ask for is no measurement of everything.
    if arguments[1..].iter().all(|argument| argument == "--bench") {
        SIZES.into_iter().for_each(shares);
    }
}

const SIZES: [usize; 2] = [235_146, 10_000_000];

/// Rounds in which everything is timed once, in turn.
const ROUNDS: usize = 15;

/// Bytes that an update has to move at least: parameter and state in and out, the gradient in.
fn bytes(update: &Update) -> usize {
    let states: usize = update.state.iter().map(Tensor::len).sum();
    size_of::<f32>() * (3 * update.parameter.len() + 2 * states)
}

/// The yardstick: bytes copied from one place to another on all threads, half of them read, half written.
struct Copy {
    from: Vec<f32>,
    to: Vec<f32>,
}

impl Copy {
    /// As many bytes as Adam moves.
    fn new(elements: usize) -> Self {
        let floats = elements * 7 / 2;
        Self { from: vec![1.0; floats], to: vec![0.0; floats] }
    }

    fn run(&mut self) -> Duration {
        let start = Instant::now();
        let piece = self.from.len().div_ceil(rayon::current_num_threads());
        let pieces = self.to.par_chunks_mut(piece).zip(self.from.par_chunks(piece));
        pieces.for_each(|(to, from)| to.copy_from_slice(from));
        black_box(&self.to);
        start.elapsed()
    }

    fn bytes(&self) -> usize {
        2 * size_of::<f32>() * self.from.len()
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Prints what part of a copy's bytes per second every optimizer moves, as a Markdown table.
fn shares(elements: usize) {
    println!("\n| {elements} parameters | ms | bytes per parameter | GB/s | share of a copy |\n|---|---|---|---|---|");
    for name in defaults().keys().copied().filter(|name| *name != "lbfgs") {
        let (mut update, mut copy) = (Update::new(name, elements), Copy::new(elements));
        update.run();
        copy.run();
        let rate = |bytes: usize, time: Duration| bytes as f64 / time.as_secs_f64() / 1e9;
        let rounds: Vec<[f64; 2]> =
            (0..ROUNDS).map(|_| [rate(copy.bytes(), copy.run()), rate(bytes(&update), update.run())]).collect();
        let moved = median(rounds.iter().map(|[_, mine]| *mine).collect());
        let share = median(rounds.iter().map(|[copy, mine]| mine / copy).collect());
        println!(
            "| {name} | {:.3} | {:.1} | {moved:.1} | {:.0} % |",
            bytes(&update) as f64 / moved / 1e6,
            bytes(&update) as f64 / elements as f64,
            100.0 * share
        );
    }
}

/// Answers every line with the seconds of one update.
fn serve(name: &str, elements: usize) {
    let mut update = Update::new(name, elements);
    for _ in std::io::stdin().lock().lines() {
        println!("{}", update.run().as_secs_f64());
    }
}

/// Products of the MLP's sizes: `[rows, inner] · [inner, columns]`; items are multiply-adds.
#[divan::bench(args = [[128, 784, 256], [32, 784, 256], [784, 128, 256], [512, 512, 512]])]
fn matmul(bencher: Bencher, [rows, inner, columns]: [usize; 3]) {
    let a = Tensor::full(&[rows, inner], 0.5, DType::F32, &Device::cpu());
    let b = Tensor::full(&[inner, columns], 0.5, DType::F32, &Device::cpu());
    bencher.counter(ItemsCount::new(rows * inner * columns)).bench_local(|| black_box(a.clone().matmul(b.clone())));
}
