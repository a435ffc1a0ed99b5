//! A common form of convolutions and matmuls: weights applied to patches of a value.

use hardtack::internal::Model;
use hardtack_bundle::graph::{Conv, KernelLayout, ValueId};

use super::{KEPT, Unit, channel_axis};
use crate::graph::constants::float_tensor;

/// A convolution, or a matmul of a value with a constant matrix.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// The index of the node.
    pub node: usize,
    /// The input activation.
    pub input: ValueId,
    /// The index of the weights among the node's inputs.
    pub weights: usize,
    /// The axes of the weights: output channels, then input channels.
    pub axes: (usize, usize),
    /// The channel axes of the input and the output.
    pub channel_axes: (usize, usize),
    /// The number of groups of a convolution; 1 for a matmul.
    pub groups: usize,
    /// The unit of each input channel.
    pub reads: Vec<Unit>,
    /// The unit of each output channel.
    pub makes: Vec<Unit>,
}

impl Layer {
    /// Returns the output value.
    pub(crate) fn output(&self) -> ValueId {
        ValueId { node: self.node as u32, output: 0 }
    }

    /// Returns the value of the weights.
    pub(crate) fn kernel(&self, model: &Model) -> ValueId {
        model.graph.nodes[self.node].inputs[self.weights]
    }
}

/// Returns a convolution and the number of its input channels, or `None` if the groups do not
/// divide its channels. The caller fills in `reads` and `makes`.
pub(crate) fn convolution(model: &Model, index: usize, conv: &Conv) -> Option<(Layer, usize)> {
    let node = &model.graph.nodes[index];
    let [input, kernel, _] = node.inputs[..] else { return None };
    let rank = float_tensor(model, kernel)?.shape().len();
    let axes = match conv.kernel_layout {
        KernelLayout::Oihw => (0, 1),
        KernelLayout::Ohwi => (0, rank - 1),
        KernelLayout::Hwio => (rank - 1, rank - 2),
    };
    let axis = channel_axis(conv.window.layout, node.outputs[0].shape.len());
    let outputs = conv.window.output_channels as usize;
    let inputs = conv.window.input_channels as usize;
    let groups = conv.groups as usize;
    let splits = |channels: usize| channels > 0 && channels.is_multiple_of(groups);
    if groups == 0 || !splits(inputs) || !splits(outputs) {
        return None;
    }
    let layer = Layer {
        node: index,
        input,
        weights: 1,
        axes,
        channel_axes: (axis, axis),
        groups,
        reads: Vec::new(),
        makes: vec![KEPT; outputs],
    };
    Some((layer, inputs))
}

/// Returns the matmul of a value with a constant matrix that an einsum computes, and the number of
/// its input channels. Returns `None` for any other einsum. The caller fills in `reads` and
/// `makes`.
pub(crate) fn matrix_product(
    model: &Model,
    index: usize,
    expression: &str,
) -> Option<(Layer, usize)> {
    let node = &model.graph.nodes[index];
    let (sides, result) = expression.split_once("->")?;
    let (left, right) = sides.split_once(',')?;
    let [a, b] = node.inputs[..] else { return None };
    let (value, value_axes, weights, matrix_axes) =
        match (float_tensor(model, a), float_tensor(model, b)) {
            (None, Some(_)) => (a, left, 1, right),
            (Some(_), None) => (b, right, 0, left),
            _ => return None,
        };
    let shape = float_tensor(model, node.inputs[weights])?.shape();
    let place = |axes: &str, axis: char| axes.chars().position(|other| other == axis);
    let (mut summed, mut new) = (None, None);
    for (axis, name) in matrix_axes.chars().enumerate() {
        match (place(value_axes, name), place(result, name)) {
            (Some(at), None) if summed.is_none() => summed = Some((axis, at)),
            (None, Some(at)) if new.is_none() => new = Some((axis, at)),
            _ if shape.get(axis) == Some(&1) => {}
            _ => return None,
        }
    }
    let ((input_axis, from), (output_axis, to)) = (summed?, new?);
    // All other axes of the value must be axes of the result, in the same order.
    let without = |axes: &str, gone: usize| -> Vec<char> {
        axes.chars().enumerate().filter(|(axis, _)| *axis != gone).map(|(_, name)| name).collect()
    };
    if without(value_axes, from) != without(result, to) {
        return None;
    }
    let layer = Layer {
        node: index,
        input: value,
        weights,
        axes: (output_axis, input_axis),
        channel_axes: (from, to),
        groups: 1,
        reads: Vec::new(),
        makes: vec![KEPT; shape[output_axis]],
    };
    Some((layer, shape[input_axis]))
}
