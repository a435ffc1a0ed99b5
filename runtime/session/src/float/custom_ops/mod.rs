//! Our own tract operations, for operators that tract lacks or implements only in part.

mod blocks;
mod branch;
mod check;
mod checked;
mod division;
mod dynamic;
mod evaluate;
mod fixed;
mod late;
mod lrn;
mod matmul;
mod nested;
mod one_hot;
mod program;
mod quantize;
mod region;
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
pub(super) use dynamic::PackedMatrices;
pub use evaluate::Evaluate;
pub(super) use fixed::{check_fixed, fix_shapes};
pub(super) use late::Late;
pub use lrn::Lrn;
pub(super) use matmul::check_matmul;
pub(super) use nested::bodies;
pub(super) use one_hot::OneHot;
pub(super) use program::Engine;
pub use program::EngineProgram;
pub use quantize::{Dequantize, Quantize};
pub(super) use region::{RegionOp, Regions, Unit};
pub use resize::Resize;
pub(super) use scan::Scan;
pub(super) use top_k::TopK;
pub use tree::TreeEnsemble;
pub(super) use tree::of_trees;

use tract_core::internal::TypedOp;

/// Returns the weights that an operation has prepared from constants: where they are, since several
/// operations may share them, and their size in bytes.
pub(super) fn prepared(op: &dyn TypedOp) -> Option<(*const (), u64)> {
    dynamic::prepared(op).or_else(|| tree::prepared(op))
}
