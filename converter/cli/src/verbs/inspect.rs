//! `hardtack inspect`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::anyhow;
use hardtack::internal::family_of;
use hardtack::{Bundle, Isa, Ports, Tensor};
use hardtack_bundle::graph::{Graph, Operator};
use hardtack_bundle::manifest::{Manifest, Provenance};
use hardtack_bundle::{Family, Readings};
use hardtack_engine::SparseLayer;
use serde_json::{Value, json};

use crate::arguments::Inspect;
use crate::output::{self, bytes, file, plain, table};
use crate::support::plan::{IntegerProgram, ProgramPlan, programs};
use crate::{output::Answer, support::bundles};

/// The maximum number of elements that are printed of a default value.
const SHOWN: usize = 4;

pub fn inspect(arguments: &Inspect, as_json: bool) -> anyhow::Result<Answer> {
    let outputs: Vec<&Path> = arguments.plan_svg.as_deref().into_iter().collect();
    file::check(&outputs, &[&arguments.bundle], as_json)?;
    let bundle = bundles::open(&arguments.bundle)?;
    let graph = bundle.container()?.graph()?;
    let programs = programs(&bundle)?;
    let target = arguments.target.as_ref().map(|target| target.packing);
    let plan = |program| ProgramPlan::of(program, target);
    if let Some(path) = &arguments.plan_svg {
        let program = programs.first().ok_or_else(|| {
            anyhow!("{}: has no integer program to draw", arguments.bundle.display())
        })?;
        let picture = plan(program).svg(bundle.manifest()?.name);
        file::write_text(path, &picture)?;
    }
    if as_json {
        let mut value = describe(&bundle, graph.as_ref(), &programs, arguments)?;
        if arguments.plan {
            value["plans"] = programs.iter().map(|program| plan(program).json()).collect();
        }
        output::json(&value);
        return Ok(Answer::Yes);
    }
    let mut text = head(&bundle)?;
    text += &sections(&bundle)?;
    if let Some(graph) = &graph {
        text += &operators(graph, &programs);
        text += &sparse(&programs);
        if arguments.nodes {
            text += &nodes(graph);
        }
    }
    if arguments.plan {
        let texts = programs.iter().enumerate().map(|(index, program)| plan(program).text(index));
        text.extend(texts);
    }
    file::summary(&outputs, &text);
    Ok(Answer::Yes)
}

/// Describes a bundle as JSON; its manifest as [`manifest_json`] does.
fn describe(
    bundle: &Bundle,
    graph: Option<&Graph>,
    programs: &[IntegerProgram],
    arguments: &Inspect,
) -> anyhow::Result<Value> {
    let container = bundle.container()?;
    let families: Vec<Vec<String>> = (0..container.programs())
        .map(|index| container.families(index).map(|family| family.to_string()).collect())
        .collect();
    let labels: Option<Vec<String>> =
        bundle.labels()?.map(|labels| labels.iter().map(str::to_owned).collect());
    let ports = bundle.ports()?;
    let defaults = ports.inputs.iter().filter_map(|port| {
        let value = port.default.as_ref()?;
        Some(json!({ "input": port.name, "shape": value.shape(), "values": value.to_f32() }))
    });
    let defaults: Vec<Value> = defaults.collect();
    let mut value = json!({
        "format": { "major": container.format_version().major, "minor": container.format_version().minor },
        "digest": bundle.root().to_string(),
        "bytes": bundle.bytes().len(),
        "manifest": manifest_json(&bundle.manifest()?)?,
        "sections": container.sections().map(|section| json!({
            "kind": section.kind.to_string(), "offset": section.offset, "bytes": section.bytes.len(),
            "digest": section.digest.to_string(),
        })).collect::<Vec<_>>(),
        "families": families,
        "labels": labels,
        "preprocess": bundle.preprocess()?,
        "postprocess": bundle.postprocess()?,
        "readings": bundle.readings()?,
        "defaults": defaults,
        "golden_cases": bundle.golden()?.map_or(0, |golden| golden.len()),
        "operators": graph.map(|graph| counted(graph, programs)),
        "sparse_layers": sparse_layers(programs).map(|(name, layer)| json!({
            "name": name, "bytes": layer.bytes, "dense_bytes": layer.dense_bytes,
        })).collect::<Vec<_>>(),
    });
    if let (true, Some(graph)) = (arguments.nodes, graph) {
        let nodes = graph
            .nodes
            .iter()
            .map(|node| json!({ "name": node.name, "operator": node.operator.name() }));
        value["nodes"] = nodes.collect();
    }
    Ok(value)
}

/// Returns the manifest as JSON, with the digest of the ONNX file in hexadecimal.
pub fn manifest_json(manifest: &Manifest<'_>) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(manifest)?;
    let digest = hardtack_bundle::Digest(manifest.provenance.source_digest);
    value["provenance"]["source_digest"] = digest.to_string().into();
    Ok(value)
}

/// Counts the operators of a graph and its bodies, and the steps of the integer programs, by name.
pub fn counted(graph: &Graph, programs: &[IntegerProgram]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for node in std::iter::once(graph).chain(&graph.bodies).flat_map(|graph| &graph.nodes) {
        if !matches!(node.operator, Operator::Input | Operator::Constant(_)) {
            *counts.entry(node.operator.name().to_owned()).or_default() += 1;
        }
    }
    for step in programs.iter().flat_map(|program| program.steps()) {
        *counts.entry(format!("int8 {}", step.kind())).or_default() += 1;
    }
    counts
}

/// Counts the operators and steps of a bundle by name, as [`counted`] does.
pub fn operators_of(bundle: &Bundle) -> anyhow::Result<BTreeMap<String, usize>> {
    let graph = bundle.container()?.graph()?;
    let programs = programs(bundle)?;
    Ok(graph.map(|graph| counted(&graph, &programs)).unwrap_or_default())
}

/// Formats the properties of a bundle, one per line.
fn head(bundle: &Bundle) -> anyhow::Result<String> {
    let manifest = bundle.manifest()?;
    let mut lines = Lines::default();
    lines.identity(bundle, &manifest)?;
    lines.ports(&bundle.ports()?);
    lines.execution(bundle, &manifest)?;
    lines.contents(bundle)?;
    lines.origin(&manifest.provenance);
    lines.measurements(&manifest);
    lines.readings(bundle.readings()?.as_ref());
    Ok(lines.text)
}

/// Formats the default value of an input.
fn default(value: &Tensor) -> String {
    let values = value.to_f32();
    let shown: Vec<String> = values.iter().take(SHOWN).map(f32::to_string).collect();
    let more = if values.len() > SHOWN { ", …" } else { "" };
    format!("optional, {}{more} by default", shown.join(", "))
}

/// Lines of a name and a value.
#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn line(&mut self, name: &str, value: String) {
        let _ = writeln!(self.text, "{name:<12} {}", plain(&value));
    }

    fn identity(&mut self, bundle: &Bundle, manifest: &Manifest<'_>) -> anyhow::Result<()> {
        let model_version = if manifest.version.is_empty() {
            String::new()
        } else {
            format!(" {}", manifest.version)
        };
        self.line("model", format!("{}{model_version}", manifest.name));
        let size = bundle.bytes().len();
        self.line("size", format!("{} ({size} bytes)", bytes(size as u64)));
        let version = bundle.container()?.format_version();
        self.line("format", format!("{}.{}", version.major, version.minor));
        self.line("root digest", bundle.root().to_string());
        Ok(())
    }

    /// Appends the inputs, the outputs, and the outputs that are fed back.
    fn ports(&mut self, ports: &Ports) {
        for port in &ports.inputs {
            let default = port.default.as_ref().map(|value| format!(", {}", default(value)));
            self.line("input", format!("{port}{}", default.unwrap_or_default()));
        }
        for port in &ports.outputs {
            self.line("output", port.to_string());
        }
        for state in &ports.states {
            let (output, input) = (&ports.outputs[state.output], &ports.inputs[state.input]);
            self.line("state", format!("{} is fed back into {}", output.name, input.name));
        }
    }

    /// Appends the number types that the model runs in, and whether this machine can use the
    /// packed weights in place.
    fn execution(&mut self, bundle: &Bundle, manifest: &Manifest<'_>) -> anyhow::Result<()> {
        let matmuls = operators_of(bundle)?.get("DynamicMatMul").copied().unwrap_or(0);
        let runs = match (manifest.needs_float, manifest.arena_bytes) {
            (true, 0) if matmuls > 0 => format!("in float, with {matmuls} matmuls in INT8"),
            (false, arena) => format!("in integers, with an arena of {}", bytes(arena)),
            (true, 0) => "in float".into(),
            (true, arena) => format!("in float and in integers, with an arena of {}", bytes(arena)),
        };
        self.line("runs", runs);
        let container = bundle.container()?;
        if container.programs() > 0 {
            let families: Vec<Family> = container.families(0).collect();
            let names: Vec<&str> = families.iter().map(|family| family.name()).collect();
            let isa = Isa::detect();
            let used = match families.contains(&family_of(isa.packing())) {
                true => "used in place",
                false => "repacked when loaded",
            };
            let names = names.join(", ");
            self.line("weights", format!("packed for {names}; {used} on this machine ({isa})"));
        }
        Ok(())
    }

    /// Appends the labels, the pre- and post-processing, and the number of test vectors.
    fn contents(&mut self, bundle: &Bundle) -> anyhow::Result<()> {
        if let Some(labels) = bundle.labels()? {
            let first: Vec<&str> = labels.iter().take(4).collect();
            let more = if labels.iter().count() > 4 { ", …" } else { "" };
            self.line("labels", format!("{}: {}{more}", labels.iter().count(), first.join(", ")));
        }
        if let Some(process) = bundle.preprocess()? {
            self.line("pre-process", serde_json::to_string(&process)?);
        }
        if let Some(process) = bundle.postprocess()? {
            self.line("post-process", serde_json::to_string(&process)?);
        }
        let golden = bundle.golden()?.map_or(0, |golden| golden.len());
        self.line("test vectors", golden.to_string());
        Ok(())
    }

    /// Appends the ONNX file and the converter.
    fn origin(&mut self, from: &Provenance<'_>) {
        let source = hardtack_bundle::Digest(from.source_digest).to_string();
        let producer = if from.producer.is_empty() { "unknown producer" } else { from.producer };
        let size = bytes(from.source_bytes);
        self.line("source", format!("ONNX file of {size}, opset {}, by {producer}", from.opset));
        self.line("", format!("SHA-256 {source}"));
        let options: Vec<String> =
            from.options.iter().map(|entry| format!("{}={}", entry.name, entry.value)).collect();
        let options =
            if options.is_empty() { String::new() } else { format!(" with {}", options.join(" ")) };
        self.line("converter", format!("hardtack {}{options}", from.converter));
    }

    /// Appends how the two readings of the ONNX file agreed.
    fn readings(&mut self, readings: Option<&Readings<'_>>) {
        let Some(readings) = readings else { return };
        let Readings { values, samples, source, difference, evaluated } = readings;
        self.line(
            "readings",
            match values {
                0 => "not compared with the reference implementation of ONNX".into(),
                _ => format!(
                    "{values} values of {samples} {source} samples differ by at most \
                     {difference:.1e} of their range from the reference implementation of ONNX"
                ),
            },
        );
        if !evaluated.is_empty() {
            let nodes = evaluated.iter().map(|entry| format!("{} ({})", entry.name, entry.value));
            let nodes = nodes.collect::<Vec<String>>().join("; ");
            self.line("evaluated", format!("by the reference implementation: {nodes}"));
        }
    }

    /// Appends parity and accuracy, and the operators of an INT8 bundle that run in float.
    fn measurements(&mut self, manifest: &Manifest<'_>) {
        for figure in &manifest.figures {
            let of = format!("{} {} samples", figure.samples, figure.source);
            self.line("measured", format!("{}: {:.2e} ({of})", figure.name, figure.value));
        }
        for entry in &manifest.float_operators {
            self.line("in float", format!("{} × {}", entry.value, entry.name));
        }
    }
}

/// Formats the table of sections.
fn sections(bundle: &Bundle) -> anyhow::Result<String> {
    let container = bundle.container()?;
    let rows = container.sections().map(|section| {
        let short: String = section.digest.to_string().chars().take(16).collect();
        [
            section.kind.to_string(),
            section.offset.to_string(),
            section.bytes.len().to_string(),
            short,
        ]
    });
    Ok(format!("\n{}", table(["section", "offset", "bytes", "digest"], rows)))
}

/// Formats the table of operator counts.
fn operators(graph: &Graph, programs: &[IntegerProgram]) -> String {
    let rows = counted(graph, programs).into_iter().map(|(name, count)| [name, count.to_string()]);
    format!("\n{}", table(["operator", "count"], rows))
}

/// Returns the layers whose weights are stored without their zeros, with their names.
fn sparse_layers(programs: &[IntegerProgram]) -> impl Iterator<Item = (String, SparseLayer)> {
    // Only unpacked weights (family `mcu`) can be stored without zeros.
    programs.iter().filter(|program| program.packing().is_none()).flat_map(|program| {
        let name =
            |layer: &SparseLayer| program.step_name(layer.step).unwrap_or_default().to_owned();
        program.sparse_layers().map(move |layer| (name(&layer), layer))
    })
}

/// Formats the table of sparse layers, or an empty text if there are none.
fn sparse(programs: &[IntegerProgram]) -> String {
    let row = |name: String, bytes: u64, dense: u64| {
        let part = 100.0 * bytes as f64 / dense as f64;
        [name, bytes.to_string(), dense.to_string(), format!("{part:.0} %")]
    };
    let layers: Vec<_> = sparse_layers(programs).collect();
    if layers.is_empty() {
        return String::new();
    }
    let sum = |of: fn(&SparseLayer) -> u64| layers.iter().map(|(_, layer)| of(layer)).sum();
    let all = row("total".into(), sum(|layer| layer.bytes), sum(|layer| layer.dense_bytes));
    let rows = layers.iter().map(|(name, layer)| row(name.clone(), layer.bytes, layer.dense_bytes));
    let rows = table(["sparse layer", "bytes", "bytes if dense", "ratio"], rows.chain([all]));
    format!("\n{rows}")
}

/// Formats the table of nodes.
fn nodes(graph: &Graph) -> String {
    let rows = graph.nodes.iter().map(|node| [node.name.clone(), node.operator.name().to_string()]);
    format!("\n{}", table(["node", "operator"], rows))
}
