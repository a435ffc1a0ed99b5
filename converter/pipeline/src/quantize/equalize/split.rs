//! Splits a layer and the x · sigmoid(x) after it into several, one for the output channels of each
//! factor, so that small channels have a scale of their own from the start.

use std::collections::HashMap;

use hardtack::internal::Constant;
use hardtack::{Data, Tensor};
use hardtack_bundle::graph::{Binary, Conv, Dim, Node, Operator, Slice, Unary, ValueId};

use super::flow::{Flow, Gate};
use crate::graph::channels::convolution;
use crate::graph::constants::float_tensor;
use crate::graph::rewriter::Rewriter;

/// For each node of a split layer, by its name, the name of the node that it is a part of.
pub(crate) type Parts = HashMap<String, String>;

/// Splits a layer by the factors of its gate's channels, and multiplies each part by its factor.
pub(super) fn split(
    rewriter: &mut Rewriter,
    flow: &Flow,
    gate: &Gate,
    factors: &[f32],
    names: &mut Parts,
) {
    let product = ValueId { node: gate.product as u32, output: 0 };
    let Some(layout) = flow.channels.layout(product) else { return };
    let of = |channel: &usize| factors[layout.units[*channel]];
    let mut levels: Vec<f32> = (0..layout.units.len()).map(|channel| of(&channel)).collect();
    levels.sort_by(f32::total_cmp);
    levels.dedup();
    if levels == [1.0] {
        return;
    }
    let axis = layout.axis;
    let mut parts = Vec::new();
    for level in &levels {
        let channels: Vec<usize> =
            (0..layout.units.len()).filter(|channel| of(channel) == *level).collect();
        let part = part(rewriter, gate, axis, (&channels, *level), names);
        let part = part.expect("it can be split");
        parts.push((channels, part));
    }
    // Restore the channel order; adjacent channels of one part share a slice.
    let (mut runs, mut first) = (Vec::new(), 0);
    while first < layout.units.len() {
        let belongs = |(channels, _): &&(Vec<usize>, ValueId)| channels.contains(&first);
        let (channels, part) = parts.iter().find(belongs).expect("each channel has a part");
        let start = channels.partition_point(|channel| *channel < first);
        let run = channels[start..].iter().zip(first..).take_while(|(a, b)| **a == *b).count();
        let name = format!("{}.{first}", rewriter.node(gate.product).name);
        let (start, end) = (Dim::Value(start as i64), Dim::Value((start + run) as i64));
        let operator = Operator::Slice(Slice { axis: axis as u32, start, end });
        let mut fact = rewriter.node(part.node as usize).outputs[0].clone();
        fact.shape[axis] = Dim::Value(run as i64);
        runs.push(rewriter.add(Node { name, operator, inputs: vec![*part], outputs: vec![fact] }));
        first += run;
    }
    // The product becomes the concatenation, so that its readers read the parts.
    let node = &mut rewriter.model.graph.nodes[gate.product];
    (node.operator, node.inputs) = (Operator::Concat(axis as u32), runs);
}

/// Adds a copy of the layer and its gate with only these output channels, times a factor.
fn part(
    rewriter: &mut Rewriter,
    gate: &Gate,
    axis: usize,
    (channels, factor): (&[usize], f32),
    names: &mut Parts,
) -> Option<ValueId> {
    let layer = rewriter.node(gate.x.node as usize).clone();
    let Operator::Conv(conv) = &layer.operator else { return None };
    let (read, _) = convolution(&rewriter.model, gate.x.node as usize, conv)?;
    let nodes = [gate.x.node as usize, gate.sigmoid, gate.product];
    let [name, sigmoid, product] = nodes.map(|index| {
        let whole = rewriter.node(index).name.clone();
        let part = format!("{whole}/channels-from-{}", channels[0]);
        names.insert(part.clone(), whole);
        part
    });
    let kernel = taken(float_tensor(&rewriter.model, layer.inputs[1])?, read.axes.0, channels)?;
    let bias = float_tensor(&rewriter.model, layer.inputs[2])?;
    let along = bias.shape().iter().position(|size| *size == bias.len())?;
    let bias = taken(bias, along, channels)?;
    let rank = layer.outputs[0].shape.len();
    let by = Tensor::new(&vec![1; rank], vec![factor]).ok()?;
    let mut constant = |part: &str, tensor: Tensor| {
        rewriter.add_constant(format!("{name}.{part}"), Constant::Tensor(tensor.into()))
    };
    let [kernel, bias, by] =
        [("kernel", kernel), ("bias", bias), ("factor", by)].map(|(part, of)| constant(part, of));

    let mut fact = layer.outputs[0].clone();
    fact.shape[axis] = Dim::Value(channels.len() as i64);
    let mut add = |name: String, operator: Operator, inputs: Vec<ValueId>| {
        rewriter.add(Node { name, operator, inputs, outputs: vec![fact.clone()] })
    };
    let mut window = conv.window.clone();
    window.output_channels = channels.len() as _;
    let conv = Operator::Conv(Conv { window, ..conv.clone() });
    let x = add(name.clone(), conv, vec![layer.inputs[0], kernel, bias]);
    let multiply = || Operator::Binary(Binary::Multiply);
    let sigmoid = add(sigmoid, Operator::Unary(Unary::Sigmoid), vec![x]);
    let scaled = format!("{product}.scaled");
    if let Some(whole) = names.get(&product).cloned() {
        names.insert(scaled.clone(), whole);
    }
    let product = add(product, multiply(), vec![x, sigmoid]);
    Some(match factor {
        1.0 => product,
        _ => add(scaled, multiply(), vec![product, by]),
    })
}

/// Returns these elements along an axis.
fn taken(tensor: &Tensor, axis: usize, channels: &[usize]) -> Option<Tensor> {
    let shape = tensor.shape();
    let within: usize = shape[axis + 1..].iter().product();
    let values = tensor.as_f32()?;
    let outer = values.chunks_exact(within * shape[axis]);
    let values = outer.flat_map(|values| {
        channels.iter().flat_map(move |channel| &values[channel * within..][..within])
    });
    let mut taken = shape.to_vec();
    taken[axis] = channels.len();
    Tensor::new(&taken, Data::F32(values.copied().collect())).ok()
}
