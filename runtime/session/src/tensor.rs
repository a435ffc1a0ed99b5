//! A tensor in memory: element type, shape and elements.

use std::fmt;

use half::{bf16, f16};
use hardtack_bundle::DType;

/// The elements of a [`Tensor`], row-major.
///
/// # Examples
///
/// ```
/// use hardtack::{Data, Tensor};
///
/// let tensor = Tensor::new(&[3], vec![3i64, 1, 2]).unwrap();
/// match tensor.into_data() {
///     Data::I64(mut classes) => {
///         classes.sort();
///         assert_eq!(classes, [1, 2, 3]);
///     }
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants are named like those of `DType`")]
pub enum Data {
    Bool(Vec<bool>),
    I8(Vec<i8>),
    U8(Vec<u8>),
    I16(Vec<i16>),
    U16(Vec<u16>),
    I32(Vec<i32>),
    U32(Vec<u32>),
    I64(Vec<i64>),
    U64(Vec<u64>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// Evaluates an expression with `$v` bound to the vector of elements, for any element type.
///
/// # Examples
///
/// ```
/// use hardtack::{Tensor, for_data};
///
/// let tensor = Tensor::new(&[2, 3], vec![0u8; 6]).unwrap();
/// let bytes = for_data!(tensor.data(), elements => size_of_val(&elements[..]));
/// assert_eq!(bytes, 6);
/// ```
#[macro_export]
macro_rules! for_data {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            $crate::Data::Bool($v) => $body,
            $crate::Data::I8($v) => $body,
            $crate::Data::U8($v) => $body,
            $crate::Data::I16($v) => $body,
            $crate::Data::U16($v) => $body,
            $crate::Data::I32($v) => $body,
            $crate::Data::U32($v) => $body,
            $crate::Data::I64($v) => $body,
            $crate::Data::U64($v) => $body,
            $crate::Data::F16($v) => $body,
            $crate::Data::BF16($v) => $body,
            $crate::Data::F32($v) => $body,
            $crate::Data::F64($v) => $body,
        }
    };
}

/// The number of elements is not the product of the dimensions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shape {shape:?} has {} elements, but {given} were given", Count(*expected))]
pub struct ShapeError {
    /// The shape.
    pub shape: Vec<usize>,
    /// The product of the dimensions; `None` if it does not fit a `usize`.
    pub expected: Option<usize>,
    /// The number of elements that were given.
    pub given: usize,
}

/// A number of elements that may be too large to count.
struct Count(Option<usize>);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(count) => count.fmt(f),
            None => f.write_str("too many"),
        }
    }
}

/// A tensor in memory.
///
/// # Examples
///
/// ```
/// use hardtack::{DType, Tensor};
///
/// let tensor = Tensor::new(&[2, 3], vec![0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
/// assert_eq!(tensor.dtype(), DType::F32);
/// assert_eq!(tensor.as_f32().unwrap()[4], 4.0);
/// assert_eq!(tensor.reshape(&[6]).unwrap().shape(), [6]);
///
/// // The number of elements must match the shape.
/// let error = Tensor::new(&[2, 2], vec![0u8; 3]).unwrap_err();
/// assert_eq!(error.to_string(), "shape [2, 2] has 4 elements, but 3 were given");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// Creates a tensor of `shape`, outermost dimension first, from row-major elements.
    ///
    /// # Errors
    /// Returns an error if the number of elements is not the product of the dimensions.
    pub fn new(shape: &[usize], data: impl Into<Data>) -> Result<Tensor, ShapeError> {
        let data = data.into();
        let given = for_data!(&data, v => v.len());
        match shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)) {
            Some(expected) if expected == given => Ok(Tensor { shape: shape.into(), data }),
            expected => Err(ShapeError { shape: shape.into(), expected, given }),
        }
    }

    /// Creates a tensor of one element with no dimensions.
    ///
    /// # Examples
    ///
    /// ```
    /// use hardtack::Tensor;
    ///
    /// let rate = Tensor::scalar(16_000i64);
    /// assert!(rate.shape().is_empty());
    /// assert_eq!(rate.len(), 1);
    /// ```
    pub fn scalar<T>(value: T) -> Tensor
    where
        Vec<T>: Into<Data>,
    {
        Tensor { shape: vec![], data: vec![value].into() }
    }

    /// Returns the element type.
    pub fn dtype(&self) -> DType {
        match self.data {
            Data::Bool(_) => DType::Bool,
            Data::I8(_) => DType::I8,
            Data::U8(_) => DType::U8,
            Data::I16(_) => DType::I16,
            Data::U16(_) => DType::U16,
            Data::I32(_) => DType::I32,
            Data::U32(_) => DType::U32,
            Data::I64(_) => DType::I64,
            Data::U64(_) => DType::U64,
            Data::F16(_) => DType::F16,
            Data::BF16(_) => DType::BF16,
            Data::F32(_) => DType::F32,
            Data::F64(_) => DType::F64,
        }
    }

    /// Returns the dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        for_data!(&self.data, v => v.len())
    }

    /// Returns whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the elements, row-major.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Returns the elements for modification in place.
    pub fn data_mut(&mut self) -> &mut Data {
        &mut self.data
    }

    /// Returns the elements without the shape.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// Returns the elements if their type is f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(v) => Some(v),
            _ => None,
        }
    }

    /// Returns the tensor with another shape.
    ///
    /// # Errors
    /// Returns an error if the number of elements differs.
    pub fn reshape(self, shape: &[usize]) -> Result<Tensor, ShapeError> {
        Tensor::new(shape, self.data)
    }

    /// Converts the elements to f32, rounding values that f32 cannot represent.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            Data::Bool(v) => v.iter().map(|x| *x as u8 as f32).collect(),
            Data::I8(v) => v.iter().map(|x| *x as f32).collect(),
            Data::U8(v) => v.iter().map(|x| *x as f32).collect(),
            Data::I16(v) => v.iter().map(|x| *x as f32).collect(),
            Data::U16(v) => v.iter().map(|x| *x as f32).collect(),
            Data::I32(v) => v.iter().map(|x| *x as f32).collect(),
            Data::U32(v) => v.iter().map(|x| *x as f32).collect(),
            Data::I64(v) => v.iter().map(|x| *x as f32).collect(),
            Data::U64(v) => v.iter().map(|x| *x as f32).collect(),
            Data::F16(v) => v.iter().map(|x| x.to_f32()).collect(),
            Data::BF16(v) => v.iter().map(|x| x.to_f32()).collect(),
            Data::F32(v) => v.clone(),
            Data::F64(v) => v.iter().map(|x| *x as f32).collect(),
        }
    }

    /// Creates a tensor of zeros. Returns `None` if it has more bytes than this machine can address
    /// or if the type has no fixed size.
    ///
    /// # Examples
    ///
    /// ```
    /// use hardtack::{DType, Tensor};
    ///
    /// let state = Tensor::zeros(DType::F32, &[2, 1, 128]).unwrap();
    /// assert_eq!(state.len(), 256);
    /// assert_eq!(Tensor::zeros(DType::F32, &[usize::MAX, 2]), None);
    /// ```
    pub fn zeros(dtype: DType, shape: &[usize]) -> Option<Tensor> {
        let n = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
        if n.checked_mul(dtype.size()?)? > isize::MAX as usize {
            return None;
        }
        let data = match dtype {
            DType::Bool => Data::Bool(vec![false; n]),
            DType::I8 => Data::I8(vec![0; n]),
            DType::U8 => Data::U8(vec![0; n]),
            DType::I16 => Data::I16(vec![0; n]),
            DType::U16 => Data::U16(vec![0; n]),
            DType::I32 => Data::I32(vec![0; n]),
            DType::U32 => Data::U32(vec![0; n]),
            DType::I64 => Data::I64(vec![0; n]),
            DType::U64 => Data::U64(vec![0; n]),
            DType::F16 => Data::F16(vec![f16::ZERO; n]),
            DType::BF16 => Data::BF16(vec![bf16::ZERO; n]),
            DType::F32 => Data::F32(vec![0.0; n]),
            DType::F64 => Data::F64(vec![0.0; n]),
            DType::Dim => return None,
        };
        Some(Tensor { shape: shape.into(), data })
    }

    /// Creates a tensor from little-endian elements. A bool is true if its byte is not 0. Returns
    /// `None` if the number of bytes does not match the shape or if the type has no fixed size.
    ///
    /// # Examples
    ///
    /// ```
    /// use hardtack::{DType, Tensor};
    ///
    /// let tensor = Tensor::from_bytes(DType::I16, &[2], &[1, 0, 255, 255]).unwrap();
    /// assert_eq!(tensor, Tensor::new(&[2], vec![1i16, -1]).unwrap());
    /// assert_eq!(tensor.to_bytes(), [1, 0, 255, 255]);
    /// ```
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Option<Tensor> {
        let size = dtype.size()?;
        let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
        if elements.checked_mul(size)? != bytes.len() {
            return None;
        }
        macro_rules! read {
            ($type:ty) => {
                bytes
                    .as_chunks::<{ size_of::<$type>() }>()
                    .0
                    .iter()
                    .map(|element| <$type>::from_le_bytes(*element))
                    .collect::<Vec<$type>>()
                    .into()
            };
        }
        let data: Data = match dtype {
            DType::Bool => bytes.iter().map(|b| *b != 0).collect::<Vec<_>>().into(),
            DType::I8 => read!(i8),
            DType::U8 => bytes.to_vec().into(),
            DType::I16 => read!(i16),
            DType::U16 => read!(u16),
            DType::I32 => read!(i32),
            DType::U32 => read!(u32),
            DType::I64 => read!(i64),
            DType::U64 => read!(u64),
            DType::F16 => read!(f16),
            DType::BF16 => read!(bf16),
            DType::F32 => read!(f32),
            DType::F64 => read!(f64),
            DType::Dim => return None,
        };
        Tensor::new(shape, data).ok()
    }

    /// Returns the elements as little-endian bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.data {
            Data::Bool(v) => v.iter().map(|x| *x as u8).collect(),
            Data::I8(v) => v.iter().map(|x| *x as u8).collect(),
            Data::U8(v) => v.clone(),
            Data::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::U16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::U32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::U64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::F16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::BF16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }
}

macro_rules! from_vec {
    ($($type:ty => $variant:ident),*) => { $(
        impl From<Vec<$type>> for Data {
            fn from(v: Vec<$type>) -> Data { Data::$variant(v) }
        }
    )* };
}

from_vec!(bool => Bool, i8 => I8, u8 => U8, i16 => I16, u16 => U16, i32 => I32, u32 => U32,
          i64 => I64, u64 => U64, f16 => F16, bf16 => BF16, f32 => F32, f64 => F64);
