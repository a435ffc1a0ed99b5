//! The time of each operation of a model.

use std::collections::BTreeMap;
use std::time::Duration;

use hardtack::{OperationTime, Session, Tensor};
use serde_json::{Value, json};

use crate::output::table;
use crate::verbs::bench::ms;

/// The number of measured inferences.
const RUNS: usize = 15;
/// The maximum number of operations in the table of the slowest.
const SLOWEST: usize = 25;

/// The median time of each operation, in execution order.
pub struct Profile {
    operations: Vec<OperationTime>,
    /// The peak rate of this machine with the threads of the session, in 10⁹ multiply-accumulates
    /// per second (GMAC/s). `None` if no operation has weights, and for portable code.
    pub peak: Option<f64>,
}

impl Profile {
    /// Measures a session, and the peak rate of the machine directly afterwards.
    pub fn measure(
        session: &mut Session,
        inputs: &[(&str, &Tensor)],
        threads: usize,
    ) -> Result<Profile, hardtack::Error> {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            runs.push(session.run_profiled(inputs)?.1);
        }
        let mut operations = runs.remove(0);
        for (index, operation) in operations.iter_mut().enumerate() {
            let others = runs.iter().filter_map(|run| run.get(index)).map(|other| other.duration);
            let mut durations: Vec<Duration> = others.chain([operation.duration]).collect();
            durations.sort();
            operation.duration = durations[durations.len() / 2];
        }
        let has_layers = operations.iter().any(|operation| operation.macs > 0);
        let peak = if has_layers { session.measure_peak() } else { None };
        Ok(Profile { operations, peak: peak.map(|peak| peak * threads as f64 / 1e9) })
    }

    /// Returns the operations with their times, in execution order.
    pub fn operations(&self) -> &[OperationTime] {
        &self.operations
    }

    /// Returns the name, operator and time of each operation as JSON, and for a layer its rate in
    /// GMAC/s and the fraction of the peak rate.
    pub fn json(&self) -> Value {
        let operation = |operation: &OperationTime| {
            let rate = rate(operation.macs, operation.duration);
            json!({
                "name": operation.name,
                "operator": operation.operator,
                "ms": ms(operation.duration),
                "gmacs": rate,
                "of_peak": rate.zip(self.peak).map(|(rate, peak)| rate / peak),
            })
        };
        self.operations.iter().map(operation).collect()
    }

    /// Formats the times by kind, and the slowest operations.
    pub fn text(&self) -> String {
        let total: Duration = self.operations.iter().map(|operation| operation.duration).sum();
        let mut kinds = BTreeMap::<&str, (usize, Duration, u64)>::new();
        for operation in &self.operations {
            let kind = kinds.entry(&operation.operator).or_default();
            *kind = (kind.0 + 1, kind.1 + operation.duration, kind.2 + operation.macs);
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, (_, duration, _))| std::cmp::Reverse(*duration));
        let rows = kinds.iter().map(|(kind, (count, duration, macs))| {
            let [time, part, rate, of_peak] = self.figures(*duration, total, *macs);
            [kind.to_string(), count.to_string(), time, part, rate, of_peak]
        });
        let titles = ["kind", "count", "ms", "share", "GMAC/s", "of peak"];
        let mut text = format!("\n{}", table(titles, rows));
        let mut slowest: Vec<_> = self.operations.iter().collect();
        slowest.sort_by_key(|operation| std::cmp::Reverse(operation.duration));
        let rows = slowest.iter().take(SLOWEST).map(|operation| {
            let (duration, macs) = (operation.duration, operation.macs);
            let [time, part, rate, of_peak] = self.figures(duration, total, macs);
            [operation.name.clone(), operation.operator.clone(), time, part, rate, of_peak]
        });
        let titles = ["operation", "kind", "ms", "share", "GMAC/s", "of peak"];
        text += &format!("\n{}", table(titles, rows));
        if let Some(peak) = self.peak {
            text += &format!(
                "peak: {peak:.0} GMAC/s, measured in this process with operands in registers\n"
            );
        }
        text
    }

    /// Formats the time in ms, its share of the total, the rate in GMAC/s and its share of the
    /// peak.
    fn figures(&self, duration: Duration, total: Duration, macs: u64) -> [String; 4] {
        let part = 100.0 * duration.as_secs_f64() / total.as_secs_f64().max(1e-12);
        let rate = rate(macs, duration);
        let of_peak = rate.zip(self.peak).map(|(rate, peak)| 100.0 * rate / peak);
        [
            format!("{:.3}", ms(duration)),
            format!("{part:.1} %"),
            rate.map_or(String::new(), |rate| format!("{rate:.0}")),
            of_peak.map_or(String::new(), |of_peak| format!("{of_peak:.0} %")),
        ]
    }
}

/// Returns the rate in GMAC/s of an operation with multiply-accumulates.
fn rate(macs: u64, duration: Duration) -> Option<f64> {
    (macs > 0).then(|| macs as f64 / duration.as_secs_f64().max(1e-12) / 1e9)
}
