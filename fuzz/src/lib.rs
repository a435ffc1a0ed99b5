//! The functions behind the fuzz targets.
//!
//! Each target in `fuzz_targets` calls one function. `tests/fuzz.rs` of the workspace calls the
//! same functions with seeds and a fixed number of mutants, without a fuzzer.

mod sealed;
mod targets;

pub use sealed::unseal;
pub use targets::*;
