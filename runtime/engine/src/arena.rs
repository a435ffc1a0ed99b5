//! Reading some ranges of the arena while writing another.

use core::ops::Range;

use crate::program::Tensor;

/// The arena with one range taken out of it.
pub(crate) struct Around<'a> {
    before: &'a [i8],
    after: &'a [i8],
    end: usize,
}

/// Where a tensor lies.
pub(crate) fn range(tensor: &Tensor) -> Range<usize> {
    let start = tensor.offset as usize;
    start..start + tensor.elements() as usize
}

/// Takes the range of `output` out of the arena, to be written.
pub(crate) fn split<'a>(arena: &'a mut [i8], output: &Tensor) -> (&'a mut [i8], Around<'a>) {
    let Range { start, end } = range(output);
    let (before, rest) = arena.split_at_mut(start);
    let (output, after) = rest.split_at_mut(end - start);
    (output, Around { before, after, end })
}

impl<'a> Around<'a> {
    /// The bytes of a tensor that shares none with the range taken out.
    pub(crate) fn tensor(&self, tensor: &Tensor) -> &'a [i8] {
        let Range { start, end } = range(tensor);
        if start < self.end {
            &self.before[start..end]
        } else {
            &self.after[start - self.end..end - self.end]
        }
    }
}
