//! Moves transpositions of dequantized weights before the dequantization, so that they apply to the
//! integers and layers read the dequantization directly.

use hardtack::internal::Constant;
use hardtack_bundle::graph::{DequantizeLinear, Fact, Node, Operator, ValueId};

use crate::graph::rewriter::Rewriter;

/// Moves all such transpositions. Returns their number.
pub(super) fn rearrange(rewriter: &mut Rewriter) -> usize {
    let mut moved = 0;
    for index in 0..rewriter.model.graph.nodes.len() {
        let here = ValueId { node: index as u32, output: 0 };
        if rewriter.resolve(here) == here && rearrange_one(rewriter, index).is_some() {
            moved += 1;
        }
    }
    moved
}

fn rearrange_one(rewriter: &mut Rewriter, index: usize) -> Option<()> {
    let node = rewriter.node(index).clone();
    let Operator::MoveAxis((from, to)) = node.operator else { return None };
    let floats = rewriter.resolve(node.inputs[0]);
    let dequantize = rewriter.node(floats.node as usize).clone();
    let Operator::DequantizeLinear(attributes) = &dequantize.operator else { return None };
    let integers = rewriter.resolve(dequantize.inputs[0]);
    matches!(rewriter.constant(integers)?, Constant::Tensor(_)).then_some(())?;
    let rest = &dequantize.inputs[1..];
    rest.iter().all(|value_id| rewriter.constant(*value_id).is_some()).then_some(())?;

    let fact = Fact { dtype: rewriter.model.graph.fact(integers).dtype, ..node.outputs[0].clone() };
    let name = format!("{}.integers", node.name);
    let moved =
        rewriter.add(Node { name, inputs: vec![integers], outputs: vec![fact], ..node.clone() });
    let axis = attributes.axis.map(|axis| after_move(axis, from, to));
    let attributes = DequantizeLinear { axis, ..attributes.clone() };
    let mut inputs = vec![moved];
    inputs.extend(rest);
    let operator = Operator::DequantizeLinear(attributes);
    let moved = rewriter.add(Node { name: node.name, operator, inputs, outputs: node.outputs });
    rewriter.redirect(ValueId { node: index as u32, output: 0 }, moved);
    Some(())
}

/// Returns the new position of an axis after axis `from` was moved to `to`.
fn after_move(axis: u32, from: u32, to: u32) -> u32 {
    match axis {
        _ if axis == from => to,
        _ if from < axis && axis <= to => axis - 1,
        _ if to <= axis && axis < from => axis + 1,
        _ => axis,
    }
}
