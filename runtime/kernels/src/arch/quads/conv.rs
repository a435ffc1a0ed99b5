//! Convolution: tiles of up to four pixels × 16 columns.

use super::{Quads, load, store};
use crate::strided::{ConvBlock, reals};

/// Columns of a block.
pub(crate) const WIDTH: usize = 16;

/// `P` pixels from number `first` on.
///
/// # Safety
/// The processor, which has the instructions of `Q`, and the block, of the layout `NeonDot`; with
/// `rows` where `REAL`. It has `first + P` pixels.
#[inline(always)]
pub(crate) unsafe fn tile<Q: Quads, const P: usize, const REAL: bool>(
    block: &ConvBlock,
    first: usize,
) {
    // SAFETY: read are the 16 biases, the `steps` of each run of weights, 64 bytes each and all within
    // the block, and of each run of each pixel `4 · steps` bytes: eight or four at a time, as many as
    // there are.
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
        finish::<Q, P, REAL>(block, first, sums);
    }
}

/// Writes the outputs of `P` pixels; `REAL`: the reals.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
pub(crate) unsafe fn finish<Q: Quads, const P: usize, const REAL: bool>(
    block: &ConvBlock,
    first: usize,
    sums: [[Q::Sums; 4]; P],
) {
    // SAFETY: 16 scales follow 16 biases in the block. Of the block's channels, at most 16, each output
    // is written and each addend read, no further. The array of sums has 16.
    unsafe {
        if REAL {
            for i in 0..P {
                let mut row = [0i32; WIDTH];
                for j in 0..4 {
                    Q::write(sums[i][j], row.as_mut_ptr().add(4 * j));
                }
                reals(block, first + i, &row);
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
            store::<Q>(block.output.add(at), Q::narrow(scaled, block.finish), channels);
        }
    }
}
