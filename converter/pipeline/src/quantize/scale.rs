//! Scale and zero point of a tensor.

use hardtack_engine::program::Clamp;

/// How a tensor's integers stand for reals: `real = (integer − zero_point) · scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantization {
    /// Real value of one integer step.
    pub scale: f32,
    /// The integer that represents 0.
    pub zero_point: i8,
}

/// The least and greatest value a tensor takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Least.
    pub low: f32,
    /// Greatest.
    pub high: f32,
}

impl Range {
    /// No value yet.
    pub const NONE: Range = Range { low: f32::INFINITY, high: f32::NEG_INFINITY };

    /// Without what lies beyond limits.
    pub fn within(self, limits: Range) -> Range {
        let limited = |value: f32| value.max(limits.low).min(limits.high);
        Range { low: limited(self.low), high: limited(self.high) }
    }

    /// With more values; what is not finite is left out.
    pub fn extended(self, values: &[f32]) -> Range {
        values.iter().filter(|value| value.is_finite()).fold(self, |range, value| Range {
            low: range.low.min(*value),
            high: range.high.max(*value),
        })
    }
}

impl Quantization {
    /// The finest integers that reach both ends of a range and 0.
    pub fn of(range: Range) -> Quantization {
        let (low, high) = (range.low.min(0.0), range.high.max(0.0));
        let scale = (f64::from(high) - f64::from(low)) / 255.0;
        // A tensor of zeros, or of values that are none for all that matters.
        if !scale.is_finite() || scale < 1e-12 {
            return Quantization { scale: 1.0, zero_point: 0 };
        }
        let zero_point = (-128.0 - f64::from(low) / scale).round_ties_even();
        Quantization { scale: scale as f32, zero_point: zero_point as i8 }
    }

    /// What an integer stands for.
    pub fn real(self, integer: i8) -> f32 {
        f32::from(i16::from(integer) - i16::from(self.zero_point)) * self.scale
    }

    /// The least and greatest real that an integer stands for.
    pub fn range(self) -> Range {
        Range { low: self.real(i8::MIN), high: self.real(i8::MAX) }
    }

    /// The nearest integer to a real.
    pub fn integer(self, real: f32) -> i8 {
        let integer = (f64::from(real) / f64::from(self.scale)).round_ties_even();
        (integer + f64::from(self.zero_point)) as i8
    }

    /// The integers that limit a value to this range.
    pub fn clamp(self, limits: Range) -> Clamp {
        Clamp { low: self.integer(limits.low), high: self.integer(limits.high) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_and_zero_are_integers() {
        for (low, high) in [(-1.0, 3.0), (0.0, 6.0), (2.0, 5.0), (-7.0, -1.0)] {
            let quantization = Quantization::of(Range { low, high });
            assert_eq!(quantization.integer(0.0), quantization.zero_point);
            assert!(quantization.integer(high.max(0.0)) >= 126, "{low} to {high}");
            assert!(quantization.integer(low.min(0.0)) <= -127, "{low} to {high}");
        }
    }

    #[test]
    fn open_limits_are_all_integers() {
        let quantization = Quantization::of(Range { low: -1.0, high: 1.0 });
        let open = Range { low: f32::NEG_INFINITY, high: f32::INFINITY };
        assert_eq!(quantization.clamp(open), Clamp::FULL);
        let relu = quantization.clamp(Range { low: 0.0, high: f32::INFINITY });
        assert_eq!(relu, Clamp { low: quantization.zero_point, high: 127 });
    }

    #[test]
    fn zeros_have_a_scale() {
        assert_eq!(Quantization::of(Range::NONE).scale, 1.0);
        assert_eq!(Quantization::of(Range { low: 0.0, high: 0.0 }).scale, 1.0);
    }
}
