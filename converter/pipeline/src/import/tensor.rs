//! Converts between protobuf tensors and runtime tensors.

use hardtack::Tensor;
use hardtack_bundle::DType;
use tract_onnx::pb::TensorProto;
use tract_onnx::pb::tensor_proto::DataType;

/// Returns the element type of an ONNX type number, if it is supported.
pub(super) fn dtype_of(number: i32) -> Option<DType> {
    Some(match DataType::try_from(number).ok()? {
        DataType::Bool => DType::Bool,
        DataType::Int8 => DType::I8,
        DataType::Uint8 => DType::U8,
        DataType::Int16 => DType::I16,
        DataType::Uint16 => DType::U16,
        DataType::Int32 => DType::I32,
        DataType::Uint32 => DType::U32,
        DataType::Int64 => DType::I64,
        DataType::Uint64 => DType::U64,
        DataType::Float16 => DType::F16,
        DataType::Bfloat16 => DType::BF16,
        DataType::Float => DType::F32,
        DataType::Double => DType::F64,
        _ => return None,
    })
}

/// Returns the ONNX type number of an element type.
pub(super) fn number_of(dtype: DType) -> i32 {
    let kind = match dtype {
        DType::Bool => DataType::Bool,
        DType::I8 => DataType::Int8,
        DType::U8 => DataType::Uint8,
        DType::I16 => DataType::Int16,
        DType::U16 => DataType::Uint16,
        DType::I32 => DataType::Int32,
        DType::U32 => DataType::Uint32,
        DType::I64 | DType::Dim => DataType::Int64,
        DType::U64 => DataType::Uint64,
        DType::F16 => DataType::Float16,
        DType::BF16 => DataType::Bfloat16,
        DType::F32 => DataType::Float,
        DType::F64 => DataType::Double,
    };
    kind as i32
}

/// Moves the elements into `raw_data` from whichever field holds them, and checks their number
/// against the dimensions. String tensors keep their elements in `string_data`.
///
/// # Errors
/// Returns a phrase that follows the tensor's name.
pub(super) fn normalize(proto: &mut TensorProto) -> Result<(), String> {
    if proto.data_type == DataType::String as i32 {
        let elements = elements(&proto.dims)?;
        return if elements == proto.string_data.len() {
            Ok(())
        } else {
            Err(format!("has {} strings for {elements} elements", proto.string_data.len()))
        };
    }
    if proto.segment.is_some() {
        return Err("is stored in segments, which are not supported".into());
    }
    unpack(proto)?;
    // Only the evaluator of ONNX operators knows the other types.
    let Some(dtype) = dtype_of(proto.data_type) else { return Ok(()) };
    if proto.raw_data.is_empty() {
        let integers = std::mem::take(&mut proto.int32_data);
        proto.raw_data = match dtype {
            DType::F32 => bytes(std::mem::take(&mut proto.float_data), f32::to_le_bytes),
            DType::F64 => bytes(std::mem::take(&mut proto.double_data), f64::to_le_bytes),
            DType::I64 => bytes(std::mem::take(&mut proto.int64_data), i64::to_le_bytes),
            DType::U64 => bytes(std::mem::take(&mut proto.uint64_data), u64::to_le_bytes),
            DType::U32 => {
                bytes(std::mem::take(&mut proto.uint64_data), |v| (v as u32).to_le_bytes())
            }
            DType::I32 => bytes(integers, i32::to_le_bytes),
            DType::I16 | DType::U16 | DType::F16 | DType::BF16 => {
                bytes(integers, |v| (v as u16).to_le_bytes())
            }
            DType::I8 | DType::U8 => bytes(integers, |v| [v as u8]),
            DType::Bool => bytes(integers, |v| [(v != 0) as u8]),
            DType::Dim => return Err("has no element type".into()),
        };
    }
    let expected = elements(&proto.dims)?.checked_mul(dtype.size().unwrap_or(1));
    if expected == Some(proto.raw_data.len()) {
        Ok(())
    } else {
        let dims = &proto.dims;
        Err(format!("has {} bytes, which do not match shape {dims:?}", proto.raw_data.len()))
    }
}

/// Checks that a tensor has a supported type or is a list of strings.
///
/// # Errors
/// Returns a phrase that follows the tensor's name.
pub(super) fn check(proto: &TensorProto) -> Result<(), String> {
    if proto.data_type == DataType::String as i32 || dtype_of(proto.data_type).is_some() {
        return Ok(());
    }
    let name = DataType::try_from(proto.data_type).map(|kind| kind.as_str_name());
    let name = name.map_or_else(|_| format!("number {}", proto.data_type), str::to_lowercase);
    Err(format!("has element type {name}, which is not supported here"))
}

/// Unpacks 4-bit integers, two per byte, to one byte each.
fn unpack(proto: &mut TensorProto) -> Result<(), String> {
    let signed = proto.data_type == DataType::Int4 as i32;
    if !signed && proto.data_type != DataType::Uint4 as i32 {
        return Ok(());
    }
    if proto.raw_data.is_empty() {
        proto.raw_data = bytes(std::mem::take(&mut proto.int32_data), |v| [v as u8]);
    }
    let count = elements(&proto.dims)?;
    if proto.raw_data.len() != count.div_ceil(2) {
        let held = proto.raw_data.len();
        return Err(format!("has {held} bytes, which do not match {count} 4-bit integers"));
    }
    let halves = proto.raw_data.iter().flat_map(|byte| [byte << 4, byte & 0xf0]);
    let widened = halves.map(|half| if signed { ((half as i8) >> 4) as u8 } else { half >> 4 });
    proto.raw_data = widened.take(count).collect();
    proto.data_type = if signed { DataType::Int8 } else { DataType::Uint8 } as i32;
    Ok(())
}

/// Converts a normalized protobuf tensor; `None` for strings.
pub(super) fn load(proto: &TensorProto) -> Option<Tensor> {
    let shape: Option<Vec<usize>> = proto.dims.iter().map(|dim| (*dim).try_into().ok()).collect();
    Tensor::from_bytes(dtype_of(proto.data_type)?, &shape?, &proto.raw_data)
}

/// Converts a tensor to a normalized protobuf tensor.
pub(super) fn store(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: tensor.shape().iter().map(|dim| *dim as i64).collect(),
        data_type: number_of(tensor.dtype()),
        raw_data: tensor.to_bytes(),
        ..TensorProto::default()
    }
}

fn elements(dims: &[i64]) -> Result<usize, String> {
    dims.iter()
        .try_fold(1usize, |n, dim| n.checked_mul(usize::try_from(*dim).ok()?))
        .ok_or_else(|| format!("has the invalid shape {dims:?}"))
}

fn bytes<T, const N: usize>(values: Vec<T>, convert: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.into_iter().flat_map(convert).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_from_typed_fields() {
        let mut proto = TensorProto {
            dims: vec![2],
            data_type: DataType::Uint32 as i32,
            uint64_data: vec![7, u32::MAX as u64],
            ..TensorProto::default()
        };
        normalize(&mut proto).unwrap();
        assert_eq!(load(&proto), Tensor::new(&[2], vec![7u32, u32::MAX]).ok());
        let tensor = Tensor::new(&[1, 2], vec![half::f16::ONE; 2]).unwrap();
        assert_eq!(load(&store("t", &tensor)), Some(tensor));
    }

    #[test]
    fn sizes_that_do_not_match_the_shape_are_rejected() {
        for (dims, raw) in [(vec![3], 8), (vec![-1], 4), (vec![i64::MAX, 8], 4)] {
            let mut proto = TensorProto {
                dims,
                data_type: DataType::Float as i32,
                raw_data: vec![0; raw],
                ..TensorProto::default()
            };
            assert!(normalize(&mut proto).is_err());
        }
        let proto =
            TensorProto { data_type: DataType::Float4e2m1 as i32, ..TensorProto::default() };
        assert!(check(&proto).unwrap_err().contains("element type float4"));
    }

    #[test]
    fn four_bit_integers_are_unpacked() {
        for (kind, expected) in [
            (DataType::Int4, Tensor::new(&[3], vec![-1i8, 7, -8])),
            (DataType::Uint4, Tensor::new(&[3], vec![15u8, 7, 8])),
        ] {
            let packed = |raw_data: Vec<u8>| TensorProto {
                dims: vec![3],
                data_type: kind as i32,
                raw_data,
                ..TensorProto::default()
            };
            let mut proto = packed(vec![0x7f, 0x08]);
            normalize(&mut proto).unwrap();
            assert_eq!(load(&proto), expected.ok());
            assert!(normalize(&mut packed(vec![0x7f])).unwrap_err().contains("4-bit"));
        }
    }
}
