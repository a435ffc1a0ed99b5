//! Arithmetic on elements that is generic over their type.

use half::{bf16, f16};

use crate::error::Problem;
use crate::tensor::{Element, Tensor};

/// A floating-point type. Its numbers are computed in `f64` and rounded once.
pub(in crate::operators) trait Float: Element + Copy + PartialOrd {
    /// The largest finite number.
    const LARGEST: f64;

    /// Returns the number.
    fn wide(self) -> f64;

    /// Returns the nearest number of this type, ties to even.
    fn narrow(value: f64) -> Self;
}

/// An integer type. Its numbers are computed in `i128`.
pub(in crate::operators) trait Integer: Element + Copy + Ord {
    /// Returns the number.
    fn wide(self) -> i128;

    /// Returns the number that is equal modulo 2 to the power of the width.
    fn wrap(value: i128) -> Self;
}

macro_rules! floats {
    ($($float:ty, $value:ident => $wide:expr, $round:expr);* $(;)?) => {$(
        impl Float for $float {
            const LARGEST: f64 = {
                let $value = <$float>::MAX;
                $wide
            };
            fn wide(self) -> f64 {
                let $value = self;
                $wide
            }
            fn narrow($value: f64) -> Self {
                $round
            }
        }
    )*};
}
floats! {
    f32, value => value as f64, value as f32;
    f64, value => value, value;
    f16, value => value.to_f64_const(), f16::from_f32(round_to_odd(value));
    bf16, value => value.to_f64_const(), bf16::from_f32(round_to_odd(value));
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl Integer for $integer {
            fn wide(self) -> i128 {
                i128::from(self)
            }
            fn wrap(value: i128) -> Self {
                value as Self
            }
        }
    )*};
}
integers!(i8, i16, i32, i64, u8, u16, u32, u64);

/// Rounds a number to one of its two neighbors in `f32`: to itself if it is one of them, otherwise
/// to the one with an odd significand. A second rounding to a narrower type is then exact, while
/// two roundings to the nearest are not.
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let exact = f64::from(nearest);
    if exact == value || value.is_nan() || nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    let bits = nearest.to_bits();
    f32::from_bits(if exact.abs() > value.abs() { bits - 1 } else { bits + 1 })
}

/// Evaluates an expression with `$T` as the Rust type of a floating-point element type. The result
/// is `None` for other element types.
macro_rules! with_float {
    ($element:expr, $T:ident => $body:expr) => {
        $crate::operators::unary::scalar::with_types!($element, $T => $body,
            F32 f32, F64 f64, F16 half::f16, BF16 half::bf16)
    };
}

/// Evaluates an expression with `$T` as the Rust type of an integer element type of 8 bits or more.
/// The result is `None` for other element types.
macro_rules! with_integer {
    ($element:expr, $T:ident => $body:expr) => {
        $crate::operators::unary::scalar::with_types!($element, $T => $body,
            I8 i8, I16 i16, I32 i32, I64 i64, U8 u8, U16 u16, U32 u32, U64 u64)
    };
}

macro_rules! with_types {
    ($element:expr, $T:ident => $body:expr, $($name:ident $rust:ty),*) => {
        match $element {
            $($crate::ElementType::$name => {
                type $T = $rust;
                Some($body)
            })*
            _ => None,
        }
    };
}
pub(in crate::operators) use {with_float, with_integer, with_types};

/// Returns the elements as those of a Rust type.
pub(in crate::operators) fn slice<T: Element>(x: &Tensor) -> Result<&[T], Problem> {
    x.slice::<T>().ok_or(Problem::Storage { element: x.element(), stored: T::TYPE })
}

/// Returns the error of an operand that has an element type outside the accepted ones.
pub(in crate::operators) fn refused(index: usize, x: &Tensor, accepted: &'static str) -> Problem {
    Problem::InputType { index, found: x.element(), accepted }
}

/// Returns the larger number, or NaN if one of them is NaN.
pub(in crate::operators) fn maximum(a: f64, b: f64) -> f64 {
    if a > b || a.is_nan() { a } else { b }
}

/// Returns the smaller number, or NaN if one of them is NaN.
pub(in crate::operators) fn minimum(a: f64, b: f64) -> f64 {
    if a < b || a.is_nan() { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_floats_are_rounded_once() {
        // Just above the middle of 1 and the next number, by less than `f32` can tell.
        let above = |step: f64| 1.0 + step / 2.0 + f64::EPSILON;
        assert_eq!(f16::narrow(above(f64::from(f16::EPSILON))), f16::from_bits(0x3c01));
        assert_eq!(bf16::narrow(above(f64::from(bf16::EPSILON))), bf16::from_bits(0x3f81));
        assert_eq!(f16::narrow(65_519.999_999_9), f16::MAX);
        assert_eq!(f16::narrow(65_520.0), f16::INFINITY);
        assert_eq!(bf16::narrow(f64::MAX), bf16::INFINITY);
        assert_eq!(f16::narrow(-1e-300).to_bits(), 0x8000);
    }

    #[test]
    fn extremes_propagate_nan() {
        assert!(maximum(f64::NAN, 1.0).is_nan() && maximum(1.0, f64::NAN).is_nan());
        assert!(minimum(f64::NAN, 1.0).is_nan() && minimum(1.0, f64::NAN).is_nan());
    }
}
