//! Resizing by linear interpolation between two rows and two columns.

use crate::{Resize, Sample};

/// The sum of the two weights of a row or column.
const ONE: i32 = 2048;
/// The sum of the weights of the four elements is 2 to this power.
const SHIFT: u32 = 22;

/// Runs a [`Resize`].
pub fn resize(resize: &Resize<'_>, output: &mut [i8]) {
    let channels = resize.input_shape.channels;
    let pixel = |row: u16, column: u16| {
        let at = (usize::from(row) * resize.input_shape.width + usize::from(column)) * channels;
        &resize.input[at..at + channels]
    };
    let mut pixels = output.chunks_exact_mut(channels.max(1));
    for row in resize.rows {
        let row = Sample::from_bytes(*row);
        for (column, output) in resize.columns.iter().zip(&mut pixels) {
            let column = Sample::from_bytes(*column);
            let top = pixel(row.first, column.first);
            if row.weight == 0 && column.weight == 0 {
                output.copy_from_slice(top);
                continue;
            }
            let top = top.iter().zip(pixel(row.first, column.second));
            let bottom = pixel(row.second, column.first);
            let bottom = bottom.iter().zip(pixel(row.second, column.second));
            let weights = weights(row.weight, column.weight);
            for ((output, (&p, &q)), (&r, &s)) in output.iter_mut().zip(top).zip(bottom) {
                *output = interpolate([p, q, r, s].map(i32::from), weights);
            }
        }
    }
}

/// Returns the weights of the top left, top right, bottom left and bottom right element. Their sum
/// is 2²², so a weighted sum fits in an i32 and a weighted mean of i8 fits in an i8.
#[inline(always)]
pub(crate) fn weights(row: i32, column: i32) -> [i32; 4] {
    let (row, column) = (row.clamp(0, ONE), column.clamp(0, ONE));
    let (top, left) = (ONE - row, ONE - column);
    [top * left, top * column, row * left, row * column]
}

/// Returns the weighted mean of four elements.
#[inline(always)]
pub(crate) fn interpolate(four: [i32; 4], weights: [i32; 4]) -> i8 {
    let sum: i32 = four.iter().zip(weights).map(|(element, weight)| element * weight).sum();
    ((sum + (1 << (SHIFT - 1))) >> SHIFT) as i8
}
