//! Lowers operations that only rearrange elements, and the scales of pre-quantized models.

use std::ops::Range;

use hardtack::Data;
use hardtack_bundle::graph::{Operator, StridedSlice, ValueId};

use super::Lowering;
use super::strided_view::{Chunk, Storage, StridedView};
use crate::graph::first_output;
use crate::quantize::float_reason::FloatReason;
use crate::quantize::scale::Quantization;

impl Lowering<'_> {
    /// Lowers a node whose value is a view of its input.
    pub(super) fn rearrange(&mut self, index: usize) -> Result<(), FloatReason> {
        let node = &self.model.graph.nodes[index];
        let shape = self.fact_shape(first_output(index))?;
        let view = match &node.operator {
            Operator::Concat(axis) => self.concat(index, *axis as usize)?,
            Operator::AddAxis(0) | Operator::RemoveAxis(0) => {
                return Err(FloatReason::BatchChanged);
            }
            Operator::AddAxis(_) | Operator::RemoveAxis(_) => {
                self.high_view(node.inputs[0])?.reshape(&shape)
            }
            Operator::Reshape(reshape) if reshape.axis > 0 => {
                self.high_view(node.inputs[0])?.reshape(&shape)
            }
            Operator::MoveAxis((from, to)) if *from > 0 && *to > 0 => {
                let (from, to) = (*from as usize - 1, *to as usize - 1);
                self.changed_view(node.inputs[0], |view| view.move_axis(from, to))?
            }
            Operator::Broadcast(_) => {
                self.changed_view(node.inputs[0], |view| view.broadcast(&shape))?
            }
            Operator::Slice(slice) if slice.axis > 0 => {
                let (start, end) = (slice.start.value(), slice.end.value());
                let (Some(start), Some(end)) = (start, end) else {
                    return Err(FloatReason::SliceRange);
                };
                let axis = slice.axis as usize - 1;
                let range = start as usize..end as usize;
                self.changed_view(node.inputs[0], |view| view.slice(axis, range.clone(), 1))?
            }
            Operator::Downsample(down) if down.axis > 0 && down.stride > 0 => {
                let axis = down.axis as usize - 1;
                let end = self.fact_shape(node.inputs[0])?[axis];
                let (range, step) = (down.modulo as usize..end, down.stride as usize);
                self.changed_view(node.inputs[0], |view| view.slice(axis, range.clone(), step))?
            }
            Operator::StridedSlice(slice) => self.strided(index, slice)?,
            _ => {
                return Err(FloatReason::BatchChanged);
            }
        };
        if view.shape != shape {
            return Err(FloatReason::ShapeMismatch);
        }
        self.views.insert(first_output(index), view);
        Ok(())
    }

    /// Returns a changed view of a value, or of its dense copy if the chunks do not allow that.
    pub(super) fn changed_view(
        &mut self,
        value: ValueId,
        change: impl Fn(&StridedView) -> Option<StridedView>,
    ) -> Result<StridedView, FloatReason> {
        let view = self.high_view(value)?;
        if let Some(changed) = change(&view) {
            return Ok(changed);
        }
        let copy = self.copy(value)?;
        change(&copy).ok_or(FloatReason::Scattered)
    }

    /// Returns a view of a dense copy of a value, in the axis order of its largest chunk.
    fn copy(&mut self, value: ValueId) -> Result<StridedView, FloatReason> {
        let view = self.view(value)?;
        let order = view.order();
        let id = self.dense(value, &order)?;
        Ok(StridedView::dense(super::Storage::Tensor(id), &view.shape, &order))
    }

    fn concat(&mut self, index: usize, axis: usize) -> Result<StridedView, FloatReason> {
        let axis = axis.checked_sub(1).ok_or(FloatReason::BatchConcatenated)?;
        let inputs = &self.model.graph.nodes[index].inputs;
        let views: Vec<StridedView> =
            inputs.iter().map(|x| self.high_view(*x)).collect::<Result<_, _>>()?;
        if let Some(view) = StridedView::concat(&views, axis) {
            return Ok(view);
        }
        let views: Vec<StridedView> =
            inputs.iter().map(|x| self.copy(*x)).collect::<Result<_, _>>()?;
        StridedView::concat(&views, axis).ok_or(FloatReason::Scattered)
    }

    fn strided(&mut self, index: usize, slice: &StridedSlice) -> Result<StridedView, FloatReason> {
        let node = &self.model.graph.nodes[index];
        let shape = self.fact_shape(node.inputs[0])?;
        let integers = |input: usize| -> Result<Vec<i64>, FloatReason> {
            let tensor = node.inputs.get(input).and_then(|value_id| self.constant(*value_id));
            match tensor.map(hardtack::Tensor::data) {
                Some(Data::I64(values)) => Ok(values.clone()),
                Some(Data::I32(values)) => Ok(values.iter().map(|v| i64::from(*v)).collect()),
                _ => Err(FloatReason::SliceRanges),
            }
        };
        let (starts, ends) = (integers(1)?, integers(2)?);
        let axes = match slice.axes_input {
            Some(input) => integers(input as usize)?,
            None => (0..starts.len() as i64).collect(),
        };
        let steps = match slice.steps_input {
            Some(input) => integers(input as usize)?,
            None => vec![1; starts.len()],
        };
        if slice.shrink_axis_mask != 0 {
            return Err(FloatReason::SliceRemovesAxes);
        }
        let mut cuts: Vec<(usize, Range<usize>, usize)> = Vec::new();
        for place in 0..starts.len() {
            let rank = shape.len() as i64 + 1;
            let axis = if axes[place] < 0 { axes[place] + rank } else { axes[place] };
            let axis = usize::try_from(axis - 1).map_err(|_| FloatReason::BatchSliced)?;
            let size = *shape.get(axis).ok_or(FloatReason::SliceAxis)? as i64;
            let step = usize::try_from(steps[place]).ok().filter(|step| *step > 0);
            let step = step.ok_or(FloatReason::SliceStep)?;
            let bound = |at: i64| (if at < 0 { at + size } else { at }).clamp(0, size) as usize;
            let open = |mask: i64| place < 64 && mask >> place & 1 == 1;
            let start = if open(slice.begin_mask) { 0 } else { bound(starts[place]) };
            let end = if open(slice.end_mask) { size as usize } else { bound(ends[place]) };
            cuts.push((axis, start..end.max(start), step));
        }
        self.changed_view(node.inputs[0], |view| {
            let mut view = view.clone();
            for (axis, range, step) in &cuts {
                view = view.slice(*axis, range.clone(), *step)?;
            }
            Some(view)
        })
    }

    /// Lowers a QuantizeLinear that is not fused into the operation before it.
    pub(super) fn quantize_linear(&mut self, index: usize) -> Result<(), FloatReason> {
        let prequantized = self.prequantized(index).ok_or(FloatReason::ScalesPerAxis)?;
        let value = self.model.graph.nodes[index].inputs[0];
        if !self.views.contains_key(&value)
            && self.look_up(value, Some((first_output(index), prequantized)))?
        {
            return Ok(());
        }
        let view = self.view(value)?;
        if self.shared_quantization(&view) == Some(prequantized) {
            self.views.insert(first_output(index), view);
            return Ok(());
        }
        if let Some(view) = self.by_tables(index, &view, prequantized)? {
            self.views.insert(first_output(index), view);
            return Ok(());
        }
        let order = view.order();
        let id = self.gather(self.name(index), &view, &order, prequantized)?;
        self.written(first_output(index), id, &order)
    }

    /// Requantizes the tensors of a view by lookup tables, which round exactly as the source does
    /// for any scales. Returns `None` if the view reads inputs of the program.
    fn by_tables(
        &mut self,
        index: usize,
        view: &StridedView,
        prequantized: Quantization,
    ) -> Result<Option<StridedView>, FloatReason> {
        let tensor = |chunk: &Chunk| match chunk.source {
            Storage::Tensor(id) => Some(id),
            Storage::Port(_) => None,
        };
        let Some(mut ids) = view.chunks.iter().map(tensor).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        ids.sort_unstable();
        ids.dedup();
        let mut view = view.clone();
        ids.retain(|id| self.quantization_of(*id) != prequantized);
        for from in ids {
            let name = self.name(index);
            let to = self.builder.get(from).expect("views refer to existing tensors");
            let dims = [to.height, to.width, to.channels];
            let to = self.builder.tensor(name, dims, prequantized.scale, prequantized.zero_point);
            self.builder.lookup(name, from, to, |real| real)?;
            let chunks =
                view.chunks.iter_mut().filter(|chunk| chunk.source == Storage::Tensor(from));
            chunks.for_each(|chunk| chunk.source = Storage::Tensor(to));
        }
        Ok(Some(view))
    }

    /// Lowers a DequantizeLinear: reads its input's integers with their scale.
    pub(super) fn dequantize_linear(&mut self, index: usize) -> Result<(), FloatReason> {
        let prequantized = self.prequantized(index).ok_or(FloatReason::ScalesPerAxis)?;
        let view = self.view(self.model.graph.nodes[index].inputs[0])?;
        if view.chunks.iter().all(|chunk| matches!(chunk.source, Storage::Port(_))) {
            let order = view.order();
            let id = self.gather(self.name(index), &view, &order, prequantized)?;
            return self.written(first_output(index), id, &order);
        }
        if self.shared_quantization(&view) != Some(prequantized) {
            return Err(FloatReason::OtherScale);
        }
        self.views.insert(first_output(index), view);
        Ok(())
    }
}
