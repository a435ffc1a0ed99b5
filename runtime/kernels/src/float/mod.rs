//! Operations on f32 whose results are the same bytes on every processor with a fused
//! multiply-add.
//!
//! # Numbers
//!
//! Each output of a convolution or matmul is one chain of fused multiply-adds, which starts at 0
//! and takes the terms in ascending order of `k` (kernel row, kernel column, input channel). Then
//! follow the bias, the residual and the clamp. A border of padding reads as 0 and takes part.
//! Vectors extend over outputs, never over terms, so neither their width nor tiles nor threads
//! change a result. [`functions`] and [`rows`] are straight-line code: the compiler vectorizes a
//! loop over a slice when it inlines them, which cannot change a result.
//!
//! Processors choose different signs and payloads of NaN. Functions return [`f32::NAN`] for each;
//! in convolutions, matmuls, sums and copies the bits of a NaN are unspecified.
//!
//! # Layout
//!
//! Images are in HWC order at a [`View`](crate::strided::View) of one arena, with offsets and
//! strides in elements. An image that a padded window reads is surrounded by zeros, as for INT8.
//!
//! # Safety model
//!
//! As in [`strided`](crate::strided): public functions are safe for any arguments, a table of
//! kernels exists only if the CPU supports it, and kernels rely on the contracts of `conv::Block`
//! and `depthwise::Rows`.

use core::ops::Range;

mod arch;
pub mod columns;
mod conv;
mod depthwise;
mod elementwise;
pub mod functions;
mod map;
mod packed;
mod pool;
mod product;
mod reduce;
pub mod rows;
mod vector;

pub use arch::Kernels;
pub use conv::{Conv, ConvPlan, Residual};
pub use depthwise::{Depthwise, DepthwisePlan};
pub use elementwise::{Binary, Unary, maximum, minimum};
pub use map::{DIMS, Function, Map, Operand, Strided};
pub use packed::{DenseShape, DepthwiseShape};
pub use pool::{Pool, PoolPlan, Reduction};
pub use product::{Matrix, Product, TERM_DIMS};
pub use reduce::{RowFunction, Rows};

/// The range of outputs: a fused activation function such as ReLU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clamp {
    /// The smallest output.
    pub low: f32,
    /// The largest output.
    pub high: f32,
}

impl Clamp {
    /// Every number.
    pub const FULL: Self = Self { low: f32::NEG_INFINITY, high: f32::INFINITY };
}

/// Returns `low` if it is greater than `x`, `high` if it is less, and otherwise `x`, which may be
/// NaN.
#[inline(always)]
pub fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let raised = if low > x { low } else { x };
    if high < raised { high } else { raised }
}

/// Splits an arena into what an operation reads and what it writes, which do not overlap.
///
/// # Panics
/// If a range exceeds the arena.
fn disjoint<'a>(
    arena: &'a mut [f32],
    read: &Range<usize>,
    written: &Range<usize>,
) -> (&'a [f32], &'a mut [f32]) {
    if read.end <= written.start {
        let (before, after) = arena.split_at_mut(written.start);
        (&before[read.clone()], &mut after[..written.len()])
    } else {
        let (before, after) = arena.split_at_mut(read.start);
        (&after[..read.len()], &mut before[written.clone()])
    }
}
