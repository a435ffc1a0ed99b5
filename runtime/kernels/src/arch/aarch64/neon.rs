//! [`Vec128`] for NEON, with one of two multiply instructions.

use core::arch::aarch64::*;
use core::arch::asm;
use core::hint::black_box;
use core::marker::PhantomData;

use crate::arch::vec128::Vec128;
use crate::strided::Epilogue;

/// 1.5 · 2²³. Adjacent f32 near it differ by 1.
const MAGIC: f32 = 12_582_912.0;

/// The multiply operations of [`Vec128`], see there. The CPU must support the instructions of the
/// implementation.
pub(super) trait Dot {
    type Parts: Copy;

    const PIXELS: usize;

    /// # Safety
    /// The CPU must support the instructions of the implementation.
    unsafe fn dot(sums: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t;

    /// # Safety
    /// The CPU must support the instructions of the implementation.
    unsafe fn open(sums: int32x4_t) -> Self::Parts;

    /// # Safety
    /// The CPU must support the instructions of the implementation.
    unsafe fn dot_once(parts: Self::Parts, a: int8x16_t, w: int8x16_t) -> Self::Parts;

    /// # Safety
    /// The CPU must support the instructions of the implementation.
    unsafe fn dot_twice(parts: Self::Parts, a: [int8x16_t; 2], w: [int8x16_t; 2]) -> Self::Parts;

    /// # Safety
    /// The CPU must support the instructions of the implementation.
    unsafe fn close(parts: Self::Parts) -> int32x4_t;
}

/// The dot product instruction `sdot`, in inline assembly because Rust has no stable intrinsic.
pub(super) struct Sdot;

impl Dot for Sdot {
    type Parts = int32x4_t;

    const PIXELS: usize = 4;

    #[inline(always)]
    unsafe fn dot(sums: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
        let mut result = sums;
        // SAFETY: the caller guarantees DotProd. The instruction accesses only registers.
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

    #[inline(always)]
    unsafe fn open(sums: int32x4_t) -> int32x4_t {
        sums
    }

    #[inline(always)]
    unsafe fn dot_once(parts: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: the caller guarantees DotProd.
        unsafe { Self::dot(parts, a, w) }
    }

    #[inline(always)]
    unsafe fn dot_twice(parts: int32x4_t, a: [int8x16_t; 2], w: [int8x16_t; 2]) -> int32x4_t {
        // SAFETY: the caller guarantees DotProd.
        unsafe { Self::dot(Self::dot(parts, a[0], w[0]), a[1], w[1]) }
    }

    #[inline(always)]
    unsafe fn close(parts: int32x4_t) -> int32x4_t {
        parts
    }
}

/// Plain NEON: 16-bit products, added in pairs.
pub(super) struct Widening;

impl Dot for Widening {
    /// Two partial sums per accumulator: those of the first two accumulators, and of the last two.
    type Parts = [int32x4_t; 2];

    const PIXELS: usize = 2;

    #[inline(always)]
    unsafe fn dot(sums: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: NEON is part of the AArch64 baseline.
        unsafe {
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(w)));
            let high = vpaddlq_s16(vmull_high_s8(a, w));
            vaddq_s32(sums, vpaddq_s32(low, high))
        }
    }

    #[inline(always)]
    unsafe fn open(sums: int32x4_t) -> [int32x4_t; 2] {
        // SAFETY: NEON is part of the AArch64 baseline.
        unsafe {
            let none = vdupq_n_s32(0);
            [vzip1q_s32(sums, none), vzip2q_s32(sums, none)]
        }
    }

    #[inline(always)]
    unsafe fn dot_once(parts: [int32x4_t; 2], a: int8x16_t, w: int8x16_t) -> [int32x4_t; 2] {
        // SAFETY: NEON is part of the AArch64 baseline.
        unsafe {
            let low = vmull_s8(vget_low_s8(a), vget_low_s8(w));
            let high = vmull_high_s8(a, w);
            [vpadalq_s16(parts[0], low), vpadalq_s16(parts[1], high)]
        }
    }

    /// The sum of two products, at most 2 · 128 · 127 in magnitude, fits in 16 bits.
    #[inline(always)]
    unsafe fn dot_twice(
        parts: [int32x4_t; 2],
        a: [int8x16_t; 2],
        w: [int8x16_t; 2],
    ) -> [int32x4_t; 2] {
        // SAFETY: NEON is part of the AArch64 baseline.
        unsafe {
            let low = vmull_s8(vget_low_s8(a[0]), vget_low_s8(w[0]));
            let high = vmull_high_s8(a[0], w[0]);
            let low = vmlal_s8(low, vget_low_s8(a[1]), vget_low_s8(w[1]));
            let high = vmlal_high_s8(high, a[1], w[1]);
            [vpadalq_s16(parts[0], low), vpadalq_s16(parts[1], high)]
        }
    }

    #[inline(always)]
    unsafe fn close(parts: [int32x4_t; 2]) -> int32x4_t {
        // SAFETY: NEON is part of the AArch64 baseline.
        unsafe { vpaddq_s32(parts[0], parts[1]) }
    }
}

/// NEON with the multiply operations of `D`.
pub(super) struct Neon<D>(PhantomData<D>);

impl<D: Dot> Vec128 for Neon<D> {
    type Bytes = int8x16_t;
    type Sums = int32x4_t;
    type Parts = D::Parts;
    type Scaled = float32x4_t;

    const PIXELS: usize = D::PIXELS;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> int8x16_t {
        // SAFETY: the caller guarantees 16 readable bytes at `from`.
        unsafe { vld1q_s8(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, bytes: int8x16_t) {
        // SAFETY: the caller guarantees 16 writable bytes at `to`.
        unsafe { vst1q_s8(to.cast(), bytes) }
    }

    #[inline(always)]
    unsafe fn repeat(from: *const u8) -> int8x16_t {
        // SAFETY: the caller guarantees four readable bytes at `from`, which need not be aligned.
        unsafe { vreinterpretq_s8_s32(vdupq_n_s32(from.cast::<i32>().read_unaligned())) }
    }

    /// The accumulators of a narrow layer start at the bits of an f32: see the AVX-512 epilogue.
    #[inline(always)]
    unsafe fn start(bias: *const i32, narrow: bool) -> int32x4_t {
        let begin = if narrow { MAGIC.to_bits() as i32 } else { 0 };
        // SAFETY: the caller guarantees four readable i32 at `bias`.
        unsafe { vaddq_s32(vld1q_s32(bias), vdupq_n_s32(begin)) }
    }

    #[inline(always)]
    unsafe fn dot(sums: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: the caller guarantees the CPU features of `D`.
        unsafe { D::dot(sums, a, w) }
    }

    #[inline(always)]
    unsafe fn open(sums: int32x4_t) -> D::Parts {
        // SAFETY: the caller guarantees the CPU features of `D`.
        unsafe { D::open(sums) }
    }

    #[inline(always)]
    unsafe fn dot_once(parts: D::Parts, a: int8x16_t, w: int8x16_t) -> D::Parts {
        // SAFETY: the caller guarantees the CPU features of `D`.
        unsafe { D::dot_once(parts, a, w) }
    }

    #[inline(always)]
    unsafe fn dot_twice(parts: D::Parts, a: [int8x16_t; 2], w: [int8x16_t; 2]) -> D::Parts {
        // SAFETY: the caller guarantees the CPU features of `D`.
        unsafe { D::dot_twice(parts, a, w) }
    }

    #[inline(always)]
    unsafe fn close(parts: D::Parts) -> int32x4_t {
        // SAFETY: the caller guarantees the CPU features of `D`.
        unsafe { D::close(parts) }
    }

    #[inline(always)]
    unsafe fn interleave([a, b, c, d]: [int8x16_t; 4]) -> [int8x16_t; 4] {
        // SAFETY: NEON is part of the AArch64 baseline.
        unsafe {
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
    unsafe fn write(sums: int32x4_t, to: *mut i32) {
        // SAFETY: the caller guarantees four writable i32 at `to`.
        unsafe { vst1q_s32(to, sums) }
    }

    #[inline(always)]
    unsafe fn scale(sums: int32x4_t, scales: *const f32, narrow: bool) -> float32x4_t {
        // SAFETY: the caller guarantees four readable f32 at `scales`.
        unsafe {
            let scale = vld1q_f32(scales);
            if narrow {
                let offset = vmulq_n_f32(scale, -MAGIC);
                vfmaq_f32(offset, vreinterpretq_f32_s32(sums), scale)
            } else {
                vmulq_f32(vcvtq_f32_s32(sums), scale)
            }
        }
    }

    #[inline(always)]
    unsafe fn add(
        sums: [float32x4_t; 4],
        values: int8x16_t,
        zero_point: f32,
        scale: f32,
    ) -> [float32x4_t; 4] {
        // SAFETY: NEON is part of the AArch64 baseline.
        unsafe {
            let low = vmovl_s8(vget_low_s8(values));
            let high = vmovl_high_s8(values);
            let words = [
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ];
            let mut sums = sums;
            for j in 0..4 {
                let value = vsubq_f32(vcvtq_f32_s32(words[j]), vdupq_n_f32(zero_point));
                sums[j] = vfmaq_n_f32(sums[j], value, scale);
            }
            sums
        }
    }

    #[inline(always)]
    unsafe fn narrow(sums: [float32x4_t; 4], epilogue: Epilogue) -> int8x16_t {
        // SAFETY: NEON is part of the AArch64 baseline.
        unsafe {
            let a = vqmovn_s32(vcvtnq_s32_f32(sums[0]));
            let b = vqmovn_s32(vcvtnq_s32_f32(sums[1]));
            let c = vqmovn_s32(vcvtnq_s32_f32(sums[2]));
            let d = vqmovn_s32(vcvtnq_s32_f32(sums[3]));
            let zero_point = vdupq_n_s16((epilogue.zero_point as i8).into());
            let low = vqaddq_s16(vcombine_s16(a, b), zero_point);
            let high = vqaddq_s16(vcombine_s16(c, d), zero_point);
            let bytes = vcombine_s8(vqmovn_s16(low), vqmovn_s16(high));
            let bytes = vmaxq_s8(bytes, vdupq_n_s8(epilogue.low as i8));
            vminq_s8(bytes, vdupq_n_s8(epilogue.high as i8))
        }
    }
}

/// See [`Kernels::peak`](crate::strided::Kernels::peak).
///
/// # Safety
/// The CPU must support the instructions of `D`.
#[inline(always)]
pub(super) unsafe fn peak<D: Dot>(rounds: usize) -> u64 {
    const PIXELS: usize = 4;
    // SAFETY: the caller guarantees the CPU features of `D`. The volatile read is from a valid
    // reference.
    unsafe {
        let activations = [vdupq_n_s8(3); PIXELS];
        let weights = [5, -7, 9, -11].map(|weight| black_box(vdupq_n_s8(weight)));
        let mut parts = [[D::open(vdupq_n_s32(0)); 4]; PIXELS];
        for _ in 0..rounds {
            for (parts, activations) in parts.iter_mut().zip(&activations).take(D::PIXELS) {
                // A volatile read, so that the compiler cannot move the multiplication out of the
                // loop.
                let activations = [core::ptr::from_ref(activations).read_volatile(); 2];
                for j in 0..4 {
                    parts[j] = D::dot_twice(parts[j], activations, [weights[j], weights[3 - j]]);
                }
            }
        }
        black_box(parts);
    }
    (rounds * D::PIXELS * 4 * 32) as u64
}
