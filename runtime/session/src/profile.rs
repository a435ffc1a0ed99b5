//! The time that each operation of an inference takes.

use std::time::{Duration, Instant};

use hardtack_engine::Observer;

/// The time of one operation of an inference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationTime {
    /// The name of the node that the operation implements; may be empty.
    pub name: String,
    /// The operator or the kind of step.
    pub operator: String,
    /// The time taken. If the inference ran several samples, the sum over all of them.
    pub duration: Duration,
    /// The number of multiply-accumulates for one sample, if this is a layer of an integer program;
    /// otherwise 0.
    pub macs: u64,
}

/// Measures the steps of an integer program, summed over the samples of a batch.
#[derive(Default)]
pub(crate) struct Stopwatch {
    started: Option<Instant>,
    times: Vec<Duration>,
}

impl Stopwatch {
    /// Returns the time of each step. Trailing steps that never ran are missing.
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
