//! The kernel table of each instruction set.

use super::{AveragePool, ConvBlock, DepthwiseRows, Linear, MaxPool, Pairs, Resize, ResizeRow};
use crate::packed::Packing;
use crate::{Isa, Requantize};

/// The kernels of an instruction set that this CPU supports. [`Kernels::for_isa`] is the only way
/// to get a table.
///
/// All functions require that the CPU supports the instruction set. `conv` and `depthwise` also
/// require the contracts of their arguments.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    pub(crate) isa: Isa,
    pub(crate) packing: Packing,
    /// Requires the contract of [`ConvBlock`], with `rows` null.
    pub(crate) conv: unsafe fn(&ConvBlock),
    /// Requires the contract of [`DepthwiseRows`].
    pub(crate) depthwise: unsafe fn(&DepthwiseRows),
    /// Runs a number of rounds of independent multiply-accumulates in registers, and returns the
    /// total number of MACs.
    pub(crate) peak: unsafe fn(usize) -> u64,
    pub(crate) add: unsafe fn(&Pairs, &[u8], &[u8], &mut [u8]),
    pub(crate) multiply: unsafe fn(&Pairs, &[u8], &[u8], &mut [u8]),
    pub(crate) rescale: unsafe fn(&Linear, &[u8], &mut [u8]),
    pub(crate) lookup: unsafe fn(&[u8; 256], &[u8], &mut [u8]),
    pub(crate) quantize: unsafe fn(f32, &Requantize, &[f32], &mut [u8]),
    pub(crate) interleave: unsafe fn(&[[u8; 64]; 4], usize, &mut [u8]),
    pub(crate) max_pool: unsafe fn(&MaxPool, &[u8], usize, &mut [u8]),
    pub(crate) average_pool: unsafe fn(&AveragePool, &[u8], usize, &mut [u8]),
    pub(crate) resize: unsafe fn(&Resize, &ResizeRow<'_>, &mut [u8]),
    pub(crate) softmax: unsafe fn(&[u32; 256], &[u8], &mut [u8]),
}

impl Kernels {
    /// Returns the kernels for `isa`, or `None` if this CPU does not support it, and for
    /// [`Isa::Scalar`].
    pub fn for_isa(isa: Isa) -> Option<&'static Self> {
        if !isa.is_supported() {
            return None;
        }
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => Some(&crate::arch::x86_64::AVX512VNNI),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => Some(&crate::arch::x86_64::AVXVNNI),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vl => Some(&crate::arch::x86_64::AVX512VL),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(&crate::arch::x86_64::AVX2),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => Some(&crate::arch::aarch64::neoni8mm::KERNELS),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => Some(&crate::arch::aarch64::neondot::KERNELS),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(&crate::arch::aarch64::plain::KERNELS),
            #[cfg(all(target_arch = "arm", any(target_os = "linux", target_os = "android")))]
            Isa::Neon => Some(&crate::arch::arm::neon::NEON),
            #[cfg(target_feature = "simd128")]
            Isa::Simd128 => Some(&crate::arch::wasm32::simd128::KERNELS),
            _ => None,
        }
    }

    /// Returns the instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Runs `rounds` rounds of multiply-accumulates in registers, and returns the number of MACs.
    /// Its time gives the peak throughput that kernels are compared with.
    pub fn peak(&self, rounds: usize) -> u64 {
        // SAFETY: a `Kernels` table exists only if the CPU supports its instruction set.
        unsafe { (self.peak)(rounds) }
    }

    /// Returns the weight layout that the kernels read.
    pub fn packing(&self) -> Packing {
        self.packing
    }
}
