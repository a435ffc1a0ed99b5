//! The element types of ONNX tensors.

use std::fmt;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are those of the types")]
pub enum ElementType {
    F32,
    F64,
    F16,
    BF16,
    F8E4M3FN,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F8E8M0,
    F4E2M1,
    I2,
    I4,
    I8,
    I16,
    I32,
    I64,
    U2,
    U4,
    U8,
    U16,
    U32,
    U64,
    Bool,
    Text,
    Complex64,
    Complex128,
}

/// The element types, their numbers in `TensorProto.DataType`, and their names.
const TABLE: [(ElementType, i32, &str); 26] = [
    (ElementType::F32, 1, "float32"),
    (ElementType::U8, 2, "uint8"),
    (ElementType::I8, 3, "int8"),
    (ElementType::U16, 4, "uint16"),
    (ElementType::I16, 5, "int16"),
    (ElementType::I32, 6, "int32"),
    (ElementType::I64, 7, "int64"),
    (ElementType::Text, 8, "string"),
    (ElementType::Bool, 9, "bool"),
    (ElementType::F16, 10, "float16"),
    (ElementType::F64, 11, "float64"),
    (ElementType::U32, 12, "uint32"),
    (ElementType::U64, 13, "uint64"),
    (ElementType::Complex64, 14, "complex64"),
    (ElementType::Complex128, 15, "complex128"),
    (ElementType::BF16, 16, "bfloat16"),
    (ElementType::F8E4M3FN, 17, "float8e4m3fn"),
    (ElementType::F8E4M3FNUZ, 18, "float8e4m3fnuz"),
    (ElementType::F8E5M2, 19, "float8e5m2"),
    (ElementType::F8E5M2FNUZ, 20, "float8e5m2fnuz"),
    (ElementType::U4, 21, "uint4"),
    (ElementType::I4, 22, "int4"),
    (ElementType::F4E2M1, 23, "float4e2m1"),
    (ElementType::F8E8M0, 24, "float8e8m0"),
    (ElementType::U2, 25, "uint2"),
    (ElementType::I2, 26, "int2"),
];

impl ElementType {
    /// Returns the type with a number of `TensorProto.DataType`.
    pub fn from_number(number: i64) -> Option<Self> {
        let entry = TABLE.iter().find(|(_, other, _)| i64::from(*other) == number);
        entry.map(|(element, ..)| *element)
    }

    /// Returns the number in `TensorProto.DataType`.
    pub fn number(self) -> i32 {
        TABLE.iter().find(|(element, ..)| *element == self).map_or(0, |(_, number, _)| *number)
    }

    /// Returns the name of the type.
    pub fn name(self) -> &'static str {
        TABLE.iter().find(|(element, ..)| *element == self).map_or("?", |(.., name)| name)
    }

    /// Returns whether the elements are floating-point numbers.
    pub fn is_float(self) -> bool {
        use ElementType::*;
        self.is_narrow_float() || matches!(self, F32 | F64 | F16 | BF16)
    }

    /// Returns whether the elements are floating-point numbers of 8 or 4 bits.
    pub fn is_narrow_float(self) -> bool {
        use ElementType::*;
        matches!(self, F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F4E2M1)
    }

    /// Returns whether the elements are integers.
    pub fn is_integer(self) -> bool {
        self.integer_range().is_some()
    }

    /// Returns the smallest and the largest integer of an integer type.
    pub fn integer_range(self) -> Option<(i128, i128)> {
        use ElementType::*;
        let (bits, signed) = match self {
            I2 => (2, true),
            I4 => (4, true),
            I8 => (8, true),
            I16 => (16, true),
            I32 => (32, true),
            I64 => (64, true),
            U2 => (2, false),
            U4 => (4, false),
            U8 => (8, false),
            U16 => (16, false),
            U32 => (32, false),
            U64 => (64, false),
            _ => return None,
        };
        Some(match signed {
            true => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
            false => (0, (1i128 << bits) - 1),
        })
    }

    /// Returns the number of bits of an element; `None` for strings.
    pub fn bits(self) -> Option<usize> {
        use ElementType::*;
        Some(match self {
            I2 | U2 => 2,
            I4 | U4 | F4E2M1 => 4,
            I8 | U8 | Bool | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 => 8,
            I16 | U16 | F16 | BF16 => 16,
            I32 | U32 | F32 => 32,
            I64 | U64 | F64 | Complex64 => 64,
            Complex128 => 128,
            Text => return None,
        })
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
