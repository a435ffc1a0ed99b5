//! Our own tract operations, for operators that tract lacks or implements only in part.

mod blocks;
mod branch;
mod check;
mod checked;
mod division;
mod dynamic;
mod fixed;
mod lrn;
mod matmul;
mod nested;
mod one_hot;
mod program;
mod quantize;
mod resize;
mod scan;
mod top_k;
mod tree;

pub use blocks::{DequantizeBlocks, Unpack};
pub(super) use branch::Branch;
pub(super) use check::{Check, Fit, Letter, OperandError, tile};
pub(super) use checked::Checked;
pub(super) use division::CheckedDivision;
pub use dynamic::DynamicMatMul;
pub(super) use fixed::{check_fixed, fix_shapes};
pub use lrn::Lrn;
pub(super) use matmul::check_matmul;
pub(super) use nested::own_loops;
pub(super) use one_hot::OneHot;
pub(super) use program::Engine;
pub use program::EngineProgram;
pub use quantize::{Dequantize, Quantize};
pub use resize::Resize;
use scan::Scan;
pub(super) use top_k::TopK;
pub use tree::TreeEnsemble;
