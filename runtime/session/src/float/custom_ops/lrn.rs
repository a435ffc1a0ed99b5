//! Local response normalization.

use tract_core::internal::*;

/// Local response normalization across channels: `y = x / (bias + alpha / size · Σ x²) ^ beta`,
/// where the sum is over `size` adjacent channels. Input: f32, `[batch, channels, …]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Lrn {
    /// The scaling parameter.
    pub alpha: f32,
    /// The exponent.
    pub beta: f32,
    /// The constant that is added to the scaled sum of squares.
    pub bias: f32,
    /// The number of channels to sum over.
    pub size: usize,
}

impl Eq for Lrn {}

impl Op for Lrn {
    fn name(&self) -> StaticName {
        "Lrn".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Lrn {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let shape = input.shape();
        ensure!(shape.len() >= 2, "its input has no channels");
        let (channels, inner) = (shape[1], shape[2..].iter().product::<usize>());
        let mut output = Tensor::zero::<f32>(shape)?;
        let (x, mut y) = (input.try_as_plain_ram()?, output.try_as_plain_ram_mut()?);
        let (x, y) = (x.as_slice::<f32>()?, y.as_slice_mut::<f32>()?);
        let image = channels * inner;
        if image == 0 {
            return Ok(tvec!(output.into_tvalue()));
        }
        // Channels before and after this one; for an even size there is one more after.
        let (before, after) = ((self.size - 1) / 2, self.size / 2);
        let mut sums = vec![0f32; inner];
        for (x, y) in x.chunks_exact(image).zip(y.chunks_exact_mut(image)) {
            for channel in 0..channels {
                sums.fill(0.0);
                let last = channel.saturating_add(after).min(channels - 1);
                for neighbour in channel.saturating_sub(before)..=last {
                    let row = &x[neighbour * inner..][..inner];
                    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * x);
                }
                let (x, y) = (&x[channel * inner..][..inner], &mut y[channel * inner..][..inner]);
                for ((y, x), sum) in y.iter_mut().zip(x).zip(&sums) {
                    *y = x / (self.bias + self.alpha / self.size as f32 * sum).powf(self.beta);
                }
            }
        }
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for Lrn {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(self.size > 0, "its size is 0");
        ensure!(inputs.len() == 1 && inputs[0].rank() >= 2, "its input has no channels");
        ensure!(inputs[0].datum_type == DatumType::F32, "its input is not of type f32");
        Ok(tvec!(inputs[0].without_value()))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighboring_channels_are_summed() {
        let op = Lrn { alpha: 1.0, beta: 1.0, bias: 1.0, size: 2 };
        let x = Tensor::from_shape(&[1, 3, 1], &[1f32, 2.0, 4.0]).unwrap().into_tvalue();
        let y = op.eval(&EvalContext::out_of_plan(), tvec!(x)).unwrap().remove(0);
        // A size of 2 takes the channel itself and the next.
        let expected = [1.0 / (1.0 + 2.5), 2.0 / (1.0 + 10.0), 4.0 / (1.0 + 8.0)];
        assert_eq!(y.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap(), expected);
    }
}
