//! Packed weights: the layouts that the kernels of each instruction set read.
//!
//! A layer is one byte range with a length that is a multiple of 64. It consists of blocks. A block
//! contains everything that a kernel needs to compute `width` output channels, its *columns*:
//!
//! | bytes | content |
//! |---|---|
//! | 4 · width | bias i32: `bias[c] − (zero_point + offset) · Σ w[c]` |
//! | 4 · width | scale f32 |
//! | rest | weights i8 |
//!
//! The bias includes the input's zero point, so kernels need not subtract it. The activation offset
//! is 128 if the multiply instruction requires unsigned activations, otherwise 0. Columns without a
//! channel are all 0.
//!
//! Columns are permuted, because narrowing instructions work on each 128-bit lane of a vector
//! separately. They restore the natural order: for `vectors` vectors of `lanes` lanes with four
//! accumulators each, place `4 · (lanes · j + l) + i` contains column `4 · (vectors · l + j) + i`.
//!
//! [`dense`] and [`depthwise`] describe the order of weights. [`product`] uses different bias terms
//! and the natural order. Numbers are little-endian.

pub mod dense;
pub mod depthwise;
pub mod product;

/// A layout of packed weights, one per family of instruction sets.
///
/// # Examples
///
/// ```
/// use hardtack_kernels::Isa;
/// use hardtack_kernels::packed::Packing;
///
/// assert_eq!(Isa::NeonDot.packing(), Some(Packing::NeonDot));
/// assert_eq!(Isa::Scalar.packing(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Vectors of 16 accumulators, 4 MACs each, u8 activations: AVX-512 VNNI.
    X86Zmm,
    /// Vectors of 8 accumulators, 4 MACs each, u8 activations: AVX-VNNI, AVX-512VL and AVX2.
    X86Ymm,
    /// Vectors of 4 accumulators, 4 MACs each, i8 activations: NEON and WebAssembly SIMD.
    NeonDot,
}

impl Packing {
    /// Every layout.
    pub const ALL: &'static [Self] = &[Self::X86Zmm, Self::X86Ymm, Self::NeonDot];

    /// The maximum number of channels in a depthwise block and of columns in a dense block.
    pub(crate) const WIDEST: usize = 64;

    /// Returns the activation offset: stored activations are i8 plus this.
    pub fn activation_offset(self) -> i32 {
        match self {
            Self::X86Zmm | Self::X86Ymm => 128,
            Self::NeonDot => 0,
        }
    }

    /// Returns the number of 128-bit lanes in a vector.
    const fn lanes(self) -> usize {
        match self {
            Self::X86Zmm => 4,
            Self::X86Ymm => 2,
            Self::NeonDot => 1,
        }
    }

    /// Returns the number of accumulator vectors in the widest dense block.
    const fn vectors(self) -> usize {
        match self {
            Self::X86Zmm => 4,
            Self::X86Ymm => 2,
            Self::NeonDot => 4,
        }
    }

    /// Returns the number of channels in a depthwise block.
    pub const fn channels(self) -> usize {
        16 * self.lanes()
    }

    /// Returns the number of columns of the next dense block if `left` channels are left.
    pub fn width(self, left: usize) -> usize {
        let vector = 4 * self.lanes();
        match self {
            Self::X86Zmm => left.div_ceil(vector).min(self.vectors()) * vector,
            Self::X86Ymm | Self::NeonDot => self.vectors() * vector,
        }
    }

    /// Returns the column at a place of a dense block with this width.
    fn column(self, width: usize, place: usize) -> usize {
        let vector = 4 * self.lanes();
        match width / vector {
            // Two vectors are narrowed together, the third one alone.
            3 if place < 2 * vector => ordered(self.lanes(), 2, place),
            3 => place,
            vectors => ordered(self.lanes(), vectors, place),
        }
    }

    /// Returns the channel at a place of a depthwise block.
    fn channel(self, place: usize) -> usize {
        ordered(self.lanes(), 4, place)
    }
}

/// Returns the column at a place of `vectors` vectors that are narrowed together.
fn ordered(lanes: usize, vectors: usize, place: usize) -> usize {
    let (vector, within) = (place / (4 * lanes), place % (4 * lanes));
    let (lane, i) = (within / 4, within % 4);
    4 * (vectors * lane + vector) + i
}

/// The parameters of a layer other than its weights.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The zero point of the input.
    pub zero_point: i8,
    /// The bias of each output channel.
    pub bias: &'a [i32],
    /// The requantization scale of each output channel.
    pub scales: &'a [f32],
}

/// The mutable form of [`Terms`], for unpacking.
#[derive(Debug)]
pub struct TermsMut<'a> {
    /// The zero point of the input.
    pub zero_point: i8,
    /// The bias of each output channel.
    pub bias: &'a mut [i32],
    /// The requantization scale of each output channel.
    pub scales: &'a mut [f32],
}

/// Writes the bias and scale at a place of a block.
fn write_terms(block: &mut [u8], width: usize, place: usize, bias: i32, scale: f32) {
    block[4 * place..][..4].copy_from_slice(&bias.to_le_bytes());
    block[4 * (width + place)..][..4].copy_from_slice(&scale.to_le_bytes());
}

/// Reads the bias and scale at a place of a block.
fn read_terms(block: &[u8], width: usize, place: usize) -> (i32, f32) {
    let word = |at: usize| [block[at], block[at + 1], block[at + 2], block[at + 3]];
    let bias = i32::from_le_bytes(word(4 * place));
    (bias, f32::from_le_bytes(word(4 * (width + place))))
}

/// Returns the correction to subtract from a bias, because kernels do not subtract the zero point.
fn shift(packing: Packing, zero_point: i8, sum: i32) -> i32 {
    (i32::from(zero_point) + packing.activation_offset()).wrapping_mul(sum)
}

/// Returns the scales of a block.
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
