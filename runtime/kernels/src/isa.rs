//! Instruction sets and their detection.

use core::fmt;

use crate::packed::Packing;

/// The instruction set of a family of kernels.
///
/// # Examples
///
/// ```
/// use hardtack_kernels::Isa;
///
/// let isa = Isa::detect();
/// println!("this processor runs the kernels for {isa}");
/// assert!(isa.is_supported());
/// assert_eq!(Isa::from_name("avx2"), Some(Isa::Avx2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// AVX-512 with F, BW, VL, VBMI and VNNI: Ice Lake, Zen 4 and later.
    Avx512Vnni,
    /// AVX2 with AVX-VNNI: Alder Lake, Zen 5 and later.
    AvxVnni,
    /// AVX-512 VNNI with 256-bit vectors, for processors that are slower with 512-bit vectors.
    Avx512Vl,
    /// AVX2 with FMA.
    Avx2,
    /// NEON with INT8 matrix multiplication (I8MM): Cortex-A510, A710 and later.
    NeonI8mm,
    /// NEON with four-byte dot products (DotProd): Cortex-A55, A76 and later.
    NeonDot,
    /// NEON: every AArch64 processor, and ARMv7 processors with NEON under Linux and Android.
    Neon,
    /// WebAssembly SIMD.
    Simd128,
    /// Portable code without SIMD instructions.
    Scalar,
}

impl Isa {
    /// Every instruction set, of all architectures, best first.
    pub const ALL: &'static [Self] = &[
        Self::Avx512Vnni,
        Self::AvxVnni,
        Self::Avx512Vl,
        Self::Avx2,
        Self::NeonI8mm,
        Self::NeonDot,
        Self::Neon,
        Self::Simd128,
        Self::Scalar,
    ];

    /// Returns the name, as used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512Vnni => "avx512vnni",
            Self::AvxVnni => "avxvnni",
            Self::Avx512Vl => "avx512vl",
            Self::Avx2 => "avx2",
            Self::NeonI8mm => "neoni8mm",
            Self::NeonDot => "neondot",
            Self::Neon => "neon",
            Self::Simd128 => "simd128",
            Self::Scalar => "scalar",
        }
    }

    /// Returns the instruction set with this name, or `None` if the name is unknown.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|isa| isa.name() == name)
    }

    /// Returns the weight layout of the kernels; `None` is the layout of a program.
    pub fn packing(self) -> Option<Packing> {
        match self {
            Self::Avx512Vnni => Some(Packing::X86Zmm),
            Self::AvxVnni | Self::Avx512Vl | Self::Avx2 => Some(Packing::X86Ymm),
            Self::NeonI8mm | Self::NeonDot | Self::Neon | Self::Simd128 => Some(Packing::NeonDot),
            Self::Scalar => None,
        }
    }

    /// Returns the best instruction set that this processor supports. Without the feature `std`,
    /// considers only the target features enabled at compile time.
    pub fn detect() -> Self {
        let supported = Self::ALL.iter().copied().find(|isa| isa.is_supported());
        supported.unwrap_or(Self::Scalar)
    }

    /// Returns whether this processor supports the instruction set. Without the feature `std`,
    /// considers only the target features enabled at compile time.
    pub fn is_supported(self) -> bool {
        /// Checks features at run time with `std`, otherwise at compile time.
        macro_rules! has {
            ($architecture:literal, $detected:path, $($feature:tt)*) => {{
                #[cfg(all(target_arch = $architecture, feature = "std"))]
                {
                    use $detected as detected;
                    $(detected!($feature))&&*
                }
                #[cfg(not(all(target_arch = $architecture, feature = "std")))]
                {
                    cfg!(all(target_arch = $architecture, $(target_feature = $feature),*))
                }
            }};
        }
        macro_rules! x86 {
            ($($feature:tt)*) => {
                has!("x86_64", std::arch::is_x86_feature_detected, $($feature)*)
            };
        }
        macro_rules! aarch64 {
            ($($feature:tt)*) => {
                has!("aarch64", std::arch::is_aarch64_feature_detected, $($feature)*)
            };
        }
        match self {
            Self::Avx512Vnni => {
                x86!("fma" "avx512f" "avx512bw" "avx512vl" "avx512vbmi" "avx512vnni")
            }
            Self::AvxVnni => x86!("avx2" "fma" "avxvnni"),
            Self::Avx512Vl => x86!("avx2" "fma" "avx512f" "avx512vl" "avx512vnni"),
            Self::Avx2 => x86!("avx2" "fma"),
            Self::NeonI8mm => aarch64!("dotprod" "i8mm"),
            Self::NeonDot => aarch64!("dotprod"),
            Self::Neon => cfg!(target_arch = "aarch64") || armv7_has_neon(),
            Self::Simd128 => cfg!(target_feature = "simd128"),
            Self::Scalar => true,
        }
    }
}

/// Reads the hardware capabilities from the OS kernel, because Rust has no stable API for them.
#[cfg(all(target_arch = "arm", any(target_os = "linux", target_os = "android"), feature = "std"))]
fn armv7_has_neon() -> bool {
    const CAPABILITIES: u32 = 16;
    const NEON: u32 = 1 << 12;
    let vector = std::fs::read("/proc/self/auxv").unwrap_or_default();
    let (entries, _) = vector.as_chunks::<8>();
    entries.iter().any(|&[a, b, c, d, rest @ ..]| {
        u32::from_ne_bytes([a, b, c, d]) == CAPABILITIES && u32::from_ne_bytes(rest) & NEON != 0
    })
}

#[cfg(not(all(
    target_arch = "arm",
    any(target_os = "linux", target_os = "android"),
    feature = "std"
)))]
fn armv7_has_neon() -> bool {
    false
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_scalar_is_always_supported() {
        for &isa in Isa::ALL {
            assert_eq!(Isa::from_name(isa.name()), Some(isa));
        }
        assert_eq!(Isa::from_name("none"), None);
        assert!(Isa::Scalar.is_supported());
        assert!(Isa::detect().is_supported());
    }
}
