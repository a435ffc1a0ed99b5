//! Operations of our own for tract, where it has none or they do too little.

mod blocks;
mod division;
mod dynamic;
mod lrn;
mod program;
mod quantize;
mod resize;
mod tree;

pub use blocks::{DequantizeBlocks, Unpack};
pub(super) use division::CheckedDivision;
pub use dynamic::DynamicMatMul;
pub use lrn::Lrn;
pub(super) use program::Engine;
pub use program::EngineProgram;
pub use quantize::{Dequantize, Quantize};
pub use resize::Resize;
pub use tree::TreeEnsemble;
