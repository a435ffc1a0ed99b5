//! One-hot encoding of indices.

use tract_core::internal::*;

/// Adds an axis of size `depth` that is "on" at each index and "off" elsewhere. Negative indices
/// count from the end. If an index is out of range, all elements are off. Input: indices of any
/// numeric type.
///
/// tract's own operation truncates indices to 32 bits and panics if they are out of range.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::float) struct OneHot {
    /// The position of the new axis.
    pub axis: usize,
    /// The size of the new axis.
    pub depth: usize,
    /// The "off" value, a scalar.
    pub off: Arc<Tensor>,
    /// The "on" value, a scalar of the same type.
    pub on: Arc<Tensor>,
    /// The maximum number of bytes of the output.
    pub limit: u64,
}

impl Eq for OneHot {}

impl OneHot {
    fn fill<T: Datum>(
        &self,
        indices: &[i64],
        inner: usize,
        shape: &[usize],
    ) -> TractResult<Tensor> {
        let (off, on) = (self.off.try_as_plain_ram()?, self.on.try_as_plain_ram()?);
        let (off, on) = (off.as_slice::<T>()?, on.as_slice::<T>()?);
        let ([off], [on]) = (off, on) else { bail!("its values are not scalars") };
        let elements: usize = shape.iter().product();
        let mut output = vec![off.clone(); elements];
        for (at, index) in indices.iter().enumerate() {
            let index = if *index < 0 { index.saturating_add(self.depth as i64) } else { *index };
            let Some(index) = usize::try_from(index).ok().filter(|index| *index < self.depth)
            else {
                continue;
            };
            let (outer, inside) = (at / inner, at % inner);
            output[(outer * self.depth + index) * inner + inside] = on.clone();
        }
        tensor1(&output).into_shape(shape)
    }
}

impl Op for OneHot {
    fn name(&self) -> StaticName {
        "Onehot".into()
    }

    op_as_typed_op!();
}

impl EvalOp for OneHot {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let mut shape: TVec<usize> = input.shape().into();
        ensure!(self.axis <= shape.len(), "its axis {} is out of range", self.axis);
        shape.insert(self.axis, self.depth);
        let element = self.off.datum_type().size_of() as u64;
        let bytes = shape.iter().fold(element, |bytes, size| bytes.saturating_mul(*size as u64));
        ensure!(
            bytes <= self.limit,
            "the output takes {bytes} bytes, beyond the limit of {}",
            self.limit
        );
        let inner = input.shape()[self.axis..].iter().product();
        let indices = input.cast_to::<i64>()?;
        let indices = indices.try_as_plain_ram()?.as_slice::<i64>()?;
        let output = tract_core::tract_data::dispatch_datum!(Self::fill(self.off.datum_type())(
            self, indices, inner, &shape
        ))?;
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for OneHot {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 1, "it takes 1 input, not {}", inputs.len());
        ensure!(self.axis <= inputs[0].rank(), "its axis {} is out of range", self.axis);
        ensure!(self.off.datum_type() == self.on.datum_type(), "its values differ in type");
        let mut shape = inputs[0].shape.to_tvec();
        shape.insert(self.axis, self.depth.to_dim());
        Ok(tvec!(self.off.datum_type().fact(&*shape)))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(axis: usize, indices: Tensor) -> Tensor {
        let op = OneHot {
            axis,
            depth: 3,
            off: tensor0(0f32).into_arc_tensor(),
            on: tensor0(1f32).into_arc_tensor(),
            limit: 1 << 20,
        };
        op.eval(&EvalContext::out_of_plan(), tvec!(indices.into_tvalue()))
            .unwrap()
            .remove(0)
            .into_tensor()
    }

    #[test]
    fn indices_out_of_range_set_no_element() {
        let y = run(1, tensor1(&[0i64, -1, 3, -4, 1 << 40, i64::MIN]));
        let mut expected = [[0f32; 3]; 6];
        expected[0][0] = 1.0;
        expected[1][2] = 1.0;
        assert_eq!(y, tensor2(&expected));
    }

    #[test]
    fn the_new_axis_may_come_first() {
        let y = run(0, tensor1(&[2i32, 0]));
        assert_eq!(y, tensor2(&[[0f32, 1.0], [0.0, 0.0], [1.0, 0.0]]));
        assert_eq!(run(0, tensor0(1u8)), tensor1(&[0f32, 1.0, 0.0]));
        assert_eq!(run(1, Tensor::zero::<i64>(&[0]).unwrap()).shape(), [0, 3]);
    }

    #[test]
    fn the_output_is_limited() {
        let op = OneHot {
            axis: 0,
            depth: 1 << 30,
            off: tensor0(0f32).into_arc_tensor(),
            on: tensor0(1f32).into_arc_tensor(),
            limit: 1 << 20,
        };
        let inputs = tvec!(tensor1(&[0i64]).into_tvalue());
        assert!(op.eval(&EvalContext::out_of_plan(), inputs).is_err());
    }
}
