//! Converts weights to the sparse encoding.

use alloc::vec::Vec;

use hardtack_kernels::sparse::Sparse;

use super::weights::Pool;
use super::{BuildError, Builder};
use crate::Program;
use crate::check::{depth, is_depthwise, weights_bytes};
use crate::program::{RowTile, Span, Step, Tensor, TensorId};

/// Weights are stored sparse only if the encoding takes less than this fraction of the dense bytes.
/// Smaller savings are not worth the cost of decoding.
const PART: [usize; 2] = [7, 8];

impl Builder {
    /// Stores the weights of layers in the sparse encoding where it saves at least 1/8 of their
    /// bytes. Drops weights that no step uses.
    ///
    /// # Errors
    /// If the weights section exceeds 4 GiB.
    pub fn sparse(mut self) -> Result<Self, BuildError> {
        let old = core::mem::take(&mut self.weights).into_bytes();
        let mut weights = Pool::default();
        let tensor = |id| self.tensors.get(usize::from(id)).map(|(_, tensor)| *tensor);
        for (_, step) in &mut self.steps {
            let mut form = None;
            if let Some(tile) = whole_or_strip(step, tensor)
                && let Some(bytes) = without_zeros(&tile, &old, tensor)
            {
                *step = Step::Sparse(tile);
                form = Some(bytes);
            }
            for span in spans(step) {
                let kept = || &old[span.offset as usize..][..span.length as usize];
                let bytes = form.take();
                let moved = weights.add(bytes.as_deref().unwrap_or_else(kept));
                *span = moved.ok_or(BuildError::TooMany("weight bytes"))?;
            }
        }
        self.weights = weights;
        Ok(self)
    }
}

/// A layer with sparse weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SparseLayer {
    /// The index of the layer's step, or of its first row tile.
    pub step: usize,
    /// The bytes of the sparse weights.
    pub bytes: u64,
    /// The bytes that the weights would have in dense form.
    pub dense_bytes: u64,
}

impl<B: AsRef<[u8]>> Program<B> {
    /// Returns the layers with sparse weights.
    pub fn sparse_layers(&self) -> impl Iterator<Item = SparseLayer> {
        self.steps().enumerate().filter_map(|(step, of)| {
            let Step::Sparse(RowTile { conv, reuse_weights_of: 0, .. }) = of else { return None };
            let (inputs, outputs) =
                (self.tensor(conv.input)?.channels, self.tensor(conv.output)?.channels);
            let dense_bytes = weights_bytes(&conv.window, conv.groups, inputs, outputs);
            Some(SparseLayer { step, bytes: conv.weights.length.into(), dense_bytes })
        })
    }
}

/// Returns a convolution with dense weights as a row tile; `None` for other steps.
fn whole_or_strip(step: &Step, tensor: impl Fn(TensorId) -> Option<Tensor>) -> Option<RowTile> {
    match step {
        Step::Conv(conv) => Some(RowTile::whole(*conv, tensor(conv.output)?.height)),
        Step::RowTile(tile) => Some(*tile),
        _ => None,
    }
}

/// Returns the sparse encoding of the weights if it saves enough.
fn without_zeros(
    tile: &RowTile,
    weights: &[u8],
    tensor: impl Fn(TensorId) -> Option<Tensor>,
) -> Option<Vec<u8>> {
    let conv = &tile.conv;
    let (inputs, outputs) = (tensor(conv.input)?.channels, tensor(conv.output)?.channels);
    if is_depthwise(conv.groups, inputs, outputs) {
        return None;
    }
    let Span { offset, length } = conv.weights;
    let dense = bytemuck::cast_slice(weights.get(offset as usize..)?.get(..length as usize)?);
    let depth = depth(conv, inputs);
    let rows = dense.chunks(depth.next_multiple_of(4)).map(|row| &row[..depth]);
    let mut form = Vec::new();
    Sparse::encode(rows, depth, |byte| form.push(byte as u8));
    (form.len() * PART[1] < dense.len() * PART[0]).then_some(form)
}

/// Returns the weight ranges of a step. The weights of a convolution come first.
fn spans(step: &mut Step) -> impl Iterator<Item = &mut Span> {
    let spans = match step {
        Step::Conv(conv)
        | Step::RowTile(RowTile { conv, .. })
        | Step::Sparse(RowTile { conv, .. }) => {
            [Some(&mut conv.weights), Some(&mut conv.bias), Some(&mut conv.scales)]
        }
        Step::Lookup(step) => [Some(&mut step.table), None, None],
        Step::Softmax(step) => [Some(&mut step.table), None, None],
        Step::Resize(step) => [Some(&mut step.rows), Some(&mut step.columns), None],
        _ => [None, None, None],
    };
    spans.into_iter().flatten()
}
