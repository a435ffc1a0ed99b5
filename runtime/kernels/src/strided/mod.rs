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
//! Running an operation checks that all it touches lies in the arena and in the weights, and panics
//! otherwise; the kernels then rely on it.

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
pub use depthwise::Depthwise;
pub use elementwise::{Binary, BinaryKind, Linear, Pairs, Unary, UnaryKind};
pub use parallel::{Alone, Parallel};
#[cfg(feature = "std")]
pub use pool::Pool;
pub use ports::{Bytes, Dequantize, Fill, Halo, Move, Quantize};
pub use product::Product;
pub use table::Kernels;
pub use window::{AveragePool, MaxPool, Resize};

pub(crate) use conv::Block as ConvBlock;
pub(crate) use depthwise::Rows as DepthwiseRows;
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use product::reals;
pub(crate) use product::{ProductKernels, Row as ProductRow};
pub(crate) use window::ResizeRow;

/// Bytes that kernels may read behind an image.
pub const SLACK: usize = 64;

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
    /// The end of what `rows` rows of `columns` pixels of `bytes` bytes touch, saturating.
    fn end(&self, rows: usize, columns: usize, bytes: usize) -> usize {
        let down = rows.saturating_sub(1).saturating_mul(self.row);
        let right = columns.saturating_sub(1).saturating_mul(self.pixel);
        self.offset.saturating_add(down).saturating_add(right).saturating_add(bytes)
    }

    /// Whether `columns` pixels of `bytes` bytes share no byte with their neighbours, in the row
    /// and below.
    fn is_disjoint(&self, columns: usize, bytes: usize) -> bool {
        let row = columns.saturating_sub(1).saturating_mul(self.pixel).saturating_add(bytes);
        bytes <= self.pixel && row <= self.row
    }
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
