//! Matmuls of two computed matrices: the second one is packed before each.

use super::packed::DenseShape;
use super::{Conv, ConvPlan, Kernels};
use crate::strided::Parallel;

/// The largest number of dimensions of the terms.
pub const TERM_DIMS: usize = 3;

/// Where the elements of the second matrix are. Offset and strides are in elements of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// The first element.
    pub offset: usize,
    /// The distance between the elements of adjacent outputs.
    pub output_stride: usize,
    /// The sizes and strides of the terms, outermost first.
    pub terms: [(usize, usize); TERM_DIMS],
}

/// A matmul of two computed matrices, with a validated plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    conv: Conv,
    matrix: Matrix,
    shape: DenseShape,
    lanes: usize,
    /// The end of the second matrix in the arena.
    end: usize,
}

impl Product {
    /// Validates a matmul. Returns `None` if [`Conv::new`] does, if there are groups, if the terms
    /// of the matrix are not those of the plan, or if an offset overflows.
    pub fn new(plan: ConvPlan, matrix: Matrix, lanes: usize) -> Option<Self> {
        let shape = plan.shape;
        let conv = Conv::new(plan, lanes)?;
        let terms =
            matrix.terms.iter().try_fold(1usize, |all, (size, _)| all.checked_mul(*size))?;
        let mut end = matrix.offset.checked_add(1)?;
        let loops = [(shape.outputs, matrix.output_stride)].into_iter().chain(matrix.terms);
        for (size, stride) in loops {
            end = end.checked_add(size.checked_sub(1)?.checked_mul(stride)?)?;
        }
        (shape.groups == 1 && terms == shape.terms).then_some(Self {
            conv,
            matrix,
            shape,
            lanes,
            end,
        })
    }

    /// Returns the number of f32 of the packed matrix.
    pub fn packed_elements(&self) -> usize {
        self.shape.elements(self.lanes).unwrap_or(0)
    }

    /// Packs the second matrix and multiplies.
    ///
    /// # Panics
    /// If `packed` has fewer than [`Product::packed_elements`] elements, a matrix exceeds the
    /// arena, or the kernels have vectors of another length.
    pub fn run(
        &self,
        kernels: &Kernels,
        arena: &mut [f32],
        packed: &mut [f32],
        parallel: &dyn Parallel,
    ) {
        let packed = &mut packed[..self.packed_elements()];
        self.pack(&arena[..self.end], packed);
        self.conv.run(kernels, arena, packed, parallel);
    }

    fn pack(&self, arena: &[f32], packed: &mut [f32]) {
        let Matrix { offset, output_stride, terms: [outer, middle, inner] } = self.matrix;
        for block in self.shape.blocks(self.lanes) {
            let width = block.vectors * self.lanes;
            let out = &mut packed[block.offset..][..width * (self.shape.terms + 1)];
            let (bias, weights) = out.split_at_mut(width);
            bias.fill(0.0);
            let mut rows = weights.chunks_exact_mut(width);
            for a in 0..outer.0 {
                for b in 0..middle.0 {
                    let first = offset + block.first * output_stride + a * outer.1 + b * middle.1;
                    for c in 0..inner.0 {
                        let Some(row) = rows.next() else { return };
                        let (used, rest) = row.split_at_mut(block.channels);
                        rest.fill(0.0);
                        let elements = &arena[first + c * inner.1..];
                        match output_stride {
                            1 => used.copy_from_slice(&elements[..block.channels]),
                            0 => used.fill(elements[0]),
                            stride => {
                                let spread = elements.iter().step_by(stride);
                                used.iter_mut().zip(spread).for_each(|(to, from)| *to = *from);
                            }
                        }
                    }
                }
            }
        }
    }
}
