//! Depthwise convolution: four rows of the image are interleaved, so that one instruction adds
//! the products of a column of the kernel; each column of the image is interleaved once and
//! used for every output it belongs to.

use core::arch::x86_64::*;

use super::finish::{narrow, scale_narrow, scale_wide, start};
use crate::packed::depthwise::ROWS;
use crate::strided::DepthwiseRow;

/// Bytes of a vector, which is the number of channels in a block.
const VECTOR: usize = 64;
/// Bytes of a block's terms.
const TERMS: usize = 8 * VECTOR;

/// Runs a row.
///
/// # Safety
/// As [`DepthwiseRow`] says; the processor has the instruction set.
pub(super) unsafe fn depthwise(row: &DepthwiseRow) {
    let groups = row.kernel[0].div_ceil(ROWS);
    // SAFETY: passed on.
    unsafe {
        match (row.kernel[1], row.columns_between, groups) {
            (3, 1, 1) => rolling::<3, 1, 1, 3>(row),
            (3, 2, 1) => rolling::<3, 2, 1, 2>(row),
            (5, 1, 2) => rolling::<5, 1, 2, 5>(row),
            (5, 2, 2) => rolling::<5, 2, 2, 3>(row),
            (7, 2, 2) => rolling::<7, 2, 2, 4>(row),
            _ => general(row),
        }
    }
}

/// Four rows at one place, channel by channel.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn interleave(rows: &[*const u8], at: usize) -> [__m512i; 4] {
    // SAFETY: the caller passes rows that can be read there, with the slack behind them.
    unsafe {
        let load = |row: usize| _mm512_loadu_si512(rows[row].add(at).cast());
        let (a, b, c, d) = (load(0), load(1), load(2), load(3));
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
}

impl Ends {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn read(row: &DepthwiseRow) -> Self {
        // SAFETY: the terms of a block begin it.
        unsafe {
            let begin = start(row.narrow);
            let mut ends = Self { bias: [begin; 4], scale: [_mm512_setzero_ps(); 4] };
            for j in 0..4 {
                let bias = _mm512_load_si512(row.weights.add(VECTOR * j).cast());
                ends.bias[j] = _mm512_add_epi32(bias, begin);
                ends.scale[j] = _mm512_load_ps(row.weights.add(4 * VECTOR + VECTOR * j).cast());
            }
            ends
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn write(&self, row: &DepthwiseRow, sums: [__m512i; 4], output: usize) {
        let mut scaled = self.scale;
        if row.narrow {
            for (scaled, sum) in scaled.iter_mut().zip(sums) {
                *scaled = scale_narrow(sum, *scaled);
            }
        } else {
            for (scaled, sum) in scaled.iter_mut().zip(sums) {
                *scaled = scale_wide(sum, *scaled);
            }
        }
        let bytes = if row.finish.is_saturation() {
            narrow::<true>(scaled, row.finish)
        } else {
            narrow::<false>(scaled, row.finish)
        };
        // SAFETY: the row has as many outputs, of so many channels.
        unsafe {
            let output = row.output.add(output * row.output_step);
            if row.channels == VECTOR {
                _mm512_storeu_si512(output.cast(), bytes);
            } else {
                _mm512_mask_storeu_epi8(output.cast(), u64::MAX >> (64 - row.channels), bytes);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn add_products(sums: &mut [__m512i; 4], values: [__m512i; 4], weights: *const u8) {
    for (j, (sum, values)) in sums.iter_mut().zip(values).enumerate() {
        // SAFETY: the caller passes a step of the block's weights.
        let weights = unsafe { _mm512_load_si512(weights.add(VECTOR * j).cast()) };
        *sum = _mm512_dpbusd_epi32(*sum, values, weights);
    }
}

/// A kernel of `K` columns and `G` times four rows whose windows are `S` columns apart, `N`
/// outputs at work at a time.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn rolling<const K: usize, const S: usize, const G: usize, const N: usize>(
    row: &DepthwiseRow,
) {
    // SAFETY: columns up to the last one's window are read, as the row promises, and the terms
    // and weights of its block.
    unsafe {
        let ends = Ends::read(row);
        let weights = row.weights.add(TERMS);
        let mut sums = [ends.bias; N];
        let mut at = 0;
        // Column `$column` of the image, counted from the first window at work.
        macro_rules! column {
            ($column:expr) => {{
                for group in 0..G {
                    let values = interleave(&row.rows[ROWS * group..ROWS * (group + 1)], at);
                    for n in 0..N {
                        if $column >= n * S && $column - n * S < K {
                            let step = ($column - n * S) * G + group;
                            add_products(&mut sums[n], values, weights.add(4 * VECTOR * step));
                        }
                    }
                }
                at += row.column_step;
            }};
        }
        for column in 0..K - S {
            column!(column);
        }
        for output in 0..row.count {
            for column in K - S..K {
                column!(column);
            }
            ends.write(row, sums[0], output);
            for n in 1..N {
                sums[n - 1] = sums[n];
            }
            sums[N - 1] = ends.bias;
        }
    }
}

/// Any kernel and any distance of windows.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn general(row: &DepthwiseRow) {
    // SAFETY: as in `rolling`.
    unsafe {
        let ends = Ends::read(row);
        let groups = row.kernel[0].div_ceil(ROWS);
        for output in 0..row.count {
            let mut sums = ends.bias;
            let mut weights = row.weights.add(TERMS);
            for column in 0..row.kernel[1] {
                let at = output * row.window_step + column * row.column_step;
                for group in 0..groups {
                    let values = interleave(&row.rows[ROWS * group..ROWS * (group + 1)], at);
                    add_products(&mut sums, values, weights);
                    weights = weights.add(4 * VECTOR);
                }
            }
            ends.write(row, sums, output);
        }
    }
}
