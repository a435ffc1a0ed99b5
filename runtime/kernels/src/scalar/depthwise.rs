//! Depthwise convolution. The inner loops run over channels, which are contiguous in the image and
//! in the weights.

use super::conv::finish;
use crate::{Conv, Requantize};

/// The number of channels accumulated at once.
const CHANNELS: usize = 64;

/// Runs a [`Conv`] that [is depthwise](Conv::is_depthwise).
pub fn depthwise(conv: &Conv<'_>, output: &mut [i8]) {
    let channels = conv.output_shape.channels;
    let requantize = Requantize::new(conv.output_zero_point, conv.clamp);
    let mut sums = [0i32; CHANNELS];
    for row in 0..conv.output_shape.height {
        let rows = conv.window.taps(0, row, conv.input_shape.height);
        for column in 0..conv.output_shape.width {
            let columns = conv.window.taps(1, column, conv.input_shape.width);
            let at = (row * conv.output_shape.width + column) * channels;
            for channel in (0..channels).step_by(CHANNELS) {
                let count = CHANNELS.min(channels - channel);
                let sums = &mut sums[..count];
                sums.copy_from_slice(&conv.bias[channel..channel + count]);
                for tap_row in rows.range.clone() {
                    let line = rows.position(tap_row) * conv.input_shape.width;
                    for tap_column in columns.range.clone() {
                        let input = (line + columns.position(tap_column)) * channels + channel;
                        let tap = tap_row * conv.window.kernel[1] + tap_column;
                        let weights = tap * channels + channel;
                        accumulate(
                            sums,
                            &conv.input[input..input + count],
                            conv.zero_point,
                            &conv.weights[weights..weights + count],
                        );
                    }
                }
                finish(conv, &requantize, channel, sums, at + channel, output);
            }
        }
    }
}

#[inline(always)]
fn accumulate(sums: &mut [i32], input: &[i8], zero_point: i8, weights: &[i8]) {
    let zero_point = i16::from(zero_point);
    for ((sum, &input), &weight) in sums.iter_mut().zip(input).zip(weights) {
        // The magnitude is at most 255 · 128, which fits in an i16.
        let product = (i16::from(input) - zero_point) * i16::from(weight);
        *sum = sum.wrapping_add(i32::from(product));
    }
}
