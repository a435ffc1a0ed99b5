//! Weights of convolutions and fully connected layers.
//!
//! A window is `runs` runs of `run` neighbouring bytes of the image. Blocks follow each other
//! group by group, and within one by channel. The weights of a block: for each run, for each
//! [`DEPTH`] elements of it, for each place, that column's [`DEPTH`] weights; elements beyond the
//! run are 0.

use super::{Packing, Terms, TermsMut, read_terms, scales, shift, write_terms};

/// Elements of a column that stand together.
pub const DEPTH: usize = 4;

/// The shape of a layer's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dense {
    /// Groups the channels are split into.
    pub groups: usize,
    /// Output channels of a group.
    pub outputs: usize,
    /// Runs of a window.
    pub runs: usize,
    /// Elements of a run.
    pub run: usize,
}

/// Some columns of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Which group of channels.
    pub group: usize,
    /// First channel, counted within the group.
    pub first: usize,
    /// Number of channels.
    pub channels: usize,
    /// Number of columns.
    pub width: usize,
    /// First byte.
    pub offset: usize,
    /// Number of bytes.
    pub bytes: usize,
}

impl Dense {
    /// The blocks in order.
    pub fn blocks(self, packing: Packing) -> impl Iterator<Item = Block> {
        let (mut group, mut first, mut offset) = (0, 0, 0);
        core::iter::from_fn(move || {
            if group == self.groups {
                return None;
            }
            let width = packing.width(self.outputs - first);
            let channels = width.min(self.outputs - first);
            let bytes = width * (8 + self.runs * self.run.next_multiple_of(DEPTH));
            let block = Block { group, first, channels, width, offset, bytes };
            (first, offset) = (first + channels, offset + bytes);
            if first == self.outputs {
                (group, first) = (group + 1, 0);
            }
            Some(block)
        })
    }

    /// Bytes of the packed layer; `None` where no memory holds them.
    pub fn bytes(self, packing: Packing) -> Option<usize> {
        let run = self.run.checked_next_multiple_of(DEPTH)?;
        let column = self.runs.checked_mul(run)?.checked_add(8)?;
        let mut columns = self.outputs / packing.width(usize::MAX) * packing.width(usize::MAX);
        if columns < self.outputs {
            columns = columns.checked_add(packing.width(self.outputs - columns))?;
        }
        columns.checked_mul(column)?.checked_mul(self.groups)
    }

    fn place(self, block: &Block, run: usize, element: usize, place: usize) -> usize {
        let steps = self.run.div_ceil(DEPTH);
        let step = run * steps + element / DEPTH;
        8 * block.width + (step * block.width + place) * DEPTH + element % DEPTH
    }

    /// Packs a layer into exactly [`Dense::bytes`]. `weight`: of an output channel, counted over
    /// all groups, at an element of a run.
    pub fn pack(
        self,
        packing: Packing,
        terms: &Terms<'_>,
        weight: impl Fn(usize, usize, usize) -> i8,
        packed: &mut [u8],
    ) {
        packed.fill(0);
        for block in self.blocks(packing) {
            let bytes = &mut packed[block.offset..][..block.bytes];
            for place in 0..block.width {
                let column = packing.column(block.width, place);
                if column >= block.channels {
                    continue;
                }
                let channel = block.group * self.outputs + block.first + column;
                let mut sum = 0i32;
                for run in 0..self.runs {
                    for element in 0..self.run {
                        let value = weight(channel, run, element);
                        sum = sum.wrapping_add(value.into());
                        bytes[self.place(&block, run, element, place)] = value as u8;
                    }
                }
                let bias = terms.bias[channel].wrapping_sub(shift(packing, terms.zero_point, sum));
                write_terms(bytes, block.width, place, bias, terms.scales[channel]);
            }
        }
    }

    /// The inverse of [`Dense::pack`]. `weight` takes each weight.
    pub fn unpack(
        self,
        packing: Packing,
        packed: &[u8],
        terms: &mut TermsMut<'_>,
        mut weight: impl FnMut(usize, usize, usize, i8),
    ) {
        for block in self.blocks(packing) {
            let bytes = &packed[block.offset..][..block.bytes];
            for place in 0..block.width {
                let column = packing.column(block.width, place);
                if column >= block.channels {
                    continue;
                }
                let channel = block.group * self.outputs + block.first + column;
                let mut sum = 0i32;
                for run in 0..self.runs {
                    for element in 0..self.run {
                        let value = bytes[self.place(&block, run, element, place)] as i8;
                        sum = sum.wrapping_add(value.into());
                        weight(channel, run, element, value);
                    }
                }
                let (bias, scale) = read_terms(bytes, block.width, place);
                terms.bias[channel] = bias.wrapping_add(shift(packing, terms.zero_point, sum));
                terms.scales[channel] = scale;
            }
        }
    }

    /// All scales in a packed layer.
    pub fn scales(self, packing: Packing, packed: &[u8]) -> impl Iterator<Item = f32> + '_ {
        self.blocks(packing)
            .flat_map(move |block| scales(&packed[block.offset..][..block.bytes], block.width))
    }
}
