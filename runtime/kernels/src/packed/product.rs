//! Packed weights of dynamically quantized matmuls ([`Product`](crate::Product)).
//!
//! Blocks are those of a [`Dense`] layer with one group and one run, except that the bias is
//! `Σ w[c]` and columns are in their natural order, because these kernels do not narrow the
//! accumulators.

use super::dense::{DEPTH, Dense};
use super::{Packing, write_terms};

/// The shape of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// The number of weights per column.
    pub depth: usize,
    /// The number of columns.
    pub columns: usize,
}

impl Matrix {
    /// Returns the dense layer with the same blocks.
    pub(crate) fn dense(self) -> Dense {
        Dense { groups: 1, outputs: self.columns, runs: 1, run: self.depth }
    }

    /// Returns the bytes of the packed matrix, or `None` on overflow.
    pub fn bytes(self, packing: Packing) -> Option<usize> {
        self.dense().bytes(packing)
    }

    /// Packs a row-major matrix into `packed`, which has [`Matrix::bytes`].
    ///
    /// # Panics
    /// If `weights` has the wrong length, or `scales` or `packed` is too short.
    pub fn pack(self, packing: Packing, weights: &[i8], scales: &[f32], packed: &mut [u8]) {
        assert_eq!(weights.len(), self.depth * self.columns, "number of weights");
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
