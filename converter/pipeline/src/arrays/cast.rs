//! Casts arrays to the element type of a model's input.

use half::{bf16, f16};
use hardtack::{Data, Tensor, for_data};
use hardtack_bundle::DType;

/// A value that an element type cannot hold.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("it is {from} and has the value {value}, which {to} cannot hold")]
pub struct CastError {
    /// The value.
    pub value: String,
    /// The element type of the array.
    pub from: DType,
    /// The element type that the value does not fit.
    pub to: DType,
}

/// Converts an array to another element type. Floats are rounded; integers and whole floats keep
/// their value.
///
/// # Errors
/// Returns the first value that the type cannot hold.
///
/// # Examples
///
/// ```
/// use hardtack::{DType, Tensor};
/// use hardtack_converter::arrays::cast;
///
/// let ids = Tensor::new(&[2], vec![3.0f64, 7.0]).unwrap();
/// assert_eq!(cast(ids, DType::I64), Ok(Tensor::new(&[2], vec![3i64, 7]).unwrap()));
/// let error = cast(Tensor::scalar(300i32), DType::U8).unwrap_err();
/// assert_eq!(error.to_string(), "it is i32 and has the value 300, which u8 cannot hold");
/// ```
pub fn cast(tensor: Tensor, to: DType) -> Result<Tensor, CastError> {
    let from = tensor.dtype();
    if from == to {
        return Ok(tensor);
    }
    let data = for_data!(tensor.data(), values => all(values, to));
    let data = data.map_err(|value| CastError { value, from, to })?;
    Ok(Tensor::new(tensor.shape(), data).expect("the number of elements stays the same"))
}

/// The value of an element.
#[derive(Clone, Copy)]
enum Value {
    Integer(i128),
    Float(f64),
}

impl Value {
    /// Returns the value as an integer type; `None` if that cannot hold it.
    fn integer<T: TryFrom<i128>>(self) -> Option<T> {
        let integer = match self {
            Value::Integer(integer) => integer,
            Value::Float(float) if float.fract() == 0.0 => float as i128,
            Value::Float(_) => return None,
        };
        T::try_from(integer).ok()
    }

    /// Returns the value as a float type, rounded; `None` for a finite value that is too large.
    fn float<T: Copy + Into<f64>>(self, rounded: impl Fn(f64) -> T) -> Option<T> {
        let float = match self {
            Value::Integer(integer) => integer as f64,
            Value::Float(float) => float,
        };
        let result = rounded(float);
        (result.into().is_finite() || !float.is_finite()).then_some(result)
    }

    fn bool(self) -> Option<bool> {
        match self.integer::<u8>()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

trait Element: Copy + std::fmt::Display {
    fn value(self) -> Value;
}

macro_rules! elements {
    ($variant:ident: $($type:ty),*) => { $(
        impl Element for $type {
            fn value(self) -> Value {
                Value::$variant(self.into())
            }
        }
    )* };
}

elements!(Integer: bool, i8, u8, i16, u16, i32, u32, i64, u64);
elements!(Float: f16, bf16, f32, f64);

/// Converts elements. The error is the first value that does not fit.
fn all<E: Element>(elements: &[E], to: DType) -> Result<Data, String> {
    fn each<E: Element, T>(
        elements: &[E],
        convert: impl Fn(Value) -> Option<T>,
    ) -> Result<Data, String>
    where
        Data: From<Vec<T>>,
    {
        let converted = elements.iter().map(|e| convert(e.value()).ok_or_else(|| e.to_string()));
        Ok(converted.collect::<Result<Vec<T>, String>>()?.into())
    }
    match to {
        DType::Bool => each(elements, Value::bool),
        DType::I8 => each(elements, Value::integer::<i8>),
        DType::U8 => each(elements, Value::integer::<u8>),
        DType::I16 => each(elements, Value::integer::<i16>),
        DType::U16 => each(elements, Value::integer::<u16>),
        DType::I32 => each(elements, Value::integer::<i32>),
        DType::U32 => each(elements, Value::integer::<u32>),
        DType::I64 | DType::Dim => each(elements, Value::integer::<i64>),
        DType::U64 => each(elements, Value::integer::<u64>),
        DType::F16 => each(elements, |value| value.float(f16::from_f64)),
        DType::BF16 => each(elements, |value| value.float(bf16::from_f64)),
        DType::F32 => each(elements, |value| value.float(|x| x as f32)),
        DType::F64 => each(elements, |value| value.float(|x| x)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cast_data(data: impl Into<Data>, to: DType) -> Result<Data, String> {
        let data = data.into();
        let length = for_data!(&data, v => v.len());
        let tensor = Tensor::new(&[length], data).unwrap();
        cast(tensor, to).map(Tensor::into_data).map_err(|error| error.value)
    }

    #[test]
    fn values_that_fit_are_converted() {
        let halves = vec![f16::from_f32(0.5), f16::INFINITY];
        assert_eq!(cast_data(halves, DType::F32), Ok(Data::F32(vec![0.5, f32::INFINITY])));
        assert_eq!(cast_data(vec![0.1f64], DType::F32), Ok(Data::F32(vec![0.1])));
        assert_eq!(cast_data(vec![255u8, 0], DType::F32), Ok(Data::F32(vec![255.0, 0.0])));
        assert_eq!(cast_data(vec![-7i16, 300], DType::I64), Ok(Data::I64(vec![-7, 300])));
        assert_eq!(cast_data(vec![u64::MAX], DType::U64), Ok(Data::U64(vec![u64::MAX])));
        assert_eq!(cast_data(vec![-128i64, 127], DType::I8), Ok(Data::I8(vec![-128, 127])));
        assert_eq!(cast_data(vec![2.0f32, -3.0], DType::I32), Ok(Data::I32(vec![2, -3])));
        assert_eq!(cast_data(vec![1i64, 0], DType::Bool), Ok(Data::Bool(vec![true, false])));
        assert_eq!(cast_data(vec![true], DType::F64), Ok(Data::F64(vec![1.0])));
    }

    #[test]
    fn values_that_do_not_fit_are_named() {
        let wrong = |value: &str| Err(value.to_owned());
        assert_eq!(cast_data(vec![1i32, 128], DType::I8), wrong("128"));
        assert_eq!(cast_data(vec![-1i8], DType::U64), wrong("-1"));
        assert_eq!(cast_data(vec![u64::MAX], DType::I64), wrong("18446744073709551615"));
        assert_eq!(cast_data(vec![3.5f32], DType::I64), wrong("3.5"));
        assert_eq!(cast_data(vec![f32::NAN], DType::I64), wrong("NaN"));
        assert_eq!(cast_data(vec![1e40f64], DType::F32), wrong(&1e40f64.to_string()));
        assert_eq!(cast_data(vec![70000i32], DType::F16), wrong("70000"));
        assert_eq!(cast_data(vec![2u8], DType::Bool), wrong("2"));
    }
}
