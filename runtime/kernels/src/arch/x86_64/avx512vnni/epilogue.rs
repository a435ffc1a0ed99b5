//! The epilogue: converts 64 accumulators at a time to stored activations.
//!
//! The accumulator of a *narrow* layer starts at the bits of the f32 12582912 plus the bias. The
//! magnitude of the sum stays below 2²², so the bits are those of the f32 `12582912 + sum`. Then
//! `fma(bits, scale, −12582912 · scale)` is the correctly rounded product: the offset is exact,
//! because the scale has 22 significant bits, 12582912 has two, and an f32 has 24.

use core::arch::x86_64::*;

use crate::strided::Epilogue;

/// 1.5 · 2²³. Adjacent f32 near it differ by 1.
const MAGIC: f32 = 12_582_912.0;

/// Returns the initial value of accumulators, without the bias.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn start(narrow: bool) -> __m512i {
    _mm512_set1_epi32(if narrow { MAGIC.to_bits() as i32 } else { 0 })
}

/// Returns the offset of [`scale_narrow`] for a scale.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn offset(scale: __m512) -> __m512 {
    _mm512_mul_ps(scale, _mm512_set1_ps(-MAGIC))
}

/// Returns `f32(sum) · scale` for a narrow layer.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn scale_narrow(sum: __m512i, scale: __m512, offset: __m512) -> __m512 {
    _mm512_fmadd_ps(_mm512_castsi512_ps(sum), scale, offset)
}

/// Returns `f32(sum) · scale`, limited to 2³⁰ so that it can be converted to an integer.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn scale_wide(sum: __m512i, scale: __m512) -> __m512 {
    let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
    _mm512_min_ps(product, _mm512_set1_ps(1_073_741_824.0))
}

/// The quantization parameters of a residual.
#[derive(Clone, Copy)]
pub(super) struct Addend {
    pub(super) zero_point: __m512,
    pub(super) scale: __m512,
}

impl Addend {
    /// Adds the stored activations `values` to four vectors that are narrowed together. The scale
    /// has at most 15 significant bits, so the product is exact, and a fused multiply-add gives the
    /// same result as a separate one.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn add(&self, sums: [__m512; 4], values: __m512i) -> [__m512; 4] {
        let mut sums = sums;
        // Selects and widens bytes 4j to 4j + 3 of each lane.
        let mut bytes = _mm512_set4_epi32(
            0x8080_8003u32 as i32,
            0x8080_8002u32 as i32,
            0x8080_8001u32 as i32,
            0x8080_8000u32 as i32,
        );
        for sum in &mut sums {
            let value = _mm512_cvtepi32_ps(_mm512_shuffle_epi8(values, bytes));
            let value = _mm512_sub_ps(value, self.zero_point);
            *sum = _mm512_fmadd_ps(value, self.scale, *sum);
            bytes = _mm512_add_epi32(bytes, _mm512_set1_epi32(4));
        }
        sums
    }
}

/// Rounds four vectors, adds the zero point, narrows to bytes and clamps. Lane l of the result
/// contains the four elements of lane l of each vector in order. `PLAIN` only saturates.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn narrow<const PLAIN: bool>(sums: [__m512; 4], epilogue: Epilogue) -> __m512i {
    let [a, b, c, d] = sums;
    let low = _mm512_packs_epi32(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
    let high = _mm512_packs_epi32(_mm512_cvtps_epi32(c), _mm512_cvtps_epi32(d));
    if PLAIN {
        return _mm512_packus_epi16(low, high);
    }
    let zero_point = _mm512_set1_epi16(epilogue.zero_point.into());
    let low = _mm512_adds_epi16(low, zero_point);
    let high = _mm512_adds_epi16(high, zero_point);
    let bytes = _mm512_packus_epi16(low, high);
    let bytes = _mm512_max_epu8(bytes, _mm512_set1_epi8(epilogue.low as i8));
    _mm512_min_epu8(bytes, _mm512_set1_epi8(epilogue.high as i8))
}
