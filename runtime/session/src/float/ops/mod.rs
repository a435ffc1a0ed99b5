//! Operations of our own for tract, where it has none or they do too little.

mod blocks;
mod branch;
mod division;
mod dynamic;
mod lrn;
mod nested;
mod program;
mod quantize;
mod resize;
mod scan;
mod tree;

pub use blocks::{DequantizeBlocks, Unpack};
use branch::Branch;
pub(super) use division::CheckedDivision;
pub use dynamic::DynamicMatMul;
pub use lrn::Lrn;
pub(super) use nested::check_bodies;
pub(super) use program::Engine;
pub use program::EngineProgram;
pub use quantize::{Dequantize, Quantize};
pub use resize::Resize;
use scan::Scan;
pub use tree::TreeEnsemble;
