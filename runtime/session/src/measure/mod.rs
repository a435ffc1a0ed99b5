//! Measures how fast a bundle runs on this machine, called as a fast application calls it.
//!
//! ```
//! use std::time::Instant;
//!
//! use hardtack::measure::Subject;
//! use hardtack::{Bundle, SessionOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
//! # std::env::set_current_dir(folder)?;
//! let began = Instant::now();
//! let bundle = Bundle::open("kws_dscnn.tack")?;
//! let mut subject = Subject::new(&bundle, SessionOptions::default(), began)?;
//! let measurement = subject.measure(Some(20))?;
//! println!("{:.3} ms with {}", measurement.percentile_ms(0.5), measurement.isa);
//! assert_eq!(measurement.times.len(), 20);
//! # Ok(())
//! # }
//! ```

mod json;
mod machine;

use std::time::{Duration, Instant};

use hardtack_kernels::Isa;

pub use machine::Machine;

use crate::state::zeros;
use crate::{Bundle, Error, Extent, Session, SessionOptions, Tensor, View, ViewMut, golden};

/// How long to run before measuring, so that the system spreads the threads over its cores.
const WARM_UP: Duration = Duration::from_millis(200);
/// How long to measure if the number of inferences is not given.
const MEASURED: Duration = Duration::from_secs(2);
/// The minimum number of measured inferences.
const LEAST: usize = 5;
/// The number of parts whose medians are compared to estimate the noise.
const PARTS: usize = 8;

/// A session that ran once, with the inputs to measure it with.
pub struct Subject {
    /// The session.
    pub session: Session,
    /// Names and inputs: those of the first test vector, or zeros.
    pub inputs: Vec<(String, Tensor)>,
    /// The time from the start until the session was ready.
    pub load: Duration,
    /// The time from the start to the first outputs, without preparing the inputs.
    pub first_result: Duration,
    /// The memory that outputs are written to; `None` if each inference allocates its outputs.
    outputs: Option<Vec<(String, Tensor)>>,
}

impl Subject {
    /// Loads a bundle and runs it once. `began` is the time when opening the bundle started.
    ///
    /// # Errors
    /// Returns an error if the bundle does not load or run, or if its test vectors are malformed.
    pub fn new(bundle: &Bundle, options: SessionOptions, began: Instant) -> Result<Self, Error> {
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

    /// Measures `runs` inferences, or as many as fit into two seconds (at least 5). Runs the model
    /// for 0.2 seconds first to warm up.
    ///
    /// # Errors
    /// Returns an error if an inference fails.
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

/// The result of a measurement.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The times of the inferences, in ascending order.
    pub times: Vec<Duration>,
    /// The spread of the medians of eight consecutive parts: half the difference of the largest and
    /// the smallest, relative to the median of all times.
    pub noise: f64,
    /// The time from the start until the session was ready.
    pub load: Duration,
    /// The time from the start to the first outputs.
    pub first_result: Duration,
    /// The peak memory of this process in bytes, if the system reports it.
    pub peak_memory: Option<u64>,
    /// The size of the arena in bytes.
    pub arena_bytes: usize,
    /// The instruction set of the kernels.
    pub isa: Isa,
    /// The number of threads.
    pub threads: usize,
    /// Whether weights are used directly from the bundle.
    pub in_place: bool,
    /// Whether the model is fully integer.
    pub integer: bool,
    /// The machine before the measured inferences.
    pub before: Machine,
    /// The machine after the measured inferences.
    pub after: Machine,
}

impl Measurement {
    /// Returns the percentile `part` (0 to 1) of the times, in milliseconds.
    pub fn percentile_ms(&self, part: f64) -> f64 {
        percentile(&self.times, part).as_secs_f64() * 1e3
    }
}

/// Returns half the spread of the medians of [`PARTS`] parts, relative to the median of all times.
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

/// Returns the percentile `part` (0 to 1) of sorted times; 0 if there are none.
fn percentile(times: &[Duration], part: f64) -> Duration {
    let last = times.len().saturating_sub(1) as f64;
    times.get((last * part).round() as usize).copied().unwrap_or_default()
}

/// Returns the peak memory of this process in bytes, if the system reports it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Returns the inputs of the first test vector, or zeros.
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
        let value = port.default.clone().map_or_else(|| zeros(port, &shape), Ok)?;
        Ok((port.name.clone(), value))
    });
    zeros.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_half_the_spread_of_the_medians_of_eighths() {
        let steady = [Duration::from_millis(10); 80];
        assert_eq!(noise(&steady), 0.0);
        // One slow inference in a part does not change its median.
        let mut spiked = steady;
        spiked[3] *= 9;
        assert_eq!(noise(&spiked), 0.0);
        let mut drifting = steady;
        drifting[70..].fill(Duration::from_millis(12));
        assert!((noise(&drifting) - 0.1).abs() < 1e-9);
        assert_eq!(noise(&steady[..3]), 0.0);
    }

    #[test]
    fn percentiles_of_sorted_times() {
        let times: Vec<Duration> = (0..=10).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 0.0), Duration::ZERO);
        assert_eq!(percentile(&times, 0.5), Duration::from_millis(5));
        assert_eq!(percentile(&times, 0.9), Duration::from_millis(9));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }
}
