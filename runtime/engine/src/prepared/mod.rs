//! Decodes a program once, lays out its arena, and runs it with SIMD kernels.

mod coverage;
mod executor;
mod lower;

pub use self::executor::{Executor, NoHook, Observer};
pub(crate) use self::lower::Lowered;
