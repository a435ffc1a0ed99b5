//! Packed weights of depthwise convolutions.
//!
//! A block contains for each kernel column, each step of [`ROWS`] kernel rows and each place the
//! [`ROWS`] weights of that place's channel. Rows beyond the kernel are 0. If a multiple of the
//! layer's channels fills a block, the channels are repeated, so that a kernel can compute several
//! pixels at once.

use super::{Packing, Terms, TermsMut, read_terms, scales, shift, write_terms};

/// The number of adjacent kernel rows: the MACs of one instruction per accumulator.
pub const ROWS: usize = 4;
/// The maximum number of kernel rows. Larger kernels are packed as [`Dense`](super::dense::Dense)
/// layers with one group per channel.
pub const MAXIMUM_ROWS: usize = 2 * ROWS;

/// The shape of a layer's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depthwise {
    /// The height and width of the kernel.
    pub kernel: [usize; 2],
    /// The number of channels.
    pub channels: usize,
}

/// A block: some channels of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The first channel.
    pub first: usize,
    /// The number of channels.
    pub channels: usize,
    /// The number of repetitions of the channels in the block.
    pub repeats: usize,
    /// The first byte.
    pub offset: usize,
    /// The number of bytes.
    pub bytes: usize,
}

impl Depthwise {
    fn block_bytes(self, packing: Packing) -> Option<usize> {
        let column = self.kernel[0].checked_next_multiple_of(ROWS)?;
        column.checked_mul(self.kernel[1])?.checked_add(8)?.checked_mul(packing.channels())
    }

    /// Returns the blocks in order. Offsets are meaningless if [`Depthwise::bytes`] is `None`.
    pub fn blocks(self, packing: Packing) -> impl ExactSizeIterator<Item = Block> {
        let (width, bytes) = (packing.channels(), self.block_bytes(packing).unwrap_or(usize::MAX));
        (0..self.channels.div_ceil(width)).map(move |index| {
            let first = index * width;
            let channels = width.min(self.channels - first);
            let divides = self.channels < width && width.is_multiple_of(self.channels);
            let repeats = if divides { width / self.channels } else { 1 };
            Block { first, channels, repeats, offset: index.saturating_mul(bytes), bytes }
        })
    }

    /// Returns the bytes of the packed layer, or `None` on overflow.
    pub fn bytes(self, packing: Packing) -> Option<usize> {
        self.channels.div_ceil(packing.channels()).checked_mul(self.block_bytes(packing)?)
    }

    fn place(self, packing: Packing, row: usize, column: usize, place: usize) -> usize {
        let width = packing.channels();
        let step = column * self.kernel[0].div_ceil(ROWS) + row / ROWS;
        8 * width + (step * width + place) * ROWS + row % ROWS
    }

    /// Packs a layer into `packed`, which has [`Depthwise::bytes`]. `weight` returns the weight of
    /// a (channel, kernel row, kernel column).
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
            for place in 0..packing.channels() {
                let within = packing.channel(place);
                if within >= block.channels * block.repeats {
                    continue;
                }
                let channel = block.first + within % block.channels;
                let mut sum = 0i32;
                for row in 0..self.kernel[0] {
                    for column in 0..self.kernel[1] {
                        let value = weight(channel, row, column);
                        sum = sum.wrapping_add(value.into());
                        bytes[self.place(packing, row, column, place)] = value as u8;
                    }
                }
                let bias = terms.bias[channel].wrapping_sub(shift(packing, terms.zero_point, sum));
                write_terms(bytes, packing.channels(), place, bias, terms.scales[channel]);
            }
        }
    }

    /// Unpacks a layer; the inverse of [`Depthwise::pack`]. Calls `weight` with (channel, kernel
    /// row, kernel column, weight).
    pub fn unpack(
        self,
        packing: Packing,
        packed: &[u8],
        terms: &mut TermsMut<'_>,
        mut weight: impl FnMut(usize, usize, usize, i8),
    ) {
        for block in self.blocks(packing) {
            let bytes = &packed[block.offset..][..block.bytes];
            for place in 0..packing.channels() {
                let within = packing.channel(place);
                if within >= block.channels {
                    continue;
                }
                let channel = block.first + within;
                let mut sum = 0i32;
                for row in 0..self.kernel[0] {
                    for column in 0..self.kernel[1] {
                        let value = bytes[self.place(packing, row, column, place)] as i8;
                        sum = sum.wrapping_add(value.into());
                        weight(channel, row, column, value);
                    }
                }
                let (bias, scale) = read_terms(bytes, packing.channels(), place);
                terms.bias[channel] = bias.wrapping_add(shift(packing, terms.zero_point, sum));
                terms.scales[channel] = scale;
            }
        }
    }

    /// Returns all scales in a packed layer.
    pub fn scales(self, packing: Packing, packed: &[u8]) -> impl Iterator<Item = f32> + '_ {
        self.blocks(packing).flat_map(move |block| {
            scales(&packed[block.offset..][..block.bytes], packing.channels())
        })
    }
}
