//! Converts tensors and element types between ours and tract's.

use hardtack_bundle::DType;
use tract_core::internal::*;

use super::dims::Symbols;
use super::error::Problem;
use crate::model::Constant;
use crate::{Data, Tensor as Ours};

/// Converts an element type to tract. bf16, which tract lacks, becomes f32.
pub(super) fn dtype_to_tract(dtype: DType) -> DatumType {
    match dtype {
        DType::Bool => DatumType::Bool,
        DType::I8 => DatumType::I8,
        DType::U8 => DatumType::U8,
        DType::I16 => DatumType::I16,
        DType::U16 => DatumType::U16,
        DType::I32 => DatumType::I32,
        DType::U32 => DatumType::U32,
        DType::I64 => DatumType::I64,
        DType::U64 => DatumType::U64,
        DType::F16 => DatumType::F16,
        DType::F32 | DType::BF16 => DatumType::F32,
        DType::F64 => DatumType::F64,
        DType::Dim => DatumType::TDim,
    }
}

/// Converts an element type from tract. Returns `None` for types that a bundle cannot represent.
#[cfg(feature = "export")]
pub(super) fn dtype_from_tract(dtype: DatumType) -> Option<DType> {
    Some(match dtype {
        DatumType::Bool => DType::Bool,
        DatumType::I8 => DType::I8,
        DatumType::U8 => DType::U8,
        DatumType::I16 => DType::I16,
        DatumType::U16 => DType::U16,
        DatumType::I32 => DType::I32,
        DatumType::U32 => DType::U32,
        DatumType::I64 => DType::I64,
        DatumType::U64 => DType::U64,
        DatumType::F16 => DType::F16,
        DatumType::F32 => DType::F32,
        DatumType::F64 => DType::F64,
        DatumType::TDim => DType::Dim,
        _ => return None,
    })
}

/// Copies a tensor to tract. bf16 is widened to f32.
pub(super) fn to_tract(tensor: &Ours) -> TractResult<Tensor> {
    let shape = tensor.shape();
    match tensor.data() {
        Data::Bool(v) => Tensor::from_shape(shape, v),
        Data::I8(v) => Tensor::from_shape(shape, v),
        Data::U8(v) => Tensor::from_shape(shape, v),
        Data::I16(v) => Tensor::from_shape(shape, v),
        Data::U16(v) => Tensor::from_shape(shape, v),
        Data::I32(v) => Tensor::from_shape(shape, v),
        Data::U32(v) => Tensor::from_shape(shape, v),
        Data::I64(v) => Tensor::from_shape(shape, v),
        Data::U64(v) => Tensor::from_shape(shape, v),
        Data::F16(v) => Tensor::from_shape(shape, v),
        Data::BF16(v) => f32s(shape, v.iter().map(|x| x.to_f32())),
        Data::F32(v) => Tensor::from_shape(shape, v),
        Data::F64(v) => Tensor::from_shape(shape, v),
    }
}

/// Creates a tensor of these elements, without another copy of them.
fn f32s(shape: &[usize], elements: impl Iterator<Item = f32>) -> TractResult<Tensor> {
    let mut tensor = Tensor::zero::<f32>(shape)?;
    let mut plain = tensor.try_as_plain_ram_mut()?;
    plain.as_slice_mut::<f32>()?.iter_mut().zip(elements).for_each(|(to, from)| *to = from);
    Ok(tensor)
}

/// Converts a constant to tract with the element type of the graph. Half precision is widened to
/// f32. Allocates nothing but the result, except for dimensions.
pub(super) fn constant_to_tract(
    constant: &Constant,
    dtype: DType,
    symbols: &Symbols,
) -> Result<Tensor, Problem> {
    match constant {
        Constant::Tensor(tensor) => match (dtype, tensor.data()) {
            (DType::F32, Data::F16(v)) => Ok(f32s(tensor.shape(), v.iter().map(|x| x.to_f32()))?),
            _ => Ok(to_tract(tensor)?),
        },
        Constant::Stored(stored) => {
            let (shape, bytes) = (stored.shape(), stored.bytes());
            match bytemuck::try_cast_slice::<u8, f32>(bytes) {
                Ok(elements) if cfg!(target_endian = "little") => {
                    Ok(Tensor::from_shape(shape, elements)?)
                }
                _ => Ok(f32s(shape, bytes.as_chunks().0.iter().copied().map(f32::from_le_bytes))?),
            }
        }
        Constant::Dims { shape, values } => Ok(tensor1(&symbols.dims(values)?).into_shape(shape)?),
    }
}

/// Copies a tensor from tract. Symbolic dimensions become i64 and must have values.
pub(super) fn from_tract(tensor: &Tensor) -> TractResult<Ours> {
    fn elements<T: Datum>(tensor: &Tensor) -> TractResult<Vec<T>> {
        Ok(tensor.try_as_plain_ram()?.as_slice::<T>()?.to_vec())
    }
    let data: Data = match tensor.datum_type() {
        DatumType::Bool => elements::<bool>(tensor)?.into(),
        DatumType::I8 => elements::<i8>(tensor)?.into(),
        DatumType::U8 => elements::<u8>(tensor)?.into(),
        DatumType::I16 => elements::<i16>(tensor)?.into(),
        DatumType::U16 => elements::<u16>(tensor)?.into(),
        DatumType::I32 => elements::<i32>(tensor)?.into(),
        DatumType::U32 => elements::<u32>(tensor)?.into(),
        DatumType::I64 => elements::<i64>(tensor)?.into(),
        DatumType::U64 => elements::<u64>(tensor)?.into(),
        DatumType::F16 => elements::<f16>(tensor)?.into(),
        DatumType::F32 => elements::<f32>(tensor)?.into(),
        DatumType::F64 => elements::<f64>(tensor)?.into(),
        DatumType::TDim => elements::<i64>(&*tensor.cast_to::<i64>()?)?.into(),
        other => bail!("a bundle cannot represent elements of type {other:?}"),
    };
    Ours::new(tensor.shape(), data).context("the number of elements does not match the shape")
}
