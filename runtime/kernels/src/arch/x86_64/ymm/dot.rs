//! Dot products of four u8 and four i8, with the instructions that each processor has.

use core::arch::x86_64::*;
use core::hint::black_box;

/// Adds four products to each of eight accumulators. Weights and activations are prepared once and
/// used several times. The CPU must support the instructions of the implementation (and AVX2).
pub(super) trait Dot {
    /// Prepared weights.
    type Weights: Copy;
    /// Prepared activations.
    type Activations: Copy;

    /// Prepares weights.
    ///
    /// # Safety
    /// The CPU must support the instructions of the implementation.
    unsafe fn weights(weights: __m256i) -> Self::Weights;

    /// Prepares activations.
    ///
    /// # Safety
    /// The CPU must support the instructions of the implementation.
    unsafe fn activations(activations: __m256i) -> Self::Activations;

    /// Multiplies and accumulates.
    ///
    /// # Safety
    /// The CPU must support the instructions of the implementation.
    unsafe fn add(sums: __m256i, a: Self::Activations, w: Self::Weights) -> __m256i;
}

macro_rules! vnni {
    ($(#[$doc:meta])* $name:ident, $add:ident) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl Dot for $name {
            type Weights = __m256i;
            type Activations = __m256i;

            #[inline(always)]
            unsafe fn weights(weights: __m256i) -> __m256i {
                weights
            }

            #[inline(always)]
            unsafe fn activations(activations: __m256i) -> __m256i {
                activations
            }

            #[inline(always)]
            unsafe fn add(sums: __m256i, a: __m256i, w: __m256i) -> __m256i {
                // SAFETY: the caller guarantees that the CPU supports the instruction of this type.
                unsafe { $add(sums, a, w) }
            }
        }
    };
}

vnni! {
    /// The AVX-VNNI instruction.
    AvxVnni, _mm256_dpbusd_avx_epi32
}

vnni! {
    /// The AVX-512 VNNI instruction for 256-bit vectors.
    Avx512Vl, _mm256_dpbusd_epi32
}

/// AVX2: multiplies even and odd elements as 16-bit numbers. The instruction for bytes
/// (`vpmaddubsw`) could saturate.
pub(super) struct Avx2;

/// The even and odd bytes, widened to 16 bits.
#[derive(Clone, Copy)]
pub(super) struct Halves {
    even: __m256i,
    odd: __m256i,
}

impl Dot for Avx2 {
    type Weights = Halves;
    type Activations = Halves;

    #[inline(always)]
    unsafe fn weights(weights: __m256i) -> Halves {
        // SAFETY: the caller guarantees AVX2.
        unsafe {
            let even = _mm256_srai_epi16(_mm256_slli_epi16(weights, 8), 8);
            Halves { even, odd: _mm256_srai_epi16(weights, 8) }
        }
    }

    #[inline(always)]
    unsafe fn activations(activations: __m256i) -> Halves {
        // SAFETY: the caller guarantees AVX2.
        unsafe {
            let even = _mm256_and_si256(activations, _mm256_set1_epi16(0xff));
            Halves { even, odd: _mm256_srli_epi16(activations, 8) }
        }
    }

    #[inline(always)]
    unsafe fn add(sums: __m256i, a: Halves, w: Halves) -> __m256i {
        // SAFETY: the caller guarantees AVX2.
        unsafe {
            let even = _mm256_madd_epi16(a.even, w.even);
            let odd = _mm256_madd_epi16(a.odd, w.odd);
            _mm256_add_epi32(_mm256_add_epi32(sums, even), odd)
        }
    }
}

/// See [`Kernels::peak`](crate::strided::Kernels::peak).
///
/// # Safety
/// The CPU must support AVX2 and the instructions of `D`.
#[inline(always)]
pub(super) unsafe fn peak<D: Dot>(rounds: usize) -> u64 {
    const PIXELS: usize = 4;
    // SAFETY: the caller guarantees the CPU features. The volatile read is from a valid reference.
    unsafe {
        let activations = [D::activations(_mm256_set1_epi8(3)); PIXELS];
        let weights = [
            D::weights(black_box(_mm256_set1_epi8(5))),
            D::weights(black_box(_mm256_set1_epi8(-7))),
        ];
        let mut sums = [[_mm256_setzero_si256(); 2]; PIXELS];
        for _ in 0..rounds {
            for (sums, activations) in sums.iter_mut().zip(&activations) {
                // A volatile read, so that the compiler cannot move the multiplication out of the
                // loop.
                let activations = core::ptr::from_ref(activations).read_volatile();
                sums[0] = D::add(sums[0], activations, weights[0]);
                sums[1] = D::add(sums[1], activations, weights[1]);
            }
        }
        black_box(sums);
    }
    (rounds * PIXELS * 2 * 32) as u64
}
