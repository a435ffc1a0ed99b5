//! The element types of tensors.

use serde::{Deserialize, Serialize};

/// The element type of a tensor. The discriminants are part of the file format.
///
/// # Examples
///
/// ```
/// use hardtack_bundle::DType;
///
/// assert_eq!(DType::F32.size(), Some(4));
/// assert_eq!(DType::Dim.size(), None);
/// assert_eq!(DType::from_number(1), Some(DType::I8));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum DType {
    /// Boolean: one byte, 0 or 1.
    Bool = 0,
    /// Signed 8-bit integer.
    I8 = 1,
    /// Unsigned 8-bit integer.
    U8 = 2,
    /// Signed 16-bit integer.
    I16 = 3,
    /// Unsigned 16-bit integer.
    U16 = 4,
    /// Signed 32-bit integer.
    I32 = 5,
    /// Unsigned 32-bit integer.
    U32 = 6,
    /// Signed 64-bit integer.
    I64 = 7,
    /// Unsigned 64-bit integer.
    U64 = 8,
    /// IEEE 754 binary16.
    F16 = 9,
    /// bfloat16: the upper half of an IEEE 754 binary32.
    BF16 = 10,
    /// IEEE 754 binary32.
    F32 = 11,
    /// IEEE 754 binary64.
    F64 = 12,
    /// A symbolic dimension, used by shape computations inside a graph. It has no fixed size and
    /// never occurs in a model's inputs or outputs.
    Dim = 13,
}

impl DType {
    /// Returns the size of one element in bytes, or `None` for [`DType::Dim`].
    pub const fn size(self) -> Option<usize> {
        match self {
            DType::Bool | DType::I8 | DType::U8 => Some(1),
            DType::I16 | DType::U16 | DType::F16 | DType::BF16 => Some(2),
            DType::I32 | DType::U32 | DType::F32 => Some(4),
            DType::I64 | DType::U64 | DType::F64 => Some(8),
            DType::Dim => None,
        }
    }

    /// Returns the number of the type in the file format.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Returns the type with this number, or `None` if there is none.
    pub const fn from_number(number: u8) -> Option<DType> {
        Some(match number {
            0 => DType::Bool,
            1 => DType::I8,
            2 => DType::U8,
            3 => DType::I16,
            4 => DType::U16,
            5 => DType::I32,
            6 => DType::U32,
            7 => DType::I64,
            8 => DType::U64,
            9 => DType::F16,
            10 => DType::BF16,
            11 => DType::F32,
            12 => DType::F64,
            13 => DType::Dim,
            _ => return None,
        })
    }

    /// Returns the name shown to users, such as `f32` or `i8`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::I8 => "i8",
            DType::U8 => "u8",
            DType::I16 => "i16",
            DType::U16 => "u16",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::I64 => "i64",
            DType::U64 => "u64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::Dim => "dim",
        }
    }
}

impl core::fmt::Display for DType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_same_here_and_in_postcard() {
        for number in 0..=u8::MAX {
            let Some(dtype) = DType::from_number(number) else {
                assert!(number > 13 && postcard::from_bytes::<DType>(&[number]).is_err());
                continue;
            };
            assert_eq!(dtype.number(), number);
            assert_eq!(postcard::from_bytes::<DType>(&[number]), Ok(dtype));
        }
    }
}
