//! Depthwise convolution, 16 channels at a time.

use core::arch::aarch64::*;
use core::marker::PhantomData;

use super::dot::Dot;
use super::finish::{narrow, scale, start, store};
use crate::arch::depthwise::Channels;
use crate::strided::DepthwiseRows;

/// Bytes of a vector, which is the number of channels in a block.
const VECTOR: usize = 16;

/// All channels of a block.
pub(super) struct All<D>(PhantomData<D>);

#[inline(always)]
unsafe fn load(from: *const u8, at: usize) -> int8x16_t {
    // SAFETY: passed on.
    unsafe { vld1q_s8(from.add(at).cast()) }
}

impl<D: Dot> Channels for All<D> {
    type Ends = [int32x4_t; 4];
    type Sums = [int32x4_t; 4];
    type Weights = [int8x16_t; 4];
    type Values = [int8x16_t; 4];

    const STEP: usize = 4 * VECTOR;

    #[inline(always)]
    unsafe fn ends(block: &DepthwiseRows) -> Self::Ends {
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
    unsafe fn start(ends: &Self::Ends) -> Self::Sums {
        *ends
    }

    #[inline(always)]
    unsafe fn weights(block: &DepthwiseRows) -> *const u8 {
        // SAFETY: weights follow the terms.
        unsafe { block.weights.add(8 * VECTOR) }
    }

    #[inline(always)]
    unsafe fn load(weights: *const u8) -> Self::Weights {
        // SAFETY: passed on.
        unsafe {
            [
                load(weights, 0),
                load(weights, VECTOR),
                load(weights, 2 * VECTOR),
                load(weights, 3 * VECTOR),
            ]
        }
    }

    #[inline(always)]
    unsafe fn interleave(rows: &[*const u8], at: usize) -> Self::Values {
        // SAFETY: passed on.
        unsafe {
            let a = load(rows[0], at);
            let b = if rows.len() > 1 { load(rows[1], at) } else { a };
            let c = if rows.len() > 2 { load(rows[2], at) } else { b };
            let d = if rows.len() > 3 { load(rows[3], at) } else { c };
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
    unsafe fn add(sums: &mut Self::Sums, values: Self::Values, weights: Self::Weights) {
        for j in 0..4 {
            // SAFETY: passed on.
            sums[j] = unsafe { D::add(sums[j], values[j], weights[j]) };
        }
    }

    #[inline(always)]
    unsafe fn write(block: &DepthwiseRows, _: &Self::Ends, sums: Self::Sums, output: *mut u8) {
        // SAFETY: the terms of a block begin it; the rest is passed on.
        unsafe {
            let scales = block.weights.add(4 * VECTOR).cast::<f32>();
            let mut scaled = [vdupq_n_f32(0.0); 4];
            for j in 0..4 {
                scaled[j] = scale(sums[j], vld1q_f32(scales.add(4 * j)), block.narrow);
            }
            store(output, narrow(scaled, block.finish), block.channels);
        }
    }
}
