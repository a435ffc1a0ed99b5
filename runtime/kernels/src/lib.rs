//! INT8 arithmetic: what every operation of an integer program computes, to the bit.
//!
//! Activations are i8 with a zero point, weights i8 in [−127, 127] with a scale per output
//! channel, accumulators i32. An accumulator becomes an activation in one way only,
//! [`Requantize`]: multiply by an f32 scale, round half to even, add the zero point, clamp.
//! Scales are stored with so few significant bits ([`SCALE_BITS`], [`TERM_SCALE_BITS`]) that
//! fused and separate multiply-add give the same result, so that every processor does.
//!
//! The functions in `scalar` are the definition: plain loops over slices, without unsafe code.
//! [`Kernels`] is the table through which they are called; kernels for an instruction set
//! are further tables, and equal these bit for bit on every shape.
#![no_std]
#![cfg_attr(
    target_os = "none",
    allow(dead_code, unused_imports, reason = "vectors are of larger processors")
)]
#![deny(unsafe_code)]

#[cfg(feature = "std")]
extern crate std;

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
mod table;
mod walk;

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
pub use table::Kernels;
pub use walk::Walk;
