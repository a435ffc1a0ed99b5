//! 32-bit Arm: NEON of processors with an operating system, and the instructions for two products
//! that the larger Cortex-M have as well.

#[cfg(feature = "dsp")]
pub(crate) mod dsp;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) mod neon;
