#![doc = include_str!("../README.md")]
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
