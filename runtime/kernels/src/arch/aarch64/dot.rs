//! Sums of four products of i8.

use core::arch::aarch64::*;
use core::arch::asm;
use core::hint::black_box;

/// Adds four products to each of four sums.
pub(super) trait Dot {
    /// # Safety
    /// The processor has the instructions.
    unsafe fn add(sums: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t;
}

/// The instruction for it, which Rust has no stable name for.
pub(super) struct Sdot;

impl Dot for Sdot {
    #[inline(always)]
    unsafe fn add(sums: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
        let mut result = sums;
        // SAFETY: the processor has it; registers only.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {a:v}.16b, {w:v}.16b",
                sums = inout(vreg) result,
                a = in(vreg) a,
                w = in(vreg) w,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        result
    }
}

/// Products in 16 bits, added in pairs, twice.
pub(super) struct Widening;

impl Dot for Widening {
    #[inline(always)]
    unsafe fn add(sums: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: every processor of this architecture has it.
        unsafe {
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(w)));
            let high = vpaddlq_s16(vmull_high_s8(a, w));
            vaddq_s32(sums, vpaddq_s32(low, high))
        }
    }
}

/// See [`Kernels::peak`](crate::strided::Kernels::peak).
///
/// # Safety
/// The processor has the instructions of `D`.
#[inline(always)]
pub(super) unsafe fn peak<D: Dot>(rounds: usize) -> u64 {
    const PIXELS: usize = 4;
    // SAFETY: passed on; references can be read.
    unsafe {
        let activations = [vdupq_n_s8(3); PIXELS];
        let weights = [5, -7, 9, -11].map(|weight| black_box(vdupq_n_s8(weight)));
        let mut sums = [[vdupq_n_s32(0); 4]; PIXELS];
        for _ in 0..rounds {
            for (sums, activations) in sums.iter_mut().zip(&activations) {
                // Read anew, or the compiler could multiply once and for all.
                let activations = core::ptr::from_ref(activations).read_volatile();
                for j in 0..4 {
                    sums[j] = D::add(sums[j], activations, weights[j]);
                }
            }
        }
        black_box(sums);
    }
    (rounds * PIXELS * 4 * 16) as u64
}
