//! Weights as the kernels of an instruction set read them.
//!
//! A layer is one range of bytes, a multiple of 64 long, made of blocks. A block holds what a
//! kernel needs to compute `width` output channels, its *columns*:
//!
//! | bytes | content |
//! |---|---|
//! | 4 · width | bias i32: `bias[c] − (zero_point + raise) · Σ w[c]`, so that a kernel need not subtract the input's zero point |
//! | 4 · width | scale f32 |
//! | rest | weights i8 |
//!
//! Columns without a channel are 0 throughout. *Raise* is what activations are stored raised by:
//! 128 where the multiplying instruction wants them unsigned, otherwise 0.
//!
//! Columns stand in an order in which narrowing instructions, which work on each 16 bytes of a
//! vector alone, put the outputs into their natural order: of `vectors` vectors of `lanes` times
//! four sums, place `4 · (lanes · j + l) + i` holds column `4 · (vectors · l + j) + i`.
//!
//! [`dense`] and [`depthwise`] say how weights follow each other; [`product`] has terms and an order of
//! its own. Numbers are little-endian.

pub mod dense;
pub mod depthwise;
pub mod product;

/// A layout of packed weights: one per family of instruction sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Packing {
    /// Vectors of 16 sums, products of 4 pairs: AVX-512 VNNI.
    X86Zmm,
    /// Vectors of 8 sums, products of 4 pairs: AVX-VNNI and AVX2.
    X86Ymm,
    /// Vectors of 4 sums, products of 4 pairs of signed bytes: NEON.
    NeonDot,
}

impl Packing {
    /// Every layout.
    pub const ALL: &'static [Self] = &[Self::X86Zmm, Self::X86Ymm, Self::NeonDot];

    /// The most channels in a block of a depthwise layer, and the most columns in one of a dense
    /// layer.
    pub(crate) const WIDEST: usize = 64;

    /// What stored activations are raised by.
    pub fn raise(self) -> i32 {
        match self {
            Self::X86Zmm | Self::X86Ymm => 128,
            Self::NeonDot => 0,
        }
    }

    /// Lanes of 16 bytes in a vector.
    const fn lanes(self) -> usize {
        match self {
            Self::X86Zmm => 4,
            Self::X86Ymm => 2,
            Self::NeonDot => 1,
        }
    }

    /// Vectors of sums in the widest block of a dense layer.
    const fn vectors(self) -> usize {
        match self {
            Self::X86Zmm => 4,
            Self::X86Ymm => 2,
            Self::NeonDot => 4,
        }
    }

    /// Channels in a block of a depthwise layer.
    pub const fn channels(self) -> usize {
        16 * self.lanes()
    }

    /// Columns of the next block of a dense layer, where so many channels are left.
    pub fn width(self, left: usize) -> usize {
        let vector = 4 * self.lanes();
        match self {
            Self::X86Zmm => left.div_ceil(vector).min(self.vectors()) * vector,
            Self::X86Ymm | Self::NeonDot => self.vectors() * vector,
        }
    }

    /// The column at a place of a dense block of this width.
    fn column(self, width: usize, place: usize) -> usize {
        let vector = 4 * self.lanes();
        match width / vector {
            // Two vectors that are narrowed together, and one alone.
            3 if place < 2 * vector => ordered(self.lanes(), 2, place),
            3 => place,
            vectors => ordered(self.lanes(), vectors, place),
        }
    }

    /// The channel at a place of a depthwise block.
    fn channel(self, place: usize) -> usize {
        ordered(self.lanes(), 4, place)
    }
}

/// The column at a place among `vectors` vectors that are narrowed together.
fn ordered(lanes: usize, vectors: usize, place: usize) -> usize {
    let (vector, within) = (place / (4 * lanes), place % (4 * lanes));
    let (lane, i) = (within / 4, within % 4);
    4 * (vectors * lane + vector) + i
}

/// A layer's numbers that are not weights.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The integer that represents 0 in the input.
    pub zero_point: i8,
    /// Per output channel.
    pub bias: &'a [i32],
    /// Per output channel.
    pub scales: &'a [f32],
}

/// The same, to be written.
#[derive(Debug)]
pub struct TermsMut<'a> {
    /// The integer that represents 0 in the input.
    pub zero_point: i8,
    /// Per output channel.
    pub bias: &'a mut [i32],
    /// Per output channel.
    pub scales: &'a mut [f32],
}

/// Writes place `place` of a block's terms.
fn write_terms(block: &mut [u8], width: usize, place: usize, bias: i32, scale: f32) {
    block[4 * place..][..4].copy_from_slice(&bias.to_le_bytes());
    block[4 * (width + place)..][..4].copy_from_slice(&scale.to_le_bytes());
}

/// Reads place `place` of a block's terms.
fn read_terms(block: &[u8], width: usize, place: usize) -> (i32, f32) {
    let word = |at: usize| [block[at], block[at + 1], block[at + 2], block[at + 3]];
    let bias = i32::from_le_bytes(word(4 * place));
    (bias, f32::from_le_bytes(word(4 * (width + place))))
}

/// What is subtracted from a bias because activations are stored unsubtracted.
fn shift(packing: Packing, zero_point: i8, sum: i32) -> i32 {
    (i32::from(zero_point) + packing.raise()).wrapping_mul(sum)
}

/// The scales in a block.
fn scales(block: &[u8], width: usize) -> impl Iterator<Item = f32> + '_ {
    (0..width).map(move |place| read_terms(block, width, place).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_one_place() {
        for &packing in Packing::ALL {
            for left in 1..200 {
                let width = packing.width(left);
                let mut seen = [false; 64];
                for place in 0..width {
                    let column = packing.column(width, place);
                    assert!(!core::mem::replace(&mut seen[column], true));
                }
                assert!(seen[..width].iter().all(|&seen| seen));
            }
            assert!(packing.width(usize::MAX) <= Packing::WIDEST);
            assert!(packing.channels() <= Packing::WIDEST);
            let mut seen = [false; 64];
            for place in 0..packing.channels() {
                assert!(!core::mem::replace(&mut seen[packing.channel(place)], true));
            }
        }
    }
}
