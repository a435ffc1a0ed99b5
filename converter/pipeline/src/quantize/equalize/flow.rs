//! Which channels may be multiplied by a positive number, each, without a change of what the model
//! gives: those that layers make and layers read, and between them only what a factor passes
//! through.

use hardtack::{Data, Model};
use hardtack_bundle::graph::{
    Binary, Conv, KernelLayout, Node, Operator, Outlet, PadMode, Reducer, Unary,
};

use crate::prune::flow::real;
use crate::prune::layer::{Layer, matrix_product};
use crate::prune::layout::{KEPT, Layout, Unit, Units, channel_axis, rearranged};

/// A constant whose elements are multiplied by their channels' factors, or divided by them.
pub struct Scaled {
    /// The node that reads it.
    pub node: usize,
    /// Which of the node's inputs it is.
    pub input: usize,
    /// The axis, and the unit of each element of it.
    pub layout: Layout,
    /// Whether it is divided: the channels are read, not made.
    pub divided: bool,
}

/// A layer that reads channels.
pub struct Reader {
    /// The unit of each input channel.
    pub units: Vec<Unit>,
    /// The unit of each output channel.
    pub makes: Vec<Unit>,
    /// The value it reads.
    pub input: Outlet,
    /// Its weights.
    pub kernel: Outlet,
    /// Their axes of output channels, and of the input channels of a group.
    pub axes: (usize, Option<usize>),
    /// Whether each output channel reads one input channel only.
    pub depthwise: bool,
}

impl Reader {
    /// Weights by output channel, then input channel of the group, then element of the window.
    pub fn rows(&self, model: &Model) -> Vec<Vec<f32>> {
        real(model, self.kernel)
            .and_then(|kernel| rows(kernel, self.axes.0, self.axes.1))
            .unwrap_or_default()
    }
}

/// x · sigmoid(x): a factor passes through the first x only.
pub struct Gate {
    /// The value.
    pub x: Outlet,
    /// The node of the sigmoid.
    pub sigmoid: usize,
    /// The node of the product.
    pub product: usize,
}

/// What is known of a graph's channels. Those of one unit have one factor; [`KEPT`] has 1.
#[derive(Default)]
pub struct Flow {
    /// Channels of each node's first output, where they are known.
    pub layouts: Vec<Option<Layout>>,
    /// Constants that have the factors in them.
    pub scaled: Vec<Scaled>,
    /// The layers.
    pub readers: Vec<Reader>,
    /// Where x · sigmoid(x) is computed.
    pub gates: Vec<Gate>,
    /// The unit that each stands for, a smaller one or itself.
    same: Units,
}

/// Follows the channels of a model.
pub fn follow(model: &Model) -> Flow {
    let mut flow = Flow { gates: gates(model), ..Flow::default() };
    for index in 0..model.graph.nodes.len() {
        let layout = flow.through(model, index);
        // A sigmoid is given the channels as they were.
        if layout.is_none() && !flow.gates.iter().any(|gate| gate.sigmoid == index) {
            model.graph.nodes[index].inputs.iter().for_each(|outlet| flow.keep(*outlet));
        }
        flow.layouts.push(layout);
    }
    model.graph.outputs.iter().for_each(|outlet| flow.keep(*outlet));
    flow.settle();
    flow
}

fn gates(model: &Model) -> Vec<Gate> {
    let nodes = &model.graph.nodes;
    let mut read = vec![0; nodes.len()];
    let all = nodes.iter().flat_map(|node| &node.inputs).chain(&model.graph.outputs);
    all.for_each(|outlet| read[outlet.node as usize] += 1);
    let gate = |(product, node): (usize, &Node)| {
        let (Operator::Binary(Binary::Multiply), &[a, b]) = (&node.operator, &node.inputs[..])
        else {
            return None;
        };
        let of = |x: Outlet, gate: Outlet| {
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
    /// The channels of a value.
    pub fn layout(&self, outlet: Outlet) -> Option<&Layout> {
        (outlet.slot == 0).then(|| self.layouts[outlet.node as usize].as_ref())?
    }

    /// How many units there are, [`KEPT`] among them.
    pub fn units(&self) -> usize {
        self.same.count()
    }

    /// The channels of a node's output; `None` where no factor passes through the node.
    fn through(&mut self, model: &Model, index: usize) -> Option<Layout> {
        let node = &model.graph.nodes[index];
        let [fact] = &node.outputs[..] else { return None };
        let rank = fact.shape.len();
        let only = || self.layout(*node.inputs.first()?).cloned();
        match &node.operator {
            Operator::Conv(conv) => self.conv(model, index, conv),
            Operator::Einsum(einsum) => {
                let (layer, inputs) = matrix_product(model, index, &einsum.expression)?;
                self.product(model, &layer, inputs)
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
                        hardtack::Constant::Tensor(tensor) => tensor.as_f32()? == [0.0],
                        _ => false,
                    },
                    PadMode::Reflect | PadMode::Edge => true,
                };
                only().filter(|at| zeros && pad.pads.get(at.axis) == Some(&(0, 0)))
            }
            Operator::Concat(axis) => self.concat(model, index, *axis as usize),
            operator => rearranged(only()?, operator, rank),
        }
    }

    fn conv(&mut self, model: &Model, index: usize, conv: &Conv) -> Option<Layout> {
        let node = &model.graph.nodes[index];
        let [input, kernel, bias] = node.inputs[..] else { return None };
        let shape = real(model, kernel)?.shape().to_vec();
        let axis = channel_axis(conv.window.layout, node.outputs[0].shape.len());
        let (output_axis, input_axis) = match conv.kernel_layout {
            KernelLayout::Oihw => (0, 1),
            KernelLayout::Ohwi => (0, shape.len() - 1),
            KernelLayout::Hwio => (shape.len() - 1, shape.len() - 2),
        };
        let outputs = conv.window.output_channels as usize;
        let inputs = conv.window.input_channels as usize;
        let groups = conv.groups as usize;
        let depthwise = groups > 1 && groups == inputs && groups == outputs;
        let bias_shape = real(model, bias)?.shape().to_vec();
        let bias_axis = bias_shape.iter().position(|size| *size == outputs)?;
        if real(model, bias)?.len() != outputs || (groups != 1 && !depthwise) {
            return None;
        }
        let read = self.read(input, axis, inputs);
        let made: Vec<Unit> = (0..outputs).map(|_| self.same.fresh()).collect();
        self.scaled(index, 1, if depthwise { output_axis } else { input_axis }, &read, true);
        self.scaled(index, 1, output_axis, &made, false);
        self.scaled(index, 2, bias_axis, &made, false);
        let axes = (output_axis, (!depthwise).then_some(input_axis));
        let makes = made.clone();
        self.readers.push(Reader { units: read, makes, input, kernel, axes, depthwise });
        Some(Layout { axis, units: made })
    }

    fn product(&mut self, model: &Model, layer: &Layer, inputs: usize) -> Option<Layout> {
        let read = self.read(layer.input, layer.channel_axes.0, inputs);
        let made: Vec<Unit> = layer.makes.iter().map(|_| self.same.fresh()).collect();
        self.scaled(layer.node, layer.weights, layer.axes.1, &read, true);
        self.scaled(layer.node, layer.weights, layer.axes.0, &made, false);
        let kernel = layer.kernel(model);
        real(model, kernel)?;
        self.readers.push(Reader {
            units: read,
            makes: made.clone(),
            input: layer.input,
            kernel,
            axes: (layer.axes.0, Some(layer.axes.1)),
            depthwise: false,
        });
        Some(Layout { axis: layer.channel_axes.1, units: made })
    }

    fn elementwise(&mut self, model: &Model, index: usize, kind: Binary) -> Option<Layout> {
        let node = &model.graph.nodes[index];
        let [a, b] = node.inputs[..] else { return None };
        let whole = |outlet: Outlet| model.graph.fact(outlet).shape == node.outputs[0].shape;
        let (value, other) = match (self.layout(a), self.layout(b)) {
            (Some(_), _) if whole(a) => (a, b),
            (_, Some(_)) if whole(b) => (b, a),
            _ => return None,
        };
        let layout = self.layout(value)?.clone();
        let constant = real(model, other);
        match kind {
            Binary::Multiply if value != other => {
                self.keep(other);
                Some(layout)
            }
            Binary::Divide if constant.is_some() && value == a => Some(layout),
            Binary::Maximum
            | Binary::Minimum
            | Binary::Add
            | Binary::Subtract
            | Binary::SubtractFrom => {
                let Some(constant) = constant else {
                    let other = self.layout(other)?.clone();
                    let alike =
                        other.axis == layout.axis && other.units.len() == layout.units.len();
                    if !alike {
                        return None;
                    }
                    layout
                        .units
                        .iter()
                        .zip(&other.units)
                        .for_each(|(a, b)| self.same.unite(*a, *b));
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

    fn concat(&mut self, model: &Model, index: usize, axis: usize) -> Option<Layout> {
        let node = &model.graph.nodes[index];
        let mut units = Vec::new();
        for outlet in &node.inputs {
            match self.layout(*outlet) {
                Some(layout) if layout.axis == axis => units.extend(&layout.units),
                Some(_) => return None,
                None => {
                    let size = model.graph.fact(*outlet).shape.get(axis)?.value()?;
                    units.extend(std::iter::repeat_n(KEPT, usize::try_from(size).ok()?));
                }
            }
        }
        Some(Layout { axis, units })
    }

    /// The channels that a layer sums over.
    fn read(&mut self, outlet: Outlet, axis: usize, count: usize) -> Vec<Unit> {
        match self.layout(outlet) {
            Some(layout) if layout.axis == axis && layout.units.len() == count => {
                layout.units.clone()
            }
            _ => {
                self.keep(outlet);
                vec![KEPT; count]
            }
        }
    }

    fn scaled(&mut self, node: usize, input: usize, axis: usize, units: &[Unit], divided: bool) {
        let layout = Layout { axis, units: units.to_vec() };
        self.scaled.push(Scaled { node, input, layout, divided });
    }

    fn keep(&mut self, outlet: Outlet) {
        if let Some(layout) = self.layout(outlet).cloned() {
            layout.units.iter().for_each(|unit| self.same.unite(KEPT, *unit));
        }
    }

    /// Gives the same number to what is the same.
    fn settle(&mut self) {
        let found = self.same.settled();
        let settle = |units: &mut Vec<Unit>| units.iter_mut().for_each(|unit| *unit = found[*unit]);
        self.layouts.iter_mut().flatten().for_each(|layout| settle(&mut layout.units));
        self.scaled.iter_mut().for_each(|scaled| settle(&mut scaled.layout.units));
        for reader in &mut self.readers {
            settle(&mut reader.units);
            settle(&mut reader.makes);
        }
    }
}

/// The elements of a tensor by one axis, then another, then the rest.
fn rows(tensor: &hardtack::Tensor, first: usize, second: Option<usize>) -> Option<Vec<Vec<f32>>> {
    let Data::F32(values) = tensor.data() else { return None };
    let shape = tensor.shape();
    let strides = super::super::lattice::strides(shape);
    let along = |index: u32, axis: usize| index as usize / strides[axis] % shape[axis];
    let mut order: Vec<u32> = (0..u32::try_from(values.len()).ok()?).collect();
    // No two are alike, and an unstable sort takes no memory.
    order.sort_unstable_by_key(|at| {
        (along(*at, first), second.map_or(0, |axis| along(*at, axis)), *at)
    });
    let row = values.len() / shape[first].max(1);
    let each = |row: &[u32]| row.iter().map(|at| values[*at as usize]).collect();
    Some(order.chunks(row.max(1)).map(each).collect())
}
