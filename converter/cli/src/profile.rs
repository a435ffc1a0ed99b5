//! Where the time of a model goes, operation by operation.

use std::collections::BTreeMap;
use std::time::Duration;

use hardtack::{OperationTime, Session, Tensor};
use serde_json::{Value, json};

use crate::bench::ms;
use crate::output::table;

/// Runs that are measured.
const RUNS: usize = 15;
/// Operations that are named.
const SLOWEST: usize = 25;

/// The median time of each operation, in the order they run.
pub struct Profile {
    operations: Vec<OperationTime>,
    /// 10⁹ products of weights and activations that this machine can do in a second, with as
    /// many threads.
    pub peak: Option<f64>,
}

impl Profile {
    /// Measures a session, and in the same run what the machine can do.
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
        let has_layers = operations.iter().any(|operation| operation.products > 0);
        let peak = if has_layers { session.measure_peak() } else { None };
        Ok(Profile { operations, peak: peak.map(|peak| peak * threads as f64 / 1e9) })
    }

    /// The operations with their times, in the order they run.
    pub fn operations(&self) -> &[OperationTime] {
        &self.operations
    }

    /// Of each operation its name, operator, time, and of a layer the 10⁹ products in a second
    /// and which part of the peak they are.
    pub fn json(&self) -> Value {
        let operation = |operation: &OperationTime| {
            let rate = rate(operation.products, operation.duration);
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

    /// By kind, and the slowest operations.
    pub fn text(&self) -> String {
        let total: Duration = self.operations.iter().map(|operation| operation.duration).sum();
        let mut kinds = BTreeMap::<&str, (usize, Duration, u64)>::new();
        for operation in &self.operations {
            let kind = kinds.entry(&operation.operator).or_default();
            *kind = (kind.0 + 1, kind.1 + operation.duration, kind.2 + operation.products);
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, (_, duration, _))| std::cmp::Reverse(*duration));
        let rows = kinds.iter().map(|(kind, (count, duration, products))| {
            let [time, part, rate, of_peak] = self.figures(*duration, total, *products);
            [kind.to_string(), count.to_string(), time, part, rate, of_peak]
        });
        let titles = ["kind", "count", "ms", "part", "GMAC/s", "of peak"];
        let mut text = format!("\n{}", table(titles, rows));
        let mut slowest: Vec<_> = self.operations.iter().collect();
        slowest.sort_by_key(|operation| std::cmp::Reverse(operation.duration));
        let rows = slowest.iter().take(SLOWEST).map(|operation| {
            let (duration, products) = (operation.duration, operation.products);
            let [time, part, rate, of_peak] = self.figures(duration, total, products);
            [operation.name.clone(), operation.operator.clone(), time, part, rate, of_peak]
        });
        let titles = ["operation", "kind", "ms", "part", "GMAC/s", "of peak"];
        text += &format!("\n{}", table(titles, rows));
        if let Some(peak) = self.peak {
            text += &format!("the peak is {peak:.0} GMAC/s, measured in this run in registers\n");
        }
        text
    }

    /// Time, part of all, rate and part of the peak, as they are shown.
    fn figures(&self, duration: Duration, total: Duration, products: u64) -> [String; 4] {
        let part = 100.0 * duration.as_secs_f64() / total.as_secs_f64().max(1e-12);
        let rate = rate(products, duration);
        let of_peak = rate.zip(self.peak).map(|(rate, peak)| 100.0 * rate / peak);
        [
            format!("{:.3}", ms(duration)),
            format!("{part:.1} %"),
            rate.map_or(String::new(), |rate| format!("{rate:.0}")),
            of_peak.map_or(String::new(), |of_peak| format!("{of_peak:.0} %")),
        ]
    }
}

/// 10⁹ products in a second, of an operation that has some.
fn rate(products: u64, duration: Duration) -> Option<f64> {
    (products > 0).then(|| products as f64 / duration.as_secs_f64().max(1e-12) / 1e9)
}
