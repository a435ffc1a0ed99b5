//! From sums to stored activations, 16 at a time.

use core::arch::aarch64::*;

use crate::strided::Finish;

/// 1.5 · 2²³, whose neighbours are 1 apart.
const MAGIC: f32 = 12_582_912.0;

/// What the sums of a layer begin at, beside the bias: see the AVX-512 kernels.
#[inline(always)]
pub(super) unsafe fn start(narrow: bool) -> int32x4_t {
    // SAFETY: every processor of this architecture has it.
    unsafe { vdupq_n_s32(if narrow { MAGIC.to_bits() as i32 } else { 0 }) }
}

/// `f32(sum) · scale`.
#[inline(always)]
pub(super) unsafe fn scale(sum: int32x4_t, scale: float32x4_t, narrow: bool) -> float32x4_t {
    // SAFETY: every processor of this architecture has it.
    unsafe {
        if narrow {
            let offset = vmulq_n_f32(scale, -MAGIC);
            vfmaq_f32(offset, vreinterpretq_f32_s32(sum), scale)
        } else {
            vmulq_f32(vcvtq_f32_s32(sum), scale)
        }
    }
}

/// Adds `(values − zero_point) · scale`. A scale of 15 significant bits makes the product exact.
#[inline(always)]
pub(super) unsafe fn add(
    sums: [float32x4_t; 4],
    values: int8x16_t,
    zero_point: f32,
    scale: f32,
) -> [float32x4_t; 4] {
    // SAFETY: every processor of this architecture has it.
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

/// Rounds, adds the zero point, narrows and clamps.
#[inline(always)]
pub(super) unsafe fn narrow(sums: [float32x4_t; 4], finish: Finish) -> int8x16_t {
    // SAFETY: every processor of this architecture has it.
    unsafe {
        let a = vqmovn_s32(vcvtnq_s32_f32(sums[0]));
        let b = vqmovn_s32(vcvtnq_s32_f32(sums[1]));
        let c = vqmovn_s32(vcvtnq_s32_f32(sums[2]));
        let d = vqmovn_s32(vcvtnq_s32_f32(sums[3]));
        let zero_point = vdupq_n_s16((finish.zero_point as i8).into());
        let low = vqaddq_s16(vcombine_s16(a, b), zero_point);
        let high = vqaddq_s16(vcombine_s16(c, d), zero_point);
        let bytes = vcombine_s8(vqmovn_s16(low), vqmovn_s16(high));
        let bytes = vmaxq_s8(bytes, vdupq_n_s8(finish.low as i8));
        vminq_s8(bytes, vdupq_n_s8(finish.high as i8))
    }
}

/// Reads up to 16 bytes.
#[inline(always)]
pub(super) unsafe fn load(at: *const u8, count: usize) -> int8x16_t {
    // SAFETY: the caller passes so many bytes.
    unsafe {
        if count == 16 {
            return vld1q_s8(at.cast());
        }
        let mut bytes = [0i8; 16];
        at.copy_to_nonoverlapping(bytes.as_mut_ptr().cast(), count);
        vld1q_s8(bytes.as_ptr())
    }
}

/// Writes up to 16 bytes.
#[inline(always)]
pub(super) unsafe fn store(at: *mut u8, values: int8x16_t, count: usize) {
    // SAFETY: the caller passes room for so many bytes.
    unsafe {
        if count == 16 {
            return vst1q_s8(at.cast(), values);
        }
        let mut bytes = [0i8; 16];
        vst1q_s8(bytes.as_mut_ptr(), values);
        at.copy_from_nonoverlapping(bytes.as_ptr().cast(), count);
    }
}
