//! The scale and zero point of a tensor.

use hardtack_engine::program::Clamp;

/// An affine mapping of integers to floats: `float = (integer − zero_point) · scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Quantization {
    /// The float difference between two adjacent integers.
    pub scale: f32,
    /// The integer that represents 0.
    pub zero_point: i8,
}

/// The minimum and maximum of a tensor's values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Range {
    /// The minimum.
    pub low: f32,
    /// The maximum.
    pub high: f32,
}

impl Range {
    /// The range of no values.
    pub(crate) const NONE: Range = Range { low: f32::INFINITY, high: f32::NEG_INFINITY };

    /// Returns the range of the sums of a value of each.
    pub(crate) fn plus(self, other: Range) -> Range {
        Range { low: self.low + other.low, high: self.high + other.high }
    }

    /// Clamps both ends to `limits`.
    pub(crate) fn within(self, limits: Range) -> Range {
        let limited = |value: f32| value.max(limits.low).min(limits.high);
        Range { low: limited(self.low), high: limited(self.high) }
    }

    /// Extends the range to these values, ignoring those that are not finite.
    pub(crate) fn extended(self, values: &[f32]) -> Range {
        values.iter().filter(|value| value.is_finite()).fold(self, |range, value| Range {
            low: range.low.min(*value),
            high: range.high.max(*value),
        })
    }
}

impl Quantization {
    /// Returns the smallest scale whose integers cover the range and 0.
    pub(super) fn of(range: Range) -> Quantization {
        let (low, high) = (range.low.min(0.0), range.high.max(0.0));
        let scale = (f64::from(high) - f64::from(low)) / 255.0;
        // The values are all zero, or too small to matter.
        if !scale.is_finite() || scale < 1e-12 {
            return Quantization { scale: 1.0, zero_point: 0 };
        }
        let zero_point = (-128.0 - f64::from(low) / scale).round_ties_even();
        Quantization { scale: scale as f32, zero_point: zero_point as i8 }
    }

    /// Dequantizes an integer.
    pub(super) fn dequantize(self, integer: i8) -> f32 {
        f32::from(i16::from(integer) - i16::from(self.zero_point)) * self.scale
    }

    /// Returns the range that the integers cover.
    pub(super) fn range(self) -> Range {
        Range { low: self.dequantize(i8::MIN), high: self.dequantize(i8::MAX) }
    }

    /// Quantizes a float to the nearest integer, saturating.
    pub(super) fn quantize(self, real: f32) -> i8 {
        let integer = (f64::from(real) / f64::from(self.scale)).round_ties_even();
        (integer + f64::from(self.zero_point)) as i8
    }

    /// Returns the integer limits that correspond to float limits.
    pub(super) fn clamp(self, limits: Range) -> Clamp {
        Clamp { low: self.quantize(limits.low), high: self.quantize(limits.high) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_and_zero_are_integers() {
        for (low, high) in [(-1.0, 3.0), (0.0, 6.0), (2.0, 5.0), (-7.0, -1.0)] {
            let quantization = Quantization::of(Range { low, high });
            assert_eq!(quantization.quantize(0.0), quantization.zero_point);
            assert!(quantization.quantize(high.max(0.0)) >= 126, "{low} to {high}");
            assert!(quantization.quantize(low.min(0.0)) <= -127, "{low} to {high}");
        }
    }

    #[test]
    fn infinite_limits_allow_all_integers() {
        let quantization = Quantization::of(Range { low: -1.0, high: 1.0 });
        let open = Range { low: f32::NEG_INFINITY, high: f32::INFINITY };
        assert_eq!(quantization.clamp(open), Clamp::FULL);
        let relu = quantization.clamp(Range { low: 0.0, high: f32::INFINITY });
        assert_eq!(relu, Clamp { low: quantization.zero_point, high: 127 });
    }

    #[test]
    fn all_zeros_have_a_scale() {
        assert_eq!(Quantization::of(Range::NONE).scale, 1.0);
        assert_eq!(Quantization::of(Range { low: 0.0, high: 0.0 }).scale, 1.0);
    }
}
