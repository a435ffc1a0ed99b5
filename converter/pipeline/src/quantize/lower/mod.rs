//! Lowers a partition to a program of the engine.

pub(super) mod assemble;
mod chain;
mod elementwise;
mod function;
mod int16;
mod layer;
mod resize;
mod shape;
pub(super) mod strided_view;
mod window;

use std::collections::{HashMap, HashSet};

use hardtack::internal::Model;
use hardtack_bundle::DType;
use hardtack_bundle::graph::{Operator, ValueId};
use hardtack_engine::program::{PortType, TensorId};
use hardtack_engine::{BuildError, Builder, Built};

use self::function::Function;
use self::int16::{Int16Tensors, LowTensor};
use self::layer::Deferred;
use self::strided_view::{Storage, StridedView};
use super::calibrate::Calibration;
use super::partition::{Int16Nodes, Partition};
use super::scale::Quantization;
use crate::graph::constants::{self, is_constant, variable_inputs};
use crate::graph::first_output;
use crate::graph::shape::sample_shape;
use crate::quantize::float_reason::{FloatReason, Int16Reason};
use crate::report::WeightsReport;

/// The program of a partition, and the values of the model it relates to.
pub(super) struct Lowered {
    /// The program.
    pub built: Built,
    /// What each input port reads.
    pub inputs: Vec<PortSource>,
    /// The value that each output port returns. An int16 value has two ports in a row, for its high
    /// and its low tensor. Their sum is the value.
    pub outputs: Vec<ValueId>,
    /// The values that steps write completely, and how they are stored.
    pub values: Vec<Written>,
}

/// What an input port reads.
#[derive(Clone, Copy)]
pub(super) struct PortSource {
    /// The value.
    pub value_id: ValueId,
    /// The part of it.
    pub part: PortPart,
}

/// A part of a value that a program reads. An int16 value has two ports, for its high and its low
/// tensor.
#[derive(Clone, Copy)]
pub(super) enum PortPart {
    /// All of it.
    Whole,
    /// The value at this scale and zero point.
    High(Quantization),
    /// What the rounding to this scale and zero point leaves.
    Low(Quantization),
}

impl PortSource {
    /// Returns what the port reads for these elements of the value.
    pub(super) fn of(&self, values: &[f32]) -> Vec<f32> {
        let high = |to: Quantization, x: f32| to.dequantize(to.quantize(x));
        let element = |x: &f32| match self.part {
            PortPart::Whole => *x,
            PortPart::High(to) => high(to, *x),
            PortPart::Low(to) => x - high(to, *x),
        };
        values.iter().map(element).collect()
    }
}

/// A value that a step writes.
pub(super) struct Written {
    /// The value in the float model.
    pub value_id: ValueId,
    /// The index of the step.
    pub step: usize,
    /// The view of its elements; of the high tensor if the value is int16.
    pub view: StridedView,
    /// The low tensor, if the value is int16.
    pub low: Option<TensorId>,
    /// Statistics of the layer's weights, if a layer produces the value.
    pub weights: Option<WeightsReport>,
}

/// A node that cannot be lowered.
pub(super) struct LowerError {
    /// The index of the node.
    pub node: usize,
    /// The reason.
    pub reason: FloatReason,
}

/// Lowers a partition to a program, with int16 for the nodes `int16`.
///
/// # Errors
/// Returns the first node that cannot be lowered.
pub(super) fn lower(
    model: &Model,
    partition: &Partition,
    calibration: &Calibration,
    int16: &Int16Nodes,
) -> Result<Lowered, LowerError> {
    let uses = uses(model);
    // Two ports for an output need a float addition. A model that the user made int16 by name may
    // have to run without float.
    let of_outputs =
        int16.activations.values().any(|reason| !matches!(reason, Int16Reason::Requested));
    let asked = |index| int16.activations.contains_key(&index);
    let int16_nodes = int16::int16_nodes(model, partition, &uses, of_outputs, asked);
    let int16_inputs = match of_outputs {
        true => int16::int16_inputs(model, partition, &int16.weights),
        false => HashSet::new(),
    };
    let mut lowering = Lowering {
        model,
        calibration,
        partition,
        uses,
        of_outputs,
        int16_nodes,
        int16_inputs,
        int16_weights: &int16.weights,
        fused: HashMap::new(),
        builder: Builder::new(),
        functions: HashMap::new(),
        views: HashMap::new(),
        dense: HashMap::new(),
        low_tensors: HashMap::new(),
        int16_dense: HashMap::new(),
        rescaled: HashMap::new(),
        rounded_to_int8: HashMap::new(),
        deferred: HashMap::new(),
        inputs: Vec::new(),
        values: Vec::new(),
    };
    for &index in &partition.nodes {
        let lowered = lowering.node(index);
        lowered.map_err(|reason| LowerError { node: index, reason })?;
    }
    lowering.finish()
}

/// The state of lowering a partition.
struct Lowering<'a> {
    model: &'a Model,
    calibration: &'a Calibration,
    partition: &'a Partition,
    /// The nodes that read each value; `None` stands for the model's output.
    uses: HashMap<ValueId, Vec<Option<usize>>>,
    /// Whether outputs keep all bits of int16 values.
    of_outputs: bool,
    /// Nodes whose values are int16, if calibration ranges exist.
    int16_nodes: HashSet<usize>,
    /// Values from outside the partition that are read as int16, if calibration ranges exist.
    int16_inputs: HashSet<ValueId>,
    /// Layers with int16 weights, where the input or the output is int16.
    int16_weights: &'a HashSet<usize>,
    /// Nodes that are fused into another node, and the last node of that node's chain.
    fused: HashMap<usize, usize>,
    builder: Builder,
    /// Unary functions whose lookup tables are built only when a step needs them.
    functions: HashMap<ValueId, Function>,
    views: HashMap<ValueId, StridedView>,
    /// Dense int8 copies of values, by value and axis order.
    dense: HashMap<(ValueId, Vec<usize>), TensorId>,
    /// The low tensor of each int16 high tensor.
    low_tensors: HashMap<TensorId, LowTensor>,
    /// Dense copies of values with all bits, by value and axis order.
    int16_dense: HashMap<(ValueId, Vec<usize>), Int16Tensors>,
    /// Copies of int16 tensors at other scales.
    rescaled: HashMap<(TensorId, u32, i8, u32), Int16Tensors>,
    /// Copies of int16 tensors rounded to int8.
    rounded_to_int8: HashMap<TensorId, TensorId>,
    /// Layers to be emitted at the last node of their chain, by that node.
    deferred: HashMap<usize, Deferred>,
    inputs: Vec<PortSource>,
    values: Vec<Written>,
}

fn uses(model: &Model) -> HashMap<ValueId, Vec<Option<usize>>> {
    let mut uses: HashMap<ValueId, Vec<Option<usize>>> = HashMap::new();
    for (index, node) in model.graph.nodes.iter().enumerate() {
        for value_id in &node.inputs {
            uses.entry(*value_id).or_default().push(Some(index));
        }
    }
    for value_id in &model.graph.outputs {
        uses.entry(*value_id).or_default().push(None);
    }
    uses
}

impl<'a> Lowering<'a> {
    fn node(&mut self, index: usize) -> Result<(), FloatReason> {
        let node = &self.model.graph.nodes[index];
        if self.fused.contains_key(&index) {
            return self.emit_deferred(index);
        }
        match &node.operator {
            Operator::Conv(_) | Operator::Einsum(_) => self.layer(index),
            Operator::Binary(kind) => self.binary(index, *kind),
            Operator::Unary(_) | Operator::Select => match self.function(index)? {
                true => Ok(()),
                false => Err(FloatReason::NotElementWise),
            },
            Operator::MaxPool(pool) => self.max_pool(index, pool),
            Operator::SumPool(pool) => self.sum_pool(index, pool),
            Operator::Softmax(softmax) => self.softmax(index, softmax),
            Operator::Pad(pad) => self.pad(index, pad),
            Operator::Resize(resize) => self.resize(index, resize),
            Operator::NearestUpsample(factors) => self.upsample(index, factors),
            Operator::QuantizeLinear(_) => self.quantize_linear(index),
            Operator::DequantizeLinear(_) => self.dequantize_linear(index),
            _ => self.rearrange(index),
        }
    }

    fn fact_shape(&self, value_id: ValueId) -> Result<Vec<usize>, FloatReason> {
        sample_shape(self.model.graph.fact(value_id)).ok_or(FloatReason::DynamicDimension)
    }

    fn name(&self, index: usize) -> &'a str {
        &self.model.graph.nodes[index].name
    }

    /// Returns the tensor of a constant.
    fn constant(&self, value_id: ValueId) -> Option<&'a hardtack::Tensor> {
        constants::tensor(self.model, value_id)
    }

    fn scalar(&self, value_id: ValueId) -> Option<f32> {
        match self.constant(value_id)?.as_f32()? {
            [value] => Some(*value),
            _ => None,
        }
    }

    /// Returns the first input of a node that is not a constant.
    fn operand(&self, index: usize) -> Result<ValueId, FloatReason> {
        variable_inputs(self.model, index).next().ok_or(FloatReason::OnlyConstants)
    }

    /// Returns a view of a value in int8 tensors.
    fn view(&mut self, value_id: ValueId) -> Result<StridedView, FloatReason> {
        let view = self.high_view(value_id)?;
        let mut int8 = HashMap::new();
        for chunk in &view.chunks {
            if let Storage::Tensor(id) = chunk.source {
                int8.insert(id, self.rounded(id)?);
            }
        }
        Ok(view.redirected(|id| int8[&id]))
    }

    /// Returns a view of a value, of the high tensors if it is int16. A value computed outside the
    /// partition becomes an input port.
    fn high_view(&mut self, value_id: ValueId) -> Result<StridedView, FloatReason> {
        if let Some(view) = self.views.get(&value_id) {
            return Ok(view.clone());
        }
        if self.look_up(value_id, None)? {
            return self.high_view(value_id);
        }
        if is_constant(self.model, value_id) {
            return Err(FloatReason::ConstantRead);
        }
        let made_by = &self.model.graph.nodes[value_id.node as usize].operator;
        let element = match (self.model.graph.fact(value_id).dtype, made_by) {
            (DType::F32, _) => PortType::F32,
            (DType::I8, Operator::Input) => PortType::I8,
            (DType::U8, Operator::Input) => PortType::U8,
            _ => return Err(FloatReason::FloatIntegersRead),
        };
        let shape = self.fact_shape(value_id)?;
        let elements: usize = shape.iter().product();
        let elements = elements.try_into().map_err(|_| FloatReason::InputTooLarge)?;
        if element == PortType::F32 && self.int16_inputs.contains(&value_id) {
            let chosen = self.calibration.ranges.get(&value_id);
            if let Some(to) = chosen.map(|chosen| Quantization::of(chosen.int16_range)) {
                return self.int16_input(value_id, elements, to);
            }
        }
        let port = self.builder.input(element, elements);
        self.inputs.push(PortSource { value_id, part: PortPart::Whole });
        let order: Vec<usize> = (0..shape.len()).collect();
        let view = StridedView::dense(Storage::Port(port), &shape, &order);
        self.views.insert(value_id, view.clone());
        Ok(view)
    }

    /// Returns the scale and zero point of a value: from a pre-quantized source, else by its range.
    fn quantization(&self, value_id: ValueId) -> Result<Quantization, FloatReason> {
        if let Some(prequantized) = self.prequantized_after(value_id) {
            return Ok(prequantized);
        }
        match self.calibration.ranges.get(&value_id) {
            Some(chosen) => Ok(Quantization::of(chosen.range)),
            None => Err(FloatReason::NoScale(self.name(value_id.node as usize).into())),
        }
    }

    /// Returns the scale and zero point that all chunks of a view share.
    fn shared_quantization(&self, view: &StridedView) -> Option<Quantization> {
        let mut shared = None;
        for chunk in &view.chunks {
            let Storage::Tensor(id) = chunk.source else { return None };
            let own = self.quantization_of(id);
            if *shared.get_or_insert(own) != own {
                return None;
            }
        }
        shared
    }

    /// Returns the scale and zero point for a dense copy of a value's view.
    fn quantization_of_view(
        &self,
        value_id: ValueId,
        view: &StridedView,
    ) -> Result<Quantization, FloatReason> {
        match self.shared_quantization(view) {
            Some(shared) => Ok(shared),
            None => self.quantization(value_id),
        }
    }

    fn quantization_of(&self, id: TensorId) -> Quantization {
        let tensor = self.builder.get(id).expect("tensors are created before they are used");
        Quantization { scale: tensor.scale, zero_point: tensor.zero_point }
    }

    /// Returns a value as a dense int8 tensor that stores its axes in this order, outermost first.
    fn dense(&mut self, value_id: ValueId, order: &[usize]) -> Result<TensorId, FloatReason> {
        let key = (value_id, order.to_vec());
        if let Some(id) = self.dense.get(&key) {
            return Ok(*id);
        }
        let view = self.high_view(value_id)?;
        if self.int16_tensors(&view).is_some() {
            let whole = self.int16_tensors_of(value_id, order)?.high;
            return self.rounded(whole);
        }
        let view = self.view(value_id)?;
        let dims = dims(&view.shape, order)?;
        let whole = view.whole_tensor(order).filter(|id| {
            let tensor = self.builder.get(*id).expect("views refer to existing tensors");
            [tensor.height, tensor.width, tensor.channels] == dims
        });
        let id = match whole {
            Some(id) => id,
            None => {
                let quantization = self.quantization_of_view(value_id, &view)?;
                let name = self.name(value_id.node as usize);
                self.gather(name, &view, order, quantization)?
            }
        };
        self.dense.insert(key, id);
        Ok(id)
    }

    /// Copies a view into a new tensor.
    fn gather(
        &mut self,
        name: &str,
        view: &StridedView,
        order: &[usize],
        quantization: Quantization,
    ) -> Result<TensorId, FloatReason> {
        let Quantization { scale, zero_point } = quantization;
        let id = self.builder.tensor(name, dims(&view.shape, order)?, scale, zero_point);
        let copies = view.copies(order).ok_or(FloatReason::Scattered)?;
        for (source, copy) in copies {
            match source {
                Storage::Port(port) => self.builder.quantize(name, port, id, copy),
                Storage::Tensor(from) => self.builder.copy(name, from, id, copy),
            }?;
        }
        Ok(id)
    }

    /// Creates a tensor for a value that stores its axes in this order.
    fn tensor(
        &mut self,
        value_id: ValueId,
        order: &[usize],
        quantization: Quantization,
    ) -> Result<TensorId, FloatReason> {
        let shape = self.fact_shape(value_id)?;
        let Quantization { scale, zero_point } = quantization;
        let name = self.name(value_id.node as usize);
        Ok(self.builder.tensor(name, dims(&shape, order)?, scale, zero_point))
    }

    /// Records that the last step wrote a value.
    fn written(
        &mut self,
        value_id: ValueId,
        id: TensorId,
        order: &[usize],
    ) -> Result<(), FloatReason> {
        let view = StridedView::dense(Storage::Tensor(id), &self.fact_shape(value_id)?, order);
        self.dense.insert((value_id, order.to_vec()), id);
        self.note(value_id, view, None);
        Ok(())
    }

    /// Records where the last step wrote a value.
    fn note(&mut self, value_id: ValueId, view: StridedView, low: Option<TensorId>) {
        self.views.insert(value_id, view.clone());
        let step = self.builder.step_count() - 1;
        self.values.push(Written { value_id, step, view, low, weights: None });
    }

    fn finish(mut self) -> Result<Lowered, LowerError> {
        let inside = |use_: &Option<usize>| use_.is_some_and(|i| self.partition.nodes.contains(&i));
        let mut outputs = Vec::new();
        for &index in &self.partition.nodes {
            let leaves =
                self.uses.get(&first_output(index)).is_some_and(|uses| !uses.iter().all(inside));
            if leaves {
                outputs.push(first_output(index));
            }
        }
        let mut ports = Vec::new();
        for &output in &outputs {
            let node = output.node as usize;
            let error = |reason: FloatReason| LowerError { node, reason };
            let count = self.write_output(output).map_err(error)?;
            ports.extend(std::iter::repeat_n(output, count));
        }
        let first = self.partition.nodes[0];
        let built = self.builder.finish().map_err(|error| {
            // Attribute the error to the node that it names, else to the first node.
            let named = |index: &&usize| match &error {
                BuildError::Refused { name, .. } | BuildError::Unused(name) => {
                    self.model.graph.nodes[**index].name == *name
                }
                _ => false,
            };
            let node = self.partition.nodes.iter().find(named).copied().unwrap_or(first);
            LowerError { node, reason: error.into() }
        })?;
        Ok(Lowered { built, inputs: self.inputs, outputs: ports, values: self.values })
    }

    /// Writes a value to an output port, or to two if it is int16. Returns the number of ports.
    fn write_output(&mut self, value_id: ValueId) -> Result<usize, FloatReason> {
        let fact = self.model.graph.fact(value_id);
        let view = self.high_view(value_id)?;
        let whole = self.of_outputs && fact.dtype == DType::F32;
        if whole && self.int16_tensors(&view).is_some() {
            let order = view.order();
            let Int16Tensors { high, low } = self.int16_tensors_of(value_id, &order)?;
            let parts = [Some(high), low.map(|low| low.tensor)];
            for tensor in parts.into_iter().flatten() {
                let part = StridedView::dense(Storage::Tensor(tensor), &view.shape, &order);
                self.write_port(value_id, &part, PortType::F32)?;
            }
            return Ok(parts.iter().flatten().count());
        }
        let mut view = self.view(value_id)?;
        if view.chunks.iter().any(|chunk| matches!(chunk.source, Storage::Port(_))) {
            return Err(FloatReason::OnlyRearranged);
        }
        let element = match fact.dtype {
            DType::I8 => PortType::I8,
            DType::U8 => PortType::U8,
            _ => PortType::F32,
        };
        if view.output_copies().is_none() {
            let order = view.order();
            let id = self.dense(value_id, &order)?;
            view = StridedView::dense(Storage::Tensor(id), &view.shape, &order);
        }
        self.write_port(value_id, &view, element)?;
        Ok(1)
    }

    /// Writes a view of tensors to a new output port.
    fn write_port(
        &mut self,
        value_id: ValueId,
        view: &StridedView,
        element: PortType,
    ) -> Result<(), FloatReason> {
        let name = self.name(value_id.node as usize);
        let elements = view.len().try_into().map_err(|_| FloatReason::OutputTooLarge)?;
        let copies = view.output_copies().ok_or(FloatReason::Scattered)?;
        let port = self.builder.output(element, elements);
        for (source, copy) in copies {
            if let Storage::Tensor(id) = source {
                self.builder.dequantize(name, id, port, copy);
            }
        }
        Ok(())
    }
}

/// Returns the height, width and channels of a tensor that stores a shape's axes in this order.
fn dims(shape: &[usize], order: &[usize]) -> Result<[u32; 3], FloatReason> {
    let stored: Vec<usize> = order.iter().map(|axis| shape[*axis]).collect();
    let size = |elements: usize| u32::try_from(elements).map_err(|_| FloatReason::TooLarge);
    let (channels, rest) = match stored.split_last() {
        Some((channels, rest)) => (*channels, rest),
        None => (1, &[][..]),
    };
    let (width, rest) = match rest.split_last() {
        Some((width, rest)) => (*width, rest),
        None => (1, &[][..]),
    };
    Ok([size(rest.iter().product())?, size(width)?, size(channels)?])
}
