//! The k largest or smallest elements along an axis.

use std::cmp::Ordering;

use tract_core::internal::*;

/// Returns the k largest or smallest elements along an axis, in order, and their indices. Equal
/// elements stay in order of their indices, and NaN comes after all numbers. Inputs: x, and k as a
/// scalar.
///
/// tract's operation uses k as a size without a check, and its order is not total if there is a
/// NaN.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::float) struct TopK {
    /// The axis.
    pub axis: usize,
    /// Whether to return the largest elements instead of the smallest.
    pub largest: bool,
    /// The value of k in output shapes: a number or a symbol.
    pub k: TDim,
}

impl Eq for TopK {}

/// The error of a k that exceeds the size of the axis or is negative.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("k is {k}, which is out of range for axis {axis} of size {size}")]
struct CountError {
    k: i64,
    axis: usize,
    size: usize,
}

/// The error of a k that differs from the stated one.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("k is {k} along axis {axis}, but the graph states {stated}")]
struct StatedError {
    k: usize,
    axis: usize,
    stated: TDim,
}

impl TopK {
    /// Checks k against the size of the axis and returns it.
    pub fn count(&self, k: &Tensor, size: usize) -> TractResult<usize> {
        ensure!(k.len() == 1, "k has {} elements instead of 1", k.len());
        let k = k.cast_to_scalar::<i64>()?;
        let count = usize::try_from(k).ok().filter(|count| *count <= size);
        Ok(count.ok_or(CountError { k, axis: self.axis, size })?)
    }

    fn pick<T: Datum + PartialOrd + Copy>(
        &self,
        x: &Tensor,
        count: usize,
    ) -> TractResult<TVec<TValue>> {
        let mut shape: TVec<usize> = x.shape().into();
        let size = shape[self.axis];
        let inner: usize = shape[self.axis + 1..].iter().product();
        shape[self.axis] = count;
        let plain = x.try_as_plain_ram()?;
        let x = plain.as_slice::<T>()?;
        let mut values = Tensor::zero_dt(plain.datum_type(), &shape)?;
        let mut indices = Tensor::zero::<i64>(&shape)?;
        if values.len() > 0 {
            let (mut values, mut indices) =
                (values.try_as_plain_ram_mut()?, indices.try_as_plain_ram_mut()?);
            let (values, indices) = (values.as_slice_mut::<T>()?, indices.as_slice_mut::<i64>()?);
            let blocks = x.chunks_exact(size * inner);
            let blocks = blocks
                .zip(values.chunks_exact_mut(count * inner))
                .zip(indices.chunks_exact_mut(count * inner));
            let mut order = Vec::with_capacity(size);
            for ((x, values), indices) in blocks {
                for at in 0..inner {
                    order.clear();
                    order.extend(0..size);
                    order.sort_by(|a, b| self.order(x[a * inner + at], x[b * inner + at]));
                    for (to, from) in order[..count].iter().enumerate() {
                        values[to * inner + at] = x[from * inner + at];
                        indices[to * inner + at] = *from as i64;
                    }
                }
            }
        }
        Ok(tvec!(values.into_tvalue(), indices.into_tvalue()))
    }

    /// A total order, as sorting requires: NaN comes last.
    #[allow(clippy::eq_op, reason = "NaN of any type is not equal to itself")]
    fn order<T: PartialOrd>(&self, a: T, b: T) -> Ordering {
        match a.partial_cmp(&b) {
            Some(order) if self.largest => order.reverse(),
            Some(order) => order,
            None => (a != a).cmp(&(b != b)),
        }
    }
}

impl Op for TopK {
    fn name(&self) -> StaticName {
        "Topk".into()
    }

    fn mints_runtime_symbols(&self) -> bool {
        true
    }

    op_as_typed_op!();
}

impl EvalOp for TopK {
    op_out_of_plan!();

    fn eval(&self, ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (x, k) = args_2!(inputs);
        let size = *x.shape().get(self.axis).context("its axis is out of range")?;
        let count = self.count(&k, size)?;
        let stated = self.k.eval(ctx.symbols);
        if stated.as_i64().is_some_and(|stated| stated != count as i64) {
            Err(StatedError { k: count, axis: self.axis, stated })?;
        }
        tract_core::tract_data::dispatch_numbers!(Self::pick(x.datum_type())(self, &x, count))
    }
}

impl TypedOp for TopK {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 2, "it takes 2 inputs, not {}", inputs.len());
        ensure!(self.axis < inputs[0].rank(), "its axis {} is out of range", self.axis);
        let k = match &inputs[1].konst {
            Some(k) => {
                ensure!(k.len() == 1, "k has {} elements instead of 1", k.len());
                let k = k.cast_to_scalar::<i64>()?;
                // tract panics on a negative dimension.
                ensure!(k >= 0, "k is {k}");
                k.to_dim()
            }
            None => self.k.clone(),
        };
        let mut shape = inputs[0].shape.to_tvec();
        shape[self.axis] = k;
        Ok(tvec!(inputs[0].datum_type.fact(&*shape), i64::fact(&*shape)))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(largest: bool, axis: usize, x: &Tensor, k: i64) -> TractResult<(Tensor, Tensor)> {
        stated(k, largest, axis, x, k)
    }

    fn stated(
        stated: i64,
        largest: bool,
        axis: usize,
        x: &Tensor,
        k: i64,
    ) -> TractResult<(Tensor, Tensor)> {
        let op = TopK { axis, largest, k: stated.to_dim() };
        let inputs = tvec!(x.clone().into_tvalue(), tensor0(k).into_tvalue());
        let mut outputs = op.eval(&EvalContext::out_of_plan(), inputs)?;
        let indices = outputs.remove(1).into_tensor();
        Ok((outputs.remove(0).into_tensor(), indices))
    }

    #[test]
    fn elements_are_sorted_and_equal_ones_stay_in_order() {
        let x = tensor2(&[[3f32, 1.0, 3.0], [0.0, 5.0, -1.0]]);
        let (values, indices) = run(true, 1, &x, 2).unwrap();
        assert_eq!(values, tensor2(&[[3f32, 3.0], [5.0, 0.0]]));
        assert_eq!(indices, tensor2(&[[0i64, 2], [1, 0]]));
        let (values, indices) = run(false, 0, &x, 1).unwrap();
        assert_eq!(values, tensor2(&[[0f32, 1.0, -1.0]]));
        assert_eq!(indices, tensor2(&[[1i64, 0, 1]]));
        assert_eq!(run(true, 1, &x, 0).unwrap().0.shape(), [2, 0]);
    }

    #[test]
    fn numbers_come_before_nan() {
        let x: Vec<f32> = (0..200).map(|i| if i % 3 == 0 { f32::NAN } else { i as f32 }).collect();
        let x = tensor1(&x);
        for (largest, first) in [(true, 199), (false, 1)] {
            let (_, indices) = run(largest, 0, &x, 200).unwrap();
            let view = indices.try_as_plain_ram().unwrap();
            let indices = view.as_slice::<i64>().unwrap();
            assert_eq!(indices[0], first);
            assert!(indices[133..].iter().all(|index| index % 3 == 0));
        }
    }

    #[test]
    fn a_k_beyond_the_size_of_the_axis_is_an_error() {
        let x = tensor1(&[1f32, 2.0]);
        for k in [3, -1, i64::MAX, i64::MIN] {
            assert!(run(true, 0, &x, k).is_err(), "{k}");
        }
        assert!(run(true, 0, &x, 2).is_ok());
    }

    #[test]
    fn a_k_that_differs_from_the_stated_one_is_an_error() {
        let x = tensor1(&[1f32, 2.0, 3.0]);
        for k in [0, 1, 3] {
            let error = stated(2, true, 0, &x, k).unwrap_err().to_string();
            assert!(error.contains("the graph states 2"), "{error}");
        }
    }
}
