//! Kernels for 32-bit Arm: NEON for processors with an operating system, and the DSP extension for
//! larger Cortex-M.

#[cfg(feature = "dsp")]
pub(crate) mod dsp;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) mod neon;
