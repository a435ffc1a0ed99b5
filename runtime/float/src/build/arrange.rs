//! Operators that only move elements. Most of them are views.

use hardtack_bundle::graph::{Operator, ValueId};

use super::Builder;
use crate::tensor::Tensor;

impl Builder<'_> {
    /// Compiles an operator whose result is a view of its input.
    pub(super) fn view(&mut self, inputs: &[ValueId]) -> Option<Tensor> {
        let [input, ..] = *inputs else { return None };
        let input = self.tensor(input)?;
        match &self.current().operator {
            Operator::AddAxis(axis) => input.with_axis(*axis as usize),
            Operator::RemoveAxis(axis) => input.without_axis(*axis as usize),
            Operator::MoveAxis((from, to)) => input.with_moved_axis(*from as usize, *to as usize),
            Operator::Slice(a) => {
                let (start, end) = (self.dim(&a.start)?, self.dim(&a.end)?);
                input.slice(a.axis as usize, start, end)
            }
            Operator::Downsample(a) => {
                let (axis, step) = (a.axis as usize, usize::try_from(a.stride).ok()?);
                let skipped = usize::try_from(a.modulo).ok()?;
                let size = *input.dims.get(axis)?;
                let mut tensor = input.slice(axis, skipped, size)?;
                tensor.dims[axis] = tensor.dims[axis].div_ceil(step);
                tensor.strides[axis] = tensor.strides[axis].checked_mul(step)?;
                Some(tensor)
            }
            _ => None,
        }
    }

    pub(super) fn reshape(&mut self, inputs: &[ValueId]) -> Option<Tensor> {
        let [input] = *inputs else { return None };
        let input = self.tensor(input)?;
        let dims = self.dims(self.result())?;
        if let Some(tensor) = input.reshaped(&dims) {
            return Some(tensor);
        }
        let order: Vec<usize> = (0..input.dims.len()).collect();
        self.reordered(&input, &order, None)?.reshaped(&dims)
    }

    pub(super) fn concat(&mut self, axis: usize, inputs: &[ValueId]) -> Option<Tensor> {
        let tensors: Vec<Tensor> =
            inputs.iter().map(|input| self.tensor(*input)).collect::<Option<_>>()?;
        let mut dims = tensors.first()?.dims.clone();
        *dims.get_mut(axis)? =
            tensors.iter().map(|tensor| tensor.dims.get(axis)).sum::<Option<_>>()?;
        let target = self.create_result(&dims, &tensors.first()?.order())?;
        let mut first = 0;
        for tensor in &tensors {
            let end = first + tensor.dims[axis];
            let part = target.clone().slice(axis, first, end)?;
            if part.dims != tensor.dims {
                return None;
            }
            self.copy(tensor, &part)?;
            first = end;
        }
        Some(target)
    }

    pub(super) fn upsample(&mut self, factors: &[u64], inputs: &[ValueId]) -> Option<Tensor> {
        let [input] = *inputs else { return None };
        let input = self.tensor(input)?;
        let factors: Vec<usize> =
            factors.iter().map(|factor| usize::try_from(*factor).ok()).collect::<Option<_>>()?;
        let dims = self.dims(self.result())?;
        let fits = factors.len() == input.dims.len()
            && dims.len() == input.dims.len()
            && (0..dims.len())
                .all(|axis| input.dims[axis].checked_mul(factors[axis]) == Some(dims[axis]));
        if !fits {
            return None;
        }
        let target = self.create_result(&dims, &input.order())?;
        // Each dimension in two: the element, and its repetitions.
        let (mut source, mut written) = (input.clone(), target.clone());
        for tensor in [&mut source, &mut written] {
            (tensor.dims, tensor.strides, tensor.halo) = (Vec::new(), Vec::new(), None);
        }
        for (axis, factor) in factors.iter().enumerate() {
            source.dims.extend([input.dims[axis], 1]);
            source.strides.extend([input.strides[axis], 0]);
            written.dims.extend([input.dims[axis], *factor]);
            written.strides.extend([target.strides[axis] * factor, target.strides[axis]]);
        }
        self.copy(&source, &written)?;
        Some(target)
    }
}
