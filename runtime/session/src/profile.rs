//! Where the time of a run goes.

use std::time::{Duration, Instant};

use hardtack_engine::Observer;

/// The time that one operation of a run took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationTime {
    /// Name of the node it was made of; may be empty.
    pub name: String,
    /// What it does.
    pub operator: String,
    /// Time taken; of all samples together, where the run had several.
    pub duration: Duration,
    /// Products of a weight and an activation, where it is a layer of an integer program; of one
    /// sample.
    pub products: u64,
}

/// Measures the steps of an integer program, summed over its runs.
#[derive(Default)]
pub(crate) struct Stopwatch {
    started: Option<Instant>,
    times: Vec<Duration>,
}

impl Stopwatch {
    /// The time of each step. Steps that never ran are missing at the end.
    pub(crate) fn times(self) -> Vec<Duration> {
        self.times
    }
}

impl Observer for Stopwatch {
    fn before(&mut self, index: usize) {
        if self.times.len() <= index {
            self.times.resize(index + 1, Duration::ZERO);
        }
        self.started = Some(Instant::now());
    }

    fn after(&mut self, index: usize) {
        if let Some(started) = self.started.take() {
            self.times[index] += started.elapsed();
        }
    }
}
