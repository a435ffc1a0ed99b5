//! The one definition of rounding.

use crate::Clamp;

/// Significant bits of a scale that multiplies an accumulator.
pub const SCALE_BITS: u32 = 22;

/// Significant bits of a scale that multiplies one activation, whose product must be exact:
/// 9 bits of the activation and 15 of the scale are the 24 of an f32.
pub const TERM_SCALE_BITS: u32 = 15;

/// 1.5 · 2²³. Neighbouring f32 from 2²³ to 2²⁴ are 1 apart, so that adding it to a value
/// within ±2²² rounds that value to an integer, half to even.
const MAGIC: f32 = 12_582_912.0;

/// Beyond this, [`round_half_even`] saturates.
const LIMIT: f32 = 2_097_152.0;

/// The integer nearest to `value`; halfway, the even one. Saturates at ±2²¹; NaN gives −2²¹.
#[inline(always)]
pub fn round_half_even(value: f32) -> i32 {
    // Comparisons in this order are the minimum and maximum of the processor.
    let value = if value > -LIMIT { value } else { -LIMIT };
    let value = if value < LIMIT { value } else { LIMIT };
    ((value + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32)
}

/// `value` with at most `bits` significant bits (1 to 24), halfway to the even one.
/// Infinities and NaN stay what they are.
pub fn round_significant(value: f32, bits: u32) -> f32 {
    if !value.is_finite() || bits >= f32::MANTISSA_DIGITS {
        return value;
    }
    let dropped = f32::MANTISSA_DIGITS - bits.max(1);
    let raw = value.to_bits();
    let half = (1u32 << (dropped - 1)) - 1;
    let odd = (raw >> dropped) & 1;
    // A carry out of the fraction raises the exponent, which is the right result.
    f32::from_bits((raw + half + odd) & !((1 << dropped) - 1))
}

/// Whether `value` has at most `bits` significant bits.
pub fn is_significant(value: f32, bits: u32) -> bool {
    round_significant(value, bits).to_bits() == value.to_bits()
}

/// From a scaled accumulator to an activation: `clamp(round_half_even(t) + zero_point)`.
///
/// The limits are integers and rounding keeps order, so that clamping before rounding is the
/// same, and no value is too great for the addition that rounds.
#[derive(Clone, Copy, Debug)]
pub struct Requantize {
    low: f32,
    high: f32,
    zero_point: i32,
}

impl Requantize {
    /// For an output with this zero point and these limits.
    pub fn new(zero_point: i8, clamp: Clamp) -> Self {
        let zero_point = i32::from(zero_point);
        let relative = |limit: i8| (i32::from(limit) - zero_point) as f32;
        Self { low: relative(clamp.low), high: relative(clamp.high), zero_point }
    }

    /// The activation for `value`, in steps of the output. NaN gives the least.
    #[inline(always)]
    pub fn apply(&self, value: f32) -> i8 {
        let value = if value > self.low { value } else { self.low };
        let value = if value < self.high { value } else { self.high };
        let rounded = ((value + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
        rounded.wrapping_add(self.zero_point) as i8
    }
}
