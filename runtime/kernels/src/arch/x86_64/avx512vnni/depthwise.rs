//! Depthwise convolution: four rows of the image are interleaved, so that one instruction adds
//! the products of a column of the kernel; each column of the image is interleaved once and
//! used for every output it belongs to.

use core::arch::x86_64::*;

use super::finish::{narrow, offset, scale_narrow, scale_wide, start};
use crate::packed::depthwise::ROWS;
use crate::strided::DepthwiseRows;

/// Bytes of a vector, which is the number of channels in a block.
const VECTOR: usize = 64;
/// Bytes of a block's terms.
const TERMS: usize = 8 * VECTOR;

/// Runs some rows.
///
/// # Safety
/// As [`DepthwiseRows`] says; the processor has the instruction set.
pub(super) unsafe fn depthwise(block: &DepthwiseRows) {
    // SAFETY: passed on.
    unsafe {
        match (block.kernel, block.columns_between) {
            ([3, 3], 1) => rolling::<3, 3, 1, 3>(block),
            ([3, 3], 2) => rolling::<3, 3, 2, 2>(block),
            ([5, 5], 1) => rolling::<5, 5, 1, 5>(block),
            ([5, 5], 2) => rolling::<5, 5, 2, 3>(block),
            ([7, 7], 2) => rolling::<7, 7, 2, 4>(block),
            _ => general(block),
        }
    }
}

/// Four rows at one place, channel by channel; the last stands for those beyond.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn interleave(rows: &[*const u8], at: usize) -> [__m512i; 4] {
    // SAFETY: the caller passes rows that can be read there, with the slack behind them.
    unsafe {
        let load = |row: usize| _mm512_loadu_si512(rows[row].add(at).cast());
        let a = load(0);
        let b = if rows.len() > 1 { load(1) } else { a };
        let c = if rows.len() > 2 { load(2) } else { b };
        let d = if rows.len() > 3 { load(3) } else { c };
        let (ab, ab_high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
        let (cd, cd_high) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
        [
            _mm512_unpacklo_epi16(ab, cd),
            _mm512_unpackhi_epi16(ab, cd),
            _mm512_unpacklo_epi16(ab_high, cd_high),
            _mm512_unpackhi_epi16(ab_high, cd_high),
        ]
    }
}

/// What every output begins with and ends in.
struct Ends {
    bias: [__m512i; 4],
    scale: [__m512; 4],
    offset: [__m512; 4],
}

impl Ends {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn read(block: &DepthwiseRows) -> Self {
        // SAFETY: the terms of a block begin it.
        unsafe {
            let begin = start(block.narrow);
            let zero = [_mm512_setzero_ps(); 4];
            let mut ends = Self { bias: [begin; 4], scale: zero, offset: zero };
            for j in 0..4 {
                let bias = _mm512_load_si512(block.weights.add(VECTOR * j).cast());
                ends.bias[j] = _mm512_add_epi32(bias, begin);
                ends.scale[j] = _mm512_load_ps(block.weights.add(4 * VECTOR + VECTOR * j).cast());
                ends.offset[j] = offset(ends.scale[j]);
            }
            ends
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn write(&self, block: &DepthwiseRows, sums: [__m512i; 4], output: *mut u8) {
        let mut scaled = self.scale;
        if block.narrow {
            for j in 0..4 {
                scaled[j] = scale_narrow(sums[j], self.scale[j], self.offset[j]);
            }
        } else {
            for j in 0..4 {
                scaled[j] = scale_wide(sums[j], self.scale[j]);
            }
        }
        let bytes = if block.finish.is_saturation() {
            narrow::<true>(scaled, block.finish)
        } else {
            narrow::<false>(scaled, block.finish)
        };
        // SAFETY: the caller passes an output, which has so many channels.
        unsafe {
            if block.channels == VECTOR {
                _mm512_storeu_si512(output.cast(), bytes);
            } else {
                _mm512_mask_storeu_epi8(output.cast(), u64::MAX >> (64 - block.channels), bytes);
            }
        }
    }
}

/// A step of a block's weights.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_weights(weights: *const u8) -> [__m512i; 4] {
    // SAFETY: the caller passes a step of the block's weights.
    let load = |j: usize| unsafe { _mm512_load_si512(weights.add(VECTOR * j).cast()) };
    [load(0), load(1), load(2), load(3)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn add_products(sums: &mut [__m512i; 4], values: [__m512i; 4], weights: [__m512i; 4]) {
    for j in 0..4 {
        sums[j] = _mm512_dpbusd_epi32(sums[j], values[j], weights[j]);
    }
}

/// A kernel of `R` rows and `K` columns whose windows are `S` columns apart, `N` outputs at work
/// at a time.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn rolling<const R: usize, const K: usize, const S: usize, const N: usize>(
    block: &DepthwiseRows,
) {
    // SAFETY: columns up to the last one's window are read, as the row promises, and the terms
    // and weights of its block.
    unsafe {
        let ends = Ends::read(block);
        let weights = block.weights.add(TERMS);
        let groups = const { R.div_ceil(ROWS) };
        // Few enough to stay in registers.
        let held = if K * groups == 3 {
            [0, 1, 2].map(|step| load_weights(weights.add(4 * VECTOR * step)))
        } else {
            [[_mm512_setzero_si512(); 4]; 3]
        };
        for row in 0..block.height {
            let mut sums = [ends.bias; N];
            let mut at = row * block.row_step;
            let mut output = block.output.add(row * block.output_row_step);
            // Column `$column` of the image, counted from the first window at work.
            macro_rules! column {
                ($column:expr) => {{
                    for group in 0..groups {
                        let rows = &block.rows[ROWS * group..R.min(ROWS * (group + 1))];
                        let values = interleave(rows, at);
                        for n in 0..N {
                            if $column >= n * S && $column - n * S < K {
                                let step = ($column - n * S) * groups + group;
                                let weights = if K * groups == 3 {
                                    held[step]
                                } else {
                                    load_weights(weights.add(4 * VECTOR * step))
                                };
                                add_products(&mut sums[n], values, weights);
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
                ends.write(block, sums[0], output);
                output = output.add(block.output_step);
                for n in 1..N {
                    sums[n - 1] = sums[n];
                }
                sums[N - 1] = ends.bias;
            }
        }
    }
}

/// Any kernel and any distance of windows.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn general(block: &DepthwiseRows) {
    // SAFETY: as in `rolling`.
    unsafe {
        let ends = Ends::read(block);
        let groups = block.kernel[0].div_ceil(ROWS);
        for row in 0..block.height {
            for index in 0..block.count {
                let mut sums = ends.bias;
                let mut weights = block.weights.add(TERMS);
                for column in 0..block.kernel[1] {
                    let at = row * block.row_step
                        + index * block.window_step
                        + column * block.column_step;
                    for group in 0..groups {
                        let rows = &block.rows[ROWS * group..ROWS * (group + 1)];
                        let values = interleave(rows, at);
                        add_products(&mut sums, values, load_weights(weights));
                        weights = weights.add(4 * VECTOR);
                    }
                }
                let output = row * block.output_row_step + index * block.output_step;
                ends.write(block, sums, block.output.add(output));
            }
        }
    }
}
