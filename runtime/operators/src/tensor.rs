//! Tensors: an element type, a shape, and the elements in row-major order.

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter;
use crate::shape::elements;

/// A tensor of any ONNX element type.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    element: ElementType,
    shape: Vec<usize>,
    data: Data,
}

/// The elements of a tensor, in row-major order.
///
/// Integers of 2 and 4 bits are stored as `I8` and `U8`, one per byte. Floats of 8 and 4 bits are
/// stored as `U8`: the bits of their encoding. A bundle stores the variants by their order, which
/// never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of the types")]
pub enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    Bool(Vec<bool>),
    Text(Vec<String>),
    Complex64(Vec<[f32; 2]>),
    Complex128(Vec<[f64; 2]>),
}

/// Evaluates an expression with the vector of a [`Data`] as `$values`, for each type of elements.
macro_rules! with_data {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            $crate::Data::F32($values) => $body,
            $crate::Data::F64($values) => $body,
            $crate::Data::F16($values) => $body,
            $crate::Data::BF16($values) => $body,
            $crate::Data::I8($values) => $body,
            $crate::Data::I16($values) => $body,
            $crate::Data::I32($values) => $body,
            $crate::Data::I64($values) => $body,
            $crate::Data::U8($values) => $body,
            $crate::Data::U16($values) => $body,
            $crate::Data::U32($values) => $body,
            $crate::Data::U64($values) => $body,
            $crate::Data::Bool($values) => $body,
            $crate::Data::Text($values) => $body,
            $crate::Data::Complex64($values) => $body,
            $crate::Data::Complex128($values) => $body,
        }
    };
}
pub(crate) use with_data;

/// A Rust type that stores the elements of a tensor.
pub trait Element: Clone + PartialEq + Default + 'static {
    /// The element type that this type represents by itself.
    const TYPE: ElementType;

    /// Stores elements.
    fn store(values: Vec<Self>) -> Data;

    /// Returns the elements if they are stored in this type.
    fn slice(data: &Data) -> Option<&[Self]>;
}

macro_rules! elements {
    ($($rust:ty => $variant:ident),* $(,)?) => {$(
        impl Element for $rust {
            const TYPE: ElementType = ElementType::$variant;
            fn store(values: Vec<Self>) -> Data {
                Data::$variant(values)
            }
            fn slice(data: &Data) -> Option<&[Self]> {
                match data {
                    Data::$variant(values) => Some(values),
                    _ => None,
                }
            }
        }
    )*};
}
elements! {
    f32 => F32, f64 => F64, f16 => F16, bf16 => BF16, i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64, bool => Bool, String => Text,
    [f32; 2] => Complex64, [f64; 2] => Complex128,
}

impl Data {
    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        with_data!(self, values => values.len())
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends elements of the same storage type.
    pub(crate) fn append(&mut self, other: &Self) -> Option<()> {
        fn extend<T: Element>(values: &mut Vec<T>, other: &Data) -> Option<()> {
            values.extend_from_slice(T::slice(other)?);
            Some(())
        }
        with_data!(self, values => extend(values, other))
    }

    fn element(&self) -> ElementType {
        fn of<T: Element>(_: &[T]) -> ElementType {
            T::TYPE
        }
        with_data!(self, values => of(values))
    }
}

impl Tensor {
    /// Creates a tensor whose element type is that of a Rust type.
    ///
    /// # Errors
    /// Returns [`Problem::Size`] if the number of elements is not that of the shape.
    pub fn new<T: Element>(shape: Vec<usize>, values: Vec<T>) -> Result<Self, Problem> {
        Self::with_type(T::TYPE, shape, T::store(values))
    }

    /// Creates a tensor of an element type from data in its storage type.
    ///
    /// # Errors
    /// Returns [`Problem::Size`] if the number of elements is not that of the shape, and
    /// [`Problem::Storage`] if the element type is not stored like this.
    pub fn with_type(element: ElementType, shape: Vec<usize>, data: Data) -> Result<Self, Problem> {
        let stored = match element {
            ElementType::I2 | ElementType::I4 => ElementType::I8,
            ElementType::U2 | ElementType::U4 => ElementType::U8,
            narrow if narrow.is_narrow_float() => ElementType::U8,
            other => other,
        };
        if data.element() != stored {
            return Err(Problem::Storage { element, stored: data.element() });
        }
        if elements(&shape)? != data.len() {
            return Err(Problem::Size { shape, elements: data.len() });
        }
        Ok(Self { element, shape, data })
    }

    /// Creates a tensor of rank 0.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self { element: T::TYPE, shape: vec![], data: T::store(vec![value]) }
    }

    /// Creates a tensor of rank 1.
    pub fn vector<T: Element>(values: Vec<T>) -> Self {
        Self { element: T::TYPE, shape: vec![values.len()], data: T::store(values) }
    }

    /// Returns the element type.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// Returns the shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Returns the elements as they are stored.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Returns the elements if they are of the element type of a Rust type.
    pub fn slice<T: Element>(&self) -> Option<&[T]> {
        if self.element == T::TYPE { T::slice(&self.data) } else { None }
    }

    /// Returns the number of bytes of strings.
    pub(crate) fn text_bytes(&self) -> usize {
        match &self.data {
            Data::Text(texts) => texts.iter().map(String::len).fold(0, usize::saturating_add),
            _ => 0,
        }
    }

    /// Returns an error if `count` copies of strings may take too much memory.
    pub(crate) fn check_copies(&self, count: usize) -> Result<(), Problem> {
        match &self.data {
            Data::Text(texts) => {
                let longest = texts.iter().map(String::len).max().unwrap_or(0);
                meter::check_text(longest.saturating_mul(count))
            }
            _ => Ok(()),
        }
    }

    /// Returns the same elements in another shape.
    ///
    /// # Errors
    /// Returns [`Problem::Size`] if the number of elements is not that of the shape.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Self, Problem> {
        Self::with_type(self.element, shape, self.data.clone())
    }

    /// Returns a tensor of a shape whose elements are those of this tensor at the given offsets.
    ///
    /// # Errors
    /// Returns [`Problem::Offset`] if an offset is out of range, and [`Problem::Size`] if their
    /// number is not that of the shape.
    pub fn select(
        &self,
        shape: Vec<usize>,
        offsets: impl Iterator<Item = usize>,
    ) -> Result<Self, Problem> {
        let count = elements(&shape)?;
        self.check_copies(count)?;
        fn pick<T: Element>(
            values: &[T],
            offsets: impl Iterator<Item = usize>,
            count: usize,
        ) -> Result<Data, Problem> {
            let mut picked = Vec::with_capacity(count);
            for offset in offsets {
                let value = values.get(offset);
                picked.push(value.ok_or(Problem::Offset { offset, len: values.len() })?.clone());
            }
            Ok(T::store(picked))
        }
        let data = with_data!(&self.data, values => pick(values, offsets, count))?;
        Self::with_type(self.element, shape, data)
    }

    /// Returns the elements of this tensor followed by those of another one, in one axis.
    ///
    /// # Errors
    /// Returns [`Problem::MixedTypes`] if the element types differ.
    pub fn followed_by(&self, other: &Self) -> Result<Self, Problem> {
        let mut joined = self.data.clone();
        joined
            .append(&other.data)
            .filter(|()| self.element == other.element)
            .ok_or(Problem::MixedTypes { first: self.element, second: other.element })?;
        Self::with_type(self.element, vec![joined.len()], joined)
    }
}
