//! Training on one batch again and again, for the benches.

use burnish_engine::trainer::{Chunk, Inputs};
use burnish_engine::{Interrupt, Program, Session};

use crate::networks::{Data, session};

/// Rows to choose a batch from.
const ROWS: usize = 1024;

/// A network and its batch.
pub struct Training {
    session: Session,
    // Before the data that it looks at, so that it is dropped first.
    inputs: Inputs,
    _data: Data,
    order: Vec<i64>,
}

impl Training {
    /// Rows have the shape `features`.
    pub fn new(program: Program, features: &[usize], classes: i64, batch_size: usize) -> Self {
        let data = Data::new(&[&[ROWS], features].concat(), classes);
        let order = (0..batch_size as i64).map(|row| row * 5 % ROWS as i64).collect();
        Self { session: session(program), inputs: data.inputs(), _data: data, order }
    }

    /// From gathering the rows to the update.
    pub fn step(&mut self) {
        let chunk = Chunk { order: Some(&self.order), ..Chunk::new(self.order.len(), &[1e-3]) };
        self.session.train(&self.inputs, &chunk, &Interrupt::default()).expect("a step");
    }
}
