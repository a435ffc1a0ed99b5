//! Lowers element-wise operations and softmax.

use hardtack_bundle::graph::{Binary, Softmax, ValueId};
use hardtack_engine::Layer;

use super::chain::Allow;
use super::strided_view::{Storage, StridedView};
use super::{Lowering, dims};
use crate::graph::constants::{float_elements, is_constant};
use crate::graph::first_output;
use crate::quantize::float_reason::FloatReason;
use crate::quantize::scale::{Quantization, Range};
use crate::quantize::weights::Weights;
use crate::quantize::weights::linear::ONE_PIXEL;

impl Lowering<'_> {
    pub(super) fn binary(&mut self, index: usize, kind: Binary) -> Result<(), FloatReason> {
        let [left, right] = self.model.graph.nodes[index].inputs[..] else {
            return Err(FloatReason::NotTwoInputs);
        };
        if self.function(index)? {
            return Ok(());
        }
        match (is_constant(self.model, left), is_constant(self.model, right)) {
            (false, false) => self.two_operands(index, kind, left, right),
            (false, true) => self.with_constant(index, kind, left, right, false),
            (true, false) => self.with_constant(index, kind, right, left, true),
            (true, true) => Err(FloatReason::OnlyConstants),
        }
    }

    fn two_operands(
        &mut self,
        index: usize,
        kind: Binary,
        mut a: ValueId,
        mut b: ValueId,
    ) -> Result<(), FloatReason> {
        let shape = self.fact_shape(first_output(index))?;
        if self.fact_shape(a)? != shape && matches!(kind, Binary::Add | Binary::Multiply) {
            std::mem::swap(&mut a, &mut b);
        }
        if self.fact_shape(a)? != shape {
            return Err(FloatReason::BothBroadcast);
        }
        if !matches!(kind, Binary::Add | Binary::Subtract | Binary::Multiply) {
            return Err(FloatReason::TwoComputedOperands);
        }
        if let (Some(int16), Binary::Add | Binary::Subtract) =
            (self.int16_quantization(first_output(index)), kind)
            && self.fact_shape(b)? == shape
        {
            return self.int16_sum(index, [a, b], kind, int16);
        }
        let order = self.high_view(a)?.order();
        let first = self.dense(a, &order)?;
        let small = self.fact_shape(b)?;
        let channels = *order.last().ok_or(FloatReason::NoAxes)?;
        let per_channel = small
            .iter()
            .enumerate()
            .all(|(axis, size)| *size == if axis == channels { shape[axis] } else { 1 });
        let second = if small == shape || per_channel {
            self.dense(b, &order)?
        } else {
            let repeated =
                self.view(b)?.broadcast(&shape).ok_or(FloatReason::BroadcastNotStrided)?;
            let quantization = self.quantization_of_view(b, &repeated)?;
            self.gather(self.name(index), &repeated, &order, quantization)?
        };
        let chain = self.chain(index, Allow::Limits);
        self.fuse(&chain);
        let last = first_output(chain.last);
        let follows = {
            let (a, b) =
                (self.quantization_of(first).range(), self.quantization_of(second).range());
            Quantization::of(combined(kind, a, b).within(chain.limits))
        };
        let quantization = self.result(&chain, follows);
        let to = self.tensor(last, &order, quantization)?;
        let clamp = quantization.clamp(chain.limits);
        let (name, operands) = (self.name(index), [first, second]);
        match kind {
            Binary::Add => self.builder.add(name, operands, to, clamp),
            Binary::Subtract => self.builder.subtract(name, operands, to, clamp),
            _ => self.builder.multiply(name, operands, to, clamp),
        }?;
        self.written(last, to, &order)
    }

    fn with_constant(
        &mut self,
        index: usize,
        kind: Binary,
        value: ValueId,
        constant: ValueId,
        constant_first: bool,
    ) -> Result<(), FloatReason> {
        let numbers = float_elements(self.model, constant).ok_or(FloatReason::ConstantNotFloat)?;
        let shape = self.fact_shape(first_output(index))?;
        if self.fact_shape(value)? != shape {
            return Err(FloatReason::ComputedBroadcast);
        }
        let fact = self.model.graph.fact(constant);
        let fits = |axis: &usize| fact.shape[axis + 1].value() == Some(numbers.len() as i64);
        let axis = (0..shape.len()).find(fits);
        let numbers = match axis {
            Some(_) => numbers,
            None => {
                let dims = fact.shape.iter().skip(1).map(|dim| dim.value().unwrap_or(0) as usize);
                repeated(&numbers, &dims.collect::<Vec<_>>(), &shape)
                    .ok_or(FloatReason::ConstantAlongBatch)?
            }
        };
        let (ones, zeros) = (vec![1.0; numbers.len()], vec![0.0; numbers.len()]);
        let each = |f: fn(f32) -> f32| numbers.iter().map(|x| f(*x)).collect::<Vec<f32>>();
        let (factor, offset) = match (kind, constant_first) {
            (Binary::Add, _) => (ones, numbers),
            (Binary::Subtract, false) => (ones, each(|x| -x)),
            (Binary::Subtract, true) => (each(|_| -1.0), numbers),
            (Binary::Multiply, _) => (numbers, zeros),
            (Binary::Divide, false) if numbers.iter().all(|x| *x != 0.0) => {
                (each(|x| 1.0 / x), zeros)
            }
            _ => return Err(FloatReason::NonScalarConstant),
        };
        match axis {
            Some(axis) => self.scale_and_shift(index, value, axis, factor, offset),
            None => self.by_element(index, value, factor, offset),
        }
    }

    /// Multiplies and offsets each element, as channels of one pixel. INT8 is accurate enough for
    /// that only if the source is pre-quantized.
    fn by_element(
        &mut self,
        index: usize,
        value: ValueId,
        factor: Vec<f32>,
        offset: Vec<f32>,
    ) -> Result<(), FloatReason> {
        let chain = self.chain(index, Allow::Limits);
        let last = first_output(chain.last);
        let quantization = chain.prequantized.or_else(|| self.prequantized_after(last));
        let quantization = quantization.ok_or(FloatReason::ConstantByPosition)?;
        self.fuse(&chain);
        let count = factor.len();
        let view = self.view(value)?;
        let read = self.quantization_of_view(value, &view)?;
        let name = self.name(index);
        let input = self.gather(name, &view.reshape(&[count]), &[0], read)?;
        let Quantization { scale, zero_point } = quantization;
        let output = self.builder.tensor(
            self.name(last.node as usize),
            dims(&[count], &[0])?,
            scale,
            zero_point,
        );
        let quantized = Weights::factors(factor).quantize(read.scale, &offset);
        self.builder.conv(
            name,
            &Layer {
                input,
                output,
                window: ONE_PIXEL,
                groups: count as u32,
                weights: &quantized.weights,
                weight_scales: &quantized.scales,
                bias: &quantized.bias,
                residual: None,
                clamp: quantization.clamp(chain.limits),
            },
        )?;
        let shape = self.fact_shape(last)?;
        let flat = StridedView::dense(Storage::Tensor(output), &[count], &[0]);
        self.views.insert(last, flat.reshape(&shape));
        Ok(())
    }

    pub(super) fn softmax(&mut self, index: usize, softmax: &Softmax) -> Result<(), FloatReason> {
        if softmax.logarithm {
            return Err(FloatReason::SoftmaxLogarithm);
        }
        let value = self.operand(index)?;
        let shape = self.fact_shape(value)?;
        let summed = |axis: &usize| softmax.axes.contains(&(*axis as u32 + 1)) && shape[*axis] > 1;
        let axes: Vec<usize> = (0..shape.len()).filter(summed).collect();
        let axis = match axes[..] {
            [axis] => axis,
            [] => shape.len() - 1,
            _ => return Err(FloatReason::SoftmaxAxes),
        };
        if softmax.axes.contains(&0) {
            return Err(FloatReason::SoftmaxOverBatch);
        }
        let mut order: Vec<usize> = self.view(value)?.order();
        order.retain(|other| *other != axis);
        order.push(axis);
        let from = self.dense(value, &order)?;
        let whole = Quantization { scale: 1.0 / 256.0, zero_point: -128 };
        let to = self.tensor(first_output(index), &order, whole)?;
        self.builder.softmax(self.name(index), from, to)?;
        self.written(first_output(index), to, &order)
    }
}

/// Returns the range of the sum, difference or product of values within these ranges.
fn combined(kind: Binary, a: Range, b: Range) -> Range {
    let of = |a: f32, b: f32| match kind {
        Binary::Add => a + b,
        Binary::Subtract => a - b,
        _ => a * b,
    };
    Range::NONE.extended(&[
        of(a.low, b.low),
        of(a.low, b.high),
        of(a.high, b.low),
        of(a.high, b.high),
    ])
}

/// Broadcasts a constant with these dimensions to a shape, or returns `None` if they do not fit.
fn repeated(numbers: &[f32], dims: &[usize], shape: &[usize]) -> Option<Vec<f32>> {
    let fits = dims.len() == shape.len()
        && dims.iter().product::<usize>() == numbers.len()
        && dims.iter().zip(shape).all(|(dim, size)| *dim == 1 || dim == size);
    fits.then_some(())?;
    let mut repeated = vec![numbers.first().copied()?; shape.iter().product()];
    for (index, value) in repeated.iter_mut().enumerate() {
        let (mut rest, mut stride, mut at) = (index, 1, 0);
        for (dim, size) in dims.iter().zip(shape).rev() {
            at += rest % size % dim * stride;
            rest /= size;
            stride *= dim;
        }
        *value = numbers[at];
    }
    Some(repeated)
}
