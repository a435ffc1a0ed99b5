//! Depthwise convolution of 64 channels at a time.

use core::arch::x86_64::*;

use super::epilogue::{narrow, offset, scale_narrow, scale_wide, start};
use crate::arch::depthwise::{Channels, general, rolling};
use crate::strided::DepthwiseRows;

/// The bytes of a vector, which is also the number of channels in a block.
const VECTOR: usize = 64;

/// Computes some output rows.
///
/// # Safety
/// The CPU features and the contract of [`DepthwiseRows`].
pub(super) unsafe fn depthwise(block: &DepthwiseRows) {
    // SAFETY: the caller guarantees the CPU features and the contract of `DepthwiseRows`. The
    // kernel size and `columns_between` equal the const arguments of `known`.
    unsafe {
        match (block.kernel, block.columns_between) {
            ([3, 3], 1) => known::<3, 3, 1, 3>(block),
            ([3, 3], 2) => known::<3, 3, 2, 2>(block),
            ([5, 5], 1) => known::<5, 5, 1, 5>(block),
            ([5, 5], 2) => known::<5, 5, 2, 3>(block),
            ([7, 7], 2) => known::<7, 7, 2, 4>(block),
            _ => unknown(block),
        }
    }
}

/// # Safety
/// See [`rolling`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn known<const R: usize, const K: usize, const S: usize, const N: usize>(
    block: &DepthwiseRows,
) {
    // SAFETY: the caller guarantees the requirements of `rolling` for the same const arguments.
    unsafe { rolling::<All, R, K, S, N>(block) }
}

/// # Safety
/// The CPU features and the contract of [`DepthwiseRows`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn unknown(block: &DepthwiseRows) {
    // SAFETY: the caller guarantees the CPU features and the contract of `DepthwiseRows`.
    unsafe { general::<All>(block) }
}

/// Processes all channels of a block.
struct All;

/// The biases, the scales, and the offsets of [`scale_narrow`].
struct Ends {
    bias: [__m512i; 4],
    scale: [__m512; 4],
    offset: [__m512; 4],
}

/// # Safety
/// The CPU must support AVX-512 F, and 64 bytes must be readable `at` bytes past `rows[row]`.
#[inline(always)]
unsafe fn load(rows: &[*const u8], row: usize, at: usize) -> __m512i {
    // SAFETY: the caller guarantees AVX-512 F and 64 readable bytes, `at` bytes past `rows[row]`.
    unsafe { _mm512_loadu_si512(rows[row].add(at).cast()) }
}

impl Channels for All {
    type Ends = Ends;
    type Sums = [__m512i; 4];
    type Weights = [__m512i; 4];
    type Values = [__m512i; 4];

    const STEP: usize = 4 * VECTOR;

    #[inline(always)]
    unsafe fn ends(block: &DepthwiseRows) -> Ends {
        // SAFETY: the caller guarantees the CPU features. By the contract of `DepthwiseRows`,
        // `weights` is aligned to 64 and starts with 64 biases and 64 scales.
        unsafe {
            let begin = start(block.narrow);
            let zero = [_mm512_setzero_ps(); 4];
            let mut ends = Ends { bias: [begin; 4], scale: zero, offset: zero };
            for j in 0..4 {
                let terms = block.weights.add(VECTOR * j);
                ends.bias[j] = _mm512_add_epi32(_mm512_load_si512(terms.cast()), begin);
                ends.scale[j] = _mm512_load_ps(terms.add(4 * VECTOR).cast());
                ends.offset[j] = offset(ends.scale[j]);
            }
            ends
        }
    }

    #[inline(always)]
    unsafe fn start(ends: &Ends) -> Self::Sums {
        ends.bias
    }

    #[inline(always)]
    unsafe fn weights(block: &DepthwiseRows) -> *const u8 {
        // SAFETY: by the contract of `DepthwiseRows`, the 64 biases and 64 scales before the steps
        // belong to `weights`.
        unsafe { block.weights.add(8 * VECTOR) }
    }

    #[inline(always)]
    unsafe fn load(weights: *const u8) -> Self::Weights {
        // SAFETY: the caller guarantees the CPU features and a readable step, which has four
        // vectors of 64 bytes, aligned to 64.
        unsafe {
            let mut four = [_mm512_setzero_si512(); 4];
            for (j, vector) in four.iter_mut().enumerate() {
                *vector = _mm512_load_si512(weights.add(VECTOR * j).cast());
            }
            four
        }
    }

    #[inline(always)]
    unsafe fn interleave(rows: &[*const u8], at: usize) -> Self::Values {
        // SAFETY: the caller guarantees the CPU features, at least one row, and 64 readable bytes,
        // `at` bytes past each row pointer.
        unsafe {
            let a = load(rows, 0, at);
            let b = if rows.len() > 1 { load(rows, 1, at) } else { a };
            let c = if rows.len() > 2 { load(rows, 2, at) } else { b };
            let d = if rows.len() > 3 { load(rows, 3, at) } else { c };
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

    #[inline(always)]
    unsafe fn add(sums: &mut Self::Sums, values: Self::Values, weights: Self::Weights) {
        for j in 0..4 {
            // SAFETY: the caller guarantees AVX-512 VNNI.
            sums[j] = unsafe { _mm512_dpbusd_epi32(sums[j], values[j], weights[j]) };
        }
    }

    #[inline(always)]
    unsafe fn write(block: &DepthwiseRows, ends: &Ends, sums: Self::Sums, output: *mut u8) {
        // SAFETY: the caller guarantees the CPU features and that `channels` bytes, 1 to 64, are
        // writable at `output`. The mask has one bit per channel.
        unsafe {
            let mut scaled = ends.scale;
            if block.narrow {
                for j in 0..4 {
                    scaled[j] = scale_narrow(sums[j], ends.scale[j], ends.offset[j]);
                }
            } else {
                for j in 0..4 {
                    scaled[j] = scale_wide(sums[j], ends.scale[j]);
                }
            }
            let bytes = if block.epilogue.is_saturation() {
                narrow::<true>(scaled, block.epilogue)
            } else {
                narrow::<false>(scaled, block.epilogue)
            };
            if block.channels == VECTOR {
                _mm512_storeu_si512(output.cast(), bytes);
            } else {
                let mask = u64::MAX >> (64 - block.channels);
                _mm512_mask_storeu_epi8(output.cast(), mask, bytes);
            }
        }
    }
}
