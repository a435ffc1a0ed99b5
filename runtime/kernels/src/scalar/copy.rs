//! Copies in any order, with or without a change of scale.

use crate::{Clamp, Move, Requantize};

/// See [`Move`].
pub fn copy(step: &Move<'_>, output: &mut [i8]) {
    match step.scale {
        None => step.walk.apply(step.input, output, |x| x),
        Some(scale) => {
            let zero_point = i32::from(step.zero_point);
            let requantize = Requantize::new(step.output_zero_point, Clamp::FULL);
            step.walk.apply(step.input, output, |x| {
                requantize.apply((i32::from(x) - zero_point) as f32 * scale)
            });
        }
    }
}
