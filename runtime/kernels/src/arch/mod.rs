//! Kernels in the instructions of one processor family each.
//!
//! What unsafe code here relies on has names: the *processor*, the *block*
//! ([`ConvBlock`](crate::strided::ConvBlock)) and the *rows*
//! ([`DepthwiseRows`](crate::strided::DepthwiseRows)) are as [`strided`](crate::strided) says. All
//! three hold from the call of a kernel to its end, and every function within passes them on: where a
//! function needs nothing else, it says only which of them it needs. What a function needs of a
//! pointer it is given, it states in bytes.

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
