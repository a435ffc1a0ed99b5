//! From sums to stored activations: as those of the AVX-512 kernels, in half vectors. All functions
//! need the processor, which has AVX2 and FMA, and nothing else.

use core::arch::x86_64::*;

use crate::strided::Finish;

/// 1.5 · 2²³, whose neighbours are 1 apart.
const MAGIC: f32 = 12_582_912.0;

/// What the sums of a layer begin at, beside the bias.
///
/// # Safety
/// The processor.
#[inline(always)]
pub(super) unsafe fn start(narrow: bool) -> __m256i {
    // SAFETY: the processor, which has AVX2.
    unsafe { _mm256_set1_epi32(if narrow { MAGIC.to_bits() as i32 } else { 0 }) }
}

/// `f32(sum) · scale`; at most 2³⁰ where the layer is not narrow.
///
/// # Safety
/// The processor.
#[inline(always)]
pub(super) unsafe fn scale(sum: __m256i, scale: __m256, narrow: bool) -> __m256 {
    // SAFETY: the processor, which has AVX2 and FMA.
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

/// What is added to scaled sums before they are rounded.
#[derive(Clone, Copy)]
pub(super) struct Addend {
    pub(super) zero_point: __m256,
    pub(super) scale: __m256,
}

impl Addend {
    /// Adds bytes 4j to 4j + 3 of each lane of `values`.
    ///
    /// # Safety
    /// The processor.
    #[inline(always)]
    pub(super) unsafe fn add<const J: i32>(&self, sum: __m256, values: __m256i) -> __m256 {
        // SAFETY: the processor, which has AVX2 and FMA.
        unsafe {
            let first = 0x8080_8000u32 as i32 + 4 * J;
            let bytes = _mm_setr_epi32(first, first + 1, first + 2, first + 3);
            let value = _mm256_shuffle_epi8(values, _mm256_broadcastsi128_si256(bytes));
            let value = _mm256_sub_ps(_mm256_cvtepi32_ps(value), self.zero_point);
            _mm256_fmadd_ps(value, self.scale, sum)
        }
    }
}

/// Rounds two vectors, adds the zero point and narrows to 16 bits, lane by lane.
///
/// # Safety
/// The processor.
#[inline(always)]
pub(super) unsafe fn round(a: __m256, b: __m256, finish: Finish) -> __m256i {
    // SAFETY: the processor, which has AVX2.
    unsafe {
        let words = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
        _mm256_adds_epi16(words, _mm256_set1_epi16(finish.zero_point.into()))
    }
}

/// Narrows to bytes, lane by lane, and clamps.
///
/// # Safety
/// The processor.
#[inline(always)]
pub(super) unsafe fn clamp(a: __m256i, b: __m256i, finish: Finish) -> __m256i {
    // SAFETY: the processor, which has AVX2.
    unsafe {
        let bytes = _mm256_packus_epi16(a, b);
        let bytes = _mm256_max_epu8(bytes, _mm256_set1_epi8(finish.low as i8));
        _mm256_min_epu8(bytes, _mm256_set1_epi8(finish.high as i8))
    }
}
