//! Checks that windows fit in an image.

use tract_core::internal::*;
use tract_core::ops::cnn::{PaddingSpec, PoolSpec};

use super::{OperandError, Sizes};

/// The maximum number of window elements that tract lists. It lists them once for each way in which
/// the window overlaps the border.
const MOST_LISTED: u64 = 1 << 24;

/// The number of bytes of a listed window element.
const LISTED_BYTES: u64 = 32;

/// The maximum number of elements of a padded input, unless the padding multiplies the elements by
/// at most [`PADDED`]. tract copies the input together with its padding.
const MOST_PADDED: u64 = 1 << 26;
const PADDED: u64 = 64;

/// The requirements of windows on the spatial axes of an input.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::float) struct Fit {
    /// The first spatial axis of the input.
    first: usize,
    axes: TVec<Axis>,
}

#[derive(Clone, Debug, PartialEq)]
struct Axis {
    kernel: usize,
    dilation: usize,
    stride: usize,
    padding: Padding,
    /// The output padding if this is a transposed convolution.
    transposed: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Padding {
    /// Padding before and after, and whether the output size is rounded up.
    Explicit(usize, usize, bool),
    Same,
}

impl Fit {
    /// Returns the requirements of a pool or convolution, or of a transposed convolution with these
    /// `adjustments` (output padding).
    pub fn new(pool: &PoolSpec, adjustments: Option<&[usize]>) -> Fit {
        let axis = |at: usize| Axis {
            kernel: pool.kernel_shape[at],
            dilation: pool.dilation(at),
            stride: pool.stride(at),
            padding: match &pool.padding {
                PaddingSpec::Valid => Padding::Explicit(0, 0, false),
                PaddingSpec::Explicit(before, after) => {
                    Padding::Explicit(before[at], after[at], false)
                }
                PaddingSpec::ExplicitOnnxPool(before, after, ceil) => {
                    Padding::Explicit(before[at], after[at], *ceil)
                }
                PaddingSpec::SameUpper | PaddingSpec::SameLower => Padding::Same,
            },
            transposed: adjustments.map(|adjustments| adjustments[at]),
        };
        let axes = (0..pool.kernel_shape.len()).map(axis).collect();
        Fit { first: pool.data_format.h_axis(), axes }
    }

    /// Returns the number of bytes of the lists of window elements for an input of these sizes.
    pub(super) fn listed_bytes(&self, shape: &Sizes) -> u64 {
        let sizes = self.axes.iter().zip(&shape[self.first..]);
        let listed = sizes.map(|(axis, size)| {
            (axis.kernel as u64).saturating_mul(size.map_or(1, |size| axis.edges(size)))
        });
        listed.fold(LISTED_BYTES, u64::saturating_mul)
    }

    /// Checks the sizes of an input. Returns whether all were known.
    pub(super) fn check(&self, shape: &Sizes) -> Result<bool, OperandError> {
        let mut known = true;
        let (mut listed, mut size_of_all, mut padded) = (1u64, 1u64, 1u64);
        for (at, axis) in self.axes.iter().enumerate() {
            listed = listed.saturating_mul(axis.kernel as u64);
            let Some(size) = shape[self.first + at] else {
                known = false;
                continue;
            };
            axis.check(self.first + at, size)?;
            listed = listed.saturating_mul(axis.edges(size));
            size_of_all = size_of_all.saturating_mul(size as u64);
            padded = padded.saturating_mul(axis.padded(size));
        }
        if padded > size_of_all.saturating_mul(PADDED).max(MOST_PADDED) {
            return Err(OperandError::Windows);
        }
        if self.axes.iter().all(|axis| axis.transposed.is_none()) && listed > MOST_LISTED {
            return Err(OperandError::Windows);
        }
        Ok(known)
    }
}

impl Axis {
    /// Returns the dilated size of the window. The sizes are limited, so that this cannot overflow.
    fn field(&self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }

    fn check(&self, axis: usize, size: usize) -> Result<(), OperandError> {
        let field = self.field();
        if size == 0 {
            return Err(OperandError::Few { axis, size, least: 1 });
        }
        if let Some(added) = self.transposed {
            return self.check_transposed(axis, size, added);
        }
        let fits = match self.padding {
            Padding::Same => true,
            Padding::Explicit(before, after, false) => size + before + after >= field,
            // When rounding up, the first window may lack less than one stride.
            Padding::Explicit(before, after, true) => size + before + after + self.stride > field,
        };
        if fits { Ok(()) } else { Err(OperandError::Window { axis, size, field }) }
    }

    fn check_transposed(&self, axis: usize, size: usize, added: usize) -> Result<(), OperandError> {
        let whole = (size as u64 - 1).saturating_mul(self.stride as u64) + self.field() as u64;
        let cut = match self.padding {
            Padding::Explicit(before, after, _) => before as u64 + after as u64,
            // tract crops this much and ignores the output padding.
            Padding::Same => (self.field() + added).saturating_sub(self.stride) as u64,
        };
        let added = if self.padding == Padding::Same { 0 } else { added as u64 };
        if whole + added > cut { Ok(()) } else { Err(OperandError::Empty { axis }) }
    }

    /// Returns the number of elements along the axis, including the padding.
    fn padded(&self, size: usize) -> u64 {
        let padding = match self.padding {
            _ if self.transposed.is_some() => 0,
            Padding::Explicit(before, after, _) => before as u64 + after as u64,
            Padding::Same => self.field() as u64,
        };
        padding + size as u64
    }

    /// Returns an upper bound on the number of ways in which a window overlaps the border, plus
    /// one.
    fn edges(&self, size: usize) -> u64 {
        let field = self.field();
        let (before, after) = match self.padding {
            Padding::Explicit(before, after, ceil) => {
                (before, after + if ceil { self.stride } else { 0 })
            }
            Padding::Same => (field, field),
        };
        let places = |over: usize| over.min(size + field).div_ceil(self.stride) as u64;
        let padded = (size + before.min(size + field) + after.min(size + field)) as u64;
        (1 + places(before) + places(after)).min(padded)
    }
}
