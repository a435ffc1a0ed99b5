//! Real values in and out.

use crate::{Clamp, Dequantize, Quantize, Requantize};

/// See [`Quantize`].
pub fn quantize(step: &Quantize<'_>, output: &mut [i8]) {
    let requantize = Requantize::new(step.zero_point, Clamp::FULL);
    step.walk.apply(step.input, output, |x: f32| {
        let x = if x.is_nan() { 0.0 } else { x };
        requantize.apply(x * step.inverse_scale)
    });
}

/// See [`Dequantize`].
pub fn dequantize(step: &Dequantize<'_>, output: &mut [f32]) {
    let zero_point = i32::from(step.zero_point);
    step.walk.apply(step.input, output, |x: i8| (i32::from(x) - zero_point) as f32 * step.scale);
}
