#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

pub mod proto;
mod read;

pub use read::{ReadError, TensorProblem, read, read_tensor, read_value};
