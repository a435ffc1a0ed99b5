//! Dynamic quantization: quantization parameters computed from the values themselves.

use crate::round_half_even;

/// The scale and zero point of a u8 quantization, as in ONNX's DynamicQuantizeLinear.
///
/// # Examples
///
/// ```
/// use hardtack_kernels::Affine;
///
/// let affine = Affine::of([-1.0, 1.55]);
/// assert_eq!(affine.zero_point, 100);
/// assert_eq!([-1.0, 0.0, 1.55, 9.0].map(|x| affine.apply(x)), [0, 100, 255, 255]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// The difference in float value between consecutive integers.
    pub scale: f32,
    /// The zero point: the integer that represents 0.
    pub zero_point: u8,
}

/// The granularity of the scale and zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ranges {
    /// One scale and zero point per row.
    Row,
    /// One scale and zero point for the whole tensor.
    Tensor,
}

impl Affine {
    /// Returns the parameters for values from `low` (at most 0) to `high` (at least 0). If a bound
    /// is NaN, so is the scale, and NaN propagates to all results.
    pub fn of([low, high]: [f32; 2]) -> Self {
        let scale = (high - low) / 255.0;
        if scale == 0.0 {
            return Self { scale: 1.0, zero_point: 0 };
        }
        let zero_point = round_half_even((0.0 - low / scale).clamp(0.0, 255.0));
        // Rounding turns NaN into a large negative number, which clamps to 0.
        Self { scale, zero_point: zero_point.clamp(0, 255) as u8 }
    }

    /// Returns `clamp(round_half_even(x / scale) + zero_point)`.
    #[inline(always)]
    pub fn apply(&self, x: f32) -> u8 {
        let zero_point = f32::from(self.zero_point);
        // Clamp first: the bounds are integers, and rounding is monotonic.
        let (low, high) = (-zero_point, 255.0 - zero_point);
        let value = x / self.scale;
        let value = if value > low { value } else { low };
        let value = if value < high { value } else { high };
        (round_half_even(value) + i32::from(self.zero_point)) as u8
    }
}

/// Returns the minimum and maximum of the values and 0. Both are NaN if any value is not finite.
#[inline(always)]
pub(crate) fn extent(values: &[f32]) -> [f32; 2] {
    const LANES: usize = 16;
    let (mut low, mut high, mut finite) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
    let mut each = |at: usize, x: f32| {
        low[at] = if x < low[at] { x } else { low[at] };
        high[at] = if x > high[at] { x } else { high[at] };
        finite[at] += x * 0.0;
    };
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (at, x) in chunk.iter().enumerate() {
            each(at, *x);
        }
    }
    for (at, x) in rest.iter().enumerate() {
        each(at, *x);
    }
    let nan = finite.iter().sum::<f32>();
    [low.into_iter().fold(0.0, f32::min) + nan, high.into_iter().fold(0.0, f32::max) + nan]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_exact_and_the_range_is_covered() {
        for (values, zero_point) in
            [(&[-1.0, 0.5, 1.55][..], 100), (&[0.25, 5.1], 0), (&[-5.1, -0.25], 255)]
        {
            let affine = Affine::of(extent(values));
            assert_eq!(affine.zero_point, zero_point);
            assert_eq!(affine.apply(0.0), zero_point);
            for &x in values {
                let back = (f32::from(affine.apply(x)) - f32::from(zero_point)) * affine.scale;
                assert!((back - x).abs() <= affine.scale * 0.5001, "{x} {back}");
            }
        }
    }

    #[test]
    fn empty_and_negligible_values_quantize_to_zero() {
        for values in [&[][..], &[0.0; 20], &[1e-45, -1e-45]] {
            let affine = Affine::of(extent(values));
            assert_eq!(affine, Affine { scale: 1.0, zero_point: 0 });
            assert!(values.iter().all(|x| affine.apply(*x) == 0));
        }
    }

    #[test]
    fn values_that_are_not_finite_give_a_nan_scale() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 15, 17] {
                let mut values = [1f32; 18];
                values[at] = wrong;
                assert!(Affine::of(extent(&values)).scale.is_nan(), "{wrong} at {at}");
            }
        }
    }
}
