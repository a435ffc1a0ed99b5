//! Compares a measurement with an earlier one: is it slower by more than the noise explains?

use std::path::Path;

use anyhow::{Context as _, bail};
use hardtack_converter::spec;
use serde_json::{Value, json};

/// The multiple of the combined noise by which the median may always grow.
const NOISES: f64 = 3.0;

/// An earlier measurement.
pub struct Baseline {
    /// The path of its file.
    file: String,
    measured: Value,
}

/// Reads a measurement that `--save` or `--json` wrote.
///
/// # Errors
/// If the file cannot be read or is not a measurement.
pub fn read(path: &Path) -> anyhow::Result<Baseline> {
    let file = path.display().to_string();
    let text = spec::read_text(path).with_context(|| format!("{file}: cannot be read"))?;
    let measured: Value = serde_json::from_str(&text)
        .ok()
        .filter(|value: &Value| value["latency_ms"]["p50"].is_f64())
        .with_context(|| {
            format!("{file}: is not a measurement; write one with `hardtack bench --save`")
        })?;
    Ok(Baseline { file, measured })
}

/// The comparison of a measurement with its baseline.
pub struct Verdict {
    /// The median of the baseline, in milliseconds.
    before: f64,
    /// The median of the measurement, in milliseconds.
    after: f64,
    /// The maximum growth of the median, as a fraction of the baseline's median.
    allowed: f64,
    /// The growth that `--threshold` allows, as a fraction.
    threshold: f64,
    /// The combined noise of both measurements, as a fraction.
    noise: f64,
}

impl Verdict {
    /// Compares a measurement with a baseline. The median may grow by `threshold`, a fraction, or
    /// by three times the noise if that is more.
    ///
    /// # Errors
    /// If the two differ in instruction set, number of threads or machine.
    pub fn of(baseline: &Baseline, measured: &Value, threshold: f64) -> anyhow::Result<Verdict> {
        let Baseline { file, measured: before } = baseline;
        for (what, pointer) in [
            ("instruction set", "/isa"),
            ("number of threads", "/threads"),
            ("machine", "/machine/model"),
        ] {
            let [old, new] = [before, measured].map(|value| value.pointer(pointer));
            if let (Some(old), Some(new)) = (old, new)
                && old != new
                && !old.is_null()
            {
                bail!(
                    "{file}: was measured with another {what} ({old}, and now {new}) and cannot be \
                     compared; keep a separate baseline for each"
                );
            }
        }
        let number = |value: &Value, pointer| value.pointer(pointer).and_then(Value::as_f64);
        let median = |value| number(value, "/latency_ms/p50").unwrap_or(f64::NAN);
        let noise = |value| number(value, "/noise").unwrap_or(0.0);
        let noise = noise(before).hypot(noise(measured));
        let allowed = threshold.max(NOISES * noise);
        Ok(Verdict { before: median(before), after: median(measured), allowed, threshold, noise })
    }

    /// Returns the growth of the median as a fraction; negative if it is faster.
    fn growth(&self) -> f64 {
        self.after / self.before - 1.0
    }

    /// Returns whether the median grew by no more than is allowed.
    pub fn holds(&self) -> bool {
        self.growth() <= self.allowed
    }

    /// Formats the comparison as one sentence.
    pub fn sentence(&self) -> String {
        let Verdict { before, after, allowed, noise, threshold } = self;
        let growth = self.growth();
        let how = if growth < 0.0 { "faster than" } else { "slower than" };
        let advice = if allowed > threshold {
            "; this is more than --threshold because of the noise: stop other work on the machine, \
             or measure more --runs"
        } else {
            ""
        };
        format!(
            "{after:.3} ms is {:.1} % {how} the baseline of {before:.3} ms; up to {:.1} % slower is \
             allowed (noise {:.1} %){advice}",
            100.0 * growth.abs(),
            100.0 * allowed,
            100.0 * noise
        )
    }

    /// Returns the comparison as JSON.
    pub fn json(&self) -> Value {
        json!({
            "p50_ms": self.before, "growth": self.growth(), "allowed": self.allowed,
            "noise": self.noise, "holds": self.holds(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(p50: f64, noise: f64) -> Value {
        json!({ "latency_ms": { "p50": p50 }, "noise": noise, "isa": "neon", "threads": 1,
                "machine": { "model": "a board" } })
    }

    fn verdict(before: Value, after: Value) -> anyhow::Result<Verdict> {
        Verdict::of(&Baseline { file: "base.json".into(), measured: before }, &after, 0.05)
    }

    #[test]
    fn growth_within_the_threshold_or_the_noise_passes() {
        assert!(verdict(measured(10.0, 0.0), measured(10.4, 0.0)).unwrap().holds());
        let slower = verdict(measured(10.0, 0.0), measured(11.0, 0.01)).unwrap();
        assert!(!slower.holds());
        assert_eq!(
            slower.sentence(),
            "11.000 ms is 10.0 % slower than the baseline of 10.000 ms; up to 5.0 % slower is \
             allowed (noise 1.0 %)"
        );
        // Noise of 4 % each allows 17 %.
        assert!(verdict(measured(10.0, 0.04), measured(11.5, 0.04)).unwrap().holds());
        let faster = verdict(measured(10.0, 0.0), measured(8.0, 0.0)).unwrap();
        assert!(faster.holds() && faster.sentence().contains("20.0 % faster"));
    }

    #[test]
    fn measurements_of_different_setups_are_not_compared() {
        let mut other = measured(10.0, 0.0);
        other["isa"] = json!("neondot");
        let error = verdict(measured(10.0, 0.0), other).err().unwrap().to_string();
        assert!(
            error.starts_with("base.json: was measured with another instruction set"),
            "{error}"
        );
        // A baseline without a machine is accepted.
        let mut older = measured(10.0, 0.0);
        older["machine"] = Value::Null;
        assert!(verdict(older, measured(10.0, 0.0)).is_ok());
    }
}
