//! Convolution: tiles of up to four pixels × 16 columns.

use core::arch::aarch64::*;

use super::dot::Dot;
use super::finish::{add, load, narrow, scale, start, store};
use crate::strided::ConvBlock;

/// Columns of a block.
const WIDTH: usize = 16;

/// `P` pixels from number `first` on.
///
/// # Safety
/// As [`ConvBlock`] says; the processor has the instructions of `D`.
#[inline(always)]
pub(super) unsafe fn tile<D: Dot, const P: usize>(block: &ConvBlock, first: usize) {
    // SAFETY: everything read and written is what the block promises: its terms and weights,
    // the runs of its pixels and up to three bytes behind each, and its channels of each output
    // and addend.
    unsafe {
        let begin = start(block.narrow);
        let terms = block.weights.cast::<i32>();
        let mut bias = [begin; 4];
        for j in 0..4 {
            bias[j] = vaddq_s32(vld1q_s32(terms.add(4 * j)), begin);
        }
        let mut sums = [bias; P];
        let mut pixels = [block.input; P];
        for i in 0..P {
            pixels[i] = block.input.add(*block.input_offsets.add(first + i) as usize);
        }
        let mut weights = block.weights.add(8 * WIDTH).cast::<i8>();
        let mut down = 0;
        for _ in 0..block.runs[0] {
            let mut across = down;
            for _ in 0..block.runs[1] {
                for step in 0..block.steps {
                    let at = across + 4 * step;
                    let columns = [
                        vld1q_s8(weights),
                        vld1q_s8(weights.add(16)),
                        vld1q_s8(weights.add(32)),
                        vld1q_s8(weights.add(48)),
                    ];
                    for i in 0..P {
                        let four = pixels[i].add(at).cast::<i32>().read_unaligned();
                        let four = vreinterpretq_s8_s32(vdupq_n_s32(four));
                        for j in 0..4 {
                            sums[i][j] = D::add(sums[i][j], four, columns[j]);
                        }
                    }
                    weights = weights.add(4 * WIDTH);
                }
                across += block.run_step[1];
            }
            down += block.run_step[0];
        }

        let scales = block.weights.add(4 * WIDTH).cast::<f32>();
        for i in 0..P {
            let mut scaled = [vdupq_n_f32(0.0); 4];
            for j in 0..4 {
                scaled[j] = scale(sums[i][j], vld1q_f32(scales.add(4 * j)), block.narrow);
            }
            let channels = block.channels;
            if !block.residual.is_null() {
                let at = *block.residual_offsets.add(first + i) as usize;
                let values = load(block.residual.add(at), channels);
                scaled = add(scaled, values, block.residual_zero_point, block.residual_scale);
            }
            let at = *block.output_offsets.add(first + i) as usize;
            store(block.output.add(at), narrow(scaled, block.finish), channels);
        }
    }
}
