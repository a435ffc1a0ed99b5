//! A measurement against an earlier one: whether it is slower by more than chance explains.

use std::path::Path;

use anyhow::{Context as _, bail};
use hardtack_converter::spec;
use serde_json::{Value, json};

/// How many times the noise of both a difference may be.
const NOISES: f64 = 3.0;

/// What an earlier measurement says.
pub struct Baseline {
    file: String,
    measured: Value,
}

/// Reads a file that `--save` or `--json` wrote.
pub fn read(path: &Path) -> anyhow::Result<Baseline> {
    let file = path.display().to_string();
    let text = spec::read_text(path).with_context(|| format!("{file}: cannot be read"))?;
    let measured: Value = serde_json::from_str(&text)
        .ok()
        .filter(|value: &Value| value["latency_ms"]["p50"].is_f64())
        .with_context(|| {
            format!("{file}: is no measurement; write one with `hardtack bench --save`")
        })?;
    Ok(Baseline { file, measured })
}

/// How a measurement stands to its baseline.
pub struct Verdict {
    /// Medians, in milliseconds.
    before: f64,
    after: f64,
    /// What the median may grow by, as a part of the baseline's.
    allowed: f64,
    /// What was asked for.
    threshold: f64,
    /// How far medians of the same thing are apart in both.
    noise: f64,
}

impl Verdict {
    /// Compares; `threshold`: what the median may grow by in any case, as a part.
    ///
    /// # Errors
    /// Where the two were measured with other kernels or threads, or on another machine.
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
                    "{file}: was measured with another {what} ({old}, and now {new}), so it tells \
                     nothing; keep a baseline for each"
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

    /// How much slower it is, as a part.
    fn growth(&self) -> f64 {
        self.after / self.before - 1.0
    }

    /// Whether it is as fast as before, or faster.
    pub fn holds(&self) -> bool {
        self.growth() <= self.allowed
    }

    /// For people.
    pub fn sentence(&self) -> String {
        let Verdict { before, after, allowed, noise, threshold } = self;
        let growth = self.growth();
        let how = if growth < 0.0 { "faster than" } else { "slower than" };
        let advice = if allowed > threshold {
            "; the noise allows more than was asked for: free the machine of other work, or measure \
             more --runs"
        } else {
            ""
        };
        format!(
            "{after:.3} ms is {:.1} % {how} the baseline's {before:.3} ms; {:.1} % slower is \
             allowed (noise {:.1} %){advice}",
            100.0 * growth.abs(),
            100.0 * allowed,
            100.0 * noise
        )
    }

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
    fn what_is_within_the_threshold_or_the_noise_holds() {
        assert!(verdict(measured(10.0, 0.0), measured(10.4, 0.0)).unwrap().holds());
        let slower = verdict(measured(10.0, 0.0), measured(11.0, 0.01)).unwrap();
        assert!(!slower.holds());
        assert_eq!(
            slower.sentence(),
            "11.000 ms is 10.0 % slower than the baseline's 10.000 ms; 5.0 % slower is allowed \
             (noise 1.0 %)"
        );
        // Noise of 4 % each allows 17 %.
        assert!(verdict(measured(10.0, 0.04), measured(11.5, 0.04)).unwrap().holds());
        let faster = verdict(measured(10.0, 0.0), measured(8.0, 0.0)).unwrap();
        assert!(faster.holds() && faster.sentence().contains("20.0 % faster"));
    }

    #[test]
    fn what_cannot_be_compared_is_told() {
        let mut other = measured(10.0, 0.0);
        other["isa"] = json!("neondot");
        let error = verdict(measured(10.0, 0.0), other).err().unwrap().to_string();
        assert!(
            error.starts_with("base.json: was measured with another instruction set"),
            "{error}"
        );
        // A baseline that knows no machine is taken.
        let mut older = measured(10.0, 0.0);
        older["machine"] = Value::Null;
        assert!(verdict(older, measured(10.0, 0.0)).is_ok());
    }
}
