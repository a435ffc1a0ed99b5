//! Depthwise convolution of 16 channels at a time.

use core::marker::PhantomData;

use super::{Vec128, store};
use crate::arch::depthwise::Channels;
use crate::strided::DepthwiseRows;

/// The bytes of a vector, which is also the number of channels in a block.
const VECTOR: usize = 16;

/// Processes all channels of a block.
pub(crate) struct All<Q>(PhantomData<Q>);

impl<Q: Vec128> Channels for All<Q> {
    type Ends = [Q::Sums; 4];
    type Sums = [Q::Sums; 4];
    type Weights = [Q::Bytes; 4];
    type Values = [Q::Bytes; 4];

    const STEP: usize = 4 * VECTOR;

    #[inline(always)]
    unsafe fn ends(block: &DepthwiseRows) -> Self::Ends {
        // SAFETY: the caller guarantees the CPU features. By the contract of `DepthwiseRows`,
        // `weights` starts with 16 biases.
        unsafe {
            let terms = block.weights.cast::<i32>();
            let mut bias = [Q::start(terms, block.narrow); 4];
            for j in 1..4 {
                bias[j] = Q::start(terms.add(4 * j), block.narrow);
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
        // SAFETY: by the contract of `DepthwiseRows`, the 16 biases and 16 scales before the steps
        // belong to `weights`.
        unsafe { block.weights.add(8 * VECTOR) }
    }

    #[inline(always)]
    unsafe fn load(weights: *const u8) -> Self::Weights {
        // SAFETY: the caller guarantees the CPU features and a readable step, which has four
        // vectors of 16 bytes.
        unsafe {
            [
                Q::load(weights),
                Q::load(weights.add(VECTOR)),
                Q::load(weights.add(2 * VECTOR)),
                Q::load(weights.add(3 * VECTOR)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn interleave(rows: &[*const u8], at: usize) -> Self::Values {
        // SAFETY: the caller guarantees the CPU features and 16 readable bytes, `at` bytes past
        // each row pointer.
        unsafe {
            let a = Q::load(rows[0].add(at));
            let b = if rows.len() > 1 { Q::load(rows[1].add(at)) } else { a };
            let c = if rows.len() > 2 { Q::load(rows[2].add(at)) } else { b };
            let d = if rows.len() > 3 { Q::load(rows[3].add(at)) } else { c };
            Q::interleave([a, b, c, d])
        }
    }

    #[inline(always)]
    unsafe fn add(sums: &mut Self::Sums, values: Self::Values, weights: Self::Weights) {
        for j in 0..4 {
            // SAFETY: the caller guarantees the CPU features.
            sums[j] = unsafe { Q::dot(sums[j], values[j], weights[j]) };
        }
    }

    #[inline(always)]
    unsafe fn write(block: &DepthwiseRows, _: &Self::Ends, sums: Self::Sums, output: *mut u8) {
        // SAFETY: the caller guarantees the CPU features and that `channels` bytes, at most 16, are
        // writable at `output`. By the contract of `DepthwiseRows`, 16 scales follow the 16 biases.
        unsafe {
            let scales = block.weights.add(4 * VECTOR).cast::<f32>();
            let mut scaled = [Q::scale(sums[0], scales, block.narrow); 4];
            for j in 1..4 {
                scaled[j] = Q::scale(sums[j], scales.add(4 * j), block.narrow);
            }
            store::<Q>(output, Q::narrow(scaled, block.epilogue), block.channels);
        }
    }
}
