//! Depthwise convolution: as that of the AVX-512 kernels, half of a block's channels at a time,
//! so that the sums of all outputs at work stay in registers.

use core::arch::x86_64::*;

use super::dot::Dot;
use super::finish::{clamp, round, scale, start};
use crate::packed::depthwise::ROWS;
use crate::strided::DepthwiseRows;

/// Bytes of a vector, which is the number of channels in a block.
const VECTOR: usize = 32;
/// Bytes of a block's terms.
const TERMS: usize = 8 * VECTOR;

/// Four rows at one place, channel by channel: of each lane the first eight channels, or the
/// last.
#[inline(always)]
unsafe fn interleave<const HALF: usize>(rows: &[*const u8], at: usize) -> [__m256i; 2] {
    // SAFETY: the caller passes rows that can be read there, with the slack behind them, and has
    // a processor with AVX2.
    unsafe {
        let [a, b, c, d] =
            [load(rows[0], at), load(rows[1], at), load(rows[2], at), load(rows[3], at)];
        let (ab, cd) = if HALF == 0 {
            (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d))
        } else {
            (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d))
        };
        [_mm256_unpacklo_epi16(ab, cd), _mm256_unpackhi_epi16(ab, cd)]
    }
}

/// The sums of half a block begin here.
#[inline(always)]
unsafe fn begin<const HALF: usize>(block: &DepthwiseRows) -> [__m256i; 2] {
    // SAFETY: the terms of a block begin it.
    unsafe {
        let first = start(block.narrow);
        let at = 2 * HALF * VECTOR;
        let (a, b) = (load(block.weights, at), load(block.weights, at + VECTOR));
        [_mm256_add_epi32(a, first), _mm256_add_epi32(b, first)]
    }
}

#[inline(always)]
unsafe fn write<const HALF: usize>(block: &DepthwiseRows, sums: [__m256i; 2], output: *mut u8) {
    // SAFETY: the terms of a block begin it; the caller passes an output, which has so
    // many channels.
    unsafe {
        let scales = block.weights.add(4 * VECTOR + 2 * HALF * VECTOR).cast::<f32>();
        let a = scale(sums[0], _mm256_loadu_ps(scales), block.narrow);
        let b = scale(sums[1], _mm256_loadu_ps(scales.add(8)), block.narrow);
        let words = round(a, b, block.finish);
        let bytes = clamp(words, words, block.finish);
        write_lane(block, output, 8 * HALF, _mm256_castsi256_si128(bytes));
        write_lane(block, output, 16 + 8 * HALF, _mm256_extracti128_si256(bytes, 1));
    }
}

/// Writes eight channels from `channel` on, as far as there are.
#[inline(always)]
unsafe fn write_lane(block: &DepthwiseRows, output: *mut u8, channel: usize, bytes: __m128i) {
    // SAFETY: as in `write`.
    unsafe {
        if channel + 8 <= block.channels {
            _mm_storel_epi64(output.add(channel).cast(), bytes);
        } else if channel < block.channels {
            let eight = _mm_cvtsi128_si64(bytes).to_le_bytes();
            let count = block.channels - channel;
            output.add(channel).copy_from_nonoverlapping(eight.as_ptr(), count);
        }
    }
}

#[inline(always)]
unsafe fn load(from: *const u8, at: usize) -> __m256i {
    // SAFETY: passed on.
    unsafe { _mm256_loadu_si256(from.add(at).cast()) }
}

#[inline(always)]
unsafe fn add_products<D: Dot>(
    sums: &mut [__m256i; 2],
    values: [D::Activations; 2],
    weights: *const u8,
) {
    for j in 0..2 {
        // SAFETY: the caller passes a step of the block's weights, and has the processor.
        unsafe {
            let weights = D::weights(load(weights, VECTOR * j));
            sums[j] = D::add(sums[j], values[j], weights);
        }
    }
}

/// A kernel of `K` columns and `G` times four rows whose windows are `S` columns apart, `N`
/// outputs at work at a time; half of the channels.
///
/// # Safety
/// As [`DepthwiseRows`] says; the processor has AVX2, FMA and the instructions of `D`.
#[inline(always)]
pub(super) unsafe fn rolling<
    D: Dot,
    const HALF: usize,
    const K: usize,
    const S: usize,
    const G: usize,
    const N: usize,
>(
    block: &DepthwiseRows,
) {
    // SAFETY: columns up to the last one's window are read, as the row promises, and the terms
    // and weights of its block.
    unsafe {
        let bias = begin::<HALF>(block);
        let weights = block.weights.add(TERMS + 2 * HALF * VECTOR);
        for row in 0..block.height {
            let mut sums = [bias; N];
            let mut at = row * block.row_step;
            let mut output = block.output.add(row * block.output_row_step);
            macro_rules! column {
                ($column:expr) => {{
                    for group in 0..G {
                        let rows = &block.rows[ROWS * group..ROWS * (group + 1)];
                        let [a, b] = interleave::<HALF>(rows, at);
                        let values = [D::activations(a), D::activations(b)];
                        for n in 0..N {
                            if $column >= n * S && $column - n * S < K {
                                let step = ($column - n * S) * G + group;
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
                write::<HALF>(block, sums[0], output);
                output = output.add(block.output_step);
                for n in 1..N {
                    sums[n - 1] = sums[n];
                }
                sums[N - 1] = bias;
            }
        }
    }
}

/// Any kernel and any distance of windows; half of the channels.
///
/// # Safety
/// As [`rolling`].
#[inline(always)]
pub(super) unsafe fn general<D: Dot, const HALF: usize>(block: &DepthwiseRows) {
    // SAFETY: as in `rolling`.
    unsafe {
        let bias = begin::<HALF>(block);
        let groups = block.kernel[0].div_ceil(ROWS);
        for row in 0..block.height {
            for index in 0..block.count {
                let mut sums = bias;
                let mut weights = block.weights.add(TERMS + 2 * HALF * VECTOR);
                for column in 0..block.kernel[1] {
                    let at = row * block.row_step
                        + index * block.window_step
                        + column * block.column_step;
                    for group in 0..groups {
                        let rows = &block.rows[ROWS * group..ROWS * (group + 1)];
                        let [a, b] = interleave::<HALF>(rows, at);
                        let values = [D::activations(a), D::activations(b)];
                        add_products::<D>(&mut sums, values, weights);
                        weights = weights.add(4 * VECTOR);
                    }
                }
                let output = row * block.output_row_step + index * block.output_step;
                write::<HALF>(block, sums, block.output.add(output));
            }
        }
    }
}
