//! Runs a program step by step with the reference kernels, without an allocator.

mod run;
mod steps;

#[cfg(feature = "alloc")]
pub(crate) use self::run::check_ports;
pub use self::run::{Input, Output};
#[cfg(feature = "alloc")]
pub(crate) use self::steps::*;
