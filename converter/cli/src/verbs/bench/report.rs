//! Formats a measurement as text, Markdown and JUnit XML.

use serde_json::Value;

use super::baseline::Verdict;
use crate::output::{bytes, escaped, markdown as md, plain};

/// Returns a number from a measurement by its JSON pointer.
fn number(measured: &Value, pointer: &str) -> Option<f64> {
    measured.pointer(pointer).and_then(Value::as_f64)
}

/// Returns a text from a measurement by its JSON pointer, or `unknown`.
fn word<'a>(measured: &'a Value, pointer: &str) -> &'a str {
    measured.pointer(pointer).and_then(Value::as_str).unwrap_or("unknown")
}

/// Returns a count from a measurement, or 0. A board may send anything.
fn count(measured: &Value, name: &str) -> u64 {
    measured[name].as_u64().unwrap_or_default()
}

/// Formats a measurement for a terminal.
pub fn text(measured: &Value) -> String {
    let ms = |name: &str| number(measured, name).map_or("–".into(), |ms| format!("{ms:.3}"));
    let size = |name| number(measured, name).map_or("unknown".into(), |n| bytes(n as u64));
    let threads = measured["threads"].as_u64().unwrap_or(1);
    let mut text = format!(
        "latency    {} ms median, {} p90, {} p99, {} min, of {} inferences; noise {:.1} %\n\
         load       {} ms; first result after {} ms\n\
         memory     {} peak, including an arena of {}\n\
         runs       {} on {threads} thread{}, weights {}\n",
        ms("/latency_ms/p50"),
        ms("/latency_ms/p90"),
        ms("/latency_ms/p99"),
        ms("/latency_ms/min"),
        count(measured, "runs"),
        100.0 * number(measured, "/noise").unwrap_or(0.0),
        ms("/load_ms"),
        ms("/first_result_ms"),
        size("/peak_rss_bytes"),
        size("/arena_bytes"),
        if measured["integer"] == true {
            format!("in integers with kernels {}", plain(word(measured, "/isa")))
        } else {
            "in float, at least in part".into()
        },
        if threads == 1 { "" } else { "s" },
        if measured["weights"] == "in place" { "in place" } else { "repacked when loaded" },
    );
    let machine = machine(measured);
    if !machine.is_empty() {
        text += &format!("machine    {}\n", plain(&machine));
    }
    if measured["golden"].is_string() {
        text += &format!("vectors    {}\n", plain(word(measured, "/golden")));
    }
    text
}

/// Formats the model, frequency, temperature and energy of the machine, as far as they are known.
fn machine(measured: &Value) -> String {
    let mut parts = Vec::new();
    if let Some(model) = measured["machine"]["model"].as_str() {
        parts.push(model.to_owned());
    }
    let mhz = |name: &str| number(measured, &format!("/machine/frequency_mhz/{name}"));
    if let (Some(before), Some(after)) = (mhz("before"), mhz("after")) {
        let most = mhz("most").map(|most| format!(" of {most}")).unwrap_or_default();
        parts.push(format!("{before} MHz before, {after} after{most}"));
    }
    if let Some(governor) = measured["machine"]["governor"].as_str() {
        parts.push(format!("governor {governor}"));
    }
    let degrees = |name: &str| number(measured, &format!("/machine/temperature_c/{name}"));
    if let (Some(before), Some(after)) = (degrees("before"), degrees("after")) {
        parts.push(format!("{before:.0} °C before, {after:.0} after"));
    }
    if measured["machine"]["throttled"] == true {
        parts.push("throttled by heat or power supply: the times are not representative".into());
    }
    if let Some(energy) = number(measured, "/machine/energy_mj_per_run") {
        parts.push(format!("{energy:.3} mJ per inference"));
    }
    parts.join(", ")
}

/// Formats a measurement as a Markdown table, for the summary of a CI job.
pub fn markdown(name: &str, measured: &Value, verdict: Option<&Verdict>) -> String {
    let ms = |name: &str| number(measured, name).map_or("–".into(), |ms| format!("{ms:.3}"));
    let mark = |holds: bool| if holds { "✅" } else { "❌" };
    let against = verdict
        .map(|verdict| format!("\n{} {}\n", mark(verdict.holds()), verdict.sentence()))
        .unwrap_or_default();
    let golden = match measured["golden"].as_str() {
        Some(golden) => format!("\n{} test vectors {}\n", mark(golden == "equal"), md(golden)),
        None => String::new(),
    };
    format!(
        "### `{}`\n\n\
         | board | kernels | threads | p50 ms | p90 ms | p99 ms | noise | load ms | memory |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|\n\
         | {} | {} | {} | {} | {} | {} | {:.1} % | {} | {} |\n{golden}{against}",
        plain(name).replace('`', "'"),
        md(measured["board"].as_str().unwrap_or_else(|| word(measured, "/machine/model"))),
        md(word(measured, "/isa")),
        count(measured, "threads"),
        ms("/latency_ms/p50"),
        ms("/latency_ms/p90"),
        ms("/latency_ms/p99"),
        100.0 * number(measured, "/noise").unwrap_or(0.0),
        ms("/load_ms"),
        number(measured, "/peak_rss_bytes").map_or("–".into(), |n| bytes(n as u64)),
    )
}

/// Formats a measurement as JUnit XML with two test cases: the test vectors, and the latency.
pub fn junit(name: &str, measured: &Value, verdict: Option<&Verdict>) -> String {
    let p50 = number(measured, "/latency_ms/p50").unwrap_or(0.0) / 1e3;
    let mut cases = Vec::new();
    if let Some(golden) = measured["golden"].as_str() {
        let details = word(measured, "/checked");
        cases.push(("test vectors", 0.0, (golden != "equal").then(|| details.to_owned())));
    }
    let slower = verdict.filter(|verdict| !verdict.holds()).map(Verdict::sentence);
    cases.push(("latency", p50, slower));
    let failures = cases.iter().filter(|(_, _, failure)| failure.is_some()).count();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"hardtack bench {}\" \
         tests=\"{}\" failures=\"{failures}\">\n",
        escaped(name),
        cases.len()
    );
    for (case, seconds, failure) in cases {
        let head = format!(
            "  <testcase classname=\"{}\" name=\"{case}\" time=\"{seconds:.6}\"",
            escaped(name)
        );
        text += &match failure {
            Some(failure) => {
                format!(
                    "{head}>\n    <failure message=\"{}\"/>\n  </testcase>\n",
                    escaped(&failure)
                )
            }
            None => format!("{head}/>\n"),
        };
    }
    text + "</testsuite>\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reports_are_well_formed_and_name_the_failure() {
        let measured = json!({
            "latency_ms": { "p50": 2.5, "p90": 3.0, "p99": 3.5, "min": 2.4 }, "runs": 100,
            "noise": 0.01, "isa": "neon", "threads": 1, "golden": "different",
            "checked": "model.tack: neon DIFFERENT & \"scalar\" <equal>", "board": "pi@board",
            "machine": { "model": "a board", "throttled": true,
                         "frequency_mhz": { "before": 600, "after": 1500, "most": 1500 } },
        });
        let xml = junit("a&b.tack", &measured, None);
        assert!(xml.contains("name=\"hardtack bench a&amp;b.tack\" tests=\"2\" failures=\"1\""));
        assert!(xml.contains("DIFFERENT &amp; &quot;scalar&quot; &lt;equal&gt;"), "{xml}");
        assert!(xml.contains("name=\"latency\" time=\"0.002500\"/>"), "{xml}");
        let mut hostile = measured.clone();
        hostile["board"] = "a|b\n<img src=x> [l](x)".into();
        hostile["threads"] = "| 9 |".into();
        let table = markdown("a`b.tack", &hostile, None);
        assert!(table.starts_with("### `a'b.tack`\n\n|"), "{table}");
        let cell = r"| a\|b\\n&lt;img src=x> \[l\](x) | neon | 0 | 2.500 |";
        assert!(table.contains(cell), "{table}");
        hostile["isa"] = "neon\nVERIFIED".into();
        assert!(!text(&hostile).lines().any(|line| line.starts_with("VERIFIED")));
        let table = markdown("a.tack", &measured, None);
        assert!(table.contains("| pi@board | neon | 1 | 2.500 |"), "{table}");
        assert!(table.contains("❌ test vectors different"), "{table}");
        let details = text(&measured);
        assert!(details.contains("600 MHz before, 1500 after of 1500"), "{details}");
        assert!(details.contains("throttled by heat"), "{details}");
    }
}
