//! Operations on images that lie anywhere in one arena of bytes, row by row at any distance.
//!
//! Activations are stored as bytes, raised by [`Packing::raise`](crate::packed::Packing::raise):
//! `stored = integer + raise`. Everything an operation is told about stored activations, zero
//! points and limits, is raised alike.
//!
//! Around an image that a padded window reads lies a *halo* of its zero point, so that no kernel
//! needs to know about borders. Kernels read up to [`SLACK`] bytes beyond what an image needs,
//! and never use what they read there.
//!
//! # What is checked, and what kernels rely on
//!
//! Every function here is safe to call with any arguments: it refuses what it cannot do, or panics.
//! Kernels work on raw pointers and check nothing. They rely on three things, which the comments on
//! unsafe code name:
//!
//! - The *processor* has the instructions. [`Kernels::for_isa`] is the only way to a table of
//!   kernels, and asks the processor first.
//! - A *block* of a convolution or of a product is as [`ConvBlock`] says. [`Conv::new`] and
//!   [`Conv::run`] make sure of it, and [`Product::run`].
//! - *Rows* of a depthwise convolution are as [`DepthwiseRows`] says. [`Depthwise::new`] and
//!   [`Depthwise::run`] make sure of it.
//!
//! All other kernels are functions without unsafe code, compiled for an instruction set.
//!
//! Parts of an operation that run at the same time write different bytes and read none that another
//! writes; that needs what [`Parallel`] promises.

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
pub use pool::Pool;
pub use ports::{Bytes, Dequantize, Fill, Halo, Move, Quantize};
pub use product::Product;
pub use table::Kernels;
pub use window::{AveragePool, MaxPool, Resize};

use crate::packed::Packing;

pub(crate) use conv::Block as ConvBlock;
pub(crate) use depthwise::Rows as DepthwiseRows;
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use product::reals;
pub(crate) use product::{ProductKernels, Row as ProductRow};
pub(crate) use window::ResizeRow;

/// Bytes that kernels may read behind an image: a depthwise kernel reads whole vectors, of which the
/// first byte belongs to the image.
pub const SLACK: usize = 64;

/// No vector reads further.
const _: () = assert!(Packing::WIDEST <= SLACK);

/// Where the pixels of an image lie in an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// First byte of the first pixel.
    pub offset: usize,
    /// Bytes from one row to the next.
    pub row: usize,
    /// Bytes from one pixel to the next.
    pub pixel: usize,
}

impl View {
    /// The bytes between the first and the last that `size` (rows and columns) pixels of `bytes`
    /// bytes touch. `None` where there are no such bytes, and where they lie beyond all memory.
    pub(crate) fn extent(&self, size: [usize; 2], bytes: usize) -> Option<Range<usize>> {
        let down = size[0].checked_sub(1)?.checked_mul(self.row)?;
        let right = size[1].checked_sub(1)?.checked_mul(self.pixel)?;
        let end = self.offset.checked_add(down)?.checked_add(right)?.checked_add(bytes)?;
        (bytes > 0).then_some(self.offset..end)
    }

    /// [`View::extent`] of pixels that are written: `None` also where two of them share a byte, or
    /// two rows do.
    pub(crate) fn written(&self, size: [usize; 2], bytes: usize) -> Option<Range<usize>> {
        let all = self.extent(size, bytes)?;
        let row = self.extent([1, size[1]], bytes)?.len();
        (bytes <= self.pixel && row <= self.row).then_some(all)
    }
}

/// Whether two ranges have no byte in common.
fn are_apart(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.end <= b.start || b.end <= a.start
}

/// From a scaled sum to a stored activation: `clamp(round_half_even(t) + zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// What 0 is stored as.
    pub zero_point: u8,
    /// Least.
    pub low: u8,
    /// Greatest.
    pub high: u8,
}

#[cfg(target_arch = "x86_64")]
impl Finish {
    /// Whether it is nothing but the saturation of unsigned bytes.
    #[inline(always)]
    pub(crate) fn is_saturation(&self) -> bool {
        *self == Self { zero_point: 0, low: 0, high: u8::MAX }
    }
}

/// What a convolution adds before rounding: `f32(stored − zero_point) · scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residual {
    /// Shaped as the output.
    pub view: View,
    /// What its 0 is stored as.
    pub zero_point: u8,
    /// Its scale over the output's, of at most 15 significant bits.
    pub scale: f32,
}
