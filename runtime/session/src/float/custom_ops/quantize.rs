//! Linear quantization with computed parameters.
//!
//! Unlike tract's operations, these take scale and zero point as inputs, per tensor or per axis.

use tract_core::internal::*;
use tract_core::tract_data::itertools::izip;

/// Computes `saturate(round_half_even(x / scale) + zero_point)`, like ONNX QuantizeLinear. Inputs:
/// x in a floating-point type, scale in a floating-point type, zero point in the type of the
/// output.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Quantize {
    /// The integer type of the output, of at most 32 bits.
    pub dtype: DatumType,
    /// The axis along which scale and zero point vary; `None` for per-tensor parameters.
    pub axis: Option<usize>,
}

/// Computes `(x - zero_point) · scale`, like ONNX DequantizeLinear. Inputs: x in an integer type,
/// scale in a floating-point type, zero point in the type of x.
///
/// tract does not constant-fold it, so that a model can keep its weights as integers until it is
/// loaded.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Dequantize {
    /// The floating-point type of the output.
    pub dtype: DatumType,
    /// The axis along which scale and zero point vary; `None` for per-tensor parameters.
    pub axis: Option<usize>,
}

impl Op for Quantize {
    fn name(&self) -> StaticName {
        "Quantize".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Quantize {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (x, scale, zero_point) = args_3!(inputs);
        let parameters = Parameters::new(x.shape(), self.axis, &scale, &zero_point)?;
        let x = x.cast_to::<f32>()?;
        let mut output = Tensor::zero_dt(self.dtype, x.shape())?;
        // `$function` computes the element of an x, a scale and a zero point.
        macro_rules! quantize {
            ($type:ty, $function:expr) => {
                parameters.each(
                    x.try_as_plain_ram()?.as_slice::<f32>()?,
                    output.try_as_plain_ram_mut()?.as_slice_mut::<$type>()?,
                    $function,
                )
            };
        }
        macro_rules! narrow {
            ($type:ty) => {
                quantize!($type, |x, scale, zero_point| {
                    let zero_point = zero_point as i32;
                    let limit = |limit: $type| (i32::from(limit) - zero_point) as f32;
                    let x = x / scale;
                    // In this form, the compiler uses vector instructions.
                    let least = if x > limit(<$type>::MIN) { x } else { limit(<$type>::MIN) };
                    let most =
                        if least < limit(<$type>::MAX) { least } else { limit(<$type>::MAX) };
                    if x.is_nan() { 0 } else { (rounded(most) + zero_point) as $type }
                })
            };
        }
        macro_rules! wide {
            ($type:ty) => {
                quantize!($type, |x, scale, zero_point| {
                    // The sum of a rounded f32 and an integer is exact in f64, and the cast
                    // saturates.
                    let rounded = f64::from((x / scale).round_ties_even());
                    (rounded + zero_point as f64) as $type
                })
            };
        }
        match self.dtype {
            DatumType::I8 => narrow!(i8),
            DatumType::U8 => narrow!(u8),
            DatumType::I16 => narrow!(i16),
            DatumType::U16 => narrow!(u16),
            DatumType::I32 => wide!(i32),
            DatumType::U32 => wide!(u32),
            other => bail!("cannot quantize to {other:?}"),
        }
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for Quantize {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        check(inputs, self.axis, inputs[0].datum_type.is_float(), self.dtype)?;
        ensure!(self.dtype.is_integer(), "its output is not of an integer type");
        Ok(tvec!(self.dtype.fact(inputs[0].shape.clone())))
    }

    as_op!();
}

impl Op for Dequantize {
    fn name(&self) -> StaticName {
        "Dequantize".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Dequantize {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (x, scale, zero_point) = args_3!(inputs);
        let parameters = Parameters::new(x.shape(), self.axis, &scale, &zero_point)?;
        let mut output = Tensor::zero::<f32>(x.shape())?;
        // The difference from the zero point is exact in `$exact`.
        macro_rules! dequantize {
            ($type:ty, $exact:ty) => {
                parameters.each(
                    x.try_as_plain_ram()?.as_slice::<$type>()?,
                    output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?,
                    |x, scale, zero_point| {
                        (<$exact>::from(x) - zero_point as $exact) as f32 * scale
                    },
                )
            };
        }
        match x.datum_type() {
            DatumType::I8 => dequantize!(i8, i32),
            DatumType::U8 => dequantize!(u8, i32),
            DatumType::I16 => dequantize!(i16, i32),
            DatumType::U16 => dequantize!(u16, i32),
            DatumType::I32 => dequantize!(i32, i64),
            DatumType::U32 => dequantize!(u32, i64),
            other => bail!("cannot dequantize {other:?}"),
        }
        if self.dtype != DatumType::F32 {
            output = output.cast_to_dt(self.dtype)?.into_owned();
        }
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for Dequantize {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let dtype = inputs.first().map_or(DatumType::Bool, |x| x.datum_type);
        check(inputs, self.axis, dtype.is_integer(), dtype)?;
        ensure!(self.dtype.is_float(), "its output does not have a float type");
        Ok(tvec!(self.dtype.fact(inputs[0].shape.clone())))
    }

    as_op!();
}

/// Checks the inputs of both operations. `integer` is the type of the quantized side.
fn check(
    inputs: &[&TypedFact],
    axis: Option<usize>,
    x_fits: bool,
    integer: DatumType,
) -> TractResult<()> {
    ensure!(inputs.len() == 3, "it takes 3 inputs, not {}", inputs.len());
    ensure!(x_fits, "its input is of type {:?}", inputs[0].datum_type);
    ensure!(inputs[1].datum_type.is_float(), "its scale is of type {:?}", inputs[1].datum_type);
    ensure!(
        inputs[2].datum_type == integer,
        "its zero point is of type {:?}, not {integer:?}",
        inputs[2].datum_type
    );
    let expected = match axis {
        None => TDim::Val(1),
        Some(axis) => inputs[0].shape.get(axis).context("its axis is out of range")?.clone(),
    };
    for parameter in &inputs[1..] {
        let elements = parameter.shape.volume();
        ensure!(
            elements == expected || elements == TDim::Val(1),
            "its parameters have {elements} elements, but its axis has {expected}"
        );
    }
    Ok(())
}

/// Rounds a number of magnitude at most 2^22 half to even. Adding 1.5 · 2^23 leaves no fractional
/// bits.
#[inline(always)]
fn rounded(x: f32) -> i32 {
    const MAGIC: f32 = 12_582_912.0;
    ((x + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32)
}

/// Scales and zero points, and the number of consecutive elements that share each pair.
struct Parameters {
    scales: Vec<f32>,
    zero_points: Vec<i64>,
    run: usize,
}

impl Parameters {
    fn new(
        shape: &[usize],
        axis: Option<usize>,
        scale: &Tensor,
        zero_point: &Tensor,
    ) -> TractResult<Parameters> {
        let mut scales = scale.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        let mut zero_points =
            zero_point.cast_to::<i64>()?.try_as_plain_ram()?.as_slice::<i64>()?.to_vec();
        let (count, run) = match axis {
            None => (1, shape.iter().product()),
            Some(axis) => {
                let count = *shape.get(axis).context("its axis is out of range")?;
                (count, shape[axis + 1..].iter().product())
            }
        };
        for length in [scales.len(), zero_points.len()] {
            ensure!(
                length == count || length == 1,
                "{length} parameters for an axis of size {count}"
            );
        }
        // A single parameter applies to the whole axis.
        if scales.len() != count {
            scales = vec![scales[0]; count];
        }
        if zero_points.len() != count {
            zero_points = vec![zero_points[0]; count];
        }
        Ok(Parameters { scales, zero_points, run })
    }

    fn each<A: Copy, B>(&self, from: &[A], to: &mut [B], f: impl Fn(A, f32, i64) -> B) {
        if self.run == 0 || self.scales.is_empty() {
            return;
        }
        let block = self.run * self.scales.len();
        for (from, to) in from.chunks(block).zip(to.chunks_mut(block)) {
            let runs = from.chunks(self.run).zip(to.chunks_mut(self.run));
            for ((from, to), scale, zero_point) in izip!(runs, &self.scales, &self.zero_points) {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = f(*from, *scale, *zero_point));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: &dyn EvalOp, inputs: [Tensor; 3]) -> Tensor {
        let inputs = inputs.into_iter().map(|tensor| tensor.into_tvalue()).collect();
        op.eval(&EvalContext::out_of_plan(), inputs).unwrap().remove(0).into_tensor()
    }

    #[test]
    fn halves_round_to_even_before_the_zero_point_is_added() {
        let op = Quantize { dtype: DatumType::U8, axis: None };
        let x = tensor1(&[0.5f32, 1.5, 2.5, -0.5, -1.5, 1e9, -1e9, f32::NAN]);
        let y = run(&op, [x, tensor0(1f32), tensor0(3u8)]);
        // 0.5 rounds to 0 before the odd zero point is added.
        assert_eq!(y, tensor1(&[3u8, 5, 5, 3, 1, 255, 0, 0]));
    }

    #[test]
    fn narrow_types_round_like_the_definition() {
        for zero in [-128i8, -1, 0, 7, 127] {
            let x: Vec<f32> = (-4000..4000).map(|x| x as f32 * 0.037_5).collect();
            let y = run(
                &Quantize { dtype: DatumType::I8, axis: None },
                [tensor1(&x), tensor0(0.3f32), tensor0(zero)],
            );
            let defined = |x: &f32| ((x / 0.3).round_ties_even() as i32 + i32::from(zero)) as f32;
            let defined: Vec<i8> = x.iter().map(|x| defined(x) as i8).collect();
            assert_eq!(y, tensor1(&defined));
        }
    }

    #[test]
    fn every_type_saturates_at_its_own_limits() {
        let x = tensor1(&[1e20f32, -1e20]);
        let y =
            |dtype, zero| run(&Quantize { dtype, axis: None }, [x.clone(), tensor0(1f32), zero]);
        assert_eq!(y(DatumType::I8, tensor0(0i8)), tensor1(&[127i8, -128]));
        assert_eq!(y(DatumType::I16, tensor0(0i16)), tensor1(&[i16::MAX, i16::MIN]));
        assert_eq!(y(DatumType::U16, tensor0(0u16)), tensor1(&[u16::MAX, 0]));
        assert_eq!(y(DatumType::I32, tensor0(0i32)), tensor1(&[i32::MAX, i32::MIN]));
    }

    #[test]
    fn parameters_vary_along_their_axis() {
        let q = Quantize { dtype: DatumType::I8, axis: Some(1) };
        let d = Dequantize { dtype: DatumType::F32, axis: Some(1) };
        let x = Tensor::from_shape(&[2, 2, 2], &[1f32, 2., 3., 4., 5., 6., 7., 8.]).unwrap();
        let (scale, zero_point) = (tensor1(&[1f32, 0.5]), tensor1(&[0i8, -10]));
        let y = run(&q, [x.clone(), scale.clone(), zero_point.clone()]);
        let expected = Tensor::from_shape(&[2, 2, 2], &[1i8, 2, -4, -2, 5, 6, 4, 6]).unwrap();
        assert_eq!(y, expected);
        assert_eq!(run(&d, [y, scale, zero_point]), x);
    }

    #[test]
    fn i32_minus_the_zero_point_is_exact_before_scaling() {
        let d = Dequantize { dtype: DatumType::F32, axis: None };
        let x = tensor1(&[i32::MAX, i32::MIN]);
        let y = run(&d, [x, tensor0(1f32), tensor0(-1i32)]);
        assert_eq!(y, tensor1(&[2147483648f32, -2147483647.0]));
    }
}
