//! The weights section for a family of instruction sets.
//!
//! What the steps of a program read of the weights lies there in the order of the steps, each at
//! a multiple of 64: of a convolution one packed layer, bias and scales included, as
//! [`hardtack_kernels::packed`] lays it out; of other steps their tables as they are. Nothing
//! in the section says where, since it follows from the program.

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

/// Ranges start at multiples of this.
const ALIGNMENT: u64 = 64;

/// The packed weights of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Window by window.
    Dense(Dense),
    /// Channel by channel.
    Depthwise(Depthwise),
}

impl Shape {
    /// The shape for a step with these numbers of channels.
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
        // The elements of a row of the window are neighbours in the image.
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

    /// Whether `accept` likes every scale of the packed layer.
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
}

/// Walks over the ranges of a packed section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    packing: Packing,
    next: u64,
    /// First byte and end of the last convolutions and strips, the latest first.
    layers: [(u64, u64); Strip::SHARES],
    /// Without an allocator nothing reads packed weights: there is no cursor, and the compiler
    /// leaves out whatever has one.
    #[cfg(not(feature = "alloc"))]
    #[expect(dead_code, reason = "nobody can make one")]
    never: core::convert::Infallible,
}

/// A range of a packed section, in bytes.
pub(crate) type Range = core::ops::Range<u64>;

impl Cursor {
    #[cfg(feature = "alloc")]
    pub(crate) fn new(packing: Packing) -> Self {
        Self { packing, next: 0, layers: [(0, 0); Strip::SHARES] }
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

    /// The range of a table.
    pub(crate) fn table(&mut self, span: Span) -> Range {
        self.take(span.length.into())
    }

    /// The range of a convolution with these numbers of channels; of a strip, that of the layer it
    /// shares, which was checked to be the same.
    pub(crate) fn conv(&mut self, strip: &Strip, inputs: u32, outputs: u32) -> (Shape, Range) {
        let shape = Shape::of(&strip.conv, inputs, outputs);
        let range = match strip.shares {
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

    /// Bytes of the section, once every range was taken.
    pub(crate) fn end(&self) -> u64 {
        self.next
    }
}

/// The bytes of a range.
pub(crate) fn slice(packed: &[u8], range: Range) -> Option<&[u8]> {
    packed.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

/// Where a checker finds what a step reads of the weights.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Section<'a> {
    /// The family `mcu`.
    Plain(&'a [u8]),
    /// Another.
    #[cfg_attr(not(feature = "alloc"), expect(dead_code, reason = "it has a cursor"))]
    Packed(&'a [u8], Cursor),
}

impl<'a> Section<'a> {
    /// Weights packed in this way.
    #[cfg(feature = "alloc")]
    pub(crate) fn packed(weights: &'a [u8], packing: Packing) -> Self {
        Self::Packed(weights, Cursor::new(packing))
    }

    /// Whether the section may have this length where it would have `expected` bytes in the family
    /// `mcu`.
    pub(crate) fn check_length(&self, expected: u32) -> Result<(), ProgramError> {
        let (fits, given) = match self {
            Self::Plain(weights) => (u64::from(expected) == weights.len() as u64, weights.len()),
            // Packed weights have what the others have, and more padding.
            Self::Packed(packed, _) => (u64::from(expected) <= packed.len() as u64, packed.len()),
        };
        if fits {
            return Ok(());
        }
        Err(ProgramError::WeightsLength { expected, given: given as u64 })
    }

    /// The content of a table, whose length was checked.
    pub(crate) fn table(&mut self, span: Span) -> Result<&'a [u8], Problem> {
        match self {
            Self::Plain(bytes) => Ok(&bytes[span.offset as usize..][..span.length as usize]),
            Self::Packed(bytes, cursor) => {
                slice(bytes, cursor.table(span)).ok_or(Problem::OutsideWeights)
            }
        }
    }

    /// Whether everything was read, at the end of the steps.
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
