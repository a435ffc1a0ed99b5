//! Weights of products of reals ([`Product`](crate::Product)).
//!
//! Blocks are those of a [`Dense`] layer of one group and one run, with `Σ w[c]` for the bias and
//! columns in their natural order: sums of 32 bits leave the kernels as they stand.

use super::dense::{DEPTH, Dense};
use super::{Packing, write_terms};

/// The shape of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Weights of a column.
    pub depth: usize,
    /// Number of columns.
    pub columns: usize,
}

impl Matrix {
    /// Its blocks.
    pub(crate) fn dense(self) -> Dense {
        Dense { groups: 1, outputs: self.columns, runs: 1, run: self.depth }
    }

    /// Bytes of the packed matrix; `None` where no memory holds them.
    pub fn bytes(self, packing: Packing) -> Option<usize> {
        self.dense().bytes(packing)
    }

    /// Packs a matrix, of which rows follow each other, into exactly [`Matrix::bytes`].
    ///
    /// # Panics
    /// Where there are other numbers of weights, scales or bytes.
    pub fn pack(self, packing: Packing, weights: &[i8], scales: &[f32], packed: &mut [u8]) {
        assert_eq!(weights.len(), self.depth * self.columns, "weights");
        packed.fill(0);
        for block in self.dense().blocks(packing) {
            let (width, columns) = (block.width, block.first..block.first + block.channels);
            let bytes = &mut packed[block.offset..][..block.bytes];
            let mut sums = [0i32; 64];
            for (row, weights) in weights.chunks_exact(self.columns).enumerate() {
                let step = &mut bytes[8 * width + row / DEPTH * DEPTH * width..];
                for (place, &weight) in weights[columns.clone()].iter().enumerate() {
                    step[DEPTH * place + row % DEPTH] = weight as u8;
                    sums[place] = sums[place].wrapping_add(weight.into());
                }
            }
            for (place, scale) in scales[columns].iter().enumerate() {
                write_terms(bytes, width, place, sums[place], *scale);
            }
        }
    }
}
