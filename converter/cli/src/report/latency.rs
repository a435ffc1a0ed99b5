//! The latency section of the report: the time of an inference and of its operations.

use std::collections::BTreeMap;

use hardtack::measure::Measurement;

use super::plots;
use crate::output::escaped;
use crate::support::profile::Profile;
use crate::verbs::bench::ms;

/// The maximum number of operations in the list of the slowest.
const SLOWEST: usize = 12;

/// The measurements on this machine.
pub struct Latency {
    /// The latency of the whole model.
    pub measurement: Measurement,
    /// The time of each operation.
    pub profile: Profile,
}

impl Latency {
    /// Returns the median latency in milliseconds.
    pub fn median(&self) -> f64 {
        let times = &self.measurement.times;
        times.get(times.len() / 2).copied().map_or(0.0, ms)
    }

    /// Describes how the latency was measured.
    pub fn summary(&self) -> String {
        let Measurement { isa, threads, times, .. } = &self.measurement;
        let several = if *threads == 1 { "" } else { "s" };
        format!("median of {} inferences, {isa} on {threads} thread{several}", times.len())
    }

    /// Returns the time of each operation, by kind, and of the slowest operations.
    pub fn section(&self) -> anyhow::Result<String> {
        let operations = self.profile.operations();
        let times: Vec<f64> = operations.iter().map(|o| 1e3 * ms(o.duration)).collect();
        let total = times.iter().sum::<f64>().max(1e-9);
        let mut kinds = BTreeMap::<&str, (usize, f64)>::new();
        for (operation, time) in operations.iter().zip(&times) {
            let kind = kinds.entry(&operation.operator).or_default();
            *kind = (kind.0 + 1, kind.1 + time);
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
        let kinds = kinds
            .into_iter()
            .map(|(kind, (count, time))| (format!("{} × {count}", escaped(kind)), time));
        let mut slowest: Vec<_> = operations.iter().zip(times.iter().copied()).collect();
        slowest.sort_by(|a, b| b.1.total_cmp(&a.1));
        let slowest = slowest
            .into_iter()
            .take(SLOWEST)
            .map(|(operation, time)| (escaped(&operation.name), time));
        Ok(format!(
            "<p>{:.3} ms: {}. The operations were timed in separate inferences, with a total of \
             {:.3} ms.</p>\n\
             <div class=\"two\">\n<figure><figcaption>Each operation</figcaption>{}</figure>\n\
             <div><h3>By operator</h3>\n{}</div>\n</div>\n<h3>Slowest operations</h3>\n{}",
            self.median(),
            self.summary(),
            total / 1e3,
            plots::bars("time of each operation", ("operation, in execution order", "µs"), &times)?,
            meters(kinds, total),
            meters(slowest, total),
        ))
    }
}

/// Returns a bar for each time in microseconds, as a share of `total`. The names must be escaped.
fn meters(times: impl Iterator<Item = (String, f64)>, total: f64) -> String {
    let meter = |(name, time): (String, f64)| {
        let part = 100.0 * time / total;
        format!(
            "<div class=\"meter\"><span class=\"name\">{name}</span><span class=\"bar\"><i \
             class=\"main\" style=\"width:{part:.1}%\"></i></span><b>{:.3} ms</b><small>{part:.1} \
             %</small></div>\n",
            time / 1e3
        )
    };
    times.map(meter).collect()
}
