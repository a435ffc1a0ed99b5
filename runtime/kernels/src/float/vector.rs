//! Vectors of f32, one type for each instruction set.

/// A vector of f32 in registers.
///
/// # Safety
/// Every function requires that the CPU supports the instruction set of the type. Loads and stores
/// require that their elements are readable or writable. Addresses need only the alignment of f32.
pub(super) trait Vector: Copy {
    /// The number of elements.
    const LANES: usize;

    /// Returns a vector whose elements are all `value`.
    unsafe fn splat(value: f32) -> Self;
    /// Reads [`Vector::LANES`] elements.
    unsafe fn load(from: *const f32) -> Self;
    /// Reads the first `count` elements, at most [`Vector::LANES`]. The others are 0.
    unsafe fn load_some(from: *const f32, count: usize) -> Self;
    /// Writes [`Vector::LANES`] elements.
    unsafe fn store(self, to: *mut f32);
    /// Writes the first `count` elements, at most [`Vector::LANES`].
    unsafe fn store_some(self, to: *mut f32, count: usize);
    /// Returns `self · factor + addend`, rounded once.
    unsafe fn fma(self, factor: Self, addend: Self) -> Self;
    /// Returns `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// Returns `low` where it is greater than the element, and `high` where it is less. NaN and the
    /// sign of 0 stay.
    unsafe fn clamp(self, low: Self, high: Self) -> Self;
}

/// One element, for processors without a vector type here.
#[derive(Clone, Copy)]
pub(super) struct Scalar(f32);

// Nothing here needs an instruction set, so only the addresses of loads and stores matter.
impl Vector for Scalar {
    const LANES: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(value)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's: the element is readable.
        Self(unsafe { from.read() })
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller's: `count` elements are readable.
        if count > 0 { unsafe { Self::load(from) } } else { Self(0.0) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's: the element is writable.
        unsafe { to.write(self.0) }
    }

    #[inline(always)]
    unsafe fn store_some(self, to: *mut f32, count: usize) {
        if count > 0 {
            // SAFETY: the caller's: `count` elements are writable.
            unsafe { self.store(to) }
        }
    }

    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        Self(self.0.mul_add(factor.0, addend.0))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        Self(super::clamp(self.0, low.0, high.0))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use core::arch::x86_64::*;

    use super::Vector;

    /// Eight elements: AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(in crate::float) struct Ymm(__m256);

    /// The mask of the first `count` elements.
    #[inline(always)]
    unsafe fn mask(count: usize) -> __m256i {
        // SAFETY: the caller's: the CPU supports AVX2.
        unsafe {
            let places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(8) as i32), places)
        }
    }

    // SAFETY of every block: the caller's. The CPU supports AVX2 and FMA; the elements that a load
    // or store names are accessible, and masked instructions access no others.
    impl Vector for Ymm {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm256_set1_ps(value) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm256_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn load_some(from: *const f32, count: usize) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm256_maskload_ps(from, mask(count)) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see above.
            unsafe { _mm256_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn store_some(self, to: *mut f32, count: usize) {
            // SAFETY: see above.
            unsafe { _mm256_maskstore_ps(to, mask(count), self.0) }
        }

        #[inline(always)]
        unsafe fn fma(self, factor: Self, addend: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm256_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn clamp(self, low: Self, high: Self) -> Self {
            // These instructions return their second operand if one is NaN or both are 0.
            // SAFETY: see above.
            Self(unsafe { _mm256_min_ps(high.0, _mm256_max_ps(low.0, self.0)) })
        }
    }

    /// Sixteen elements: AVX-512.
    #[derive(Clone, Copy)]
    pub(in crate::float) struct Zmm(__m512);

    /// The mask of the first `count` elements.
    #[inline(always)]
    fn bits(count: usize) -> __mmask16 {
        if count >= 16 { u16::MAX } else { (1 << count) - 1 }
    }

    // SAFETY of every block: the caller's. The CPU supports AVX-512F; the elements that a load or
    // store names are accessible, and masked instructions access no others.
    impl Vector for Zmm {
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_set1_ps(value) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn load_some(from: *const f32, count: usize) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_maskz_loadu_ps(bits(count), from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn store_some(self, to: *mut f32, count: usize) {
            // SAFETY: see above.
            unsafe { _mm512_mask_storeu_ps(to, bits(count), self.0) }
        }

        #[inline(always)]
        unsafe fn fma(self, factor: Self, addend: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn clamp(self, low: Self, high: Self) -> Self {
            // These instructions return their second operand if one is NaN or both are 0.
            // SAFETY: see above.
            Self(unsafe { _mm512_min_ps(high.0, _mm512_max_ps(low.0, self.0)) })
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(super) mod neon {
    use core::arch::aarch64::*;

    use super::Vector;

    /// Four elements: NEON.
    #[derive(Clone, Copy)]
    pub(in crate::float) struct Quad(float32x4_t);

    // SAFETY of every block: the caller's. Every AArch64 processor supports NEON; the elements that
    // a load or store names are accessible.
    impl Vector for Quad {
        const LANES: usize = 4;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see above.
            Self(unsafe { vdupq_n_f32(value) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see above.
            Self(unsafe { vld1q_f32(from) })
        }

        #[inline(always)]
        unsafe fn load_some(from: *const f32, count: usize) -> Self {
            let mut elements = [0.0; 4];
            for (index, element) in elements.iter_mut().enumerate().take(count) {
                // SAFETY: see above.
                *element = unsafe { from.add(index).read() };
            }
            // SAFETY: the array has four elements.
            unsafe { Self::load(elements.as_ptr()) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see above.
            unsafe { vst1q_f32(to, self.0) }
        }

        #[inline(always)]
        unsafe fn store_some(self, to: *mut f32, count: usize) {
            let mut elements = [0.0; 4];
            // SAFETY: the array has four elements.
            unsafe { self.store(elements.as_mut_ptr()) };
            for (index, element) in elements.iter().enumerate().take(count) {
                // SAFETY: see above.
                unsafe { to.add(index).write(*element) };
            }
        }

        #[inline(always)]
        unsafe fn fma(self, factor: Self, addend: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { vfmaq_f32(addend.0, self.0, factor.0) })
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { vaddq_f32(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn clamp(self, low: Self, high: Self) -> Self {
            // Comparisons, because the instructions for minimum and maximum order the zeros.
            // SAFETY: see above.
            unsafe {
                let raised = vbslq_f32(vcgtq_f32(low.0, self.0), low.0, self.0);
                Self(vbslq_f32(vcltq_f32(high.0, raised), high.0, raised))
            }
        }
    }
}
