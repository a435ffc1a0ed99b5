//! What a conversion says on a terminal.

use hardtack_converter::{FloatNode, PruneReport, Report};

use crate::arguments::Convert;
use crate::output::{bytes, plain, table};

/// Layers of which the error is told.
const WORST: usize = 10;
/// Nodes of which the reason is told.
const REASONS: usize = 20;

/// Stages, figures, the worst layers, what stays in float, and sizes.
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
        text += &format!("\nlayers with the largest error, of {}:\n", layers.len());
        text += &table(["layer", "SQNR dB", "cosine", "largest"], rows);
    }
    for (nodes, what) in [
        (&report.int16_nodes, "layers have activations of 16 bits"),
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
            text += &format!("… and {} more (--json has all)\n", nodes.len() - REASONS);
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
        text += &format!("{}: {} ({part:.1} %) for transport\n", plain(&path), bytes(count));
    }
    if report.arena_bytes > 0 {
        text += &format!("the integer programs need an arena of {}\n", bytes(report.arena_bytes));
    }
    text
}

fn pruned_text(pruned: &PruneReport) -> String {
    let (before, after) = (&pruned.before, &pruned.after);
    let mut text = format!(
        "\npruned: {:.1} of {:.1} million multiply-accumulates are left ({:.0} %), {} of {} of \
         weights ({:.0} %)\n",
        after.macs / 1e6,
        before.macs / 1e6,
        100.0 * after.macs / before.macs,
        bytes(after.bytes as u64),
        bytes(before.bytes as u64),
        100.0 * after.bytes / before.bytes,
    );
    if let Some(latency) = pruned.latency {
        text += &format!("a run takes {:.0} % of the time, on this machine\n", 100.0 * latency);
    }
    let rows = pruned.groups.iter().map(|group| {
        [
            short(&group.name),
            group.before.to_string(),
            group.after.to_string(),
            format!("{:.4}", group.error),
        ]
    });
    text += &table(["channels of", "before", "after", "error left"], rows);
    text
}

/// The end of a long name, which tells more than its beginning.
fn short(name: &str) -> String {
    const LONGEST: usize = 48;
    let count = name.chars().count();
    if count <= LONGEST {
        return name.into();
    }
    let end: String = name.chars().skip(count - LONGEST + 1).collect();
    format!("…{end}")
}
