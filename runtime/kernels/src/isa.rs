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
    /// NEON with dot products of four bytes: Cortex-A55, A76 and later.
    NeonDot,
    /// NEON: every AArch64 processor.
    Neon,
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
        Self::NeonDot,
        Self::Neon,
        Self::Scalar,
    ];

    /// Its name, as the command line takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512Vnni => "avx512vnni",
            Self::AvxVnni => "avxvnni",
            Self::Avx512Vl => "avx512vl",
            Self::Avx2 => "avx2",
            Self::NeonDot => "neondot",
            Self::Neon => "neon",
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
            Self::NeonDot | Self::Neon => Some(Packing::NeonDot),
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
        macro_rules! has {
            ($($feature:tt)*) => {{
                #[cfg(all(target_arch = "x86_64", feature = "std"))]
                let found = $(std::arch::is_x86_feature_detected!($feature))&&*;
                #[cfg(all(target_arch = "x86_64", not(feature = "std")))]
                let found = $(cfg!(target_feature = $feature))&&*;
                #[cfg(not(target_arch = "x86_64"))]
                let found = false;
                found
            }};
        }
        match self {
            Self::Avx512Vnni => {
                has!("avx512f" "avx512bw" "avx512vl" "avx512vbmi" "avx512vnni")
            }
            Self::AvxVnni => has!("avx2" "fma" "avxvnni"),
            Self::Avx512Vl => has!("avx2" "fma" "avx512f" "avx512vl" "avx512vnni"),
            Self::Avx2 => has!("avx2" "fma"),
            #[cfg(all(target_arch = "aarch64", feature = "std"))]
            Self::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(not(all(target_arch = "aarch64", feature = "std")))]
            Self::NeonDot => cfg!(all(target_arch = "aarch64", target_feature = "dotprod")),
            Self::Neon => cfg!(target_arch = "aarch64"),
            Self::Scalar => true,
        }
    }
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
