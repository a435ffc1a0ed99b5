//! What a Hardtack bundle is.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

mod dtype;
#[cfg(feature = "alloc")]
pub mod graph;

pub use dtype::DType;
pub mod manifest;
pub mod process;
