//! Removes nodes whose output equals their input.

use hardtack_bundle::graph::{Dim, Node, Operator, Outlet};

use crate::graph::rewriter::Editor;

/// Removes all identity nodes. Returns their number.
pub(super) fn drop(editor: &mut Editor) -> usize {
    let mut dropped = 0;
    for index in 0..editor.model.graph.nodes.len() {
        let node = editor.node(index);
        let here = Outlet { node: index as u32, slot: 0 };
        if editor.resolve(here) != here || !gives_what_it_reads(editor, node) {
            continue;
        }
        let input = node.inputs[0];
        editor.redirect(here, input);
        dropped += 1;
    }
    dropped
}

fn gives_what_it_reads(editor: &Editor, node: &Node) -> bool {
    let Some(input) = node.inputs.first() else { return false };
    let before = editor.model.graph.fact(editor.resolve(*input));
    let same_fact = node.outputs.len() == 1 && *before == node.outputs[0];
    match &node.operator {
        Operator::Cast(_) | Operator::Broadcast(_) => same_fact,
        Operator::MoveAxis((from, to)) => from == to,
        Operator::Reshape(reshape) => reshape.from == reshape.to,
        Operator::Slice(slice) => slice.start == Dim::Value(0) && same_fact,
        Operator::Concat(_) => node.inputs.len() == 1,
        Operator::Pad(pad) => pad.pads.iter().all(|(before, after)| *before == 0 && *after == 0),
        Operator::Tile(counts) => counts.iter().all(|count| *count == Dim::Value(1)),
        _ => false,
    }
}
