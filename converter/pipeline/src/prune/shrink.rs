//! Removes channels from a graph.

use hardtack::internal::{Constant, Model};
use hardtack::{Data, Tensor};
use hardtack_bundle::graph::{Dim, Operator};

use super::flow::Flow;
use crate::graph::channels::Layout;
use crate::graph::constants::float_tensor;
use crate::graph::rewriter::Rewriter;

/// Removes the units that are not kept. The result computes the same as the original with these
/// channels set to 0 in the inputs of layers.
pub(super) fn shrink(model: &Model, flow: &Flow, kept: &[bool]) -> Model {
    let left = |layout: &Layout| layout.units.iter().filter(|unit| kept[**unit]).count();
    let mut rewriter = Rewriter::new(model.clone());
    for (index, node) in model.graph.nodes.iter().enumerate() {
        let before = node.inputs.first().and_then(|value_id| flow.channels.layout(*value_id));
        let after = flow.channels.layouts()[index].as_ref();
        let operator = &mut rewriter.model.graph.nodes[index].operator;
        resize(operator, before, after, kept);
        if let Some(layout) = after {
            let dim = Dim::Value(left(layout) as i64);
            rewriter.model.graph.nodes[index].outputs[0].shape[layout.axis] = dim;
        }
    }
    for cut in &flow.cuts {
        if left(&cut.layout) == cut.layout.units.len() {
            continue;
        }
        let value_id = rewriter.node(cut.node).inputs[cut.input];
        let tensor = float_tensor(&rewriter.model, value_id).expect("only these are cut");
        let smaller = sliced(tensor, &cut.layout, kept);
        let name = format!("{}.{}.kept", rewriter.node(cut.node).name, cut.input);
        let constant = rewriter.add_constant(name, Constant::Tensor(smaller.into()));
        rewriter.model.graph.nodes[cut.node].inputs[cut.input] = constant;
    }
    rewriter.finish()
}

/// Updates an operator's attributes to the remaining sizes.
fn resize(operator: &mut Operator, before: Option<&Layout>, after: Option<&Layout>, kept: &[bool]) {
    let left = |units: &[usize]| units.iter().filter(|unit| kept[**unit]).count();
    let count = |layout: &Layout| left(&layout.units);
    match operator {
        Operator::Conv(conv) => {
            let window = &mut conv.window;
            let each = window.input_channels / conv.groups.max(1);
            if let Some(before) =
                before.filter(|at| at.units.len() == window.input_channels as usize)
            {
                window.input_channels = count(before) as u32;
            }
            if let Some(after) = after {
                window.output_channels = count(after) as u32;
            }
            if conv.groups > 1 {
                conv.groups = window.input_channels / each.max(1);
            }
        }
        Operator::MaxPool(hardtack_bundle::graph::MaxPool { window, .. })
        | Operator::SumPool(hardtack_bundle::graph::SumPool { window, .. }) => {
            if let Some(after) = after {
                window.input_channels = count(after) as u32;
                window.output_channels = count(after) as u32;
            }
        }
        Operator::Broadcast(shape) => {
            if let Some(after) = after {
                shape[after.axis] = Dim::Value(count(after) as i64);
            }
        }
        Operator::Reshape(reshape) => {
            let first = reshape.axis as usize;
            let set = |dims: &mut [Dim], layout: Option<&Layout>| {
                let Some(layout) = layout else { return };
                let dim = layout.axis.checked_sub(first).and_then(|at| dims.get_mut(at));
                if let Some(dim) = dim {
                    *dim = Dim::Value(count(layout) as i64);
                }
            };
            set(&mut reshape.from, before.filter(|_| after.is_some()));
            set(&mut reshape.to, after);
        }
        Operator::Slice(slice) => {
            let Some(before) = before.filter(|at| at.axis == slice.axis as usize) else { return };
            let place = |dim: &Dim| {
                let all = dim.value().and_then(|place| before.units.get(..place as usize));
                all.map(|units| Dim::Value(left(units) as i64))
            };
            if let (Some(start), Some(end)) = (place(&slice.start), place(&slice.end)) {
                (slice.start, slice.end) = (start, end);
            }
        }
        _ => {}
    }
}

/// Removes the elements of a tensor whose units are not kept.
pub(super) fn sliced(tensor: &Tensor, layout: &Layout, kept: &[bool]) -> Tensor {
    let mut shape = tensor.shape().to_vec();
    let within: usize = shape[layout.axis + 1..].iter().product();
    let values = tensor.as_f32().expect("only f32 is cut");
    let left: Vec<f32> = values
        .chunks_exact(within.max(1))
        .enumerate()
        .filter(|(chunk, _)| kept[layout.units[chunk % layout.units.len()]])
        .flat_map(|(_, chunk)| chunk)
        .copied()
        .collect();
    shape[layout.axis] = layout.units.iter().filter(|unit| kept[**unit]).count();
    Tensor::new(&shape, Data::F32(left)).expect("as many elements as are kept")
}
