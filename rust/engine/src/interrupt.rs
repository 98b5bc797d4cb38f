//! How a caller stops long work between two operations.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Asks the caller now and then whether to stop.
pub struct Interrupt<'a> {
    stop: &'a dyn Fn() -> bool,
    asked: Cell<Instant>,
}

/// Time between two questions: answers come well within a second, and asking costs nothing measurable.
const INTERVAL: Duration = Duration::from_millis(50);

impl<'a> Interrupt<'a> {
    /// Asks `stop`.
    pub fn new(stop: &'a dyn Fn() -> bool) -> Self {
        Self { stop, asked: Cell::new(Instant::now()) }
    }

    /// An [`Error::Interrupted`] if the caller wants to stop.
    pub fn check(&self) -> Result<()> {
        if self.asked.get().elapsed() < INTERVAL {
            return Ok(());
        }
        let stop = (self.stop)();
        self.asked.set(Instant::now());
        if stop { Err(Error::Interrupted) } else { Ok(()) }
    }
}

impl Default for Interrupt<'_> {
    /// Never stops.
    fn default() -> Self {
        Self::new(&|| false)
    }
}

impl std::fmt::Debug for Interrupt<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Interrupt")
    }
}
