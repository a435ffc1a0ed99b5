//! Splits the arena into the output that a step writes and the rest, which it reads.

use core::ops::Range;

use crate::program::Tensor;

/// The arena without the range of one output.
pub(crate) struct Around<'a> {
    before: &'a [i8],
    after: &'a [i8],
    end: usize,
}

/// Returns the byte range of a tensor in the arena.
pub(crate) fn range(tensor: &Tensor) -> Range<usize> {
    let start = tensor.offset as usize;
    start..start + tensor.elements() as usize
}

/// Splits the arena into the mutable range of `output` and everything else.
pub(crate) fn split<'a>(arena: &'a mut [i8], output: &Tensor) -> (&'a mut [i8], Around<'a>) {
    let Range { start, end } = range(output);
    let (before, rest) = arena.split_at_mut(start);
    let (output, after) = rest.split_at_mut(end - start);
    (output, Around { before, after, end })
}

impl<'a> Around<'a> {
    /// Returns the bytes of a tensor that does not overlap the output.
    pub(crate) fn tensor(&self, tensor: &Tensor) -> &'a [i8] {
        let Range { start, end } = range(tensor);
        if start < self.end {
            &self.before[start..end]
        } else {
            &self.after[start - self.end..end - self.end]
        }
    }
}
