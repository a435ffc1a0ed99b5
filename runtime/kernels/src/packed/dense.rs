//! Packed weights of convolutions and fully connected layers.
//!
//! A window consists of `runs` runs of `run` contiguous bytes of the image. Blocks are ordered by
//! group, then by channel. A block contains for each run, each step of [`DEPTH`] elements of the
//! run and each place the [`DEPTH`] weights of that place's column. Weights past the end of a run
//! are 0.

use super::{Packing, Terms, TermsMut, read_terms, scales, shift, write_terms};

/// The number of adjacent elements of a column: the MACs of one instruction per accumulator.
pub const DEPTH: usize = 4;

/// The shape of a layer's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dense {
    /// The number of groups.
    pub groups: usize,
    /// The number of output channels per group.
    pub outputs: usize,
    /// The number of runs of a window.
    pub runs: usize,
    /// The number of elements of a run.
    pub run: usize,
}

/// A block: some columns of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The group.
    pub group: usize,
    /// The first channel, relative to the group.
    pub first: usize,
    /// The number of channels.
    pub channels: usize,
    /// The number of columns, including those without a channel.
    pub width: usize,
    /// The first byte.
    pub offset: usize,
    /// The number of bytes.
    pub bytes: usize,
}

impl Dense {
    /// Returns the blocks in order. [`Dense::bytes`] must not be `None`.
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

    /// Returns the bytes of the packed layer, or `None` on overflow.
    pub fn bytes(self, packing: Packing) -> Option<usize> {
        let run = self.run.checked_next_multiple_of(DEPTH)?;
        let column = self.runs.checked_mul(run)?.checked_add(8)?;
        let mut columns = self.outputs / packing.width(usize::MAX) * packing.width(usize::MAX);
        if columns < self.outputs {
            columns = columns.checked_add(packing.width(self.outputs - columns))?;
        }
        columns.checked_mul(column)?.checked_mul(self.groups)
    }

    /// Returns the places of a block that have a channel, each with the channel's index in the
    /// layer.
    fn channels(self, packing: Packing, block: Block) -> impl Iterator<Item = (usize, usize)> {
        (0..block.width).filter_map(move |place| {
            let column = packing.column(block.width, place);
            let channel = block.group * self.outputs + block.first + column;
            (column < block.channels).then_some((place, channel))
        })
    }

    /// Packs a layer into `packed`, which has [`Dense::bytes`]. Each output channel has `stride`
    /// bytes in `weights`, of which the first are its runs.
    pub fn pack(
        self,
        packing: Packing,
        terms: &Terms<'_>,
        (weights, stride): (&[u8], usize),
        packed: &mut [u8],
    ) {
        packed.fill(0);
        for block in self.blocks(packing) {
            let bytes = &mut packed[block.offset..][..block.bytes];
            for (place, channel) in self.channels(packing, block) {
                let weights = &weights[channel * stride..][..self.runs * self.run];
                let mut at = 8 * block.width + DEPTH * place;
                for run in weights.chunks_exact(self.run) {
                    let (steps, rest) = run.as_chunks::<DEPTH>();
                    for step in steps {
                        bytes[at..at + DEPTH].copy_from_slice(step);
                        at += DEPTH * block.width;
                    }
                    if !rest.is_empty() {
                        bytes[at..at + rest.len()].copy_from_slice(rest);
                        at += DEPTH * block.width;
                    }
                }
                let shift = shift(packing, terms.zero_point, sum(weights));
                let bias = terms.bias[channel].wrapping_sub(shift);
                write_terms(bytes, block.width, place, bias, terms.scales[channel]);
            }
        }
    }

    /// Unpacks a layer; the inverse of [`Dense::pack`]. Bytes after the runs of a channel are
    /// unchanged.
    pub fn unpack(
        self,
        packing: Packing,
        packed: &[u8],
        terms: &mut TermsMut<'_>,
        (weights, stride): (&mut [u8], usize),
    ) {
        for block in self.blocks(packing) {
            let bytes = &packed[block.offset..][..block.bytes];
            for (place, channel) in self.channels(packing, block) {
                let weights = &mut weights[channel * stride..][..self.runs * self.run];
                let mut at = 8 * block.width + DEPTH * place;
                for run in weights.chunks_exact_mut(self.run) {
                    for step in run.chunks_mut(DEPTH) {
                        step.copy_from_slice(&bytes[at..at + step.len()]);
                        at += DEPTH * block.width;
                    }
                }
                let (bias, scale) = read_terms(bytes, block.width, place);
                let shift = shift(packing, terms.zero_point, sum(weights));
                terms.bias[channel] = bias.wrapping_add(shift);
                terms.scales[channel] = scale;
            }
        }
    }

    /// Returns whether the weights past the end of each run are 0. Kernels multiply them by
    /// whatever bytes follow the run.
    pub fn has_zero_padding(self, packing: Packing, packed: &[u8]) -> bool {
        let used = self.run % DEPTH;
        let steps = self.run.div_ceil(DEPTH);
        used == 0
            || self.blocks(packing).all(|block| {
                let weights = &packed[block.offset..][8 * block.width..block.bytes];
                // The last step of each run: a group of weights for each place.
                let runs = weights.chunks_exact(steps * DEPTH * block.width);
                let last = runs.flat_map(|run| &run[(steps - 1) * DEPTH * block.width..]);
                last.enumerate().all(|(index, weight)| index % DEPTH < used || *weight == 0)
            })
    }

    /// Returns all scales in a packed layer.
    pub fn scales(self, packing: Packing, packed: &[u8]) -> impl Iterator<Item = f32> + '_ {
        self.blocks(packing)
            .flat_map(move |block| scales(&packed[block.offset..][..block.bytes], block.width))
    }
}

/// Returns the sum of weights interpreted as i8.
fn sum(weights: &[u8]) -> i32 {
    weights.iter().fold(0, |sum: i32, &weight| sum.wrapping_add((weight as i8).into()))
}
