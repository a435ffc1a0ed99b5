//! [`Vec128`] for WebAssembly SIMD.

use core::arch::wasm32::*;
use core::hint::black_box;

use crate::arch::vec128::Vec128;
use crate::strided::Epilogue;

/// WebAssembly SIMD: 16-bit products, added in pairs.
pub(super) struct Simd128;

impl Vec128 for Simd128 {
    type Bytes = v128;
    type Sums = v128;
    /// Two partial sums per accumulator: those of the first two accumulators, and of the last two.
    type Parts = [v128; 2];
    type Scaled = v128;

    const PIXELS: usize = 2;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> v128 {
        // SAFETY: the caller guarantees 16 readable bytes at `from`.
        unsafe { v128_load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, bytes: v128) {
        // SAFETY: the caller guarantees 16 writable bytes at `to`.
        unsafe { v128_store(to.cast(), bytes) }
    }

    #[inline(always)]
    unsafe fn repeat(from: *const u8) -> v128 {
        // SAFETY: the caller guarantees four readable bytes at `from`.
        unsafe { v128_load32_splat(from.cast()) }
    }

    #[inline(always)]
    unsafe fn start(bias: *const i32, _: bool) -> v128 {
        // SAFETY: the caller guarantees four readable i32 at `bias`.
        unsafe { v128_load(bias.cast()) }
    }

    #[inline(always)]
    unsafe fn dot(sums: v128, a: v128, w: v128) -> v128 {
        let low = i32x4_extadd_pairwise_i16x8(i16x8_extmul_low_i8x16(a, w));
        let high = i32x4_extadd_pairwise_i16x8(i16x8_extmul_high_i8x16(a, w));
        let even = i32x4_shuffle::<0, 2, 4, 6>(low, high);
        let odd = i32x4_shuffle::<1, 3, 5, 7>(low, high);
        i32x4_add(sums, i32x4_add(even, odd))
    }

    #[inline(always)]
    unsafe fn open(sums: v128) -> [v128; 2] {
        let none = i32x4_splat(0);
        [i32x4_shuffle::<0, 4, 1, 5>(sums, none), i32x4_shuffle::<2, 4, 3, 5>(sums, none)]
    }

    #[inline(always)]
    unsafe fn dot_once(parts: [v128; 2], a: v128, w: v128) -> [v128; 2] {
        let low = i32x4_extadd_pairwise_i16x8(i16x8_extmul_low_i8x16(a, w));
        let high = i32x4_extadd_pairwise_i16x8(i16x8_extmul_high_i8x16(a, w));
        [i32x4_add(parts[0], low), i32x4_add(parts[1], high)]
    }

    /// The sum of two products, at most 2 · 128 · 127 in magnitude, fits in 16 bits.
    #[inline(always)]
    unsafe fn dot_twice(parts: [v128; 2], a: [v128; 2], w: [v128; 2]) -> [v128; 2] {
        let low = i16x8_extmul_low_i8x16(a[0], w[0]);
        let low = i16x8_add(low, i16x8_extmul_low_i8x16(a[1], w[1]));
        let high = i16x8_extmul_high_i8x16(a[0], w[0]);
        let high = i16x8_add(high, i16x8_extmul_high_i8x16(a[1], w[1]));
        [
            i32x4_add(parts[0], i32x4_extadd_pairwise_i16x8(low)),
            i32x4_add(parts[1], i32x4_extadd_pairwise_i16x8(high)),
        ]
    }

    #[inline(always)]
    unsafe fn close(parts: [v128; 2]) -> v128 {
        let even = i32x4_shuffle::<0, 2, 4, 6>(parts[0], parts[1]);
        i32x4_add(even, i32x4_shuffle::<1, 3, 5, 7>(parts[0], parts[1]))
    }

    #[inline(always)]
    unsafe fn interleave([a, b, c, d]: [v128; 4]) -> [v128; 4] {
        let low =
            |a, b| i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b);
        let high = |a, b| {
            i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b)
        };
        let (ab, ab_high, cd, cd_high) = (low(a, b), high(a, b), low(c, d), high(c, d));
        [
            i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(ab, cd),
            i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(ab, cd),
            i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(ab_high, cd_high),
            i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(ab_high, cd_high),
        ]
    }

    #[inline(always)]
    unsafe fn write(sums: v128, to: *mut i32) {
        // SAFETY: the caller guarantees four writable i32 at `to`.
        unsafe { v128_store(to.cast(), sums) }
    }

    #[inline(always)]
    unsafe fn scale(sums: v128, scales: *const f32, _: bool) -> v128 {
        // SAFETY: the caller guarantees four readable f32 at `scales`.
        let scale = unsafe { v128_load(scales.cast()) };
        f32x4_mul(f32x4_convert_i32x4(sums), scale)
    }

    #[inline(always)]
    unsafe fn add(sums: [v128; 4], values: v128, zero_point: f32, scale: f32) -> [v128; 4] {
        let (low, high) = (i16x8_extend_low_i8x16(values), i16x8_extend_high_i8x16(values));
        let words = [
            i32x4_extend_low_i16x8(low),
            i32x4_extend_high_i16x8(low),
            i32x4_extend_low_i16x8(high),
            i32x4_extend_high_i16x8(high),
        ];
        let mut sums = sums;
        for j in 0..4 {
            let value = f32x4_sub(f32x4_convert_i32x4(words[j]), f32x4_splat(zero_point));
            sums[j] = f32x4_add(sums[j], f32x4_mul(value, f32x4_splat(scale)));
        }
        sums
    }

    #[inline(always)]
    unsafe fn narrow(sums: [v128; 4], epilogue: Epilogue) -> v128 {
        let mut words = [i32x4_splat(0); 4];
        for j in 0..4 {
            words[j] = i32x4_trunc_sat_f32x4(f32x4_nearest(sums[j]));
        }
        let zero_point = i16x8_splat((epilogue.zero_point as i8).into());
        let low = i16x8_add_sat(i16x8_narrow_i32x4(words[0], words[1]), zero_point);
        let high = i16x8_add_sat(i16x8_narrow_i32x4(words[2], words[3]), zero_point);
        let bytes = i8x16_max(i8x16_narrow_i16x8(low, high), i8x16_splat(epilogue.low as i8));
        i8x16_min(bytes, i8x16_splat(epilogue.high as i8))
    }
}

/// See [`Kernels::peak`](crate::strided::Kernels::peak).
///
/// # Safety
/// No requirements. The function is unsafe only to have the same signature as on other processors.
#[inline(always)]
pub(super) unsafe fn peak(rounds: usize) -> u64 {
    const PIXELS: usize = 2;
    // SAFETY: the volatile read is from a valid reference. The module is compiled with SIMD
    // enabled.
    unsafe {
        let activations = [i8x16_splat(3); PIXELS];
        let weights = [5, -7, 9, -11].map(|weight| black_box(i8x16_splat(weight)));
        let mut parts = [[[i32x4_splat(0); 2]; 4]; PIXELS];
        for _ in 0..rounds {
            for (parts, activations) in parts.iter_mut().zip(&activations) {
                // A volatile read, so that the compiler cannot move the multiplication out of the
                // loop.
                let activations = [core::ptr::from_ref(activations).read_volatile(); 2];
                for j in 0..4 {
                    let weights = [weights[j], weights[3 - j]];
                    parts[j] = Simd128::dot_twice(parts[j], activations, weights);
                }
            }
        }
        black_box(parts);
    }
    (rounds * PIXELS * 4 * 32) as u64
}
