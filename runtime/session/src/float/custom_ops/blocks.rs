//! 4-bit weights, and weights with one scale per block of an axis.

use tract_core::internal::*;

/// Unpacks 4-bit integers to one byte each. Input: u8, `[⌈elements / 2⌉]`, with two integers in
/// each byte, low half first.
///
/// Like [`Dequantize`](super::Dequantize), it is not constant-folded by tract.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Unpack {
    /// The output type: i8 for two's complement, or u8.
    pub dtype: DatumType,
    /// The shape of the output.
    pub shape: TVec<usize>,
}

/// Computes `(x − zero_point) · scale` with one scale per block of an axis, like ONNX
/// DequantizeLinear with a block size. The last block may be shorter. Inputs:
///
/// - x: i8 or u8.
/// - scale: a floating-point type, with the rank of x.
/// - zero point: the type of x; one element, or the shape of scale.
///
/// Like [`Dequantize`](super::Dequantize), it is not constant-folded by tract.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct DequantizeBlocks {
    /// The floating-point type of the output.
    pub dtype: DatumType,
    /// The axis that is divided into blocks.
    pub axis: usize,
    /// The number of elements of a block along that axis.
    pub block: usize,
}

const BYTES: [DatumType; 2] = [DatumType::I8, DatumType::U8];

impl Op for Unpack {
    fn name(&self) -> StaticName {
        "Unpack".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Unpack {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let packed = args_1!(inputs);
        let bytes = packed.try_as_plain_ram()?.as_slice::<u8>()?;
        let mut output = Tensor::zero_dt(self.dtype, &self.shape)?;
        ensure!(bytes.len() == output.len().div_ceil(2), "its bytes do not match its shape");
        let odd = output.len() % 2 == 1;
        ensure!(
            !odd || bytes.last().is_none_or(|byte| byte >> 4 == 0),
            "its last half byte is not 0"
        );
        macro_rules! unpack {
            ($type:ty) => {
                for (two, byte) in
                    output.try_as_plain_ram_mut()?.as_slice_mut::<$type>()?.chunks_mut(2).zip(bytes)
                {
                    for (element, half) in two.iter_mut().zip([byte << 4, byte & 0xf0]) {
                        *element = half as $type >> 4;
                    }
                }
            };
        }
        match self.dtype {
            DatumType::I8 => unpack!(i8),
            DatumType::U8 => unpack!(u8),
            other => bail!("cannot unpack to {other:?}"),
        }
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for Unpack {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 1, "it takes 1 input, not {}", inputs.len());
        ensure!(inputs[0].datum_type == DatumType::U8, "its input is not of type u8");
        ensure!(BYTES.contains(&self.dtype), "it cannot unpack to {:?}", self.dtype);
        let elements = self.shape.iter().try_fold(1usize, |all, dim| all.checked_mul(*dim));
        let bytes = elements.context("its shape is too large")?.div_ceil(2);
        ensure!(*inputs[0].shape == [bytes.to_dim()], "its bytes do not match its shape");
        Ok(tvec!(self.dtype.fact(&*self.shape)))
    }

    as_op!();
}

impl Op for DequantizeBlocks {
    fn name(&self) -> StaticName {
        "DequantizeBlocks".into()
    }

    op_as_typed_op!();
}

impl EvalOp for DequantizeBlocks {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (x, scale, zero_point) = args_3!(inputs);
        let size = *x.shape().get(self.axis).context("its axis is out of range")?;
        let mut blocked = tvec![0; x.rank()];
        blocked.copy_from_slice(x.shape());
        blocked[self.axis] = size.div_ceil(self.block.max(1));
        ensure!(*scale.shape() == *blocked, "its scales do not match its blocks");
        let scale = scale.cast_to::<f32>()?;
        let scales = scale.try_as_plain_ram()?.as_slice::<f32>()?;
        let mut zeros = zero_point.cast_to::<f32>()?.into_owned();
        if zeros.len() == 1 {
            zeros = zeros.broadcast_scalar_to_shape(&blocked)?;
        }
        ensure!(zeros.len() == scales.len(), "its zero points do not match its blocks");
        let zeros = zeros.try_as_plain_ram()?.as_slice::<f32>()?;
        if x.len() == 0 {
            return Ok(tvec!(Tensor::zero_dt(self.dtype, x.shape())?.into_tvalue()));
        }
        let mut output = Tensor::zero::<f32>(x.shape())?;
        let inner: usize = x.shape()[self.axis + 1..].iter().product();
        let block = self.block.clamp(1, size) * inner;
        macro_rules! dequantize {
            ($type:ty) => {{
                let from = x.try_as_plain_ram()?.as_slice::<$type>()?;
                let mut to = output.try_as_plain_ram_mut()?;
                let to = to.as_slice_mut::<f32>()?;
                // Each row spans the whole axis. Its blocks have one row of scales each.
                let rows = from.chunks(size * inner).zip(to.chunks_mut(size * inner));
                let blocks =
                    rows.flat_map(|(from, to)| from.chunks(block).zip(to.chunks_mut(block)));
                let parameters = scales.chunks(inner).zip(zeros.chunks(inner));
                for ((from, to), (scales, zeros)) in blocks.zip(parameters) {
                    for (from, to) in from.chunks(inner).zip(to.chunks_mut(inner)) {
                        let parameters = scales.iter().zip(zeros);
                        for ((to, from), (scale, zero)) in to.iter_mut().zip(from).zip(parameters) {
                            *to = (f32::from(*from) - zero) * scale;
                        }
                    }
                }
            }};
        }
        match x.datum_type() {
            DatumType::I8 => dequantize!(i8),
            DatumType::U8 => dequantize!(u8),
            other => bail!("cannot dequantize blocks of {other:?}"),
        }
        let output = output.cast_to_dt(self.dtype)?.into_owned();
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for DequantizeBlocks {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 3, "it takes 3 inputs, not {}", inputs.len());
        let [x, scale, zero_point] = [inputs[0], inputs[1], inputs[2]];
        ensure!(BYTES.contains(&x.datum_type), "its input is of type {:?}", x.datum_type);
        ensure!(scale.datum_type.is_float(), "its scale is of type {:?}", scale.datum_type);
        let same = zero_point.datum_type == x.datum_type;
        ensure!(same, "its zero point is of type {:?}", zero_point.datum_type);
        ensure!(self.dtype.is_float(), "its output does not have a float type");
        ensure!(self.block > 0, "its block size is 0");
        let size = x.shape.get(self.axis).context("its axis is out of range")?;
        let mut blocked: TVec<TDim> = x.shape.iter().cloned().collect();
        blocked[self.axis] = size.to_usize()?.div_ceil(self.block).to_dim();
        let fits = |shape: &ShapeFact| {
            let unequal =
                |(a, b): (&TDim, &TDim)| a.as_i64().zip(b.as_i64()).is_some_and(|(a, b)| a != b);
            shape.rank() == blocked.len() && !shape.iter().zip(&blocked).any(unequal)
        };
        ensure!(fits(&scale.shape), "its scales do not match its blocks");
        let one = zero_point.shape.volume().is_one();
        ensure!(one || fits(&zero_point.shape), "its zero points do not match its blocks");
        Ok(tvec!(self.dtype.fact(x.shape.clone())))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: &dyn TypedOp, inputs: &[Tensor]) -> TractResult<Tensor> {
        let facts: Vec<TypedFact> = inputs.iter().map(TypedFact::shape_and_dt_of).collect();
        op.output_facts(&facts.iter().collect::<Vec<_>>())?;
        let inputs = inputs.iter().map(|tensor| tensor.clone().into_tvalue()).collect();
        Ok(op.eval(&EvalContext::out_of_plan(), inputs)?.remove(0).into_tensor())
    }

    #[test]
    fn the_low_half_of_a_byte_is_unpacked_first() {
        let bytes = tensor1(&[0x7fu8, 0x08]);
        let unpack = |dtype, shape: &[usize]| Unpack { dtype, shape: shape.into() };
        let signed = run(&unpack(DatumType::I8, &[3]), std::slice::from_ref(&bytes)).unwrap();
        assert_eq!(signed, tensor1(&[-1i8, 7, -8]));
        let unsigned = run(&unpack(DatumType::U8, &[2, 2]), std::slice::from_ref(&bytes)).unwrap();
        assert_eq!(unsigned, tensor2(&[[15u8, 7], [8, 0]]));
        for wrong in [
            unpack(DatumType::I8, &[5]),
            unpack(DatumType::I8, &[2]),
            unpack(DatumType::I16, &[3]),
            unpack(DatumType::U8, &[usize::MAX, 3]),
        ] {
            assert!(run(&wrong, std::slice::from_ref(&bytes)).is_err(), "{wrong:?}");
        }
        assert!(run(&unpack(DatumType::U8, &[3]), &[tensor1(&[0u8, 0x18])]).is_err());
        assert!(run(&unpack(DatumType::U8, &[0]), &[Tensor::zero::<u8>(&[0]).unwrap()]).is_ok());
    }

    #[test]
    fn each_block_has_its_scale_and_the_last_may_be_shorter() {
        let x = tensor2(&[[1i8, -2], [3, 4], [-5, 6]]);
        let scale = tensor2(&[[0.5f32, 10.0], [2.0, 1.0]]);
        let op = DequantizeBlocks { dtype: DatumType::F32, axis: 0, block: 2 };
        let y = run(&op, &[x.clone(), scale.clone(), tensor0(0i8)]).unwrap();
        assert_eq!(y, tensor2(&[[0.5f32, -20.0], [1.5, 40.0], [-10.0, 6.0]]));
        let zeros = tensor2(&[[1i8, 0], [0, 6]]);
        let y = run(&op, &[x.clone(), scale.clone(), zeros]).unwrap();
        assert_eq!(y, tensor2(&[[0f32, -20.0], [1.0, 40.0], [-10.0, 0.0]]));
        let last = DequantizeBlocks { axis: 1, ..op.clone() };
        let scales = tensor2(&[[1f32], [2.0], [3.0]]);
        let y = run(&last, &[x.clone(), scales, tensor0(0i8)]).unwrap();
        assert_eq!(y, tensor2(&[[1f32, -2.0], [6.0, 8.0], [-15.0, 18.0]]));
        for wrong in [
            DequantizeBlocks { block: 0, ..op.clone() },
            DequantizeBlocks { block: 1, ..op.clone() },
            DequantizeBlocks { axis: 2, ..op.clone() },
            DequantizeBlocks { axis: 1, ..op.clone() },
            DequantizeBlocks { dtype: DatumType::I8, ..op.clone() },
        ] {
            let inputs = [x.clone(), scale.clone(), tensor0(0i8)];
            assert!(run(&wrong, &inputs).is_err(), "{wrong:?}");
        }
        assert!(run(&op, &[x.clone(), scale.clone(), tensor0(0u8)]).is_err());
        assert!(run(&op, &[x, scale, tensor1(&[0i8, 1])]).is_err());
    }
}
