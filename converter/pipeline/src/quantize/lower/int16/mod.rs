//! int16 values, stored as two int8 tensors: a high one, and a low one that holds the rounding
//! error of the high one. Their sum is the value.
//!
//! All steps use int8. A convolution runs twice: to the high tensor, and with that subtracted to
//! the low one. Accumulators are exact, so the second run finds what the first rounded away. A
//! third run adds the contribution of the input's low tensor. A function is a table over the high
//! integers, a table of its rounding errors, and the low integers times the function's slope.

mod elementwise;
mod layer;
mod pool;

use std::collections::{HashMap, HashSet};

use hardtack::internal::Model;
use hardtack_bundle::graph::{Operator, ValueId};
use hardtack_engine::program::{Clamp, CopyLayout, PortType, TensorId};

use super::strided_view::{Storage, StridedView};
use super::{Lowering, PortPart, PortSource, dims};
use crate::graph::constants::variable_inputs;
use crate::graph::first_output;
use crate::quantize::float_reason::FloatReason;
use crate::quantize::operators::{Int16Form, integer_form};
use crate::quantize::partition::Partition;
use crate::quantize::scale::{Quantization, Range};

/// The maximum number of integer steps of a low tensor. The rest of 256 is headroom for rounding.
const STEPS: f32 = 252.0;
/// The same for each of two low tensors that are added.
const HALF_STEPS: f32 = STEPS / 2.0;

/// The low tensor of an int16 value.
#[derive(Clone, Copy, Debug)]
pub(super) struct LowTensor {
    /// The tensor.
    pub tensor: TensorId,
    /// The minimum and maximum float that it holds.
    pub reach: Range,
}

/// A dense value: int16, or int8 if `low` is `None`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Int16Tensors {
    /// The value rounded to int8; more coarsely if low tensors were added without a carry.
    pub high: TensorId,
    /// The low tensor.
    pub low: Option<LowTensor>,
}

/// Returns the nodes with int16 values: those requested, if a reader uses all bits. With
/// `of_outputs`, a float operation does, and so does the caller that reads an output of the model.
pub(super) fn int16_nodes(
    model: &Model,
    partition: &Partition,
    uses: &HashMap<ValueId, Vec<Option<usize>>>,
    of_outputs: bool,
    asked: impl Fn(usize) -> bool,
) -> HashSet<usize> {
    let mut int16_nodes = HashSet::new();
    let layer = |node: usize| {
        matches!(model.graph.nodes[node].operator, Operator::Conv(_) | Operator::Einsum(_))
    };
    for &index in partition.nodes.iter().rev() {
        let reads_all = |reader: &Option<usize>| match reader {
            Some(reader) if partition.nodes.contains(reader) => {
                layer(*reader) || int16_nodes.contains(reader)
            }
            _ => of_outputs,
        };
        let read =
            uses.get(&first_output(index)).is_some_and(|readers| readers.iter().any(reads_all));
        let node = &model.graph.nodes[index];
        let can = match integer_form(&node.operator).map(|form| form.int16) {
            None | Some(Int16Form::Rounded) => false,
            Some(Int16Form::Requested) => asked(index),
            Some(Int16Form::OfTerm) => {
                asked(index) || node.inputs.iter().any(|term| asked(term.node as usize))
            }
            Some(Int16Form::Kept) => true,
        };
        if read && can {
            int16_nodes.insert(index);
        }
    }
    int16_nodes
}

/// Returns the values from outside the partition that a layer with int16 weights reads, perhaps
/// rearranged.
pub(super) fn int16_inputs(
    model: &Model,
    partition: &Partition,
    int16_weights: &HashSet<usize>,
) -> HashSet<ValueId> {
    let mut read: HashSet<ValueId> = HashSet::new();
    for &index in partition.nodes.iter().rev() {
        let form = integer_form(&model.graph.nodes[index].operator).map(|form| form.int16);
        let rearranged = || form == Some(Int16Form::Kept) && read.contains(&first_output(index));
        if int16_weights.contains(&index) || rearranged() {
            read.extend(variable_inputs(model, index));
        }
    }
    read.retain(|value| partition.nodes.binary_search(&(value.node as usize)).is_err());
    read
}

impl Lowering<'_> {
    /// Adds two input ports for the high and the low tensor of a value from outside the partition.
    pub(super) fn int16_input(
        &mut self,
        value_id: ValueId,
        elements: u32,
        to: Quantization,
    ) -> Result<StridedView, FloatReason> {
        let shape = self.fact_shape(value_id)?;
        let order: Vec<usize> = (0..shape.len()).collect();
        let half = to.scale / 2.0;
        let low = Quantization { scale: to.scale / STEPS, zero_point: 0 };
        let mut tensors = [0; 2];
        for ((part, quantization), tensor) in
            [(PortPart::High(to), to), (PortPart::Low(to), low)].into_iter().zip(&mut tensors)
        {
            let port = self.builder.input(PortType::F32, elements);
            self.inputs.push(PortSource { value_id, part });
            let view = StridedView::dense(Storage::Port(port), &shape, &order);
            let name = self.name(value_id.node as usize);
            *tensor = self.gather(name, &view, &order, quantization)?;
        }
        let [high, tensor] = tensors;
        let low = LowTensor { tensor, reach: Range { low: -half, high: half } };
        self.low_tensors.insert(high, low);
        let view = StridedView::dense(Storage::Tensor(high), &shape, &order);
        self.views.insert(value_id, view.clone());
        Ok(view)
    }

    /// Returns the scale and zero point of a value's high tensor, if the value is to be int16. The
    /// int16 range clips only what does not affect the function that reads the value.
    pub(super) fn int16_quantization(&self, value: ValueId) -> Option<Quantization> {
        let is_int16 = self.int16_nodes.contains(&(value.node as usize));
        let prequantized = !is_int16 || self.prequantized_after(value).is_some();
        let chosen = (!prequantized).then(|| self.calibration.ranges.get(&value))??;
        Some(Quantization::of(chosen.int16_range))
    }

    /// Returns a value as dense tensors that store its axes in this order, with all of its bits.
    pub(super) fn int16_tensors_of(
        &mut self,
        value: ValueId,
        order: &[usize],
    ) -> Result<Int16Tensors, FloatReason> {
        let view = self.high_view(value)?;
        let Some(tensors) = self.int16_tensors(&view) else {
            return Ok(Int16Tensors { high: self.dense(value, order)?, low: None });
        };
        let key = (value, order.to_vec());
        if let Some(known) = self.int16_dense.get(&key) {
            return Ok(*known);
        }
        let dims = dims(&view.shape, order)?;
        let whole = view.whole_tensor(order).filter(|id| self.dims_of(*id) == dims);
        let tensors = match whole {
            Some(high) => Int16Tensors { high, low: self.low_tensors.get(&high).copied() },
            None => self.gather_int16(value, &view, &tensors, order)?,
        };
        self.int16_dense.insert(key, tensors);
        Ok(tensors)
    }

    /// Returns the tensors of a view, if one of them has a low tensor.
    pub(super) fn int16_tensors(&self, view: &StridedView) -> Option<Vec<TensorId>> {
        let low = |id: &TensorId| self.low_tensors.contains_key(id);
        view.tensors().filter(|tensors| tensors.iter().any(low))
    }

    /// Copies all chunks of a view to one high and one low tensor.
    fn gather_int16(
        &mut self,
        value: ValueId,
        view: &StridedView,
        tensors: &[TensorId],
        order: &[usize],
    ) -> Result<Int16Tensors, FloatReason> {
        let name = self.name(value.node as usize);
        let parts: Vec<Int16Tensors> = tensors
            .iter()
            .map(|id| Int16Tensors { high: *id, low: self.low_tensors.get(id).copied() })
            .collect();
        let scales = |part: &Int16Tensors| {
            let low = part.low?;
            Some((self.quantization_of(part.high), self.quantization_of(low.tensor)))
        };
        let first = scales(&parts[0]);
        let shared = first.is_some() && parts.iter().all(|part| scales(part) == first);
        let parts = if shared {
            parts
        } else {
            let target = match self.calibration.ranges.get(&value) {
                Some(chosen) => Quantization::of(chosen.int16_range),
                None => return Err(FloatReason::NoJoinedInt16Range),
            };
            parts
                .into_iter()
                .map(|part| self.rescaled(name, part, target, STEPS))
                .collect::<Result<Vec<_>, _>>()?
        };
        let low_tensors: Vec<LowTensor> = parts.iter().filter_map(|part| part.low).collect();
        let map = |to: &dyn Fn(usize) -> TensorId| {
            let place =
                |id: TensorId| to(tensors.iter().position(|other| *other == id).unwrap_or(0));
            view.redirected(place)
        };
        let (highs, low_view) = (map(&|i| parts[i].high), map(&|i| low_tensors[i].tensor));
        let high = self.gather(name, &highs, order, self.quantization_of(parts[0].high))?;
        let low =
            self.gather(name, &low_view, order, self.quantization_of(low_tensors[0].tensor))?;
        let reach = low_tensors
            .iter()
            .fold(Range::NONE, |reach, low| reach.extended(&[low.reach.low, low.reach.high]));
        let low = LowTensor { tensor: low, reach };
        self.low_tensors.insert(high, low);
        Ok(Int16Tensors { high, low: Some(low) })
    }

    /// Returns the value at another scale, with `steps` low steps per high step.
    fn rescaled(
        &mut self,
        name: &str,
        from: Int16Tensors,
        to: Quantization,
        steps: f32,
    ) -> Result<Int16Tensors, FloatReason> {
        let key = (from.high, to.scale.to_bits(), to.zero_point, steps.to_bits());
        if let Some(known) = self.rescaled.get(&key) {
            return Ok(*known);
        }
        let dims = self.dims_of(from.high);
        let high = self.builder.tensor(name, dims, to.scale, to.zero_point);
        let low = self.builder.tensor(name, dims, to.scale / steps, 0);
        match from.low {
            None => {
                self.builder.copy(name, from.high, high, self.every(from.high))?;
                self.builder.subtract(name, [from.high, high], low, Clamp::FULL)?;
            }
            Some(given) => {
                let Range { low: least, high: greatest } = given.reach;
                let half = to.scale / 2.0;
                let rest = Quantization::of(Range { low: -greatest - half, high: half - least });
                let rest = self.builder.tensor(name, dims, rest.scale, rest.zero_point);
                self.builder.add(name, [from.high, given.tensor], high, Clamp::FULL)?;
                self.builder.subtract(name, [from.high, high], rest, Clamp::FULL)?;
                self.builder.add(name, [rest, given.tensor], low, Clamp::FULL)?;
            }
        }
        let reach = Range { low: -to.scale / 2.0, high: to.scale / 2.0 };
        let tensors = Int16Tensors { high, low: Some(LowTensor { tensor: low, reach }) };
        self.rescaled.insert(key, tensors);
        Ok(tensors)
    }

    /// Returns the int8 tensor of a value: the sum of the high and low tensors if it is int16.
    pub(super) fn rounded(&mut self, id: TensorId) -> Result<TensorId, FloatReason> {
        let Some(low) = self.low_tensors.get(&id).copied() else { return Ok(id) };
        if let Some(known) = self.rounded_to_int8.get(&id) {
            return Ok(*known);
        }
        let Quantization { scale, zero_point } = self.quantization_of(id);
        let sum = self.builder.tensor("", self.dims_of(id), scale, zero_point);
        self.builder.add("", [id, low.tensor], sum, Clamp::FULL)?;
        self.rounded_to_int8.insert(id, sum);
        Ok(sum)
    }

    /// Records that the last step wrote the low tensor of a value.
    pub(super) fn written_int16(
        &mut self,
        value: ValueId,
        high: TensorId,
        low: LowTensor,
        order: &[usize],
    ) -> Result<(), FloatReason> {
        self.low_tensors.insert(high, low);
        let view = StridedView::dense(Storage::Tensor(high), &self.fact_shape(value)?, order);
        self.note(value, view, Some(low.tensor));
        Ok(())
    }

    fn dims_of(&self, id: TensorId) -> [u32; 3] {
        let tensor = self.builder.get(id).expect("tensors are created before they are used");
        [tensor.height, tensor.width, tensor.channels]
    }

    fn every(&self, id: TensorId) -> CopyLayout {
        CopyLayout::contiguous(self.dims_of(id).iter().product())
    }
}
