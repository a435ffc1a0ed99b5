//! Max pooling.

use crate::MaxPool;

/// Runs a [`MaxPool`].
pub fn max_pool(pool: &MaxPool<'_>, output: &mut [i8]) {
    let channels = pool.output_shape.channels;
    for row in 0..pool.output_shape.height {
        let rows = pool.window.taps(0, row, pool.input_shape.height);
        for column in 0..pool.output_shape.width {
            let columns = pool.window.taps(1, column, pool.input_shape.width);
            let at = (row * pool.output_shape.width + column) * channels;
            let output = &mut output[at..at + channels];
            output.fill(i8::MIN);
            for tap_row in rows.range.clone() {
                let line = rows.position(tap_row) * pool.input_shape.width;
                for tap_column in columns.range.clone() {
                    let input = (line + columns.position(tap_column)) * channels;
                    let input = &pool.input[input..input + channels];
                    for (output, &input) in output.iter_mut().zip(input) {
                        *output = (*output).max(input);
                    }
                }
            }
            for output in output {
                *output = (*output).max(pool.clamp.low).min(pool.clamp.high);
            }
        }
    }
}
