//! Proves at conversion time that an accumulator cannot overflow.

use core::fmt;

/// The range of an accumulator, including all partial sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccumulatorBound {
    /// The smallest value.
    pub low: i64,
    /// The largest value.
    pub high: i64,
}

impl AccumulatorBound {
    /// Returns the largest absolute value.
    pub fn magnitude(&self) -> u64 {
        self.low.unsigned_abs().max(self.high.unsigned_abs())
    }

    /// Returns the smallest n such that every absolute value is less than 2ⁿ; at most 32.
    pub fn bits(&self) -> u8 {
        (64 - self.magnitude().leading_zeros()) as u8
    }

    /// Returns whether an f32 with its 24 significant bits represents every value exactly.
    pub fn is_exact_in_f32(&self) -> bool {
        self.magnitude() <= 1 << 24
    }
}

/// The error that an accumulator can overflow an i32 for some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccumulatorOverflow(pub AccumulatorBound);

impl fmt::Display for AccumulatorOverflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AccumulatorBound { low, high } = self.0;
        write!(f, "the accumulator range {low} to {high} exceeds 32 bits")
    }
}

impl core::error::Error for AccumulatorOverflow {}

/// Returns the range of the accumulator of one output channel,
/// `bias + Σ (x − zero_point) · weight`, over all inputs. An input equal to the zero point adds
/// nothing, so the range also holds for partial sums in any order and for windows that extend
/// outside the image.
///
/// # Errors
/// If the range exceeds an i32.
///
/// # Examples
///
/// ```
/// use hardtack_kernels::prove_accumulator;
///
/// let bound = prove_accumulator(&[100; 300], 0, 0).unwrap();
/// assert_eq!((bound.low, bound.high), (-3_840_000, 3_810_000));
/// assert_eq!(bound.bits(), 22);
/// assert!(prove_accumulator(&[127], i32::MAX, 0).is_err());
/// ```
pub fn prove_accumulator(
    weights: &[i8],
    bias: i32,
    zero_point: i8,
) -> Result<AccumulatorBound, AccumulatorOverflow> {
    let least = i64::from(i8::MIN) - i64::from(zero_point);
    let greatest = i64::from(i8::MAX) - i64::from(zero_point);
    let mut bound = AccumulatorBound { low: i64::from(bias), high: i64::from(bias) };
    for &weight in weights {
        let (a, b) = (least * i64::from(weight), greatest * i64::from(weight));
        bound.low += a.min(b);
        bound.high += a.max(b);
    }
    let fits = i32::try_from(bound.low).is_ok() && i32::try_from(bound.high).is_ok();
    if fits { Ok(bound) } else { Err(AccumulatorOverflow(bound)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_tight() {
        let bound = prove_accumulator(&[1, -2], 10, 0).unwrap();
        assert_eq!(bound, AccumulatorBound { low: 10 - 128 - 254, high: 10 + 127 + 256 });
        let bound = prove_accumulator(&[127], 0, -128).unwrap();
        assert_eq!(bound, AccumulatorBound { low: 0, high: 255 * 127 });
        assert!(bound.is_exact_in_f32());
    }

    #[test]
    fn overflow_by_one_is_detected() {
        let bias = i32::MAX - 127 * 127;
        assert!(prove_accumulator(&[127], bias, 0).is_ok());
        let error = prove_accumulator(&[127], bias + 1, 0).unwrap_err();
        assert_eq!(error.0.high, i64::from(i32::MAX) + 1);
        assert!(!error.0.is_exact_in_f32());
    }
}
