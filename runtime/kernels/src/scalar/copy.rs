//! Strided copies with optional requantization.

use crate::{Clamp, Move, Requantize};

/// Runs a [`Move`].
pub fn copy(step: &Move<'_>, output: &mut [i8]) {
    match step.scale {
        None => step.copy.copy(step.input, output),
        Some(scale) => {
            let zero_point = i32::from(step.zero_point);
            let requantize = Requantize::new(step.output_zero_point, Clamp::FULL);
            step.copy.apply(step.input, output, |x| {
                requantize.apply((i32::from(x) - zero_point) as f32 * scale)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StridedCopy;

    #[test]
    fn copies_with_and_without_a_scale() {
        let strides = StridedCopy {
            dims: [1, 1, 1, 1, 1, 3],
            source_offset: 1,
            source_strides: [0, 0, 0, 0, 0, 1],
            target_offset: 0,
            target_strides: [0, 0, 0, 0, 0, 2],
        };
        let plain = Move {
            input: &[9, -128, 1, 127],
            copy: strides,
            scale: None,
            zero_point: 1,
            output_zero_point: -10,
        };
        let mut output = [0; 6];
        copy(&plain, &mut output);
        assert_eq!(output, [-128, 0, 1, 0, 127, 0]);
        // −129 · 0.5 = −64.5 rounds to even, −64; 126 · 0.5 = 63; −10 is added to both.
        copy(&Move { scale: Some(0.5), ..plain }, &mut output);
        assert_eq!(output, [-74, 0, -10, 0, 53, 0]);
    }
}
