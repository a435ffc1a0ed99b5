//! Depthwise convolution, half of a block's 32 channels at a time, so that the sums of all outputs
//! at work stay in registers.

use core::arch::x86_64::*;
use core::marker::PhantomData;

use super::dot::Dot;
use super::finish::{clamp, round, scale, start};
use crate::arch::depthwise::Channels;
use crate::strided::DepthwiseRows;

/// Bytes of a vector, which is the number of channels in a block.
const VECTOR: usize = 32;

/// Of each lane the first eight channels, or the last.
pub(super) struct Half<D, const HALF: usize>(PhantomData<D>);

impl<D: Dot, const HALF: usize> Half<D, HALF> {
    /// Bytes of a block before this half's, of four vectors.
    const SKIP: usize = 2 * HALF * VECTOR;

    /// Writes eight channels from `channel` on, as far as there are.
    ///
    /// # Safety
    /// The processor and the rows; `output` is the place of an output.
    #[inline(always)]
    unsafe fn write_lane(block: &DepthwiseRows, output: *mut u8, channel: usize, bytes: __m128i) {
        // SAFETY: `channels` bytes can be written at `output`, and no other is.
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
/// The processor. 32 bytes can be read `at` bytes behind `from`.
#[inline(always)]
unsafe fn load(from: *const u8, at: usize) -> __m256i {
    // SAFETY: 32 bytes can be read there.
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
        // SAFETY: the processor and the rows: weights begin with 32 biases, of which 16 are this half's.
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
        // SAFETY: the rows: 32 biases and 32 scales come before the steps.
        unsafe { block.weights.add(8 * VECTOR + Self::SKIP) }
    }

    #[inline(always)]
    unsafe fn load(weights: *const u8) -> Self::Weights {
        // SAFETY: the processor; this half of a step has two vectors, of 32 bytes.
        unsafe { [D::weights(load(weights, 0)), D::weights(load(weights, VECTOR))] }
    }

    #[inline(always)]
    unsafe fn interleave(rows: &[*const u8], at: usize) -> Self::Values {
        // SAFETY: the processor; a vector, of 32 bytes, can be read `at` bytes behind each row.
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
        // SAFETY: the processor.
        unsafe {
            sums[0] = D::add(sums[0], values[0], weights[0]);
            sums[1] = D::add(sums[1], values[1], weights[1]);
        }
    }

    #[inline(always)]
    unsafe fn write(block: &DepthwiseRows, _: &Self::Ends, sums: Self::Sums, output: *mut u8) {
        // SAFETY: the processor and the rows: 32 scales, of which 16 are this half's, follow 32 biases,
        // and `channels` bytes can be written at `output`.
        unsafe {
            let scales = block.weights.add(4 * VECTOR + Self::SKIP).cast::<f32>();
            let a = scale(sums[0], _mm256_loadu_ps(scales), block.narrow);
            let b = scale(sums[1], _mm256_loadu_ps(scales.add(8)), block.narrow);
            let words = round(a, b, block.finish);
            let bytes = clamp(words, words, block.finish);
            let (low, high) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
            Self::write_lane(block, output, 8 * HALF, low);
            Self::write_lane(block, output, 16 + 8 * HALF, high);
        }
    }
}
