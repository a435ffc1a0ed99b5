//! Quantization of float inputs and dequantization to float outputs.

use crate::{Clamp, Dequantize, Quantize, Requantize};

/// Runs a [`Quantize`].
pub fn quantize(step: &Quantize<'_>, output: &mut [i8]) {
    let requantize = Requantize::new(step.zero_point, Clamp::FULL);
    step.copy.apply(step.input, output, |x: f32| {
        let x = if x.is_nan() { 0.0 } else { x };
        requantize.apply(x * step.inverse_scale)
    });
}

/// Runs a [`Dequantize`].
pub fn dequantize(step: &Dequantize<'_>, output: &mut [f32]) {
    let zero_point = i32::from(step.zero_point);
    step.copy.apply(step.input, output, |x: i8| (i32::from(x) - zero_point) as f32 * step.scale);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StridedCopy;

    fn row(count: usize) -> StridedCopy {
        StridedCopy {
            dims: [1, 1, 1, 1, 1, count],
            source_offset: 0,
            source_strides: [0, 0, 0, 0, 0, 1],
            target_offset: 0,
            target_strides: [0, 0, 0, 0, 0, 1],
        }
    }

    #[test]
    fn floats_saturate_and_nan_is_zero() {
        let input = [
            0.0,
            -0.0,
            0.25,
            0.75,
            -0.25,
            1e30,
            f32::NEG_INFINITY,
            f32::INFINITY,
            f32::NAN,
            f32::MIN_POSITIVE / 2.0,
        ];
        let step = Quantize { input: &input, copy: row(10), inverse_scale: 2.0, zero_point: -3 };
        let mut output = [99; 10];
        quantize(&step, &mut output);
        // 0.5 rounds to 0, 1.5 to 2, −0.5 to 0.
        assert_eq!(output, [-3, -3, -3, -1, -3, 127, -128, 127, -3, -3]);
    }

    #[test]
    fn dequantized_values_are_multiples_of_the_scale() {
        let step = Dequantize { input: &[-128, 0, 127], copy: row(3), scale: 0.5, zero_point: 127 };
        let mut output = [0.0; 3];
        dequantize(&step, &mut output);
        assert_eq!(output, [-127.5, -63.5, 0.0]);
    }
}
