//! Instruction sets.

use core::fmt;

use crate::packed::Packing;

/// The instruction set that kernels need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// AVX-512 with F, BW, VL, VBMI and VNNI: Ice Lake, Zen 4 and later.
    Avx512Vnni,
    /// AVX2 with AVX-VNNI: Alder Lake, Zen 5 and later.
    AvxVnni,
    /// AVX-512 VNNI in half vectors, for processors that are slower with whole ones.
    Avx512Vl,
    /// AVX2 with FMA.
    Avx2,
    /// NEON with products of matrices of bytes: Cortex-A510, A710 and later.
    NeonI8mm,
    /// NEON with dot products of four bytes: Cortex-A55, A76 and later.
    NeonDot,
    /// NEON: every AArch64 processor, and ARMv7 ones under Linux and Android that have it.
    Neon,
    /// The vectors of WebAssembly.
    Simd128,
    /// None in particular: portable code.
    Scalar,
}

impl Isa {
    /// Every instruction set there are kernels for, on whatever processor, best first.
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

    /// Its name, as the command line takes it.
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

    /// The instruction set of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|isa| isa.name() == name)
    }

    /// How its kernels want weights to be laid out; `None` as they are in a program.
    pub fn packing(self) -> Option<Packing> {
        match self {
            Self::Avx512Vnni => Some(Packing::X86Zmm),
            Self::AvxVnni | Self::Avx512Vl | Self::Avx2 => Some(Packing::X86Ymm),
            Self::NeonI8mm | Self::NeonDot | Self::Neon | Self::Simd128 => Some(Packing::NeonDot),
            Self::Scalar => None,
        }
    }

    /// The best that this processor has. Without the feature `std`, what the program was
    /// compiled for.
    pub fn detect() -> Self {
        let supported = Self::ALL.iter().copied().find(|isa| isa.is_supported());
        supported.unwrap_or(Self::Scalar)
    }

    /// Whether this processor has it.
    pub fn is_supported(self) -> bool {
        /// At run time with the feature `std`, otherwise what the program was compiled for.
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

/// Asks the kernel of the system: Rust has no stable way to.
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
    fn names_are_found_again_and_portable_code_runs_everywhere() {
        for &isa in Isa::ALL {
            assert_eq!(Isa::from_name(isa.name()), Some(isa));
        }
        assert_eq!(Isa::from_name("none"), None);
        assert!(Isa::Scalar.is_supported());
        assert!(Isa::detect().is_supported());
    }
}
