//! Opens a bundle and runs it: the crate that applications link.

mod model;
pub mod process;
mod tensor;

pub use model::{Constant, Model, Program};
pub use tensor::{Data, Tensor};
