//! Kernels for WebAssembly SIMD.

mod simd;

use self::simd::Simd128;
use super::vec128::{conv, kernels};

kernels!(simd128, Simd128, "simd128", Simd128, conv::tile::<Simd128, P, REAL>, simd::peak);
