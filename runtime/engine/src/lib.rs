//! Runs INT8 programs in a statically planned arena.
//!
//! A program consists of two byte sections: code, described in [`program`], and weights.
//! [`Program::parse`] validates every tensor, weight range and strided copy once. After that,
//! [`Program::run`] does not allocate and fails only if the arena, inputs or outputs that the
//! caller passes do not fit the program.
//!
//! Running needs no allocator. The feature `alloc` adds the planner that writes programs
//! (`Builder`), the memory plan (`Plan`), and an executor that decodes a program once and runs
//! it with SIMD kernels (`Executor`).
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod program;

#[cfg(feature = "alloc")]
mod aligned;
mod arena;
mod check;
mod code;
mod error;
mod names;
#[cfg(feature = "alloc")]
mod needs;
mod packed;
#[cfg(feature = "alloc")]
mod plan;
mod ports;
#[cfg(feature = "alloc")]
mod prepared;
mod reference;
mod step;

#[cfg(feature = "alloc")]
pub use aligned::Aligned;
pub use code::{Program, Steps};
pub use error::{Problem, ProgramError, RunError};
#[cfg(feature = "alloc")]
pub use plan::{BuildError, Builder, Built, Layer, Placement, Plan, SparseLayer};
#[cfg(feature = "alloc")]
pub use prepared::{Executor, NoHook, Observer};
pub use reference::{Input, Output};
