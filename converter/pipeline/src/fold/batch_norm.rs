//! Fuses batch normalization, and other constant per-channel scales and offsets, into the weights
//! and bias of the preceding convolution.

use std::collections::HashMap;

use hardtack::internal::Constant;
use hardtack::{Data, Tensor};
use hardtack_bundle::graph::{Binary, Conv, ImageLayout, KernelLayout, Operator, ValueId};

use crate::graph::rewriter::Rewriter;

/// Fuses all such nodes. Returns their number.
pub(super) fn merge(rewriter: &mut Rewriter) -> usize {
    let mut merged = 0;
    let mut uses = rewriter.uses();
    for index in 0..rewriter.model.graph.nodes.len() {
        let here = ValueId { node: index as u32, output: 0 };
        if rewriter.resolve(here) != here {
            continue;
        }
        if let Some(conv) = merge_one(rewriter, index, &uses) {
            // Readers of the node now read the convolution.
            let count = uses.get(&here).copied().unwrap_or(0);
            uses.insert(conv, count);
            merged += 1;
        }
    }
    merged
}

/// `y = convolution · factor + offset`, per channel.
struct Affine {
    factor: Vec<f64>,
    offset: Vec<f64>,
}

/// Fuses a node if possible. Returns the output of the new convolution. `uses` counts the readers
/// of each value.
fn merge_one(
    rewriter: &mut Rewriter,
    index: usize,
    uses: &HashMap<ValueId, usize>,
) -> Option<ValueId> {
    let node = rewriter.node(index);
    let Operator::Binary(kind) = node.operator else { return None };
    let [left, right] = node.inputs[..] else { return None };
    let (left, right) = (rewriter.resolve(left), rewriter.resolve(right));
    let commutes = matches!(kind, Binary::Add | Binary::Multiply);
    let is_conv = |value_id: ValueId| {
        matches!(rewriter.node(value_id.node as usize).operator, Operator::Conv(_))
    };
    let (value, constant) = match () {
        _ if is_conv(left) => (left, right),
        _ if is_conv(right) && commutes => (right, left),
        _ => return None,
    };
    let conv = rewriter.node(value.node as usize);
    let Operator::Conv(attributes) = &conv.operator else { return None };
    let attributes = attributes.clone();
    if node.outputs[0] != conv.outputs[0] || uses.get(&value) != Some(&1) {
        return None;
    }
    let channels = attributes.window.output_channels as usize;
    let operand = per_channel(f32s(rewriter, constant)?, &attributes, conv.outputs[0].shape.len())?;
    let affine = affine(kind, &operand)?;
    let [input, kernel, bias] = conv.inputs[..] else { return None };
    let (kernel, bias) = (f32s(rewriter, kernel)?, f32s(rewriter, bias)?);
    let bias: Vec<f32> = (0..channels)
        .map(|c| {
            let bias = bias.as_f32().expect("f32")[if bias.len() == 1 { 0 } else { c }];
            (bias as f64 * affine.factor[c] + affine.offset[c]) as f32
        })
        .collect();
    let kernel = scaled(kernel, attributes.kernel_layout, &affine.factor)?;
    let (name, mut merged) = (conv.name.clone(), conv.clone());
    let kernel = rewriter.add_constant(format!("{name}.kernel"), kernel);
    let bias = Tensor::new(&[channels], bias).ok()?;
    let bias = rewriter.add_constant(format!("{name}.bias"), Constant::Tensor(bias.into()));
    merged.inputs = vec![input, kernel, bias];
    let merged = rewriter.add(merged);
    rewriter.redirect(ValueId { node: index as u32, output: 0 }, merged);
    Some(merged)
}

/// Returns the tensor of a value if it is an f32 constant.
fn f32s(rewriter: &Rewriter, value_id: ValueId) -> Option<&Tensor> {
    match rewriter.constant(value_id)? {
        Constant::Tensor(tensor) if matches!(tensor.data(), Data::F32(_)) => Some(tensor),
        _ => None,
    }
}

/// Returns one value per channel if a constant is broadcast along all other axes.
fn per_channel(operand: &Tensor, conv: &Conv, rank: usize) -> Option<Vec<f32>> {
    let values = operand.as_f32()?;
    let channels = conv.window.output_channels as usize;
    if values.len() == 1 {
        return Some(vec![values[0]; channels]);
    }
    let axis = match conv.window.layout {
        ImageLayout::Nchw => 1,
        ImageLayout::Chw => 0,
        ImageLayout::Nhwc | ImageLayout::Hwc => rank - 1,
    };
    let fits = operand.shape().len() == rank
        && values.len() == channels
        && operand.shape()[axis] == channels;
    fits.then(|| values.to_vec())
}

fn affine(kind: Binary, operand: &[f32]) -> Option<Affine> {
    let values = || operand.iter().map(|x| *x as f64);
    let (factor, offset): (Vec<f64>, Vec<f64>) = match kind {
        Binary::Add => values().map(|x| (1.0, x)).unzip(),
        Binary::Subtract => values().map(|x| (1.0, -x)).unzip(),
        Binary::Multiply => values().map(|x| (x, 0.0)).unzip(),
        Binary::Divide if operand.iter().all(|x| *x != 0.0) => {
            values().map(|x| (1.0 / x, 0.0)).unzip()
        }
        _ => return None,
    };
    Some(Affine { factor, offset })
}

/// Multiplies each output channel of a kernel by its factor.
fn scaled(kernel: &Tensor, layout: KernelLayout, factor: &[f64]) -> Option<Constant> {
    let values = kernel.as_f32()?;
    let channels = factor.len();
    let per_channel = values.len() / channels.max(1);
    let channel = |i: usize| match layout {
        KernelLayout::Oihw | KernelLayout::Ohwi => i / per_channel,
        KernelLayout::Hwio => i % channels,
    };
    if per_channel * channels != values.len() {
        return None;
    }
    let scaled: Vec<f32> =
        values.iter().enumerate().map(|(i, w)| (*w as f64 * factor[channel(i)]) as f32).collect();
    Some(Constant::Tensor(Tensor::new(kernel.shape(), scaled).ok()?.into()))
}
