//! Convolution in tiles of up to four pixels × 16 columns.

use super::{Vec128, load, store};
use crate::strided::{ConvBlock, floats};

/// The number of columns of a block.
pub(crate) const WIDTH: usize = 16;

/// Computes `P` pixels from index `first`. `REAL` selects f32 outputs.
///
/// # Safety
/// The CPU must support the instructions of `Q`. `block` must satisfy the contract of [`ConvBlock`]
/// for the layout `NeonDot`, with `rows` if `REAL`, and have at least `first + P` pixels.
#[inline(always)]
pub(crate) unsafe fn tile<Q: Vec128, const P: usize, const REAL: bool>(
    block: &ConvBlock,
    first: usize,
) {
    // SAFETY: reads the 16 biases and, for each run, `steps` steps of 64 weights, which all belong
    // to the block. Reads exactly `4 · steps` bytes of each run of each pixel, eight or four at a
    // time. The contract of `ConvBlock` makes these readable.
    unsafe {
        let terms = block.weights.cast::<i32>();
        let mut bias = [Q::start(terms, block.narrow); 4];
        for j in 1..4 {
            bias[j] = Q::start(terms.add(4 * j), block.narrow);
        }
        let bias = [Q::open(bias[0]), Q::open(bias[1]), Q::open(bias[2]), Q::open(bias[3])];
        let mut parts = [bias; P];
        let mut pixels = [block.input; P];
        for i in 0..P {
            pixels[i] = block.input.add(*block.input_offsets.add(first + i) as usize);
        }
        let mut weights = block.weights.add(8 * WIDTH);
        let mut down = 0;
        for _ in 0..block.runs[0] {
            let mut across = down;
            for _ in 0..block.runs[1] {
                for step in 0..block.steps / 2 {
                    let at = across + 8 * step;
                    for i in 0..P {
                        let four = [Q::repeat(pixels[i].add(at)), Q::repeat(pixels[i].add(at + 4))];
                        for j in 0..4 {
                            let near = Q::load(weights.add(16 * j));
                            let far = Q::load(weights.add(4 * WIDTH + 16 * j));
                            parts[i][j] = Q::dot_twice(parts[i][j], four, [near, far]);
                        }
                    }
                    weights = weights.add(8 * WIDTH);
                }
                if !block.steps.is_multiple_of(2) {
                    let at = across + 4 * (block.steps - 1);
                    for i in 0..P {
                        let four = Q::repeat(pixels[i].add(at));
                        for j in 0..4 {
                            let near = Q::load(weights.add(16 * j));
                            parts[i][j] = Q::dot_once(parts[i][j], four, near);
                        }
                    }
                    weights = weights.add(4 * WIDTH);
                }
                across += block.run_step[1];
            }
            down += block.run_step[0];
        }
        let mut sums = [[Q::close(parts[0][0]); 4]; P];
        for i in 0..P {
            for j in 0..4 {
                sums[i][j] = Q::close(parts[i][j]);
            }
        }
        epilogue::<Q, P, REAL>(block, first, sums);
    }
}

/// Applies the epilogue to `P` pixels and writes them. `REAL` selects f32 outputs.
///
/// # Safety
/// See [`tile`].
#[inline(always)]
pub(crate) unsafe fn epilogue<Q: Vec128, const P: usize, const REAL: bool>(
    block: &ConvBlock,
    first: usize,
    sums: [[Q::Sums; 4]; P],
) {
    // SAFETY: by the contract of `ConvBlock`, 16 scales follow the 16 biases, and `channels`, at
    // most 16, outputs are writable and residuals readable per pixel; no others are accessed. `row`
    // has 16 elements.
    unsafe {
        if REAL {
            for i in 0..P {
                let mut row = [0i32; WIDTH];
                for j in 0..4 {
                    Q::write(sums[i][j], row.as_mut_ptr().add(4 * j));
                }
                floats(block, first + i, &row);
            }
            return;
        }
        let scales = block.weights.add(4 * WIDTH).cast::<f32>();
        for i in 0..P {
            let mut scaled = [Q::scale(sums[i][0], scales, block.narrow); 4];
            for j in 1..4 {
                scaled[j] = Q::scale(sums[i][j], scales.add(4 * j), block.narrow);
            }
            let channels = block.channels;
            if !block.residual.is_null() {
                let at = *block.residual_offsets.add(first + i) as usize;
                let values = load::<Q>(block.residual.add(at), channels);
                scaled = Q::add(scaled, values, block.residual_zero_point, block.residual_scale);
            }
            let at = *block.output_offsets.add(first + i) as usize;
            store::<Q>(block.output.add(at), Q::narrow(scaled, block.epilogue), channels);
        }
    }
}
