//! Quality gates: limits that a bundle must pass to be written.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use hardtack::measure::Subject;
use hardtack_converter::{Report, spec};
use serde::Deserialize;
use serde_json::Value;

use crate::arguments::GateArguments;
use crate::output::bytes;
use crate::support::bundles;
use crate::support::compare::{Answers, Comparison};

/// The number of standard deviations of an accuracy that are attributed to chance.
const CHANCE: f64 = 2.0;

/// The gates of a conversion; a gate that is `None` always passes.
#[derive(Debug, Default)]
pub struct Gates {
    size: Option<u64>,
    transport: Option<u64>,
    arena: Option<u64>,
    drop: Option<f64>,
    latency: Option<Latency>,
    earlier: Option<Earlier>,
}

/// The maximum of a percentile of the latency on this machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// The percentile as a fraction, such as 0.95.
    part: f64,
    ms: f64,
}

/// The report of an earlier conversion, and the fraction by which the results may be worse.
#[derive(Debug)]
struct Earlier {
    path: PathBuf,
    report: Value,
    worse: f64,
}

/// The content of a gates file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    max_size: Option<String>,
    max_transport: Option<String>,
    max_arena: Option<String>,
    max_drop: Option<String>,
    max_latency: Option<String>,
    /// The path of the `--json` output of an earlier conversion, relative to the gates file.
    earlier: Option<PathBuf>,
    /// The percentage by which the results may be worse; 2% if not given.
    worse: Option<String>,
}

/// A gate that failed.
struct Missed {
    what: String,
    advice: &'static str,
}

/// Parses a percentile of the latency, such as `p95=5ms`.
pub fn latency(text: &str) -> Result<Latency, String> {
    let parsed = text.split_once('=').and_then(|(part, time)| {
        let part: f64 = part.trim().strip_prefix('p')?.parse().ok()?;
        let time = time.trim();
        let (number, unit) = match time {
            _ if time.ends_with("ms") => (time.strip_suffix("ms")?, 1.0),
            _ if time.ends_with("us") => (time.strip_suffix("us")?, 1e-3),
            _ if time.ends_with("µs") => (time.strip_suffix("µs")?, 1e-3),
            _ => (time.strip_suffix('s')?, 1e3),
        };
        let ms = number.trim().parse::<f64>().ok()? * unit;
        let sound = (0.0..100.0).contains(&part) && ms > 0.0 && ms.is_finite();
        sound.then_some(Latency { part: part / 100.0, ms })
    });
    parsed.ok_or_else(|| "expected a percentile and a time in ms, us or s, such as p95=5ms".into())
}

impl Gates {
    /// Returns the gates of the command line and of the gates file. The command line takes
    /// precedence.
    ///
    /// # Errors
    /// If the file is invalid, or if there is a gate for the accuracy but no labeled data.
    pub fn of(arguments: &GateArguments, evaluates: bool) -> anyhow::Result<Gates> {
        let mut gates = match &arguments.gates {
            Some(path) => Self::read(path, evaluates)?,
            None => Gates::default(),
        };
        gates.size = arguments.max_size.or(gates.size);
        gates.transport = arguments.max_transport.or(gates.transport);
        gates.arena = arguments.max_arena.or(gates.arena);
        gates.drop = arguments.max_drop.or(gates.drop);
        gates.latency = arguments.max_latency.or(gates.latency);
        if gates.drop.is_some() && !evaluates {
            bail!(
                "--max-drop needs labeled data; give --evaluate a file with the arrays x and y, or a \
                 folder with a subfolder for each class"
            );
        }
        Ok(gates)
    }

    fn read(path: &Path, evaluates: bool) -> anyhow::Result<Gates> {
        let name = || path.display().to_string();
        let text = spec::read_text(path).with_context(name)?;
        let file: File = toml::from_str(&text).with_context(name)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        fn value<T>(
            path: &Path,
            key: &str,
            text: Option<String>,
            read: impl Fn(&str) -> Result<T, String>,
        ) -> anyhow::Result<Option<T>> {
            let read = |text: String| {
                read(&text).map_err(|error| {
                    anyhow::anyhow!("{}: {key} = {text:?}: {error}", path.display())
                })
            };
            text.map(read).transpose()
        }
        let worse = value(path, "worse", file.worse, crate::arguments::percent)?;
        let earlier = match file.earlier {
            Some(earlier) => {
                let problem = || format!("{}: earlier = {earlier:?}", path.display());
                let path = spec::in_folder(folder, &earlier).with_context(problem)?;
                let text = spec::read_text(&path).with_context(problem)?;
                let report = serde_json::from_str(&text).with_context(|| {
                    format!("{}: is not a report of a conversion", path.display())
                })?;
                let earlier = Earlier { path, report, worse: worse.unwrap_or(0.02) };
                earlier.check(evaluates)?;
                Some(earlier)
            }
            None if worse.is_some() => {
                bail!("{}: `worse` needs `earlier`, the path of an earlier report", path.display())
            }
            None => None,
        };
        let size = hardtack_targets::bytes;
        Ok(Gates {
            size: value(path, "max-size", file.max_size, size)?,
            transport: value(path, "max-transport", file.max_transport, size)?,
            arena: value(path, "max-arena", file.max_arena, size)?,
            drop: value(path, "max-drop", file.max_drop, crate::arguments::percent)?,
            latency: value(path, "max-latency", file.max_latency, latency)?,
            earlier,
        })
    }

    /// Returns whether there are no gates.
    pub fn is_empty(&self) -> bool {
        let Gates { size, transport, arena, drop, latency, earlier } = self;
        let sizes = [size, transport, arena].into_iter().all(Option::is_none);
        sizes && drop.is_none() && latency.is_none() && earlier.is_none()
    }

    /// Returns the maximum drop of top-1 accuracy as a fraction.
    pub fn drop(&self) -> Option<f64> {
        self.drop
    }

    /// Returns whether a gate needs the size of the compressed bundle.
    pub fn need_transport(&self) -> bool {
        self.transport.is_some()
    }

    /// Returns a message for each gate that the bundle fails.
    ///
    /// # Errors
    /// If the bundle cannot be measured.
    pub fn missed(
        &self,
        bundle: &Path,
        report: &Report,
        comparison: Option<&Comparison>,
    ) -> anyhow::Result<Vec<String>> {
        let mut missed = Vec::new();
        let mut size = |what: &str, limit: Option<u64>, is: Option<u64>, advice| {
            if let (Some(limit), Some(is)) = (limit, is)
                && is > limit
            {
                let what =
                    format!("{what} is {}, and at most {} is allowed", bytes(is), bytes(limit));
                missed.push(Missed { what, advice });
            }
        };
        size("the bundle", self.size, Some(report.bundle_bytes), smaller(report));
        size("the compressed bundle", self.transport, report.transport_bytes, SMALLER_TRANSPORT);
        size("the arena", self.arena, Some(report.arena_bytes), LESS_MEMORY);
        let drop = comparison.and_then(Comparison::drop);
        if self.drop.is_some() && drop.is_none() {
            bail!("--max-drop needs labeled data with classes, but y has values");
        }
        if let (Some(limit), Some(drop)) = (self.drop, drop)
            && drop > limit + 1e-12
        {
            let what = format!(
                "top-1 accuracy drops by {:.2} points, and at most {:.2} are allowed",
                100.0 * drop,
                100.0 * limit
            );
            missed.push(Missed { what, advice: MORE_ACCURATE });
        }
        if let Some(Latency { part, ms }) = self.latency {
            let opened = bundles::open(bundle)?;
            let mut subject =
                Subject::new(&opened, hardtack::SessionOptions::default(), Instant::now())?;
            let is = subject.measure(None)?.percentile_ms(part);
            if is > ms {
                let what = format!(
                    "the p{:.0} latency is {is:.3} ms here, and at most {ms} ms is allowed",
                    100.0 * part
                );
                missed.push(Missed { what, advice: FASTER });
            }
        }
        if let Some(earlier) = &self.earlier {
            missed.extend(earlier.missed(report, comparison));
        }
        let sentence = |Missed { what, advice }| format!("{what}; {advice}");
        Ok(missed.into_iter().map(sentence).collect())
    }
}

impl Earlier {
    /// Checks that the report is one of a conversion, and that its accuracy can be compared.
    fn check(&self, evaluates: bool) -> anyhow::Result<()> {
        let name = self.path.display();
        if self.report["bundle_bytes"].as_u64().is_none() {
            bail!(
                "{name}: is not a report of a conversion; write one with `hardtack convert --json`"
            );
        }
        if self.accuracy().is_some() && !evaluates {
            bail!("{name}: has an accuracy to compare with; give --evaluate");
        }
        Ok(())
    }

    /// Returns the top-1 accuracy of the report as a fraction, if there is one.
    fn accuracy(&self) -> Option<f64> {
        self.report["comparison"]["classes"]["bundle"]["top1"].as_f64()
    }

    /// Returns the results that are worse than in the report by more than is allowed.
    fn missed(&self, report: &Report, comparison: Option<&Comparison>) -> Vec<Missed> {
        let mut missed = Vec::new();
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let sizes = [
            ("the bundle", "bundle_bytes", report.bundle_bytes, smaller(report)),
            ("the arena", "arena_bytes", report.arena_bytes, LESS_MEMORY),
        ];
        for (what, key, is, advice) in sizes {
            let Some(was) = self.report[key].as_u64() else { continue };
            if is as f64 > was as f64 * (1.0 + self.worse) {
                let what = format!("{what} was {} in {name} and is now {}", bytes(was), bytes(is));
                missed.push(Missed { what, advice });
            }
        }
        if let (Some(was), Some(comparison)) = (self.accuracy(), comparison)
            && let Answers::Classes { bundle, .. } = &comparison.answers
        {
            let count = comparison.samples.max(1) as f64;
            let chance = CHANCE * (was * (1.0 - was) / count).sqrt();
            if bundle.top1 < was - chance.max(self.worse) {
                let what = format!(
                    "top-1 accuracy was {:.2} % in {name} and is now {:.2} %, a larger drop than \
                     chance explains with {count:.0} samples",
                    100.0 * was,
                    100.0 * bundle.top1
                );
                missed.push(Missed { what, advice: MORE_ACCURATE });
            }
        }
        missed
    }
}

/// Returns the advice for a bundle that is too large.
fn smaller(report: &Report) -> &'static str {
    match report.layers.is_empty() {
        true => "try --int8, --prune-channels bytes=20%, or --float f16 for float layers",
        false => "try --prune-channels bytes=20%, or --float f16 for float layers",
    }
}

const SMALLER_TRANSPORT: &str = "try --weight-bits 4, or --prune-channels bytes=20%";
const LESS_MEMORY: &str = "try --arena-limit, a smaller input, or --prune-channels macs=20%";
const MORE_ACCURATE: &str = "try more calibration samples, --ranges min-max, or --max-error auto, \
                             which uses 16 bits or float for the worst layers";
const FASTER: &str =
    "try --int8 with --target native, --prune-channels latency=20%, or a smaller input";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_parsed() {
        assert_eq!(latency("p95=5ms"), Ok(Latency { part: 0.95, ms: 5.0 }));
        assert_eq!(latency("p50=120us").unwrap().ms, 0.12);
        assert_eq!(latency("p99=1s").unwrap().ms, 1000.0);
        for text in ["", "5ms", "p95=", "p100=5ms", "p95=-1ms", "p95=5", "px=5ms"] {
            assert!(latency(text).is_err(), "{text}");
        }
    }

    #[test]
    fn errors_in_a_gates_file_name_the_cause() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gates.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Gates::read(&path, false)
        };
        let beside = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        beside("other.json", "{}");
        let accurate =
            r#"{"bundle_bytes": 1, "comparison": {"classes": {"bundle": {"top1": 0.9}}}}"#;
        beside("accurate.json", accurate);
        let gates = read("max-size = \"1MB\"\nmax-drop = \"0.5%\"\n").unwrap();
        assert_eq!((gates.size, gates.drop), (Some(1_000_000), Some(0.005)));
        for (text, expected) in [
            ("max-sise = \"1MB\"", "max-sise"),
            ("max-size = \"much\"", "max-size"),
            ("worse = \"1%\"", "earlier"),
            ("earlier = \"none.json\"", "none.json"),
            ("earlier = \"other.json\"", "not a report"),
            ("earlier = \"accurate.json\"", "--evaluate"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
