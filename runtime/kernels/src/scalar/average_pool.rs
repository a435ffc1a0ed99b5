//! Average pooling.

use crate::{AveragePool, Requantize, SCALE_BITS, round_significant};

/// The number of channels accumulated at once.
const CHANNELS: usize = 64;

/// Runs an [`AveragePool`].
pub fn average_pool(pool: &AveragePool<'_>, output: &mut [i8]) {
    let channels = pool.output_shape.channels;
    let zero_point = i32::from(pool.zero_point);
    let requantize = Requantize::new(pool.output_zero_point, pool.clamp);
    let mut sums = [0i32; CHANNELS];
    for row in 0..pool.output_shape.height {
        let rows = pool.window.taps(0, row, pool.input_shape.height);
        for column in 0..pool.output_shape.width {
            let columns = pool.window.taps(1, column, pool.input_shape.width);
            let at = (row * pool.output_shape.width + column) * channels;
            let inside = rows.range.len() * columns.range.len();
            let scale = scale(pool, inside);
            for channel in (0..channels).step_by(CHANNELS) {
                let count = CHANNELS.min(channels - channel);
                let sums = &mut sums[..count];
                sums.fill(0);
                for tap_row in rows.range.clone() {
                    let line = rows.position(tap_row) * pool.input_shape.width;
                    for tap_column in columns.range.clone() {
                        let input = (line + columns.position(tap_column)) * channels + channel;
                        let input = &pool.input[input..input + count];
                        for (sum, &input) in sums.iter_mut().zip(input) {
                            *sum = sum.wrapping_add(i32::from(input) - zero_point);
                        }
                    }
                }
                let output = &mut output[at + channel..at + channel + count];
                for (output, &sum) in output.iter_mut().zip(&*sums) {
                    *output = requantize.apply(sum as f32 * scale);
                }
            }
        }
    }
}

/// Returns the scale for the sum of `inside` elements.
fn scale(pool: &AveragePool<'_>, inside: usize) -> f32 {
    if pool.count_include_pad {
        pool.scale
    } else {
        round_significant(pool.scale / inside.max(1) as f32, SCALE_BITS)
    }
}
