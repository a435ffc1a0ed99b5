//! The HTML report of a conversion: one self-contained file, which also works without scripts.

mod accuracy;
mod frontier;
mod graph;
mod latency;
mod layers;
mod outline;
mod plots;

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use hardtack::golden::named;
use hardtack::measure::Subject;
use hardtack::{Bundle, SessionOptions};
use hardtack_converter::{Report, write_file};

use self::latency::Latency;
use crate::output::{bytes, escaped};
use crate::support::bundles;
use crate::support::compare::{Answers, Comparison};
use crate::support::frontier::Point;
use crate::support::plan::{IntegerProgram, ProgramPlan, programs};
use crate::support::profile::Profile;

/// Measures a bundle on this machine and writes the report of its conversion.
///
/// # Errors
/// If the bundle does not run, or if the file cannot be written.
pub fn write(
    path: &Path,
    report: &Report,
    comparison: Option<&Comparison>,
    frontier: &[Point],
    output: &Path,
) -> anyhow::Result<()> {
    let bundle = bundles::open(output)?;
    let mut subject = Subject::new(&bundle, SessionOptions::default(), Instant::now())
        .with_context(|| output.display().to_string())?;
    let measurement = subject.measure(None)?;
    let profile = Profile::measure(&mut subject.session, &named(&subject.inputs), 1)?;
    let latency = Latency { measurement, profile };
    let page = page(report, comparison, frontier, &bundle, &latency)?;
    Ok(write_file(path, page.as_bytes())?)
}

/// Returns the whole page.
fn page(
    report: &Report,
    comparison: Option<&Comparison>,
    frontier: &[Point],
    bundle: &Bundle,
    latency: &Latency,
) -> anyhow::Result<String> {
    let name = escaped(&report.name);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta \
         name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{name} – \
         Hardtack</title>\n<style>\n{}</style>\n</head>\n<body>\n<header>\n<h1>{name}</h1>\n{}\
         </header>\n<main>\n",
        include_str!("style.css"),
        headline(report, comparison, latency),
    );
    let mut section = |title: &str, content: &str| {
        html += &format!("<section>\n<h2>{title}</h2>\n{content}</section>\n");
    };
    if let Some(comparison) = comparison {
        section("Accuracy", &accuracy::section(comparison));
    }
    if !frontier.is_empty() {
        section("Size and accuracy", &frontier::section(frontier)?);
    }
    let programs = programs(bundle)?;
    section("Graph", &outline::section(report, &programs));
    if !report.layers.is_empty() {
        section("Layers", &layers::section(report, &latency.profile)?);
    }
    if !programs.is_empty() {
        section("Arena over time", &arena(&programs, &report.name));
    }
    section("Latency on this machine", &latency.section()?);
    section("Conversion", &conversion(report));
    html += "</main>\n<script>\n";
    html += include_str!("layers.js");
    Ok(html + "</script>\n</body>\n</html>\n")
}

/// Returns the tiles with the main figures, the digest and the warnings.
fn headline(report: &Report, comparison: Option<&Comparison>, latency: &Latency) -> String {
    let mut html = String::from("<div class=\"tiles\">\n");
    let mut tile = |name: &str, value: &str, more: &str| {
        html += &format!("<div><span>{name}</span><b>{value}</b><small>{more}</small></div>\n");
    };
    let part = 100.0 * report.bundle_bytes as f64 / report.source_bytes.max(1) as f64;
    tile(
        "bundle",
        &bytes(report.bundle_bytes),
        &format!("{part:.0} % of the ONNX file's {}", bytes(report.source_bytes)),
    );
    match comparison.map(|comparison| &comparison.answers) {
        Some(Answers::Classes { float, bundle, .. }) => tile(
            "top-1 accuracy",
            &format!("{:.2} %", 100.0 * bundle.top1),
            &format!("float: {:.2} %", 100.0 * float.top1),
        ),
        Some(Answers::Values { float, bundle }) => {
            tile("mean squared error", &format!("{bundle:.4}"), &format!("float: {float:.4}"));
        }
        None => {}
    }
    let largest = report.stages.iter().rev().find(|stage| stage.name == "quantize");
    if let Some(largest) = largest.and_then(|stage| stage.parity) {
        tile("largest difference", &format!("{:.2} %", 100.0 * largest), "of the output range");
    }
    if report.arena_bytes > 0 {
        tile("arena", &bytes(report.arena_bytes), "activations of the integer programs");
    }
    tile("latency", &format!("{:.3} ms", latency.median()), &latency.summary());
    html += "</div>\n";
    html += &format!("<p class=\"digest\">root digest {}</p>\n", escaped(&report.digest));
    for warning in &report.warnings {
        html += &format!("<p class=\"warning\">{}</p>\n", escaped(warning));
    }
    html
}

/// Draws the arena plan of each integer program.
fn arena(programs: &[IntegerProgram], name: &str) -> String {
    let mut html = String::new();
    for (index, program) in programs.iter().enumerate() {
        let picture = ProgramPlan::of(program, None).svg(&format!("{name}, program {index}"));
        html += &format!("<div class=\"scroll arena\">{picture}</div>\n");
    }
    html
}

/// Returns the table of stages, the figures and the rewritten nodes.
fn conversion(report: &Report) -> String {
    let mut html = String::from(
        "<div class=\"wide\"><table><tr><th>stage</th><th>nodes</th><th>parameters</th>\
         <th>bytes</th><th>seconds</th><th>difference</th></tr>\n",
    );
    for stage in &report.stages {
        html += &format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.2}</td><td>{}</td></tr>\n",
            stage.name,
            stage.nodes,
            stage.parameters,
            bytes(stage.bytes),
            stage.seconds,
            stage.parity.map_or("–".into(), |parity| format!("{parity:.1e}")),
        );
    }
    html += "</table></div>\n<ul>\n";
    for figure in &report.figures {
        let source = escaped(&figure.source);
        let samples = figure.samples;
        html += &format!(
            "<li>{}: {:.2e} ({samples} {source} samples)</li>\n",
            escaped(&figure.name),
            figure.value
        );
    }
    for rewritten in &report.rewritten {
        html += &format!("<li>rewritten: {}</li>\n", escaped(rewritten));
    }
    html + "</ul>\n"
}
