//! The epilogue: converts accumulators to activations.

use crate::{Clamp, Conv, Residual};

/// The epilogue of a convolution: [`Requantize`](crate::Requantize) with clamping after rounding,
/// on integers.
pub(super) struct Epilogue<'a> {
    scales: &'a [f32],
    residual: Option<Residual<'a>>,
    /// The difference between the bits of a rounded value and the activation.
    offset: i32,
    low: i32,
    high: i32,
    /// Whether the clamp range is the full range of i8.
    is_full: bool,
}

impl<'a> Epilogue<'a> {
    pub(super) fn new(conv: &Conv<'a>) -> Self {
        Self {
            scales: conv.scales,
            residual: conv.residual,
            offset: offset(conv.output_zero_point),
            low: conv.clamp.low.into(),
            high: conv.clamp.high.into(),
            is_full: conv.clamp == Clamp::FULL,
        }
    }

    /// Converts `sums[c][i]`, an accumulator of channel `channel + c`, and writes it at
    /// `output[at + c + i · step]`.
    // Not inlined, so that the loop has all registers.
    #[inline(never)]
    pub(super) fn write<const N: usize>(
        &self,
        sums: &[[i32; N]],
        channel: usize,
        at: usize,
        step: usize,
        output: &mut [i8],
    ) {
        let scales = &self.scales[channel..channel + sums.len()];
        // The length up to the last activation of the last channel.
        let length = (N - 1).saturating_mul(step).saturating_add(sums.len());
        let output = &mut output[at..][..length];
        match (&self.residual, self.is_full) {
            // SAFETY: `output` was sliced to `length`, and `(N - 1) * step + sums.len()` did not
            // overflow: the saturated value would exceed every slice.
            (None, true) => unsafe {
                each(sums, scales, step, output, |value, _| self.full(value));
            },
            // SAFETY: as for `(None, true)`.
            (None, false) => unsafe {
                each(sums, scales, step, output, |value, _| self.clamped(value));
            },
            (Some(residual), _) => {
                let values = &residual.values[at..][..length];
                let zero_point = i32::from(residual.zero_point);
                let convert = |value, at| {
                    // SAFETY: `each` passes indices below `length`, the length of `values`.
                    let added = i32::from(unsafe { *values.get_unchecked(at) }) - zero_point;
                    self.clamped(value + added as f32 * residual.scale)
                };
                // SAFETY: as for `(None, true)`.
                unsafe { each(sums, scales, step, output, convert) };
            }
        }
    }

    /// Returns the integer nearest to `value`, which is in units of the output scale, plus the zero
    /// point.
    ///
    /// The result is exact for small values. For large values the bits of the sum are not the
    /// integer, but their order is preserved, and the subtraction saturates. A value outside the
    /// range of i8 therefore stays outside.
    #[inline(always)]
    fn rounded(&self, value: f32) -> i32 {
        ((value + MAGIC).to_bits() as i32).saturating_sub(self.offset)
    }

    #[inline(always)]
    fn full(&self, value: f32) -> i8 {
        self.rounded(value).clamp(-128, 127) as i8
    }

    #[inline(always)]
    fn clamped(&self, value: f32) -> i8 {
        let rounded = self.rounded(value);
        let rounded = if rounded < self.low { self.low } else { rounded };
        (if rounded > self.high { self.high } else { rounded }) as i8
    }
}

/// The loop of [`Epilogue::write`] with `at` = 0. `convert` receives the scaled accumulator and the
/// index in the output, which is less than `(N − 1) · step + sums.len()`.
///
/// # Safety
/// `(N − 1) · step + sums.len()` must not overflow, and `output` must have that length.
#[inline(always)]
unsafe fn each<const N: usize>(
    sums: &[[i32; N]],
    scales: &[f32],
    step: usize,
    output: &mut [i8],
    convert: impl Fn(f32, usize) -> i8,
) {
    for (channel, (sums, &scale)) in sums.iter().zip(scales).enumerate() {
        for (index, &sum) in sums.iter().enumerate() {
            let at = channel + index * step;
            let activation = convert(sum as f32 * scale, at);
            // SAFETY: `channel` is less than `sums.len()` and `index` less than `N`, so `at` is
            // less than the length that the caller guarantees.
            unsafe { *output.get_unchecked_mut(at) = activation };
        }
    }
}

/// Returns the value to subtract from the bits of a sum with [`MAGIC`].
fn offset(zero_point: i8) -> i32 {
    MAGIC.to_bits() as i32 - i32::from(zero_point)
}

/// 1.5 · 2²³, as in [`Requantize`](crate::Requantize).
const MAGIC: f32 = 12_582_912.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Requantize;

    #[test]
    fn rounding_matches_the_reference_for_all_magnitudes() {
        let clamps = [Clamp::FULL, Clamp { low: -7, high: 90 }];
        for (zero_point, clamp) in
            [-128i8, -3, 0, 127].into_iter().flat_map(|z| clamps.map(|c| (z, c)))
        {
            let requantize = Requantize::new(zero_point, clamp);
            let epilogue = Epilogue {
                scales: &[],
                residual: None,
                offset: offset(zero_point),
                low: clamp.low.into(),
                high: clamp.high.into(),
                is_full: clamp == Clamp::FULL,
            };
            let near = (-600..600).map(|half| (half, 0.5f32));
            let far = (0..31).flat_map(|bit| [1i32 << bit, -(1 << bit)]);
            let far = far.flat_map(|sum| [1e-10, 1.0, 3.0, 1e5, 1.8e19].map(|scale| (sum, scale)));
            for (sum, scale) in near.chain(far).chain([(i32::MIN, 1.0), (i32::MAX, 0.01)]) {
                let expected = requantize.apply(sum as f32 * scale);
                let found = match clamp == Clamp::FULL {
                    true => epilogue.full(sum as f32 * scale),
                    false => epilogue.clamped(sum as f32 * scale),
                };
                assert_eq!(found, expected, "{sum} · {scale}");
            }
        }
    }
}
