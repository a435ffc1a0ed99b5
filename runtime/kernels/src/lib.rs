#![doc = include_str!("../README.md")]
//!
//! # Numbers
//!
//! Activations are i8 with a zero point, weights are i8 in [−127, 127] with a scale per output
//! channel, and accumulators are i32. [`Requantize`] is the only conversion from accumulator to
//! activation: multiply by an f32 scale, round half to even, add the zero point, clamp. Scales
//! have a limited number of significant bits ([`SCALE_BITS`], [`TERM_SCALE_BITS`]), so that fused
//! and separate multiply-add give the same result.
//!
//! [`ReferenceKernels`] is the table of the reference implementation, and [`strided::Kernels`] that
//! of the SIMD kernels.
#![no_std]
#![cfg_attr(
    target_os = "none",
    allow(dead_code, unused_imports, reason = "microcontrollers do not use the SIMD kernels")
)]
#![deny(unsafe_code)]

#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "std")]
#[allow(unsafe_code)]
pub mod float;
pub mod packed;
#[cfg(feature = "sparse")]
pub mod sparse;
#[allow(unsafe_code)]
pub mod strided;

mod accumulator;
#[allow(unsafe_code)]
mod arch;
mod dynamic;
mod exponential;
mod geometry;
mod isa;
mod operation;
mod rounding;
mod scalar;
mod strided_copy;
mod table;

pub use accumulator::{AccumulatorBound, AccumulatorOverflow, prove_accumulator};
pub use dynamic::{Affine, Ranges};
pub use exponential::softmax_table;
pub use geometry::{Image, Taps, Window};
pub use isa::Isa;
pub use operation::{
    Add, AveragePool, Clamp, Conv, Dequantize, MaxPool, Move, Multiply, Product, Quantize,
    Residual, Resize, Sample, Softmax,
};
pub use rounding::{
    Requantize, SCALE_BITS, TERM_SCALE_BITS, is_significant, round_half_even, round_significant,
};
pub use scalar::product;
pub use strided_copy::StridedCopy;
pub use table::ReferenceKernels;
