//! Finds the channels that can each be multiplied by a positive factor without changing the model's
//! outputs: those that one layer produces and others read, with only operations in between that a
//! factor passes through.

use std::collections::HashMap;

use hardtack::Data;
use hardtack::internal::Model;
use hardtack_bundle::graph::{
    Binary, Conv, Graph, Node, Operator, PadMode, Reducer, Unary, ValueId,
};

use crate::graph::channels::{
    Channels, KEPT, Layer, Layout, Unit, convolution, matrix_product, rearranged,
};
use crate::graph::constants::float_tensor;

/// Where factors that do not pass through x · sigmoid(x) are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FactorPlacement {
    /// Before it; the sigmoid reads unscaled channels.
    BeforeGate,
    /// After it; the layer before it is split by the factors of its channels.
    AfterGate,
}

/// A constant whose elements are multiplied or divided by their channels' factors.
pub(crate) struct Scaled {
    /// The index of the node that reads it.
    pub node: usize,
    /// The index of the node's input.
    pub input: usize,
    /// The axis of the channels, and the unit of each element along it.
    pub layout: Layout,
    /// Whether elements are divided, because the node reads the channels and does not produce them.
    pub divided: bool,
}

/// A layer that reads channels.
pub(crate) struct Reader {
    /// The unit of each input channel.
    pub units: Vec<Unit>,
    /// The unit of each output channel.
    pub makes: Vec<Unit>,
    /// The value it reads.
    pub input: ValueId,
    /// The weights.
    pub kernel: ValueId,
    /// The axes of output channels and, unless depthwise, of the input channels of a group.
    pub axes: (usize, Option<usize>),
    /// Whether each output channel reads one input channel only.
    pub depthwise: bool,
}

impl Reader {
    /// Returns one row per output channel, ordered by input channel, then kernel element.
    pub(crate) fn rows(&self, model: &Model) -> Vec<Vec<f32>> {
        float_tensor(model, self.kernel)
            .and_then(|kernel| rows(kernel, self.axes.0, self.axes.1))
            .unwrap_or_default()
    }
}

/// x · sigmoid(x). A factor passes through the first x only.
pub(crate) struct Gate {
    /// The value x.
    pub x: ValueId,
    /// The node of the sigmoid.
    pub sigmoid: usize,
    /// The node of the product.
    pub product: usize,
}

/// The channels of a graph. Channels of one unit share one factor; that of
/// [`KEPT`](crate::graph::channels::KEPT) is 1.
#[derive(Default)]
pub(crate) struct Flow {
    /// The channel layout of each value.
    pub channels: Channels,
    /// The constants that absorb the factors.
    pub scaled: Vec<Scaled>,
    /// The layers that read channels.
    pub readers: Vec<Reader>,
    /// The x · sigmoid(x) patterns before which factors may be applied.
    pub gates: Vec<Gate>,
    /// The same patterns after layers that can be split, where factors begin.
    pub split: Vec<Gate>,
}

/// Returns whether the placement matters: whether there is any x · sigmoid(x).
pub(crate) fn has_gates(model: &Model) -> bool {
    !gates(model).is_empty()
}

/// Finds the channels of a model.
pub(crate) fn follow(model: &Model, placement: FactorPlacement) -> Flow {
    let gates = gates(model);
    let mut flow = match placement {
        FactorPlacement::BeforeGate => Flow { gates, ..Flow::default() },
        FactorPlacement::AfterGate => {
            let can = |gate: &Gate| can_split(model, gate);
            Flow { split: gates.into_iter().filter(can).collect(), ..Flow::default() }
        }
    };
    for index in 0..model.graph.nodes.len() {
        let mut layout = flow.through(model, index);
        if let (Some(layout), true) =
            (&mut layout, flow.split.iter().any(|gate| gate.product == index))
        {
            layout.units = flow.channels.fresh(layout.units.len());
        }
        // A sigmoid reads unscaled channels.
        if layout.is_none() && !flow.gates.iter().any(|gate| gate.sigmoid == index) {
            model.graph.nodes[index]
                .inputs
                .iter()
                .for_each(|value_id| flow.channels.keep(*value_id));
        }
        flow.channels.push(layout);
    }
    model.graph.outputs.iter().for_each(|value_id| flow.channels.keep(*value_id));
    let settle = flow.channels.settle();
    flow.scaled.iter_mut().for_each(|scaled| settle(&mut scaled.layout.units));
    for reader in &mut flow.readers {
        settle(&mut reader.units);
        settle(&mut reader.makes);
    }
    flow
}

/// Returns whether the layer before a gate can be split: a convolution of one group that only the
/// gate reads.
fn can_split(model: &Model, gate: &Gate) -> bool {
    let nodes = &model.graph.nodes;
    let index = gate.x.node as usize;
    let Operator::Conv(conv) = &nodes[index].operator else { return false };
    let read = nodes.iter().flat_map(|node| &node.inputs).chain(&model.graph.outputs);
    let outputs = conv.window.output_channels as usize;
    let bias = nodes[index].inputs.get(2).and_then(|bias| float_tensor(model, *bias));
    conv.groups == 1
        && convolution(model, index, conv).is_some()
        && bias.is_some_and(|bias| bias.len() == outputs && bias.shape().contains(&outputs))
        && read.filter(|value_id| **value_id == gate.x).count() == 2
}

/// Returns the scalable values that steps round, each with x if it is x · sigmoid(x).
pub(crate) fn estimated_values(graph: &Graph, flow: &Flow) -> Vec<(ValueId, Option<ValueId>)> {
    let mut readers: HashMap<ValueId, Vec<usize>> = HashMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|input| readers.entry(*input).or_default().push(index));
    }
    let values = flow.channels.layouts().iter().enumerate().filter_map(|(index, layout)| {
        let value_id = ValueId { node: index as u32, output: 0 };
        let rounds = matches!(
            graph.nodes[index].operator,
            Operator::Conv(_)
                | Operator::Einsum(_)
                | Operator::Binary(_)
                | Operator::Unary(_)
                | Operator::SumPool(_)
                | Operator::Concat(_)
        );
        // Operations directly after a layer are fused into it.
        let inside = match readers.get(&value_id).map(Vec::as_slice) {
            Some([reader]) => matches!(
                graph.nodes[*reader].operator,
                Operator::Binary(Binary::Add | Binary::Maximum | Binary::Minimum)
            ),
            Some([_, _]) => flow.gates.iter().any(|gate| gate.x == value_id),
            _ => false,
        };
        let x = flow.gates.iter().find(|gate| gate.product == index).map(|gate| gate.x);
        let counts = rounds && !inside && layout.as_ref()?.units.iter().any(|unit| *unit != KEPT);
        counts.then_some((value_id, x))
    });
    values.collect()
}

fn gates(model: &Model) -> Vec<Gate> {
    let nodes = &model.graph.nodes;
    let mut read = vec![0; nodes.len()];
    let all = nodes.iter().flat_map(|node| &node.inputs).chain(&model.graph.outputs);
    all.for_each(|value_id| read[value_id.node as usize] += 1);
    let gate = |(product, node): (usize, &Node)| {
        let (Operator::Binary(Binary::Multiply), &[a, b]) = (&node.operator, &node.inputs[..])
        else {
            return None;
        };
        let of = |x: ValueId, gate: ValueId| {
            let sigmoid = gate.node as usize;
            let fits = matches!(nodes[sigmoid].operator, Operator::Unary(Unary::Sigmoid))
                && nodes[sigmoid].inputs == [x]
                && read[sigmoid] == 1;
            fits.then_some(Gate { x, sigmoid, product })
        };
        of(a, b).or_else(|| of(b, a))
    };
    nodes.iter().enumerate().filter_map(gate).collect()
}

impl Flow {
    /// Returns the number of units.
    pub(crate) fn units(&self) -> usize {
        self.channels.units()
    }

    /// Returns the channels of a node's output, or `None` if no factor passes through the node.
    fn through(&mut self, model: &Model, index: usize) -> Option<Layout> {
        let node = &model.graph.nodes[index];
        let [fact] = &node.outputs[..] else { return None };
        let rank = fact.shape.len();
        let only = || self.channels.layout(*node.inputs.first()?).cloned();
        match &node.operator {
            Operator::Conv(conv) => self.conv(model, index, conv),
            Operator::Einsum(einsum) => {
                let (layer, inputs) = matrix_product(model, index, &einsum.expression)?;
                self.layer(model, &layer, inputs)
            }
            Operator::Binary(kind) => self.elementwise(model, index, *kind),
            Operator::Unary(Unary::LeakyRelu(_) | Unary::Abs | Unary::Negate) => only(),
            Operator::Reduce(reduce) => only().filter(|at| {
                let linear =
                    matches!(reduce.reducer, Reducer::Sum | Reducer::Maximum | Reducer::Minimum);
                linear && !reduce.axes.contains(&(at.axis as u32))
            }),
            Operator::Pad(pad) => {
                let zeros = match pad.mode {
                    PadMode::Constant(index) => match model.constants.get(index as usize)? {
                        hardtack::internal::Constant::Tensor(tensor) => tensor.as_f32()? == [0.0],
                        _ => false,
                    },
                    PadMode::Reflect | PadMode::Edge => true,
                };
                only().filter(|at| zeros && pad.pads.get(at.axis) == Some(&(0, 0)))
            }
            Operator::Concat(axis) => self.channels.concat(model, &node.inputs, *axis as usize),
            operator => rearranged(only()?, operator, rank),
        }
    }

    fn conv(&mut self, model: &Model, index: usize, conv: &Conv) -> Option<Layout> {
        let (layer, inputs) = convolution(model, index, conv)?;
        let outputs = layer.makes.len();
        let bias = float_tensor(model, model.graph.nodes[index].inputs[2])?;
        let bias_axis = bias.shape().iter().position(|size| *size == outputs)?;
        let depthwise = layer.groups > 1 && layer.groups == inputs && layer.groups == outputs;
        if bias.len() != outputs || (layer.groups != 1 && !depthwise) {
            return None;
        }
        let made = self.layer(model, &layer, inputs)?;
        self.scaled(index, 2, bias_axis, &made.units, false);
        Some(made)
    }

    /// Returns the channels that a layer produces. It must have one group or be depthwise.
    fn layer(&mut self, model: &Model, layer: &Layer, inputs: usize) -> Option<Layout> {
        let depthwise = layer.groups > 1;
        let read = self.channels.read(layer.input, layer.channel_axes.0, inputs);
        let made = self.channels.fresh(layer.makes.len());
        let (output_axis, input_axis) = layer.axes;
        let read_axis = if depthwise { output_axis } else { input_axis };
        self.scaled(layer.node, layer.weights, read_axis, &read, true);
        self.scaled(layer.node, layer.weights, output_axis, &made, false);
        let (input, kernel) = (layer.input, layer.kernel(model));
        float_tensor(model, kernel)?;
        let axes = (output_axis, (!depthwise).then_some(input_axis));
        let makes = made.clone();
        self.readers.push(Reader { units: read, makes, input, kernel, axes, depthwise });
        Some(Layout { axis: layer.channel_axes.1, units: made })
    }

    fn elementwise(&mut self, model: &Model, index: usize, kind: Binary) -> Option<Layout> {
        let node = &model.graph.nodes[index];
        let [a, b] = node.inputs[..] else { return None };
        let whole = |value_id: ValueId| model.graph.fact(value_id).shape == node.outputs[0].shape;
        let (value, other) = match (self.channels.layout(a), self.channels.layout(b)) {
            (Some(_), _) if whole(a) => (a, b),
            (_, Some(_)) if whole(b) => (b, a),
            _ => return None,
        };
        let layout = self.channels.layout(value)?.clone();
        let constant = float_tensor(model, other);
        match kind {
            Binary::Multiply if value != other => {
                self.channels.keep(other);
                Some(layout)
            }
            Binary::Divide if constant.is_some() && value == a => Some(layout),
            Binary::Maximum
            | Binary::Minimum
            | Binary::Add
            | Binary::Subtract
            | Binary::SubtractFrom => {
                let Some(constant) = constant else {
                    let other = self.channels.layout(other)?.clone();
                    self.channels.join(&layout, &other)?;
                    return Some(layout);
                };
                if constant.as_f32()?.iter().all(|element| *element == 0.0) {
                    return Some(layout);
                }
                let shape = constant.shape();
                let fits = shape.len() == node.outputs[0].shape.len()
                    && shape[layout.axis] == layout.units.len();
                fits.then_some(())?;
                let input = node.inputs.iter().position(|input| *input == other)?;
                self.scaled(index, input, layout.axis, &layout.units, false);
                Some(layout)
            }
            _ => None,
        }
    }

    fn scaled(&mut self, node: usize, input: usize, axis: usize, units: &[Unit], divided: bool) {
        let layout = Layout { axis, units: units.to_vec() };
        self.scaled.push(Scaled { node, input, layout, divided });
    }
}

/// Returns the elements in rows along axis `first`, each ordered by axis `second`, then the rest.
fn rows(tensor: &hardtack::Tensor, first: usize, second: Option<usize>) -> Option<Vec<Vec<f32>>> {
    let Data::F32(values) = tensor.data() else { return None };
    let shape = tensor.shape();
    let strides = crate::graph::shape::strides(shape);
    let along = |index: u32, axis: usize| index as usize / strides[axis] % shape[axis];
    let mut order: Vec<u32> = (0..u32::try_from(values.len()).ok()?).collect();
    // All keys differ, and an unstable sort needs no extra memory.
    order.sort_unstable_by_key(|at| {
        (along(*at, first), second.map_or(0, |axis| along(*at, axis)), *at)
    });
    let row = values.len() / shape[first].max(1);
    let each = |row: &[u32]| row.iter().map(|at| values[*at as usize]).collect();
    Some(order.chunks(row.max(1)).map(each).collect())
}
