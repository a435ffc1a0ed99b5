//! Convolution with the INT8 matrix multiply instruction `smmla`: two pixels × eight elements times
//! eight elements × two columns give four accumulators.

use core::arch::aarch64::*;
use core::arch::asm;
use core::hint::black_box;

use super::neon::{Neon, Sdot};
use crate::arch::vec128::Vec128;
use crate::arch::vec128::conv::{WIDTH, epilogue};
use crate::strided::ConvBlock;

/// Adds the dot products of the 8-byte rows of `a` and `w`: `a0·w0, a0·w1, a1·w0, a1·w1`. Uses
/// inline assembly, because Rust has no stable intrinsic.
///
/// # Safety
/// The CPU must support I8MM.
#[inline(always)]
unsafe fn multiply(sums: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
    let mut result = sums;
    // SAFETY: the caller guarantees I8MM. The instruction accesses only registers.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {a:v}.16b, {w:v}.16b",
            sums = inout(vreg) result,
            a = in(vreg) a,
            w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    result
}

/// Returns the low halves of both vectors, and the high halves.
///
/// # Safety
/// No requirements: NEON is part of the AArch64 baseline.
#[inline(always)]
unsafe fn halves(a: int32x4_t, b: int32x4_t) -> [int32x4_t; 2] {
    // SAFETY: NEON is part of the AArch64 baseline.
    unsafe {
        let (a, b) = (vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b));
        [vreinterpretq_s32_s64(vzip1q_s64(a, b)), vreinterpretq_s32_s64(vzip2q_s64(a, b))]
    }
}

/// Computes `P` pixels from index `first`. A single pixel is computed twice.
///
/// # Safety
/// See [`conv::tile`](crate::arch::vec128::conv::tile). The CPU must support I8MM.
#[inline(always)]
pub(super) unsafe fn tile<const P: usize, const REAL: bool>(block: &ConvBlock, first: usize) {
    // SAFETY: reads the 16 biases and, for each run, `steps` steps of 64 weights, which all belong
    // to the block. Reads exactly `4 · steps` bytes of each run of each pixel, eight or four at a
    // time. The contract of `ConvBlock` makes these readable.
    unsafe {
        type Q = Neon<Sdot>;
        let pairs = const { P.div_ceil(2) };
        let terms = block.weights.cast::<i32>();
        // Each vector contains two columns of two pixels.
        let mut bias = [vdupq_n_s32(0); 8];
        for j in 0..4 {
            let four = Q::start(terms.add(4 * j), block.narrow);
            [bias[2 * j], bias[2 * j + 1]] = halves(four, four);
        }
        let mut sums = [bias; P];
        let mut pixels = [block.input; P];
        for i in 0..P {
            pixels[i] = block.input.add(*block.input_offsets.add(first + i) as usize);
        }
        let mut weights = block.weights.add(8 * WIDTH);
        let mut down = 0;
        // Multiplies eight elements of each pixel (or the last four) with all columns.
        macro_rules! step {
            ($at:expr, $eight:literal) => {{
                let mut rows = [vdupq_n_s8(0); P];
                for i in 0..pairs {
                    let (a, b) = (pixels[2 * i], pixels[(2 * i + 1).min(P - 1)]);
                    rows[i] = if $eight {
                        vcombine_s8(vld1_s8(a.add($at).cast()), vld1_s8(b.add($at).cast()))
                    } else {
                        // The repeated elements are multiplied by 0.
                        vcombine_s8(
                            vget_low_s8(Q::repeat(a.add($at))),
                            vget_low_s8(Q::repeat(b.add($at))),
                        )
                    };
                }
                for j in 0..4 {
                    let near = Q::load(weights.add(16 * j));
                    let far = if $eight {
                        Q::load(weights.add(4 * WIDTH + 16 * j))
                    } else {
                        vdupq_n_s8(0)
                    };
                    let (near, far) = (vreinterpretq_s32_s8(near), vreinterpretq_s32_s8(far));
                    let low = vreinterpretq_s8_s32(vzip1q_s32(near, far));
                    let high = vreinterpretq_s8_s32(vzip2q_s32(near, far));
                    for i in 0..pairs {
                        sums[i][2 * j] = multiply(sums[i][2 * j], rows[i], low);
                        sums[i][2 * j + 1] = multiply(sums[i][2 * j + 1], rows[i], high);
                    }
                }
            }};
        }
        for _ in 0..block.runs[0] {
            let mut across = down;
            for _ in 0..block.runs[1] {
                for step in 0..block.steps / 2 {
                    step!(across + 8 * step, true);
                    weights = weights.add(8 * WIDTH);
                }
                if !block.steps.is_multiple_of(2) {
                    step!(across + 4 * (block.steps - 1), false);
                    weights = weights.add(4 * WIDTH);
                }
                across += block.run_step[1];
            }
            down += block.run_step[0];
        }
        let mut by_pixel = [[vdupq_n_s32(0); 4]; P];
        for i in 0..pairs {
            for j in 0..4 {
                let [one, other] = halves(sums[i][2 * j], sums[i][2 * j + 1]);
                by_pixel[2 * i][j] = one;
                if 2 * i + 1 < P {
                    by_pixel[2 * i + 1][j] = other;
                }
            }
        }
        epilogue::<Q, P, REAL>(block, first, by_pixel);
    }
}

/// See [`Kernels::peak`](crate::strided::Kernels::peak).
///
/// # Safety
/// The CPU must support I8MM.
#[inline(always)]
pub(super) unsafe fn peak(rounds: usize) -> u64 {
    const PAIRS: usize = 2;
    // SAFETY: the caller guarantees I8MM. The volatile read is from a valid reference.
    unsafe {
        let activations = [vdupq_n_s8(3); PAIRS];
        let weights = [5, -7, 9, -11].map(|weight| black_box(vdupq_n_s8(weight)));
        let mut sums = [[vdupq_n_s32(0); 8]; PAIRS];
        for _ in 0..rounds {
            for (sums, activations) in sums.iter_mut().zip(&activations) {
                // A volatile read, so that the compiler cannot move the multiplication out of the
                // loop.
                let activations = core::ptr::from_ref(activations).read_volatile();
                for j in 0..8 {
                    sums[j] = multiply(sums[j], activations, weights[j % 4]);
                }
            }
        }
        black_box(sums);
    }
    (rounds * PAIRS * 8 * 32) as u64
}
