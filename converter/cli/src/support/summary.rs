//! The text report of a conversion.

use hardtack_converter::{FloatNode, PruneReport, Report};

use crate::arguments::Convert;
use crate::output::{bytes, plain, table};

/// The maximum number of layers in the list of the largest errors.
const WORST: usize = 10;
/// The maximum number of nodes in the list of float or 16-bit nodes.
const REASONS: usize = 20;

/// Formats the stages, the figures, the layers with the largest error, the float nodes and the
/// sizes.
pub fn text(report: &Report, arguments: &Convert) -> String {
    let rows = report.stages.iter().map(|stage| {
        [
            stage.name.to_string(),
            stage.nodes.to_string(),
            stage.parameters.to_string(),
            bytes(stage.bytes),
            format!("{:.2}", stage.seconds),
            stage.parity.map_or("–".into(), |parity| format!("{parity:.1e}")),
        ]
    });
    let mut text = table(["stage", "nodes", "parameters", "bytes", "seconds", "difference"], rows);
    for rewritten in &report.rewritten {
        text += &format!("\nrewritten: {}", plain(rewritten));
    }
    if !report.rewritten.is_empty() {
        text.push('\n');
    }
    text.push('\n');
    for figure in &report.figures {
        let (name, source) = (plain(&figure.name), plain(&figure.source));
        text += &format!("{name}: {:.2e} ({} {source} samples)\n", figure.value, figure.samples);
    }
    if let Some(pruned) = &report.pruned {
        text += &pruned_text(pruned);
    }
    if !report.layers.is_empty() {
        let mut layers: Vec<_> = report.layers.iter().collect();
        layers.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
        let rows = layers.iter().take(WORST).map(|layer| {
            [
                short(&layer.name),
                format!("{:.1}", layer.sqnr_db),
                format!("{:.4}", layer.cosine),
                format!("{:.3}", layer.largest),
            ]
        });
        let shown = layers.len().min(WORST);
        text += &format!("\n{shown} of {} layers, largest error first:\n", layers.len());
        text += &table(["layer", "SQNR dB", "cosine", "max error"], rows);
    }
    for (nodes, what) in [
        (&report.int16_nodes, "layers have 16-bit activations"),
        (&report.float_nodes, "nodes stay in float"),
    ] {
        if nodes.is_empty() {
            continue;
        }
        text += &format!("\n{} {what}:\n", nodes.len());
        let row =
            |node: &FloatNode| [short(&node.node), node.operator.clone(), node.reason.clone()];
        text += &table(["node", "operator", "reason"], nodes.iter().take(REASONS).map(row));
        if nodes.len() > REASONS {
            text += &format!("… and {} more (--json lists all)\n", nodes.len() - REASONS);
        }
    }
    let part = |bytes: u64| 100.0 * bytes as f64 / report.source_bytes.max(1) as f64;
    text += &format!(
        "\n{}: {} ({:.0} % of the ONNX file's {}), root digest {}\n",
        plain(&arguments.output.display().to_string()),
        bytes(report.bundle_bytes),
        part(report.bundle_bytes),
        bytes(report.source_bytes),
        report.digest
    );
    if let (Some(path), Some(count)) = (&arguments.transport, report.transport_bytes) {
        let part = part(count);
        let path = path.display().to_string();
        text +=
            &format!("{}: {} ({part:.1} %), compressed for transfer\n", plain(&path), bytes(count));
    }
    if report.arena_bytes > 0 {
        text += &format!(
            "arena: {} for the activations of the integer programs\n",
            bytes(report.arena_bytes)
        );
    }
    text
}

fn pruned_text(pruned: &PruneReport) -> String {
    let (before, after) = (&pruned.before, &pruned.after);
    let mut text = format!(
        "\npruned: {:.1} of {:.1} million multiply-accumulates remain ({:.0} %), and {} of {} of \
         weights ({:.0} %)\n",
        after.macs / 1e6,
        before.macs / 1e6,
        100.0 * after.macs / before.macs,
        bytes(after.bytes as u64),
        bytes(before.bytes as u64),
        100.0 * after.bytes / before.bytes,
    );
    if let Some(latency) = pruned.latency {
        text += &format!(
            "an inference takes {:.0} % of the time before, on this machine\n",
            100.0 * latency
        );
    }
    let rows = pruned.groups.iter().map(|group| {
        [
            short(&group.name),
            group.before.to_string(),
            group.after.to_string(),
            format!("{:.4}", group.error),
        ]
    });
    text += &table(["channels of", "before", "after", "remaining error"], rows);
    text
}

/// Shortens a long name to its end, which distinguishes nodes better than its beginning.
fn short(name: &str) -> String {
    const LONGEST: usize = 48;
    let count = name.chars().count();
    if count <= LONGEST {
        return name.into();
    }
    let end: String = name.chars().skip(count - LONGEST + 1).collect();
    format!("…{end}")
}
