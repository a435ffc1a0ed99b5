//! Layers that are linear in a value: convolutions, and matmuls with a constant matrix.

use hardtack::internal::Model;
use hardtack_bundle::graph::{self, Conv, Einsum, ImageLayout, Operator, Padding, ValueId};
use hardtack_engine::program::Window;

use super::Weights;
use crate::graph::constants::{float_elements, is_constant};
use crate::graph::first_output;
use crate::graph::shape::sample_shape;
use crate::quantize::float_reason::FloatReason;

/// A layer expressed as a convolution of a value whose axes are reordered, with rows first and
/// channels last.
pub(crate) struct Linear {
    /// The index of the node.
    pub node: usize,
    /// The value it reads.
    pub input: ValueId,
    /// The order of the input's axes, without the batch.
    pub input_order: Vec<usize>,
    /// The order of the output's axes, without the batch.
    pub output_order: Vec<usize>,
    /// The geometry of the kernel.
    pub window: Window,
    /// The number of channel groups.
    pub groups: u32,
    /// The number of output channels.
    pub channels: usize,
    /// The axis of the output channels, without the batch.
    pub axis: usize,
    /// The weights.
    pub weights: Weights,
    /// The bias of each output channel.
    pub bias: Vec<f32>,
}

/// A 1×1 window.
pub(crate) const ONE_PIXEL: Window =
    Window { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pad: [0, 0] };

fn shape(model: &Model, value_id: ValueId) -> Result<Vec<usize>, FloatReason> {
    sample_shape(model.graph.fact(value_id)).ok_or(FloatReason::DynamicDimension)
}

impl Linear {
    /// Returns the layer that a node computes.
    ///
    /// # Errors
    /// Returns the reason why the node is not such a layer.
    pub(crate) fn of(model: &Model, index: usize) -> Result<Linear, FloatReason> {
        match &model.graph.nodes[index].operator {
            Operator::Conv(conv) => Self::convolution(model, index, conv),
            Operator::Einsum(einsum) => Self::matmul(model, index, einsum),
            _ => Err(FloatReason::NoWeights),
        }
    }

    fn convolution(model: &Model, index: usize, conv: &Conv) -> Result<Linear, FloatReason> {
        let node = &model.graph.nodes[index];
        let [input, kernel, bias] = node.inputs[..] else { return Err(FloatReason::NoBias) };
        let before = shape(model, input)?;
        let after = shape(model, first_output(index))?;
        let order = image_order(conv.window.layout, before.len())?;
        let window = engine_window(&conv.window, &before, &after)?;
        let channels = conv.window.output_channels as usize;
        let spatial = conv.window.kernel.iter().map(|size| *size as usize).product();
        let weights = Weights::of_kernel(model, kernel, conv.kernel_layout, channels, spatial)
            .ok_or(FloatReason::WeightsNotConstant)?;
        let bias = float_elements(model, bias).ok_or(FloatReason::BiasNotConstant)?;
        let bias = if bias.len() == 1 { vec![bias[0]; channels] } else { bias };
        let axis = match conv.window.layout {
            ImageLayout::Nchw | ImageLayout::Chw => 0,
            ImageLayout::Nhwc | ImageLayout::Hwc => after.len() - 1,
        };
        Ok(Linear {
            node: index,
            channels,
            axis,
            input,
            input_order: order.clone(),
            output_order: order,
            window,
            groups: conv.groups,
            weights,
            bias,
        })
    }

    /// Returns a matmul with a constant matrix as a 1×1 convolution.
    fn matmul(model: &Model, index: usize, einsum: &Einsum) -> Result<Linear, FloatReason> {
        let node = &model.graph.nodes[index];
        let general = || FloatReason::NotMatmul;
        let (sides, result) = einsum.expression.split_once("->").ok_or_else(general)?;
        let (left, right) = sides.split_once(',').ok_or_else(general)?;
        let [a, b] = node.inputs[..] else { return Err(general()) };
        let constant = |value_id: ValueId| is_constant(model, value_id);
        let (value, value_axes, matrix, matrix_axes) = match (constant(a), constant(b)) {
            (false, true) => (a, left, b, right),
            (true, false) => (b, right, a, left),
            _ => return Err(general()),
        };
        let matrix_axes: Vec<char> = matrix_axes.chars().collect();
        let [first, second] = matrix_axes[..] else { return Err(general()) };
        let (k, n, k_axis) = match (value_axes.contains(first), value_axes.contains(second)) {
            (true, false) => (first, second, 0),
            (false, true) => (second, first, 1),
            _ => return Err(general()),
        };
        let value_axes: Vec<char> = value_axes.chars().collect();
        let result: Vec<char> = result.chars().collect();
        // All axes but the batch; the summed axis last, and in the result the new axis last.
        let place = |axes: &[char], axis: char| axes.iter().position(|other| *other == axis);
        let k_place = place(&value_axes, k).ok_or_else(general)?;
        let n_place = place(&result, n).ok_or_else(general)?;
        let batch_first = value_axes[0] == result[0] && k_place > 0 && n_place > 0;
        let rest: Vec<char> = value_axes[1..].iter().copied().filter(|axis| *axis != k).collect();
        let kept: Vec<char> = result[1..].iter().copied().filter(|axis| *axis != n).collect();
        if !batch_first || rest.len() != kept.len() || value_axes.len() != result.len() {
            return Err(general());
        }
        let orders = |axes: &[char], last: usize| -> Option<Vec<usize>> {
            let others = rest.iter().map(|axis| place(axes, *axis).map(|at| at - 1));
            others.chain([Some(last - 1)]).collect()
        };
        let input_order = orders(&value_axes, k_place).ok_or_else(general)?;
        let output_order = orders(&result, n_place).ok_or_else(general)?;
        let matrix_shape = &model.graph.fact(matrix).shape;
        let sizes = [0, 1].map(|axis| matrix_shape[axis].value().unwrap_or(0) as usize);
        let strides = [sizes[1], 1];
        let by = |axis: usize| (sizes[axis], strides[axis]);
        let weights = Weights::of_matrix(model, matrix, by(k_axis), by(1 - k_axis))
            .ok_or(FloatReason::WeightsNotConstant)?;
        let channels = sizes[1 - k_axis];
        Ok(Linear {
            node: index,
            channels,
            axis: n_place - 1,
            input: value,
            input_order,
            output_order,
            window: ONE_PIXEL,
            groups: 1,
            weights,
            bias: vec![0.0; channels],
        })
    }
}

/// Returns the order in which images of this layout are stored, with rows first and channels last.
/// Axes exclude the batch.
pub(crate) fn image_order(layout: ImageLayout, rank: usize) -> Result<Vec<usize>, FloatReason> {
    match (layout, rank) {
        (ImageLayout::Nchw, 3) => Ok(vec![1, 2, 0]),
        (ImageLayout::Nchw, 2) => Ok(vec![1, 0]),
        (ImageLayout::Nhwc, 3) => Ok(vec![0, 1, 2]),
        (ImageLayout::Nhwc, 2) => Ok(vec![0, 1]),
        _ => Err(FloatReason::ImageRank),
    }
}

/// Converts a window of the graph to one of the engine. A 1-D signal is an image of one row. The
/// shapes exclude the batch.
pub(crate) fn engine_window(
    window: &graph::Window,
    before: &[usize],
    after: &[usize],
) -> Result<Window, FloatReason> {
    let first = match window.layout {
        ImageLayout::Nchw | ImageLayout::Chw => 1,
        ImageLayout::Nhwc | ImageLayout::Hwc => 0,
    };
    let spatial = window.kernel.len();
    let missing = 2usize.checked_sub(spatial).ok_or(FloatReason::WindowRank)?;
    let mut engine = Window { kernel: [1; 2], stride: [1; 2], dilation: [1; 2], pad: [0; 2] };
    let size = |number: u32| u16::try_from(number).map_err(|_| FloatReason::WindowTooLarge);
    for axis in 0..spatial {
        let place = missing + axis;
        engine.kernel[place] = size(window.kernel[axis])?;
        engine.stride[place] = size(window.strides[axis])?;
        engine.dilation[place] = size(window.dilations[axis])?;
        let (input, output) = (before[first + axis], after[first + axis]);
        let reach = (window.kernel[axis] as usize - 1) * window.dilations[axis] as usize + 1;
        let covered = (output - 1) * window.strides[axis] as usize + reach;
        let total = covered.saturating_sub(input) as u32;
        engine.pad[place] = size(match &window.padding {
            Padding::Valid => 0,
            Padding::Explicit(begin, _) | Padding::ExplicitCeil(begin, _) => begin[axis],
            Padding::SameUpper => total / 2,
            Padding::SameLower => total.div_ceil(2),
        })?;
    }
    Ok(engine)
}
