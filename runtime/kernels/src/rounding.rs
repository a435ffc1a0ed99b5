//! Rounding and requantization, shared by all reference kernels.

use crate::Clamp;

/// The maximum number of significant bits of a scale that multiplies an accumulator.
pub const SCALE_BITS: u32 = 22;

/// The maximum number of significant bits of a scale that multiplies an activation. The product is
/// exact: 9 bits of the activation plus 15 of the scale are the 24 bits of an f32.
pub const TERM_SCALE_BITS: u32 = 15;

/// 1.5 · 2²³. Adjacent f32 between 2²³ and 2²⁴ differ by 1, so adding this to a value within ±2²²
/// rounds the value to an integer, half to even.
const MAGIC: f32 = 12_582_912.0;

/// The magnitude at which [`round_half_even`] saturates.
const LIMIT: f32 = 2_097_152.0;

/// Returns the integer nearest to `value`, ties to even. Saturates at ±2²¹; NaN becomes −2²¹.
///
/// # Examples
///
/// ```
/// use hardtack_kernels::round_half_even;
///
/// assert_eq!([0.5, 1.5, -2.5, 2.6].map(round_half_even), [0, 2, -2, 3]);
/// ```
#[inline(always)]
pub fn round_half_even(value: f32) -> i32 {
    // Comparisons in this order compile to minimum and maximum instructions.
    let value = if value > -LIMIT { value } else { -LIMIT };
    let value = if value < LIMIT { value } else { LIMIT };
    ((value + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32)
}

/// Rounds `value` to at most `bits` significant bits (1 to 24), ties to even. Infinities and NaN
/// are unchanged.
///
/// # Examples
///
/// ```
/// use hardtack_kernels::{SCALE_BITS, is_significant, round_significant};
///
/// let scale = round_significant(0.1, SCALE_BITS);
/// assert!(is_significant(scale, SCALE_BITS));
/// assert!((scale - 0.1).abs() < 1e-7);
/// ```
pub fn round_significant(value: f32, bits: u32) -> f32 {
    if !value.is_finite() || bits >= f32::MANTISSA_DIGITS {
        return value;
    }
    let dropped = f32::MANTISSA_DIGITS - bits.max(1);
    let raw = value.to_bits();
    let half = (1u32 << (dropped - 1)) - 1;
    let odd = (raw >> dropped) & 1;
    // A carry out of the fraction increments the exponent, which is the correct result.
    f32::from_bits((raw + half + odd) & !((1 << dropped) - 1))
}

/// Returns whether `value` has at most `bits` significant bits.
pub fn is_significant(value: f32, bits: u32) -> bool {
    round_significant(value, bits).to_bits() == value.to_bits()
}

/// The conversion of a scaled accumulator to an activation:
/// `clamp(round_half_even(t) + zero_point)`.
///
/// The implementation clamps before it rounds. The result is the same, because the bounds are
/// integers and rounding is monotonic, and no value is too large for rounding by addition.
///
/// # Examples
///
/// An output with zero point −128 and a fused ReLU:
///
/// ```
/// use hardtack_kernels::{Clamp, Requantize};
///
/// let requantize = Requantize::new(-128, Clamp { low: -128, high: 127 });
/// assert_eq!(requantize.apply(100.4), -28);
/// assert_eq!(requantize.apply(-3.0), -128);
/// assert_eq!(requantize.apply(1e9), 127);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Requantize {
    low: f32,
    high: f32,
    zero_point: i32,
}

impl Requantize {
    /// Creates the conversion for an output with this zero point and clamp range.
    pub fn new(zero_point: i8, clamp: Clamp) -> Self {
        let zero_point = i32::from(zero_point);
        let relative = |limit: i8| (i32::from(limit) - zero_point) as f32;
        Self { low: relative(clamp.low), high: relative(clamp.high), zero_point }
    }

    /// Converts `value`, in units of the output scale. NaN becomes the lower clamp bound.
    #[inline(always)]
    pub fn apply(&self, value: f32) -> i8 {
        let value = if value > self.low { value } else { self.low };
        let value = if value < self.high { value } else { self.high };
        let rounded = ((value + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
        rounded.wrapping_add(self.zero_point) as i8
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An exact number: `mantissa · 2^exponent`.
    #[derive(Clone, Copy, Debug)]
    struct Exact {
        mantissa: i128,
        exponent: i32,
    }

    impl Exact {
        fn of(value: f32) -> Self {
            let bits = value.to_bits();
            let (field, fraction) = ((bits >> 23 & 0xff) as i32, i128::from(bits & 0x7f_ffff));
            let (mantissa, exponent) =
                if field == 0 { (fraction, -149) } else { (fraction | 1 << 23, field - 150) };
            Self { mantissa: if value < 0.0 { -mantissa } else { mantissa }, exponent }
        }

        fn times(self, other: Self) -> Self {
            let exponent = self.exponent + other.exponent;
            Self { mantissa: self.mantissa * other.mantissa, exponent }
        }

        /// The sum of two numbers whose exponents differ by less than 60.
        fn plus(self, other: Self) -> Self {
            let exponent = self.exponent.min(other.exponent);
            let raised = |number: Self| number.mantissa << (number.exponent - exponent);
            Self { mantissa: raised(self) + raised(other), exponent }
        }

        /// Drops `shift` bits, rounding half to even.
        fn drop_bits(self, shift: u32) -> Self {
            if shift == 0 {
                return self;
            }
            let exponent = self.exponent + shift as i32;
            if shift > 120 {
                return Self { mantissa: 0, exponent };
            }
            let (floor, rest) = (self.mantissa >> shift, self.mantissa & ((1 << shift) - 1));
            let half = 1i128 << (shift - 1);
            let up = rest > half || (rest == half && floor & 1 == 1);
            Self { mantissa: floor + i128::from(up), exponent }
        }

        fn to_bits_significant(self, bits: u32) -> Self {
            let used = 128 - self.mantissa.unsigned_abs().leading_zeros();
            self.drop_bits(used.saturating_sub(bits))
        }

        fn to_integer(self) -> i128 {
            if self.exponent >= 0 {
                self.mantissa << self.exponent
            } else {
                self.drop_bits(self.exponent.unsigned_abs()).mantissa
            }
        }
    }

    /// The specification in exact arithmetic: every f32 operation rounds to 24 bits.
    fn requantize(
        accumulator: i32,
        scale: f32,
        residual: Option<(i32, f32)>,
        zero: i8,
        clamp: Clamp,
    ) -> i8 {
        let exact = Exact { mantissa: accumulator.into(), exponent: 0 };
        let product = exact.to_bits_significant(24).times(Exact::of(scale)).to_bits_significant(24);
        let sum = match residual {
            None => product,
            Some((difference, scale)) => {
                let added =
                    Exact { mantissa: difference.into(), exponent: 0 }.times(Exact::of(scale));
                let rounded = added.to_bits_significant(24);
                let lost = rounded.exponent - added.exponent;
                assert_eq!(rounded.mantissa << lost, added.mantissa, "the product must be exact");
                product.plus(added).to_bits_significant(24)
            }
        };
        let integer = sum.to_integer() + i128::from(zero);
        integer.clamp(clamp.low.into(), clamp.high.into()) as i8
    }

    fn check(accumulator: i32, scale: f32, zero: i8, clamp: Clamp) {
        let requantized = Requantize::new(zero, clamp).apply(accumulator as f32 * scale);
        let expected = requantize(accumulator, scale, None, zero, clamp);
        assert_eq!(requantized, expected, "{accumulator} · {scale} + {zero} in {clamp:?}");
    }

    #[test]
    fn ties_round_to_the_even_integer() {
        for integer in -(1 << 21)..(1 << 21) {
            let tie = integer as f32 + 0.5;
            assert_eq!(round_half_even(tie), integer + (integer & 1));
            assert_eq!(round_half_even(integer as f32), integer);
        }
        assert_eq!(round_half_even(f32::INFINITY), 1 << 21);
        assert_eq!(round_half_even(f32::MAX), 1 << 21);
        assert_eq!(round_half_even(f32::NEG_INFINITY), -(1 << 21));
        assert_eq!(round_half_even(f32::NAN), -(1 << 21));
        assert_eq!(round_half_even(-0.0), 0);
        assert_eq!(round_half_even(f32::MIN_POSITIVE), 0);
    }

    #[test]
    fn values_next_to_ties_round_to_the_nearest_integer() {
        for integer in -300i32..300 {
            let tie = integer as f32 + 0.5;
            for (value, expected) in [
                (tie.next_down(), integer),
                (tie.next_up(), integer + 1),
                (tie, integer + (integer & 1)),
            ] {
                for zero in [-128, -1, 0, 5, 127] {
                    for clamp in [Clamp::FULL, Clamp { low: zero, high: 100.max(zero) }] {
                        let clamped =
                            (expected + i32::from(zero)).clamp(clamp.low.into(), clamp.high.into());
                        let requantized = Requantize::new(zero, clamp).apply(value);
                        assert_eq!(i32::from(requantized), clamped, "{value} {zero} {clamp:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn requantization_is_exact_for_extreme_accumulators() {
        let scales = [5.5e-20, 1e-9, 2.0_f32.powi(-31), 0.1, 0.5, 1.0, 1.5, 1000.0, 1.8e19, 0.0];
        for accumulator in [i32::MIN, i32::MIN + 1, -1, 0, 1, 1 << 24, (1 << 24) + 1, i32::MAX] {
            for scale in scales {
                for zero in [i8::MIN, 0, i8::MAX] {
                    check(accumulator, round_significant(scale, SCALE_BITS), zero, Clamp::FULL);
                }
            }
        }
    }

    #[test]
    fn requantization_is_exact_on_ties_of_power_of_two_scales() {
        for shift in 1..24 {
            let scale = (-(shift as f32)).exp2();
            for integer in -260..260i64 {
                let tie = (2 * integer + 1) << (shift - 1);
                for accumulator in [tie - 1, tie, tie + 1] {
                    let Ok(accumulator) = i32::try_from(accumulator) else { continue };
                    check(accumulator, scale, 3, Clamp { low: -100, high: 120 });
                }
            }
        }
    }

    #[test]
    fn special_values_are_unchanged() {
        for value in [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0, -0.5] {
            assert_eq!(round_significant(value, 15).to_bits(), value.to_bits());
        }
        assert!(round_significant(f32::MAX, 15).is_infinite());
        assert!(is_significant(1.0 + f32::EPSILON * 4.0, 22));
        assert!(!is_significant(1.0 + f32::EPSILON * 2.0, 22));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn requantization_equals_exact_arithmetic(
            accumulator in prop_oneof![any::<i32>(), -70_000..70_000i32, -(1 << 24)..(1 << 24i32)],
            fraction in 0x3f80_0000u32..0x4000_0000,
            exponent in -40i32..4,
            zero in any::<i8>(),
            limits in any::<(i8, i8)>(),
        ) {
            let scale = f32::from_bits(fraction) * (exponent as f32).exp2();
            let clamp = Clamp { low: limits.0.min(limits.1), high: limits.0.max(limits.1) };
            check(accumulator, round_significant(scale, SCALE_BITS), zero, clamp);
        }

        #[test]
        fn residuals_equal_exact_arithmetic(
            accumulator in -(1 << 26)..(1 << 26i32),
            fractions in (0x3f80_0000u32..0x4000_0000, 0x3f80_0000u32..0x4000_0000),
            exponents in (-20i32..0, -8i32..4),
            difference in -255..=255i32,
            zero in any::<i8>(),
        ) {
            let scale = f32::from_bits(fractions.0) * (exponents.0 as f32).exp2();
            let scale = round_significant(scale, SCALE_BITS);
            let residual = f32::from_bits(fractions.1) * (exponents.1 as f32).exp2();
            let residual = round_significant(residual, TERM_SCALE_BITS);
            let value = accumulator as f32 * scale + difference as f32 * residual;
            let expected =
                requantize(accumulator, scale, Some((difference, residual)), zero, Clamp::FULL);
            prop_assert_eq!(Requantize::new(zero, Clamp::FULL).apply(value), expected);
        }

        #[test]
        fn significant_bits_are_rounded_exactly(
            magnitude in f32::MIN_POSITIVE.to_bits()..1e38f32.to_bits(),
            negative in any::<bool>(),
            kept in 1u32..=24,
        ) {
            let magnitude = f32::from_bits(magnitude);
            let value = if negative { -magnitude } else { magnitude };
            let rounded = Exact::of(round_significant(value, kept));
            let expected = Exact::of(value).to_bits_significant(kept);
            let exponent = rounded.exponent.min(expected.exponent);
            let activation_offset = |x: Exact| x.mantissa << (x.exponent - exponent);
            prop_assert_eq!(activation_offset(rounded), activation_offset(expected));
        }

        #[test]
        fn rounding_equals_exact_arithmetic(
            magnitude in 0..=LIMIT.to_bits(),
            negative in any::<bool>(),
        ) {
            let magnitude = f32::from_bits(magnitude);
            let value = if negative { -magnitude } else { magnitude };
            prop_assert_eq!(i128::from(round_half_even(value)), Exact::of(value).to_integer());
        }
    }
}
