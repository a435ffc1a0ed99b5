//! What each fuzz target does with foreign bytes.
//!
//! The targets in `fuzz_targets` call one function each. `tests/fuzz.rs` of the workspace calls the
//! same functions with the seeds and a fixed number of mutants, without a fuzzer.

mod sealed;
mod targets;

pub use sealed::unseal;
pub use targets::*;
