//! Kernels in the instructions of one processor family each.

#[cfg(target_arch = "aarch64")]
pub(crate) mod aarch64;
#[cfg(target_arch = "arm")]
pub(crate) mod arm;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_feature = "simd128"))]
mod depthwise;
#[cfg(any(target_arch = "aarch64", target_feature = "simd128"))]
mod quads;
#[cfg(target_feature = "simd128")]
pub(crate) mod wasm32;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;
