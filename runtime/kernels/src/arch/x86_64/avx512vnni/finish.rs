//! From sums to stored activations, 64 at a time.
//!
//! The sum of a *narrow* layer begins at the bits of the f32 12582912 plus the bias. As it stays
//! below 2²² in size, its bits are then those of the f32 `12582912 + sum`, and
//! `fma(bits, scale, −12582912 · scale)` is the rounded product: exact, because a scale of 22
//! significant bits times 12582912, which has two, fits an f32.

use core::arch::x86_64::*;

use crate::strided::Finish;

/// 1.5 · 2²³, whose neighbours are 1 apart.
const MAGIC: f32 = 12_582_912.0;

/// What the sums of a layer begin at, beside the bias.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn start(narrow: bool) -> __m512i {
    _mm512_set1_epi32(if narrow { MAGIC.to_bits() as i32 } else { 0 })
}

/// What is added to the scaled bits of a narrow layer's sums.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn offset(scale: __m512) -> __m512 {
    _mm512_mul_ps(scale, _mm512_set1_ps(-MAGIC))
}

/// `f32(sum) · scale` of a narrow layer.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn scale_narrow(sum: __m512i, scale: __m512, offset: __m512) -> __m512 {
    _mm512_fmadd_ps(_mm512_castsi512_ps(sum), scale, offset)
}

/// `f32(sum) · scale`, at most 2³⁰ so that it can be converted to an integer.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn scale_wide(sum: __m512i, scale: __m512) -> __m512 {
    let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
    _mm512_min_ps(product, _mm512_set1_ps(1_073_741_824.0))
}

/// What is added to scaled sums before they are rounded.
#[derive(Clone, Copy)]
pub(super) struct Addend {
    pub(super) zero_point: __m512,
    pub(super) scale: __m512,
}

impl Addend {
    /// Adds the stored activations `values` to four vectors that are narrowed together. A scale
    /// of 15 significant bits makes the product exact, so that fused and separate are the same.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn add(&self, sums: [__m512; 4], values: __m512i) -> [__m512; 4] {
        let mut sums = sums;
        // Bytes 4j to 4j + 3 of each lane, each widened.
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

/// Rounds four vectors, adds the zero point, narrows and clamps. Lane l of the result holds the
/// four of lane l of each vector in turn. `PLAIN`: saturation is all that is needed.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn narrow<const PLAIN: bool>(sums: [__m512; 4], finish: Finish) -> __m512i {
    let [a, b, c, d] = sums;
    let low = _mm512_packs_epi32(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
    let high = _mm512_packs_epi32(_mm512_cvtps_epi32(c), _mm512_cvtps_epi32(d));
    if PLAIN {
        return _mm512_packus_epi16(low, high);
    }
    let zero_point = _mm512_set1_epi16(finish.zero_point.into());
    let low = _mm512_adds_epi16(low, zero_point);
    let high = _mm512_adds_epi16(high, zero_point);
    let bytes = _mm512_packus_epi16(low, high);
    let bytes = _mm512_max_epu8(bytes, _mm512_set1_epi8(finish.low as i8));
    _mm512_min_epu8(bytes, _mm512_set1_epi8(finish.high as i8))
}
