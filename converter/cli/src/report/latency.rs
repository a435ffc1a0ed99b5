//! How long a bundle takes on this machine, and what of it.

use std::collections::BTreeMap;

use hardtack::measure::Measurement;

use super::plots;
use crate::bench::ms;
use crate::output::escaped;
use crate::profile::Profile;

/// Operations that are named.
const SLOWEST: usize = 12;

/// What was measured.
pub struct Latency {
    /// The whole model.
    pub measurement: Measurement,
    /// Its operations.
    pub profile: Profile,
}

impl Latency {
    /// The median of a run, in milliseconds.
    pub fn median(&self) -> f64 {
        let times = &self.measurement.times;
        times.get(times.len() / 2).copied().map_or(0.0, ms)
    }

    /// How it was measured.
    pub fn told(&self) -> String {
        let Measurement { isa, threads, times, .. } = &self.measurement;
        let several = if *threads == 1 { "" } else { "s" };
        format!("median of {} runs, {isa} on {threads} thread{several}", times.len())
    }

    /// By operation in the order they run, by kind, and the slowest.
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
            "<p>{:.3} ms: {}. The operations were timed one by one in runs of their own, where they \
             take {:.3} ms together.</p>\n\
             <div class=\"two\">\n<figure><figcaption>Each operation</figcaption>{}</figure>\n\
             <div><h3>By kind</h3>\n{}</div>\n</div>\n<h3>The slowest</h3>\n{}",
            self.median(),
            self.told(),
            total / 1e3,
            plots::bars(
                "time of each operation",
                ("operation, in the order they run", "µs"),
                &times
            )?,
            meters(kinds, total),
            meters(slowest, total),
        ))
    }
}

/// A bar for each, as a part of `total` microseconds; names are escaped already.
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
