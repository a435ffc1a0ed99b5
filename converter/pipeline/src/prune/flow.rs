//! Tracks the channels of each value through the graph, operator by operator. Unsupported operators
//! keep the channels of their inputs.

use hardtack::internal::Model;
use hardtack_bundle::graph::{Conv, Dim, Operator, ValueId};

use crate::graph::channels::{
    Channels, Layer, Layout, Unit, convolution, matrix_product, rearranged, size,
};
use crate::graph::constants::float_tensor;

/// A constant that is sliced when units are removed.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// The index of the node that reads it.
    pub node: usize,
    /// The index of the node's input.
    pub input: usize,
    /// The axis to slice, and the unit of each index along it.
    pub layout: Layout,
}

/// The channels, sliceable constants and layers of a graph.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// The channels of each value.
    pub channels: Channels,
    /// The constants that depend on channels.
    pub cuts: Vec<Cut>,
    /// The convolutions and matmuls.
    pub layers: Vec<Layer>,
}

/// Tracks the channels of a model.
pub(super) fn follow(model: &Model) -> Flow {
    let mut flow = Flow::default();
    for index in 0..model.graph.nodes.len() {
        let layout = flow.through(model, index);
        if layout.is_none() {
            model.graph.nodes[index]
                .inputs
                .iter()
                .for_each(|value_id| flow.channels.keep(*value_id));
        }
        flow.channels.push(layout);
    }
    model.graph.outputs.iter().for_each(|value_id| flow.channels.keep(*value_id));
    let settle = flow.channels.settle();
    flow.cuts.iter_mut().for_each(|cut| settle(&mut cut.layout.units));
    for layer in &mut flow.layers {
        settle(&mut layer.reads);
        settle(&mut layer.makes);
    }
    flow
}

impl Flow {
    /// Returns the number of units.
    pub(super) fn units(&self) -> usize {
        self.channels.units()
    }

    /// Returns the channels of a node's output, or `None` if its inputs' channels must be kept.
    fn through(&mut self, model: &Model, index: usize) -> Option<Layout> {
        let node = &model.graph.nodes[index];
        let rank = node.outputs.first()?.shape.len();
        if node.outputs.len() != 1 {
            return None;
        }
        let only = || self.channels.layout(*node.inputs.first()?).cloned();
        match &node.operator {
            Operator::Conv(conv) => self.conv(model, index, conv),
            Operator::Einsum(einsum) => {
                let (layer, value) = matrix_product(model, index, &einsum.expression)?;
                self.product(layer, value)
            }
            Operator::Binary(_) => self.elementwise(model, index),
            Operator::Unary(_) | Operator::Cast(_) => only(),
            Operator::Reduce(reduce) => {
                only().filter(|at| !reduce.axes.contains(&(at.axis as u32)))
            }
            Operator::Softmax(softmax) => {
                only().filter(|at| !softmax.axes.contains(&(at.axis as u32)))
            }
            Operator::Resize(resize) => {
                let scales = node.inputs.get(resize.scales_input? as usize)?;
                let scales = float_tensor(model, *scales)?.as_f32()?;
                only().filter(|at| scales.get(at.axis) == Some(&1.0))
            }
            Operator::Pad(pad) => only().filter(|at| pad.pads.get(at.axis) == Some(&(0, 0))),
            Operator::Tile(counts) => {
                only().filter(|at| counts.get(at.axis) == Some(&Dim::Value(1)))
            }
            Operator::Broadcast(shape) => {
                let same = |at: &Layout| Dim::Value(at.units.len() as i64);
                only().filter(|at| shape.get(at.axis) == Some(&same(at)))
            }
            Operator::Concat(axis) => self.channels.concat(model, &node.inputs, *axis as usize),
            operator => rearranged(only()?, operator, rank),
        }
    }

    fn conv(&mut self, model: &Model, index: usize, conv: &Conv) -> Option<Layout> {
        let (mut layer, inputs) = convolution(model, index, conv)?;
        let (outputs, groups, axis) = (layer.makes.len(), layer.groups, layer.channel_axes.1);
        let read = self.channels.read(layer.input, axis, inputs);
        let made: Vec<Unit> = if groups == 1 {
            self.channels.fresh(outputs)
        } else {
            // The channels of a convolution group are removed together. In a depthwise
            // convolution, a group has one channel.
            let mut one_each = Vec::new();
            for group in read.chunks(inputs / groups) {
                group.iter().for_each(|unit| self.channels.unite(group[0], *unit));
                one_each.push(group[0]);
            }
            (0..outputs).map(|output| one_each[output / (outputs / groups)]).collect()
        };
        if groups == 1 {
            self.cut(index, layer.weights, layer.axes.1, &read);
        }
        self.cut(index, layer.weights, layer.axes.0, &made);
        let bias = float_tensor(model, model.graph.nodes[index].inputs[2])?;
        if bias.len() == outputs {
            let axis = bias.shape().iter().position(|size| *size == outputs)?;
            self.cut(index, 2, axis, &made);
        }
        (layer.reads, layer.makes) = (read, made.clone());
        self.layers.push(layer);
        Some(Layout { axis, units: made })
    }

    fn product(&mut self, mut layer: Layer, inputs: usize) -> Option<Layout> {
        let read = self.channels.read(layer.input, layer.channel_axes.0, inputs);
        let units = self.channels.fresh(layer.makes.len());
        self.cut(layer.node, layer.weights, layer.axes.1, &read);
        self.cut(layer.node, layer.weights, layer.axes.0, &units);
        let axis = layer.channel_axes.1;
        (layer.reads, layer.makes) = (read, units.clone());
        self.layers.push(layer);
        Some(Layout { axis, units })
    }

    /// Ties the channels of all operands. Constant operands are sliced along with them.
    fn elementwise(&mut self, model: &Model, index: usize) -> Option<Layout> {
        let node = &model.graph.nodes[index];
        let layout =
            node.inputs.iter().find_map(|value_id| self.channels.layout(*value_id))?.clone();
        let count = layout.units.len();
        for (input, value_id) in node.inputs.iter().enumerate() {
            let size = size(model, *value_id, layout.axis);
            match self.channels.layout(*value_id).cloned() {
                Some(other) => self.channels.join(&layout, &other)?,
                None if size == Some(1) && count != 1 => {}
                None if is_constant(model, *value_id) && size == Some(count) => {
                    float_tensor(model, *value_id)?;
                    self.cut(index, input, layout.axis, &layout.units);
                }
                None => return None,
            }
        }
        Some(layout)
    }

    fn cut(&mut self, node: usize, input: usize, axis: usize, units: &[Unit]) {
        self.cuts.push(Cut { node, input, layout: Layout { axis, units: units.to_vec() } });
    }
}

fn is_constant(model: &Model, value_id: ValueId) -> bool {
    matches!(model.graph.nodes[value_id.node as usize].operator, Operator::Constant(_))
}
