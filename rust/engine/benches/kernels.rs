//! The kernels of one step against what the machine can do: every optimizer's update against a plain copy, and matrix products.
//!
//! `cargo bench --workspace --bench kernels`; throughput is in the last column, the table of updates comes at the end.
//! `… -- --update NAME ELEMENTS` times one update a line read, for benches/optimizer_step.py.

use std::io::BufRead;
use std::time::{Duration, Instant};

use burnish_engine::optimizer::{Rule, Step, Target, defaults, rule};
use burnish_engine::program::Role;
use burnish_engine::{DType, Device, Tensor};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rayon::prelude::*;

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

/// An optimizer at work on one parameter.
struct Update {
    rule: Box<dyn Rule>,
    target: Target,
    parameter: Tensor,
    gradient: Tensor,
    state: Vec<Tensor>,
    step: Step,
}

impl Update {
    /// `shape` decides what rules that look at matrices do.
    fn new(name: &str, shape: Vec<usize>) -> Self {
        // Plain SGD keeps nothing: its momentum is what is worth measuring.
        let numbers = if name == "sgd" { serde_json::json!({"momentum": 0.9}) } else { serde_json::json!({}) };
        let rule = rule(name, numbers).expect("a known optimizer");
        let target = Target { shape, role: Role::Kernel, hidden: true };
        let filled = |shape: &[usize], value: f64| Tensor::full(shape, value, DType::F32, &Device::cpu());
        Self {
            state: rule.state(&target).iter().map(|slot| filled(&slot.shape, 0.0)).collect(),
            parameter: filled(&target.shape, 0.5),
            gradient: filled(&target.shape, 0.01),
            rule,
            target,
            step: Step { number: 0, learning_rate: 1e-3, weight_decay: 0.0, gradient_scale: 1.0 },
        }
    }

    fn run(&mut self) -> Duration {
        self.step.number += 1;
        let gradient = self.gradient.clone();
        let start = Instant::now();
        black_box(self.rule.update(&self.target, &mut self.parameter, gradient, &mut self.state, &self.step));
        start.elapsed()
    }

    /// Bytes that any such update has to move: parameter and state in and out, the gradient in.
    fn bytes(&self) -> usize {
        let states: usize = self.state.iter().map(Tensor::len).sum();
        size_of::<f32>() * (3 * self.parameter.len() + 2 * states)
    }
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

/// Two lengths of the same product, as near to each other as thousands allow.
fn matrix(elements: usize) -> Vec<usize> {
    let rows = (1..=elements.isqrt()).rev().find(|rows| elements.is_multiple_of(*rows)).expect("1 divides");
    vec![rows, elements / rows]
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Prints what part of a copy's bytes per second every optimizer moves, as a Markdown table.
fn shares(elements: usize) {
    println!("\n| {elements} parameters | ms | bytes per parameter | GB/s | share of a copy |\n|---|---|---|---|---|");
    for name in defaults().keys().copied().filter(|name| *name != "lbfgs") {
        let shape = if matches!(name, "adafactor" | "muon") { matrix(elements) } else { vec![elements] };
        let (mut update, mut copy) = (Update::new(name, shape), Copy::new(elements));
        update.run();
        copy.run();
        let rate = |bytes: usize, time: Duration| bytes as f64 / time.as_secs_f64() / 1e9;
        let rounds: Vec<[f64; 2]> =
            (0..ROUNDS).map(|_| [rate(copy.bytes(), copy.run()), rate(update.bytes(), update.run())]).collect();
        let moved = median(rounds.iter().map(|[_, mine]| *mine).collect());
        let share = median(rounds.iter().map(|[copy, mine]| mine / copy).collect());
        println!(
            "| {name} | {:.3} | {:.1} | {moved:.1} | {:.0} % |",
            update.bytes() as f64 / moved / 1e6,
            update.bytes() as f64 / elements as f64,
            100.0 * share
        );
    }
}

/// Answers every line with the seconds of one update.
fn serve(name: &str, elements: usize) {
    let mut update = Update::new(name, vec![elements]);
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
