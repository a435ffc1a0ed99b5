//! Optimized operations on strided images in one byte arena.
//!
//! An image has a row stride and a pixel stride. Activations are stored as bytes with the
//! activation offset of [`Packing::activation_offset`](crate::packed::Packing::activation_offset):
//! `stored = integer + offset`. Their zero points and clamp bounds include the offset.
//!
//! An image that a padded window reads is surrounded by a *halo* of its zero point, so kernels
//! need no special case for borders. Kernels may read up to [`SLACK`] bytes past an image, but
//! never use the values.
//!
//! # Safety model
//!
//! Every public function is safe to call with any arguments: it returns `None` or panics if the
//! arguments are invalid. Kernels use raw pointers and check nothing. They rely on three
//! contracts, which the comments on unsafe code refer to:
//!
//! - *CPU features*: the CPU supports the instruction set of the kernel. [`Kernels::for_isa`] is
//!   the only way to get a kernel table, and it checks the CPU first.
//! - *`ConvBlock`*: the block of a convolution or matmul satisfies the conditions of that type.
//!   [`Conv::new`], [`Conv::run`] and [`Product::run`] establish them.
//! - *`DepthwiseRows`*: the rows of a depthwise convolution satisfy the conditions of that type.
//!   [`Depthwise::new`] and [`Depthwise::run`] establish them.
//!
//! All other kernels are safe code, compiled for an instruction set.
//!
//! Parts of an operation that run concurrently write disjoint bytes, and no part reads bytes that
//! another part writes. This relies on the contract of [`Parallel`].

use core::ops::Range;

mod conv;
mod depthwise;
mod elementwise;
mod parallel;
#[cfg(feature = "std")]
mod pool;
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "arm", any(target_os = "linux", target_os = "android")),
    target_feature = "simd128"
))]
pub(crate) mod portable;
mod ports;
mod product;
mod rows;
mod table;
mod window;

pub use conv::{Conv, ConvPlan};
pub use depthwise::{Depthwise, DepthwisePlan};
pub use elementwise::{Binary, BinaryKind, Linear, Pairs, Unary, UnaryKind};
pub use parallel::{Alone, Parallel};
#[cfg(feature = "std")]
pub(crate) use parallel::{Shared, part};
#[cfg(feature = "std")]
pub use pool::Pool;
pub use ports::{Bytes, Dequantize, Fill, Halo, Move, Quantize};
pub use product::Product;
pub use table::Kernels;
pub use window::{AveragePool, MaxPool, Resize};

use crate::packed::Packing;

pub(crate) use conv::Block as ConvBlock;
pub(crate) use depthwise::Rows as DepthwiseRows;
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use product::floats;
pub(crate) use product::{ProductKernels, Row as ProductRow};
pub(crate) use window::ResizeRow;

/// The number of bytes that kernels may read past an image: a depthwise kernel reads whole vectors,
/// of which only the first byte must belong to the image.
pub const SLACK: usize = 64;

/// The widest vector fits in the slack.
const _: () = assert!(Packing::WIDEST <= SLACK);

/// A strided view: the position of an image's pixels in an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The first byte of the first pixel.
    pub offset: usize,
    /// The row stride in bytes.
    pub row: usize,
    /// The pixel stride in bytes.
    pub pixel: usize,
}

impl View {
    /// Returns the byte range from the first to the last byte of `size` (rows and columns) pixels
    /// of `bytes` bytes each. `None` if it is empty or overflows.
    pub(crate) fn extent(&self, size: [usize; 2], bytes: usize) -> Option<Range<usize>> {
        let down = size[0].checked_sub(1)?.checked_mul(self.row)?;
        let right = size[1].checked_sub(1)?.checked_mul(self.pixel)?;
        let end = self.offset.checked_add(down)?.checked_add(right)?.checked_add(bytes)?;
        (bytes > 0).then_some(self.offset..end)
    }

    /// Returns [`View::extent`] of pixels to be written: also `None` if pixels or rows overlap.
    pub(crate) fn written(&self, size: [usize; 2], bytes: usize) -> Option<Range<usize>> {
        let all = self.extent(size, bytes)?;
        let row = self.extent([1, size[1]], bytes)?.len();
        (bytes <= self.pixel && row <= self.row).then_some(all)
    }
}

/// Returns whether two ranges are disjoint.
pub(crate) fn are_apart(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.end <= b.start || b.end <= a.start
}

/// The epilogue: converts a scaled accumulator to a stored activation,
/// `clamp(round_half_even(t) + zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epilogue {
    /// The stored activation that represents 0.
    pub zero_point: u8,
    /// The smallest stored output.
    pub low: u8,
    /// The largest stored output.
    pub high: u8,
}

#[cfg(target_arch = "x86_64")]
impl Epilogue {
    /// Returns whether the epilogue only saturates to unsigned bytes.
    #[inline(always)]
    pub(crate) fn is_saturation(&self) -> bool {
        *self == Self { zero_point: 0, low: 0, high: u8::MAX }
    }
}

/// The residual that a convolution adds before rounding: `f32(stored − zero_point) · scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residual {
    /// The view of the residual, which has the shape of the output.
    pub view: View,
    /// The stored activation that represents 0.
    pub zero_point: u8,
    /// The scale divided by the output's, with at most 15 significant bits.
    pub scale: f32,
}
