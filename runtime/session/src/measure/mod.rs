//! How fast a bundle runs on this machine, measured as an application runs it that cares for speed.

mod json;
mod machine;

use std::time::{Duration, Instant};

use hardtack_kernels::Isa;

pub use machine::Machine;

use crate::state::zeros;
use crate::{Bundle, Error, Extent, Options, Session, Tensor, View, ViewMut, golden};

/// How long to run before measuring: until the system has spread the threads over its cores.
const WARM_UP: Duration = Duration::from_millis(200);
/// How long to measure where the number of runs is not given.
const MEASURED: Duration = Duration::from_secs(2);
/// Runs that are measured at least.
const LEAST: usize = 5;
/// Parts that the runs are cut into to tell how far their medians differ.
const PARTS: usize = 8;

/// A session that ran once, with the inputs to measure it with.
pub struct Subject {
    /// The session.
    pub session: Session,
    /// Names and inputs: those of the first golden vector, or zeros.
    pub inputs: Vec<(String, Tensor)>,
    /// Time from the beginning to a session.
    pub load: Duration,
    /// Time from the beginning to the first outputs, without the making of inputs.
    pub first_result: Duration,
    /// Where outputs go; `None` where they are made anew at each run.
    outputs: Option<Vec<(String, Tensor)>>,
}

impl Subject {
    /// Loads a bundle and runs it once. `began`: when opening the bundle began.
    ///
    /// # Errors
    /// Where it does not load or run, or its golden vectors are malformed.
    pub fn new(bundle: &Bundle, options: Options, began: Instant) -> Result<Self, Error> {
        let mut session = Session::with_options(bundle, options)?;
        let load = began.elapsed();
        let inputs = inputs(bundle, &session)?;
        let first = Instant::now();
        let outputs = session.run(&golden::named(&inputs))?;
        let first_result = load + first.elapsed();
        let owned = outputs.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone()));
        let outputs = session.is_integer().then(|| owned.collect());
        Ok(Self { session, inputs, load, first_result, outputs })
    }

    /// Measures so many runs, or as many as fit into two seconds. Runs for a fifth of a second
    /// before.
    ///
    /// # Errors
    /// Where a run fails.
    pub fn measure(&mut self, runs: Option<usize>) -> Result<Measurement, Error> {
        let began = Instant::now();
        while began.elapsed() < WARM_UP {
            self.run()?;
        }
        let before = Machine::now();
        let mut times = Vec::new();
        let began = Instant::now();
        while match runs {
            Some(runs) => times.len() < runs,
            None => times.len() < LEAST || began.elapsed() < MEASURED,
        } {
            let run = Instant::now();
            self.run()?;
            times.push(run.elapsed());
        }
        let after = Machine::now();
        let noise = noise(&times);
        times.sort();
        Ok(Measurement {
            times,
            noise,
            load: self.load,
            first_result: self.first_result,
            peak_memory: peak_memory(),
            arena_bytes: self.session.arena_bytes(),
            isa: self.session.isa(),
            threads: self.session.threads(),
            in_place: self.session.is_in_place(),
            integer: self.session.is_integer(),
            before,
            after,
        })
    }

    fn run(&mut self) -> Result<(), Error> {
        let Some(outputs) = &mut self.outputs else {
            return self.session.run(&golden::named(&self.inputs)).map(drop);
        };
        let inputs: Vec<_> = self
            .inputs
            .iter()
            .filter_map(|(name, tensor)| Some((name.as_str(), View::of(tensor)?)))
            .collect();
        let mut outputs: Vec<_> = outputs
            .iter_mut()
            .filter_map(|(name, tensor)| Some((name.as_str(), ViewMut::of(tensor)?)))
            .collect();
        self.session.run_into(&inputs, &mut outputs)
    }
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The times of the runs, sorted.
    pub times: Vec<Duration>,
    /// How far the medians of eighths of the runs are from each other, as a part of the median of
    /// all: half of what is between the greatest and the least.
    pub noise: f64,
    /// Time from the beginning to a session.
    pub load: Duration,
    /// Time from the beginning to the first outputs.
    pub first_result: Duration,
    /// The most memory this process ever had, in bytes, where the system tells.
    pub peak_memory: Option<u64>,
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// The kernels.
    pub isa: Isa,
    /// Threads.
    pub threads: usize,
    /// Whether weights are used where they lie in the bundle.
    pub in_place: bool,
    /// Whether the model is in integers throughout.
    pub integer: bool,
    /// The machine before the runs.
    pub before: Machine,
    /// The machine after them.
    pub after: Machine,
}

impl Measurement {
    /// The time below which this part of the runs lies, in milliseconds.
    pub fn percentile_ms(&self, part: f64) -> f64 {
        percentile(&self.times, part).as_secs_f64() * 1e3
    }
}

/// How far the medians of parts of some times are from each other.
fn noise(times: &[Duration]) -> f64 {
    let median = |times: &[Duration]| {
        let mut sorted = times.to_vec();
        sorted.sort();
        percentile(&sorted, 0.5).as_secs_f64()
    };
    if times.len() < PARTS {
        return 0.0;
    }
    let medians: Vec<f64> = times.chunks_exact(times.len() / PARTS).map(median).collect();
    let least = medians.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = medians.iter().copied().fold(0.0, f64::max);
    (greatest - least) / 2.0 / median(times).max(f64::MIN_POSITIVE)
}

/// The time below which this part of sorted times lies; 0 of none.
fn percentile(times: &[Duration], part: f64) -> Duration {
    let last = times.len().saturating_sub(1) as f64;
    times.get((last * part).round() as usize).copied().unwrap_or_default()
}

/// The most memory this process ever had, in bytes, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The inputs of the first golden vector, or zeros.
fn inputs(bundle: &Bundle, session: &Session) -> Result<Vec<(String, Tensor)>, Error> {
    if let Some(vectors) = bundle.golden()?
        && let Some(case) = vectors.cases().next()
    {
        golden::check_generated(&vectors)?;
        return golden::inputs(&case);
    }
    let zeros = session.inputs().iter().map(|port| {
        let size = |extent: &Extent| match extent {
            Extent::Fixed(size) => *size,
            Extent::Named(_) => 1,
        };
        let shape: Vec<usize> = port.shape.iter().map(size).collect();
        Ok((port.name.clone(), zeros(port, &shape)?))
    });
    zeros.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_how_far_eighths_are_apart() {
        let steady = [Duration::from_millis(10); 80];
        assert_eq!(noise(&steady), 0.0);
        // One slow run in a part does not move its median.
        let mut spiked = steady;
        spiked[3] *= 9;
        assert_eq!(noise(&spiked), 0.0);
        let mut drifting = steady;
        drifting[70..].fill(Duration::from_millis(12));
        assert!((noise(&drifting) - 0.1).abs() < 1e-9);
        assert_eq!(noise(&steady[..3]), 0.0);
    }

    #[test]
    fn percentiles_are_of_sorted_times() {
        let times: Vec<Duration> = (0..=10).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 0.0), Duration::ZERO);
        assert_eq!(percentile(&times, 0.5), Duration::from_millis(5));
        assert_eq!(percentile(&times, 0.9), Duration::from_millis(9));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }
}
