//! Kernels in the instructions of one processor family each.

#[cfg(target_arch = "aarch64")]
pub(crate) mod aarch64;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod depthwise;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;
