//! Depthwise convolution of half of a block's 32 channels at a time, so that the accumulators of
//! all outputs in progress stay in registers.

use core::arch::x86_64::*;
use core::marker::PhantomData;

use super::dot::Dot;
use super::epilogue::{clamp, round, scale, start};
use crate::arch::depthwise::Channels;
use crate::strided::DepthwiseRows;

/// The bytes of a vector, which is also the number of channels in a block.
const VECTOR: usize = 32;

/// Processes the first (`HALF` = 0) or last (`HALF` = 1) eight channels of each 16-byte lane.
pub(super) struct Half<D, const HALF: usize>(PhantomData<D>);

impl<D: Dot, const HALF: usize> Half<D, HALF> {
    /// The offset of this half's bytes in four vectors.
    const SKIP: usize = 2 * HALF * VECTOR;

    /// Writes up to eight channels from `channel`, as many as the block has.
    ///
    /// # Safety
    /// The CPU features. `block.channels` bytes must be writable at `output`.
    #[inline(always)]
    unsafe fn write_lane(block: &DepthwiseRows, output: *mut u8, channel: usize, bytes: __m128i) {
        // SAFETY: the caller guarantees that `channels` bytes are writable at `output`; no others
        // are written.
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
}

/// # Safety
/// The CPU must support AVX2, and 32 bytes must be readable `at` bytes past `from`.
#[inline(always)]
unsafe fn load(from: *const u8, at: usize) -> __m256i {
    // SAFETY: the caller guarantees AVX2 and 32 readable bytes, `at` bytes past `from`.
    unsafe { _mm256_loadu_si256(from.add(at).cast()) }
}

impl<D: Dot, const HALF: usize> Channels for Half<D, HALF> {
    type Ends = [__m256i; 2];
    type Sums = [__m256i; 2];
    type Weights = [D::Weights; 2];
    type Values = [D::Activations; 2];

    const STEP: usize = 4 * VECTOR;

    #[inline(always)]
    unsafe fn ends(block: &DepthwiseRows) -> Self::Ends {
        // SAFETY: the caller guarantees the CPU features. By the contract of `DepthwiseRows`,
        // `weights` starts with 32 biases, of which 16 belong to this half.
        unsafe {
            let begin = start(block.narrow);
            let (a, b) =
                (load(block.weights, Self::SKIP), load(block.weights, Self::SKIP + VECTOR));
            [_mm256_add_epi32(a, begin), _mm256_add_epi32(b, begin)]
        }
    }

    #[inline(always)]
    unsafe fn start(ends: &Self::Ends) -> Self::Sums {
        *ends
    }

    #[inline(always)]
    unsafe fn weights(block: &DepthwiseRows) -> *const u8 {
        // SAFETY: by the contract of `DepthwiseRows`, the 32 biases and 32 scales before the steps,
        // and the first step, belong to `weights`.
        unsafe { block.weights.add(8 * VECTOR + Self::SKIP) }
    }

    #[inline(always)]
    unsafe fn load(weights: *const u8) -> Self::Weights {
        // SAFETY: the caller guarantees the CPU features and a readable step; this half of it has
        // two vectors of 32 bytes.
        unsafe { [D::weights(load(weights, 0)), D::weights(load(weights, VECTOR))] }
    }

    #[inline(always)]
    unsafe fn interleave(rows: &[*const u8], at: usize) -> Self::Values {
        // SAFETY: the caller guarantees the CPU features and 32 readable bytes, `at` bytes past
        // each row pointer.
        unsafe {
            let a = load(rows[0], at);
            let b = if rows.len() > 1 { load(rows[1], at) } else { a };
            let c = if rows.len() > 2 { load(rows[2], at) } else { b };
            let d = if rows.len() > 3 { load(rows[3], at) } else { c };
            let (ab, cd) = if HALF == 0 {
                (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d))
            } else {
                (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d))
            };
            [
                D::activations(_mm256_unpacklo_epi16(ab, cd)),
                D::activations(_mm256_unpackhi_epi16(ab, cd)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn add(sums: &mut Self::Sums, values: Self::Values, weights: Self::Weights) {
        // SAFETY: the caller guarantees the CPU features.
        unsafe {
            sums[0] = D::add(sums[0], values[0], weights[0]);
            sums[1] = D::add(sums[1], values[1], weights[1]);
        }
    }

    #[inline(always)]
    unsafe fn write(block: &DepthwiseRows, _: &Self::Ends, sums: Self::Sums, output: *mut u8) {
        // SAFETY: the caller guarantees the CPU features and that `channels` bytes are writable at
        // `output`. By the contract of `DepthwiseRows`, 32 scales follow the 32 biases, of which 16
        // belong to this half.
        unsafe {
            let scales = block.weights.add(4 * VECTOR + Self::SKIP).cast::<f32>();
            let a = scale(sums[0], _mm256_loadu_ps(scales), block.narrow);
            let b = scale(sums[1], _mm256_loadu_ps(scales.add(8)), block.narrow);
            let words = round(a, b, block.epilogue);
            let bytes = clamp(words, words, block.epilogue);
            let (low, high) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
            Self::write_lane(block, output, 8 * HALF, low);
            Self::write_lane(block, output, 16 + 8 * HALF, high);
        }
    }
}
