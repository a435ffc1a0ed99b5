//! Integers of values by the range that the values themselves have.

use crate::round_half_even;

/// Scale and zero point of unsigned bytes: ONNX's DynamicQuantizeLinear.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Real value of one integer step.
    pub scale: f32,
    /// The integer that represents 0.
    pub zero_point: u8,
}

/// Which values have scale and zero point in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ranges {
    /// Those of a row.
    Row,
    /// All.
    Tensor,
}

impl Affine {
    /// For values from `low`, at most 0, to `high`, at least 0. Where one is no number, the scale is
    /// NaN, and so is all that is computed with it.
    pub fn of([low, high]: [f32; 2]) -> Self {
        let scale = (high - low) / 255.0;
        if scale == 0.0 {
            return Self { scale: 1.0, zero_point: 0 };
        }
        let zero_point = round_half_even((0.0 - low / scale).clamp(0.0, 255.0));
        // NaN saturates below the least byte.
        Self { scale, zero_point: zero_point.clamp(0, 255) as u8 }
    }

    /// `clamp(round_half_even(x / scale) + zero_point)`.
    #[inline(always)]
    pub fn apply(&self, x: f32) -> u8 {
        let zero_point = f32::from(self.zero_point);
        // Limits are integers, and rounding keeps order.
        let (low, high) = (-zero_point, 255.0 - zero_point);
        let value = x / self.scale;
        let value = if value > low { value } else { low };
        let value = if value < high { value } else { high };
        (round_half_even(value) + i32::from(self.zero_point)) as u8
    }
}

/// The least and the greatest of some values and 0; NaN both where one of them is not finite.
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
    fn zero_is_an_integer_and_the_range_is_covered() {
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
    fn nothing_and_what_is_next_to_nothing_are_zeros() {
        for values in [&[][..], &[0.0; 20], &[1e-45, -1e-45]] {
            let affine = Affine::of(extent(values));
            assert_eq!(affine, Affine { scale: 1.0, zero_point: 0 });
            assert!(values.iter().all(|x| affine.apply(*x) == 0));
        }
    }

    #[test]
    fn what_is_no_number_shows() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 15, 17] {
                let mut values = [1f32; 18];
                values[at] = wrong;
                assert!(Affine::of(extent(&values)).scale.is_nan(), "{wrong} at {at}");
            }
        }
    }
}
