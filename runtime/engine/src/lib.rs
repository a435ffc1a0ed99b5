//! Runs an integer program in a planned arena.
//!
//! A program is two sections of bytes: code, which [`program`] explains, and weights.
//! [`Program::parse`] checks every tensor, range and walk of it once; the value it returns is
//! the proof, and [`Program::run`] then neither allocates nor fails but for what the caller
//! gave. Nothing here needs an allocator, except, with the feature `alloc`, the planner that
//! makes programs (`Builder`), the plan that describes them (`Plan`), and an executor that
//! decodes a program ahead of its runs (`Executor`).
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
mod execute;
#[cfg(feature = "alloc")]
mod executor;
#[cfg(feature = "alloc")]
mod lower;
mod names;
#[cfg(feature = "alloc")]
mod needs;
mod packed;
#[cfg(feature = "alloc")]
mod plan;
mod ports;
mod run;
mod step;

#[cfg(feature = "alloc")]
pub use aligned::Aligned;
pub use code::{Program, Steps};
pub use error::{Problem, ProgramError, RunError};
#[cfg(feature = "alloc")]
pub use executor::{Executor, Observer, Unobserved};
#[cfg(feature = "alloc")]
pub use plan::{BuildError, Builder, Built, Layer, Placement, Plan, SparseLayer};
pub use run::{Input, Output};
