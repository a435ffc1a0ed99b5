//! Moves transpositions of dequantized weights before the dequantization, so that they apply to the
//! integers and layers read the dequantization directly.

use hardtack::Constant;
use hardtack_bundle::graph::{DequantizeLinear, Fact, Node, Operator, Outlet};

use crate::graph::rewriter::Editor;

/// Moves all such transpositions. Returns their number.
pub(super) fn rearrange(editor: &mut Editor) -> usize {
    let mut moved = 0;
    for index in 0..editor.model.graph.nodes.len() {
        let here = Outlet { node: index as u32, slot: 0 };
        if editor.resolve(here) == here && rearrange_one(editor, index).is_some() {
            moved += 1;
        }
    }
    moved
}

fn rearrange_one(editor: &mut Editor, index: usize) -> Option<()> {
    let node = editor.node(index).clone();
    let Operator::MoveAxis((from, to)) = node.operator else { return None };
    let reals = editor.resolve(node.inputs[0]);
    let dequantize = editor.node(reals.node as usize).clone();
    let Operator::DequantizeLinear(attributes) = &dequantize.operator else { return None };
    let integers = editor.resolve(dequantize.inputs[0]);
    matches!(editor.constant(integers)?, Constant::Tensor(_)).then_some(())?;
    let rest = &dequantize.inputs[1..];
    rest.iter().all(|outlet| editor.constant(*outlet).is_some()).then_some(())?;

    let fact = Fact { dtype: editor.model.graph.fact(integers).dtype, ..node.outputs[0].clone() };
    let name = format!("{}.integers", node.name);
    let moved =
        editor.add(Node { name, inputs: vec![integers], outputs: vec![fact], ..node.clone() });
    let axis = attributes.axis.map(|axis| after_move(axis, from, to));
    let attributes = DequantizeLinear { axis, ..attributes.clone() };
    let mut inputs = vec![moved];
    inputs.extend(rest);
    let operator = Operator::DequantizeLinear(attributes);
    let moved = editor.add(Node { name: node.name, operator, inputs, outputs: node.outputs });
    editor.redirect(Outlet { node: index as u32, slot: 0 }, moved);
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
