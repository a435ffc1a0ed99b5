#![doc = include_str!("../README.md")]
//!
//! # How it works
//!
//! 1. [`regions`] finds the parts of a graph whose operators have kernels here.
//! 2. [`Plan::new`] compiles one region for fixed shapes. It fuses biases, residual additions and
//!    clamps into convolutions, chooses the order of dimensions in memory (channels innermost, with
//!    a border of zeros where a padded window reads), packs weights, and places all tensors in one
//!    arena.
//! 3. [`Plan::run`] runs the operations. It does not allocate.

#![forbid(unsafe_code)]

mod build;
mod functions;
mod plan;
mod region;
mod tensor;

pub use plan::Plan;
pub use region::{Region, is_constant, regions};

use std::borrow::Cow;

/// The constants of a graph.
pub trait Constants {
    /// Returns the elements of a constant as f32, row-major. The element type in the graph is f32
    /// (stored as f32, f16 or bf16), i8 or u8; `None` for other types.
    fn values(&self, index: u32) -> Option<Cow<'_, [f32]>>;
}
