//! SIMD kernels for each processor family.
//!
//! Unsafe code here relies on three contracts, defined in [`strided`](crate::strided):
//!
//! - *CPU features*: the CPU supports the instruction set of the kernel.
//! - The contract of [`ConvBlock`](crate::strided::ConvBlock).
//! - The contract of [`DepthwiseRows`](crate::strided::DepthwiseRows).
//!
//! They hold from the call of a kernel until it returns, so every function can rely on the
//! contracts of its caller. Each `# Safety` section names the contracts that the function requires,
//! and any further requirement on a pointer argument in bytes.

#[cfg(target_arch = "aarch64")]
pub(crate) mod aarch64;
#[cfg(target_arch = "arm")]
pub(crate) mod arm;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_feature = "simd128"))]
mod depthwise;
#[cfg(any(target_arch = "aarch64", target_feature = "simd128"))]
mod vec128;
#[cfg(target_feature = "simd128")]
pub(crate) mod wasm32;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;
