//! Who looks on while a program runs.

use super::{Profiler, Sentry, Watch};

/// Those who look on in a run; nobody by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observers {
    /// Counts zero activations.
    pub watch: Option<Watch>,
    /// Looks for numbers that are not finite.
    pub sentry: Option<Sentry>,
    /// Times every operation.
    pub profiler: Option<Profiler>,
}
