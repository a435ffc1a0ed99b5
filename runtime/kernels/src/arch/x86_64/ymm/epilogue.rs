//! The epilogue: converts accumulators to stored activations, like the AVX-512 kernels but with
//! 256-bit vectors. All functions require only that the CPU supports AVX2 and FMA.

use core::arch::x86_64::*;

use crate::strided::Epilogue;

/// 1.5 · 2²³. Adjacent f32 near it differ by 1.
const MAGIC: f32 = 12_582_912.0;

/// Returns the initial value of accumulators, without the bias.
///
/// # Safety
/// The CPU must support AVX2.
#[inline(always)]
pub(super) unsafe fn start(narrow: bool) -> __m256i {
    // SAFETY: the caller guarantees AVX2.
    unsafe { _mm256_set1_epi32(if narrow { MAGIC.to_bits() as i32 } else { 0 }) }
}

/// Returns `f32(sum) · scale`, limited to 2³⁰ if the layer is not narrow.
///
/// # Safety
/// The CPU must support AVX2 and FMA.
#[inline(always)]
pub(super) unsafe fn scale(sum: __m256i, scale: __m256, narrow: bool) -> __m256 {
    // SAFETY: the caller guarantees AVX2 and FMA.
    unsafe {
        if narrow {
            let offset = _mm256_mul_ps(scale, _mm256_set1_ps(-MAGIC));
            _mm256_fmadd_ps(_mm256_castsi256_ps(sum), scale, offset)
        } else {
            let product = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale);
            _mm256_min_ps(product, _mm256_set1_ps(1_073_741_824.0))
        }
    }
}

/// The quantization parameters of a residual.
#[derive(Clone, Copy)]
pub(super) struct Addend {
    pub(super) zero_point: __m256,
    pub(super) scale: __m256,
}

impl Addend {
    /// Adds the stored activations in bytes 4j to 4j + 3 of each lane of `values`.
    ///
    /// # Safety
    /// The CPU must support AVX2 and FMA.
    #[inline(always)]
    pub(super) unsafe fn add<const J: i32>(&self, sum: __m256, values: __m256i) -> __m256 {
        // SAFETY: the caller guarantees AVX2 and FMA.
        unsafe {
            let first = 0x8080_8000u32 as i32 + 4 * J;
            let bytes = _mm_setr_epi32(first, first + 1, first + 2, first + 3);
            let value = _mm256_shuffle_epi8(values, _mm256_broadcastsi128_si256(bytes));
            let value = _mm256_sub_ps(_mm256_cvtepi32_ps(value), self.zero_point);
            _mm256_fmadd_ps(value, self.scale, sum)
        }
    }
}

/// Rounds two vectors, narrows them to 16 bits in each lane, and adds the zero point.
///
/// # Safety
/// The CPU must support AVX2.
#[inline(always)]
pub(super) unsafe fn round(a: __m256, b: __m256, epilogue: Epilogue) -> __m256i {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        let words = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
        _mm256_adds_epi16(words, _mm256_set1_epi16(epilogue.zero_point.into()))
    }
}

/// Narrows two vectors to bytes in each lane and clamps.
///
/// # Safety
/// The CPU must support AVX2.
#[inline(always)]
pub(super) unsafe fn clamp(a: __m256i, b: __m256i, epilogue: Epilogue) -> __m256i {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        let bytes = _mm256_packus_epi16(a, b);
        let bytes = _mm256_max_epu8(bytes, _mm256_set1_epi8(epilogue.low as i8));
        _mm256_min_epu8(bytes, _mm256_set1_epi8(epilogue.high as i8))
    }
}
