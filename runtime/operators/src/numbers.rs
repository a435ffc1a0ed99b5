//! Elements as numbers: conversions between element types and `f64`, `i64` and `i128`.

use half::{bf16, f16};

use crate::element_type::ElementType;
use crate::error::Problem;
use crate::narrow;
use crate::tensor::{Data, Tensor};

impl Tensor {
    /// Returns the elements as `f64`. Integers beyond 2^53 are rounded; `false` is 0, `true` is 1.
    ///
    /// # Errors
    /// Returns [`Problem::ElementType`] for strings and complex numbers.
    pub fn to_f64(&self) -> Result<Vec<f64>, Problem> {
        let element = self.element();
        if element.is_narrow_float()
            && let Data::U8(codes) = self.data()
        {
            return Ok(codes.iter().map(|code| narrow::decode(element, *code)).collect());
        }
        Ok(match self.data() {
            Data::F32(values) => values.iter().map(|v| f64::from(*v)).collect(),
            Data::F64(values) => values.clone(),
            Data::F16(values) => values.iter().map(|v| v.to_f64()).collect(),
            Data::BF16(values) => values.iter().map(|v| v.to_f64()).collect(),
            Data::I8(values) => values.iter().map(|v| f64::from(*v)).collect(),
            Data::I16(values) => values.iter().map(|v| f64::from(*v)).collect(),
            Data::I32(values) => values.iter().map(|v| f64::from(*v)).collect(),
            Data::I64(values) => values.iter().map(|v| *v as f64).collect(),
            Data::U8(values) => values.iter().map(|v| f64::from(*v)).collect(),
            Data::U16(values) => values.iter().map(|v| f64::from(*v)).collect(),
            Data::U32(values) => values.iter().map(|v| f64::from(*v)).collect(),
            Data::U64(values) => values.iter().map(|v| *v as f64).collect(),
            Data::Bool(values) => values.iter().map(|v| f64::from(u8::from(*v))).collect(),
            Data::Text(_) | Data::Complex64(_) | Data::Complex128(_) => {
                return Err(Problem::ElementType { found: element, accepted: "a real number" });
            }
        })
    }

    /// Returns the elements of an integer or boolean tensor as `i128`, exactly.
    ///
    /// # Errors
    /// Returns [`Problem::ElementType`] for other types.
    pub fn to_i128(&self) -> Result<Vec<i128>, Problem> {
        let wrong = Problem::ElementType { found: self.element(), accepted: "an integer" };
        if self.element().is_narrow_float() {
            return Err(wrong);
        }
        Ok(match self.data() {
            Data::I8(values) => values.iter().map(|v| i128::from(*v)).collect(),
            Data::I16(values) => values.iter().map(|v| i128::from(*v)).collect(),
            Data::I32(values) => values.iter().map(|v| i128::from(*v)).collect(),
            Data::I64(values) => values.iter().map(|v| i128::from(*v)).collect(),
            Data::U8(values) => values.iter().map(|v| i128::from(*v)).collect(),
            Data::U16(values) => values.iter().map(|v| i128::from(*v)).collect(),
            Data::U32(values) => values.iter().map(|v| i128::from(*v)).collect(),
            Data::U64(values) => values.iter().map(|v| i128::from(*v)).collect(),
            Data::Bool(values) => values.iter().map(|v| i128::from(*v)).collect(),
            _ => return Err(wrong),
        })
    }

    /// Returns the elements of an integer tensor as `i64`, for shapes, axes and indices.
    ///
    /// # Errors
    /// Returns [`Problem::ElementType`] for other types, and for `u64` beyond `i64`.
    pub fn to_i64(&self) -> Result<Vec<i64>, Problem> {
        let values = self.to_i128()?.into_iter().map(i64::try_from).collect::<Result<_, _>>();
        values.map_err(|_| Problem::ElementType {
            found: self.element(),
            accepted: "an integer within the range of int64",
        })
    }

    /// Creates a tensor of a type from numbers. Floats are rounded to the nearest, ties to even.
    /// Integers are truncated toward zero and wrap around; `NaN` becomes 0. Booleans are true if
    /// not 0.
    ///
    /// # Errors
    /// Returns [`Problem::ElementType`] for strings and complex numbers.
    pub fn from_f64(
        element: ElementType,
        shape: Vec<usize>,
        values: Vec<f64>,
    ) -> Result<Self, Problem> {
        if element.is_integer() {
            let integers = values.into_iter().map(|v| v as i128).collect();
            return Self::from_i128(element, shape, integers);
        }
        if element.is_narrow_float() {
            let codes = values.into_iter().map(|v| narrow::encode(element, v, true)).collect();
            return Self::with_type(element, shape, Data::U8(codes));
        }
        let data = match element {
            ElementType::F32 => Data::F32(values.into_iter().map(|v| v as f32).collect()),
            ElementType::F64 => Data::F64(values),
            // `half` converts through f32, which would round twice.
            ElementType::F16 => {
                let round = |v| f16::from_f64(narrow::nearest(element, v));
                Data::F16(values.into_iter().map(round).collect())
            }
            ElementType::BF16 => {
                let round = |v| bf16::from_f64(narrow::nearest(element, v));
                Data::BF16(values.into_iter().map(round).collect())
            }
            ElementType::Bool => Data::Bool(values.into_iter().map(|v| v != 0.0).collect()),
            found => {
                return Err(Problem::ElementType { found, accepted: "a real number" });
            }
        };
        Self::with_type(element, shape, data)
    }

    /// Creates a tensor of a type from integers. Integers out of range wrap around; floats are
    /// rounded to the nearest.
    ///
    /// # Errors
    /// Returns [`Problem::ElementType`] for strings and complex numbers.
    pub fn from_i128(
        element: ElementType,
        shape: Vec<usize>,
        values: Vec<i128>,
    ) -> Result<Self, Problem> {
        /// Keeps the low bits of an integer, with its sign.
        fn low(value: i128, bits: u32, signed: bool) -> i128 {
            let shifted = value << (128 - bits);
            if signed { shifted >> (128 - bits) } else { (shifted as u128 >> (128 - bits)) as i128 }
        }
        let data = match element {
            ElementType::I2 => {
                Data::I8(values.into_iter().map(|v| low(v, 2, true) as i8).collect())
            }
            ElementType::I4 => {
                Data::I8(values.into_iter().map(|v| low(v, 4, true) as i8).collect())
            }
            ElementType::U2 => {
                Data::U8(values.into_iter().map(|v| low(v, 2, false) as u8).collect())
            }
            ElementType::U4 => {
                Data::U8(values.into_iter().map(|v| low(v, 4, false) as u8).collect())
            }
            ElementType::I8 => Data::I8(values.into_iter().map(|v| v as i8).collect()),
            ElementType::I16 => Data::I16(values.into_iter().map(|v| v as i16).collect()),
            ElementType::I32 => Data::I32(values.into_iter().map(|v| v as i32).collect()),
            ElementType::I64 => Data::I64(values.into_iter().map(|v| v as i64).collect()),
            ElementType::U8 => Data::U8(values.into_iter().map(|v| v as u8).collect()),
            ElementType::U16 => Data::U16(values.into_iter().map(|v| v as u16).collect()),
            ElementType::U32 => Data::U32(values.into_iter().map(|v| v as u32).collect()),
            ElementType::U64 => Data::U64(values.into_iter().map(|v| v as u64).collect()),
            ElementType::Bool => Data::Bool(values.into_iter().map(|v| v != 0).collect()),
            other => {
                return Self::from_f64(
                    other,
                    shape,
                    values.into_iter().map(|v| v as f64).collect(),
                );
            }
        };
        Self::with_type(element, shape, data)
    }

    /// Returns the only element of a tensor as `f64`.
    ///
    /// # Errors
    /// Returns [`Problem::Size`] if there is not exactly one.
    pub fn number(&self) -> Result<f64, Problem> {
        match self.to_f64()?[..] {
            [value] => Ok(value),
            _ => Err(Problem::Size { shape: self.shape().to_vec(), elements: 1 }),
        }
    }

    /// Returns the only element of an integer tensor.
    ///
    /// # Errors
    /// Returns [`Problem::Size`] if there is not exactly one.
    pub fn integer(&self) -> Result<i64, Problem> {
        match self.to_i64()?[..] {
            [value] => Ok(value),
            _ => Err(Problem::Size { shape: self.shape().to_vec(), elements: 1 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_wrap_around() {
        let tensor = Tensor::from_i128(ElementType::I4, vec![3], vec![7, 8, -9]).unwrap();
        assert_eq!(tensor.data(), &Data::I8(vec![7, -8, 7]));
        let tensor = Tensor::from_i128(ElementType::U8, vec![2], vec![256, -1]).unwrap();
        assert_eq!(tensor.data(), &Data::U8(vec![0, 255]));
        let tensor = Tensor::from_i128(ElementType::U2, vec![1], vec![-1]).unwrap();
        assert_eq!(tensor.to_i64(), Ok(vec![3]));
    }
}
