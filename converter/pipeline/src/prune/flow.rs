//! Where each value has its channels, and which channels are the same: followed through the graph,
//! operator by operator. What is not understood keeps its channels.

use hardtack::{Constant, Data, Model, Tensor};
use hardtack_bundle::graph::{Conv, Dim, KernelLayout, Operator, Outlet};

use super::layer::{Layer, matrix_product};
use super::layout::{KEPT, Layout, Unit, Units, channel_axis, rearranged};

/// A constant that loses what its units lose.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The node that reads it.
    pub node: usize,
    /// Which of the node's inputs it is.
    pub input: usize,
    /// The axis, and the unit of each element of it.
    pub layout: Layout,
}

/// What is known of a graph's channels.
#[derive(Debug, Default)]
pub struct Flow {
    /// Channels of each node's first output; what has none stays as it is.
    pub layouts: Vec<Option<Layout>>,
    /// The constants that are cut.
    pub cuts: Vec<Cut>,
    /// Convolutions and matrix products.
    pub layers: Vec<Layer>,
    /// The unit that each stands for, a smaller one or itself.
    same: Units,
}

/// Follows the channels of a model.
pub fn follow(model: &Model) -> Flow {
    let mut flow = Flow::default();
    for index in 0..model.graph.nodes.len() {
        let layout = flow.through(model, index);
        if layout.is_none() {
            model.graph.nodes[index].inputs.iter().for_each(|outlet| flow.keep(*outlet));
        }
        flow.layouts.push(layout);
    }
    model.graph.outputs.iter().for_each(|outlet| flow.keep(*outlet));
    flow.settle();
    flow
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

    /// The channels of a node's output; `None` where those of its inputs have to stay.
    fn through(&mut self, model: &Model, index: usize) -> Option<Layout> {
        let node = &model.graph.nodes[index];
        let rank = node.outputs.first()?.shape.len();
        if node.outputs.len() != 1 {
            return None;
        }
        let only = || self.layout(*node.inputs.first()?).cloned();
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
                let scales = real(model, *scales)?.as_f32()?;
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
            Operator::Concat(axis) => self.concat(model, index, *axis as usize),
            operator => rearranged(only()?, operator, rank),
        }
    }

    fn conv(&mut self, model: &Model, index: usize, conv: &Conv) -> Option<Layout> {
        let node = &model.graph.nodes[index];
        let [input, kernel, bias] = node.inputs[..] else { return None };
        let shape = real(model, kernel)?.shape();
        let axis = channel_axis(conv.window.layout, node.outputs[0].shape.len());
        let (output_axis, input_axis) = match conv.kernel_layout {
            KernelLayout::Oihw => (0, 1),
            KernelLayout::Ohwi => (0, shape.len() - 1),
            KernelLayout::Hwio => (shape.len() - 1, shape.len() - 2),
        };
        let outputs = conv.window.output_channels as usize;
        let inputs = conv.window.input_channels as usize;
        let groups = conv.groups as usize;
        let splits = |channels: usize| channels > 0 && channels.is_multiple_of(groups);
        if groups == 0 || !splits(inputs) || !splits(outputs) {
            return None;
        }
        let read = self.read(input, axis, inputs);
        let made: Vec<Unit> = if groups == 1 {
            (0..outputs).map(|_| self.same.fresh()).collect()
        } else {
            // A group of channels that share weights goes as a whole: with depthwise
            // convolutions, one.
            let mut one_each = Vec::new();
            for group in read.chunks(inputs / groups) {
                group.iter().for_each(|unit| self.same.unite(group[0], *unit));
                one_each.push(group[0]);
            }
            (0..outputs).map(|output| one_each[output / (outputs / groups)]).collect()
        };
        let made = Layout { axis, units: made };
        if groups == 1 {
            self.cut(index, 1, input_axis, &read);
        }
        self.cut(index, 1, output_axis, &made.units);
        if real(model, bias)?.len() == outputs {
            let axis = real(model, bias)?.shape().iter().position(|size| *size == outputs)?;
            self.cut(index, 2, axis, &made.units);
        }
        self.layers.push(Layer {
            node: index,
            input,
            weights: 1,
            axes: (output_axis, input_axis),
            channel_axes: (axis, axis),
            groups,
            reads: read,
            makes: made.units.clone(),
        });
        Some(made)
    }

    fn product(&mut self, mut layer: Layer, inputs: usize) -> Option<Layout> {
        let read = self.read(layer.input, layer.channel_axes.0, inputs);
        let units: Vec<Unit> = (0..layer.makes.len()).map(|_| self.same.fresh()).collect();
        self.cut(layer.node, layer.weights, layer.axes.1, &read);
        self.cut(layer.node, layer.weights, layer.axes.0, &units);
        let axis = layer.channel_axes.1;
        (layer.reads, layer.makes) = (read, units.clone());
        self.layers.push(layer);
        Some(Layout { axis, units })
    }

    /// Operands have the same channels; those of constants are cut with them.
    fn elementwise(&mut self, model: &Model, index: usize) -> Option<Layout> {
        let node = &model.graph.nodes[index];
        let layout = node.inputs.iter().find_map(|outlet| self.layout(*outlet))?.clone();
        let count = layout.units.len();
        for (input, outlet) in node.inputs.iter().enumerate() {
            let size = size(model, *outlet, layout.axis);
            match self.layout(*outlet).cloned() {
                Some(other) if other.axis == layout.axis && other.units.len() == count => {
                    let pairs = layout.units.iter().zip(&other.units);
                    pairs.for_each(|(a, b)| self.same.unite(*a, *b));
                }
                Some(_) => return None,
                None if size == Some(1) && count != 1 => {}
                None if is_constant(model, *outlet) && size == Some(count) => {
                    real(model, *outlet)?;
                    self.cut(index, input, layout.axis, &layout.units);
                }
                None => return None,
            }
        }
        Some(layout)
    }

    fn concat(&mut self, model: &Model, index: usize, axis: usize) -> Option<Layout> {
        let node = &model.graph.nodes[index];
        let tracked: Vec<Option<Layout>> =
            node.inputs.iter().map(|outlet| self.layout(*outlet).cloned()).collect();
        if tracked.iter().flatten().any(|layout| layout.axis != axis) {
            let all: Vec<Layout> = tracked.into_iter().collect::<Option<_>>()?;
            let first = all.first()?.clone();
            for other in &all {
                if other.axis != first.axis || other.units.len() != first.units.len() {
                    return None;
                }
                first.units.iter().zip(&other.units).for_each(|(a, b)| self.same.unite(*a, *b));
            }
            return Some(first);
        }
        let mut units = Vec::new();
        for (outlet, layout) in node.inputs.iter().zip(tracked) {
            match layout {
                Some(layout) => units.extend(layout.units),
                None => units.extend(std::iter::repeat_n(KEPT, size(model, *outlet, axis)?)),
            }
        }
        Some(Layout { axis, units })
    }

    /// The channels that a layer sums over; another axis of the value stays as it is.
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

    fn cut(&mut self, node: usize, input: usize, axis: usize, units: &[Unit]) {
        self.cuts.push(Cut { node, input, layout: Layout { axis, units: units.to_vec() } });
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
        self.cuts.iter_mut().for_each(|cut| settle(&mut cut.layout.units));
        for layer in &mut self.layers {
            settle(&mut layer.reads);
            settle(&mut layer.makes);
        }
    }
}

/// How many elements a value has along an axis, if that is a number.
fn size(model: &Model, outlet: Outlet, axis: usize) -> Option<usize> {
    usize::try_from(model.graph.fact(outlet).shape.get(axis)?.value()?).ok()
}

fn is_constant(model: &Model, outlet: Outlet) -> bool {
    matches!(model.graph.nodes[outlet.node as usize].operator, Operator::Constant(_))
}

/// A constant of f32.
pub fn real(model: &Model, outlet: Outlet) -> Option<&Tensor> {
    match model.graph.nodes[outlet.node as usize].operator {
        Operator::Constant(index) => match model.constants.get(index as usize)? {
            Constant::Tensor(tensor) if matches!(tensor.data(), Data::F32(_)) => Some(tensor),
            _ => None,
        },
        _ => None,
    }
}
