//! The weights section in the layout of a kernel family.
//!
//! The section contains the weights of each step in step order, aligned to 64 bytes. A
//! convolution has one packed layer with bias and scales, in the layout of
//! [`hardtack_kernels::packed`]; other steps have their tables unchanged. The section contains no
//! offsets, because they follow from the program.

#[cfg(feature = "alloc")]
mod convert;

use hardtack_kernels::packed::Packing;
use hardtack_kernels::packed::dense::Dense;
use hardtack_kernels::packed::depthwise::{Depthwise, MAXIMUM_ROWS};

use crate::check::is_depthwise;
use crate::program::*;
use crate::{Problem, ProgramError};

#[cfg(feature = "alloc")]
pub(crate) use self::convert::{length, pack, tables, unpack};

/// The alignment of ranges in bytes.
const ALIGNMENT: u64 = 64;

/// The shape of the packed weights of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Ordered by window.
    Dense(Dense),
    /// Ordered by channel.
    Depthwise(Depthwise),
}

impl Shape {
    /// Returns the shape for a convolution with these numbers of input and output channels.
    pub(crate) fn of(step: &Conv, inputs: u32, outputs: u32) -> Self {
        let [height, width] = step.window.kernel.map(usize::from);
        let alone = is_depthwise(step.groups, inputs, outputs) && step.residual.is_none();
        if alone && height <= MAXIMUM_ROWS {
            return Self::Depthwise(Depthwise {
                kernel: [height, width],
                channels: outputs as usize,
            });
        }
        let (groups, inputs) = (step.groups as usize, (inputs / step.groups) as usize);
        // The elements of a window row are contiguous in the image.
        let joined = groups == 1 && step.window.dilation[1] == 1;
        let (runs, run) = if joined { (height, width * inputs) } else { (height * width, inputs) };
        Self::Dense(Dense { groups, outputs: outputs as usize / groups, runs, run })
    }

    fn bytes(&self, packing: Packing) -> Option<usize> {
        match self {
            Self::Dense(dense) => dense.bytes(packing),
            Self::Depthwise(depthwise) => depthwise.bytes(packing),
        }
    }

    /// Returns whether `accept` returns true for every scale of the packed layer.
    pub(crate) fn all_scales(
        &self,
        packing: Packing,
        packed: &[u8],
        accept: impl Fn(f32) -> bool,
    ) -> bool {
        match self {
            Self::Dense(dense) => dense.scales(packing, packed).all(accept),
            Self::Depthwise(depthwise) => depthwise.scales(packing, packed).all(accept),
        }
    }

    /// Returns whether the weights past the end of each run of a packed layer are 0.
    pub(crate) fn has_zero_padding(&self, packing: Packing, packed: &[u8]) -> bool {
        match self {
            Self::Dense(dense) => dense.has_zero_padding(packing, packed),
            // Every element that a depthwise kernel multiplies belongs to the image or its halo.
            Self::Depthwise(_) => true,
        }
    }
}

/// Iterates over the ranges of a packed section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    packing: Packing,
    next: u64,
    /// The start and end of the last convolutions and row tiles, the most recent first.
    layers: [(u64, u64); RowTile::LONGEST_REUSE],
    /// Packed weights need an allocator. Without one no cursor can be created, and the compiler
    /// removes all code that uses one.
    #[cfg(not(feature = "alloc"))]
    #[expect(dead_code, reason = "nobody can make one")]
    never: core::convert::Infallible,
}

/// A byte range of a packed section.
pub(crate) type Range = core::ops::Range<u64>;

impl Cursor {
    #[cfg(feature = "alloc")]
    pub(crate) fn new(packing: Packing) -> Self {
        Self { packing, next: 0, layers: [(0, 0); RowTile::LONGEST_REUSE] }
    }

    pub(crate) fn packing(&self) -> Packing {
        self.packing
    }

    fn take(&mut self, bytes: u64) -> Range {
        let start = self.next;
        self.next = start.saturating_add(bytes);
        let end = self.next;
        self.next = self.next.checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX);
        start..end
    }

    /// Returns the range of the next table.
    pub(crate) fn table(&mut self, span: Span) -> Range {
        self.take(span.length.into())
    }

    /// Returns the shape and range of the next convolution. A row tile that reuses the weights of
    /// an earlier layer has the range of that layer.
    pub(crate) fn conv(&mut self, tile: &RowTile, inputs: u32, outputs: u32) -> (Shape, Range) {
        let shape = Shape::of(&tile.conv, inputs, outputs);
        let range = match tile.reuse_weights_of {
            0 => self.take(shape.bytes(self.packing).map_or(u64::MAX, |bytes| bytes as u64)),
            back => {
                let shared = self.layers.get(usize::from(back) - 1).copied();
                shared.map_or(u64::MAX..u64::MAX, |(start, end)| start..end)
            }
        };
        self.layers.rotate_right(1);
        self.layers[0] = (range.start, range.end);
        (shape, range)
    }

    /// Returns the bytes of the section after the last range.
    pub(crate) fn end(&self) -> u64 {
        self.next
    }
}

/// Returns the bytes of a range, or `None` if it exceeds the section.
pub(crate) fn slice(packed: &[u8], range: Range) -> Option<&[u8]> {
    packed.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

/// A weights section and its layout, for validation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Section<'a> {
    /// Weights of the family `mcu`.
    Plain(&'a [u8]),
    /// Packed weights, and the cursor for the next range.
    #[cfg_attr(not(feature = "alloc"), expect(dead_code, reason = "it has a cursor"))]
    Packed(&'a [u8], Cursor),
}

impl<'a> Section<'a> {
    /// Creates a section of packed weights.
    #[cfg(feature = "alloc")]
    pub(crate) fn packed(weights: &'a [u8], packing: Packing) -> Self {
        Self::Packed(weights, Cursor::new(packing))
    }

    /// Checks the length of the section. `expected` is its length in the family `mcu`.
    pub(crate) fn check_length(&self, expected: u32) -> Result<(), ProgramError> {
        let (fits, given) = match self {
            Self::Plain(weights) => (u64::from(expected) == weights.len() as u64, weights.len()),
            // Packed weights contain the same values with more padding.
            Self::Packed(packed, _) => (u64::from(expected) <= packed.len() as u64, packed.len()),
        };
        if fits {
            return Ok(());
        }
        Err(ProgramError::WeightsLength { expected, given: given as u64 })
    }

    /// Returns the bytes of a table whose range was checked.
    pub(crate) fn table(&mut self, span: Span) -> Result<&'a [u8], Problem> {
        match self {
            Self::Plain(bytes) => Ok(&bytes[span.offset as usize..][..span.length as usize]),
            Self::Packed(bytes, cursor) => {
                slice(bytes, cursor.table(span)).ok_or(Problem::OutsideWeights)
            }
        }
    }

    /// Checks after the last step that the whole section was read.
    pub(crate) fn check_end(&self) -> Result<(), ProgramError> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Packed(bytes, cursor) if cursor.end() == bytes.len() as u64 => Ok(()),
            Self::Packed(bytes, cursor) => Err(ProgramError::WeightsLength {
                expected: u32::try_from(cursor.end()).unwrap_or(u32::MAX),
                given: bytes.len() as u64,
            }),
        }
    }
}
