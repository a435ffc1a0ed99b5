//! Depthwise convolution: four rows of the image are interleaved, so that one instruction adds
//! the products of a column of the kernel; each column of the image is interleaved once and
//! used for every output it belongs to.

use core::arch::aarch64::*;

use super::dot::Dot;
use super::finish::{narrow, scale, start, store};
use crate::packed::depthwise::ROWS;
use crate::strided::DepthwiseRows;

/// Bytes of a vector, which is the number of channels in a block.
const VECTOR: usize = 16;
/// Bytes of a block's terms.
const TERMS: usize = 8 * VECTOR;

/// Four rows at one place, channel by channel; the last stands for those beyond.
#[inline(always)]
unsafe fn interleave(rows: &[*const u8], at: usize) -> [int8x16_t; 4] {
    // SAFETY: the caller passes rows that can be read there, with the slack behind them.
    unsafe {
        let a = vld1q_s8(rows[0].add(at).cast());
        let b = if rows.len() > 1 { vld1q_s8(rows[1].add(at).cast()) } else { a };
        let c = if rows.len() > 2 { vld1q_s8(rows[2].add(at).cast()) } else { b };
        let d = if rows.len() > 3 { vld1q_s8(rows[3].add(at).cast()) } else { c };
        let ab = vreinterpretq_s16_s8(vzip1q_s8(a, b));
        let ab_high = vreinterpretq_s16_s8(vzip2q_s8(a, b));
        let cd = vreinterpretq_s16_s8(vzip1q_s8(c, d));
        let cd_high = vreinterpretq_s16_s8(vzip2q_s8(c, d));
        [
            vreinterpretq_s8_s16(vzip1q_s16(ab, cd)),
            vreinterpretq_s8_s16(vzip2q_s16(ab, cd)),
            vreinterpretq_s8_s16(vzip1q_s16(ab_high, cd_high)),
            vreinterpretq_s8_s16(vzip2q_s16(ab_high, cd_high)),
        ]
    }
}

#[inline(always)]
unsafe fn begin(block: &DepthwiseRows) -> [int32x4_t; 4] {
    // SAFETY: the terms of a block begin it.
    unsafe {
        let first = start(block.narrow);
        let mut bias = [first; 4];
        for j in 0..4 {
            bias[j] = vaddq_s32(vld1q_s32(block.weights.cast::<i32>().add(4 * j)), first);
        }
        bias
    }
}

#[inline(always)]
unsafe fn write(block: &DepthwiseRows, sums: [int32x4_t; 4], output: *mut u8) {
    // SAFETY: the terms of a block begin it; the caller passes an output, which has so many
    // channels.
    unsafe {
        let scales = block.weights.add(4 * VECTOR).cast::<f32>();
        let mut scaled = [vdupq_n_f32(0.0); 4];
        for j in 0..4 {
            scaled[j] = scale(sums[j], vld1q_f32(scales.add(4 * j)), block.narrow);
        }
        store(output, narrow(scaled, block.finish), block.channels);
    }
}

#[inline(always)]
unsafe fn add_products<D: Dot>(
    sums: &mut [int32x4_t; 4],
    values: [int8x16_t; 4],
    weights: *const u8,
) {
    for j in 0..4 {
        // SAFETY: the caller passes a step of the block's weights, and has the processor.
        unsafe {
            let weights = vld1q_s8(weights.add(VECTOR * j).cast());
            sums[j] = D::add(sums[j], values[j], weights);
        }
    }
}

/// A kernel of `R` rows and `K` columns whose windows are `S` columns apart, `N` outputs at work
/// at a time.
///
/// # Safety
/// As [`DepthwiseRows`] says; the processor has the instructions of `D`.
#[inline(always)]
pub(super) unsafe fn rolling<
    D: Dot,
    const R: usize,
    const K: usize,
    const S: usize,
    const N: usize,
>(
    block: &DepthwiseRows,
) {
    // SAFETY: columns up to the last one's window are read, as the rows promise, and the terms
    // and weights of their block.
    unsafe {
        let groups = const { R.div_ceil(ROWS) };
        let bias = begin(block);
        let weights = block.weights.add(TERMS);
        for row in 0..block.height {
            let mut sums = [bias; N];
            let mut at = row * block.row_step;
            let mut output = block.output.add(row * block.output_row_step);
            macro_rules! column {
                ($column:expr) => {{
                    for group in 0..groups {
                        let rows = &block.rows[ROWS * group..R.min(ROWS * (group + 1))];
                        let values = interleave(rows, at);
                        for n in 0..N {
                            if $column >= n * S && $column - n * S < K {
                                let step = ($column - n * S) * groups + group;
                                let weights = weights.add(4 * VECTOR * step);
                                add_products::<D>(&mut sums[n], values, weights);
                            }
                        }
                    }
                    at += block.column_step;
                }};
            }
            for column in 0..K - S {
                column!(column);
            }
            for _ in 0..block.count {
                for column in K - S..K {
                    column!(column);
                }
                write(block, sums[0], output);
                output = output.add(block.output_step);
                for n in 1..N {
                    sums[n - 1] = sums[n];
                }
                sums[N - 1] = bias;
            }
        }
    }
}

/// Any kernel and any distance of windows.
///
/// # Safety
/// As [`rolling`].
#[inline(always)]
pub(super) unsafe fn general<D: Dot>(block: &DepthwiseRows) {
    // SAFETY: as in `rolling`.
    unsafe {
        let bias = begin(block);
        let groups = block.kernel[0].div_ceil(ROWS);
        for row in 0..block.height {
            for index in 0..block.count {
                let mut sums = bias;
                let mut weights = block.weights.add(TERMS);
                for column in 0..block.kernel[1] {
                    let at = row * block.row_step
                        + index * block.window_step
                        + column * block.column_step;
                    for group in 0..groups {
                        let rows = &block.rows[ROWS * group..ROWS * (group + 1)];
                        let values = interleave(rows, at);
                        add_products::<D>(&mut sums, values, weights);
                        weights = weights.add(4 * VECTOR);
                    }
                }
                let output = row * block.output_row_step + index * block.output_step;
                write(block, sums, block.output.add(output));
            }
        }
    }
}
