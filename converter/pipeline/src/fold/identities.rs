//! Removes nodes whose output equals their input.

use hardtack_bundle::graph::{Dim, Node, Operator, ValueId};

use crate::graph::rewriter::Rewriter;

/// Removes all identity nodes. Returns their number.
pub(super) fn drop(rewriter: &mut Rewriter) -> usize {
    let mut dropped = 0;
    for index in 0..rewriter.model.graph.nodes.len() {
        let node = rewriter.node(index);
        let here = ValueId { node: index as u32, output: 0 };
        if rewriter.resolve(here) != here || !gives_what_it_reads(rewriter, node) {
            continue;
        }
        let input = node.inputs[0];
        rewriter.redirect(here, input);
        dropped += 1;
    }
    dropped
}

fn gives_what_it_reads(rewriter: &Rewriter, node: &Node) -> bool {
    let Some(input) = node.inputs.first() else { return false };
    let before = rewriter.model.graph.fact(rewriter.resolve(*input));
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
