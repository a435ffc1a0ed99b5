//! Depthwise convolutions on packed weights.

use core::ops::Range;

use super::parallel::{Shared, part};
use super::{Finish, Kernels, Parallel, SLACK, View};
use crate::packed::depthwise::{self as packed, MAXIMUM_ROWS};

/// A depthwise convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct Depthwise {
    /// The first element of the first window.
    pub input: View,
    /// What is written.
    pub output: View,
    /// Rows and columns of the output.
    pub size: [usize; 2],
    /// Distance of windows, in rows and in pixels.
    pub stride: [usize; 2],
    /// Distance of a window's elements, in rows and in pixels.
    pub dilation: [usize; 2],
    /// The shape of the weights.
    pub shape: packed::Depthwise,
    /// First byte of the packed weights.
    pub weights: usize,
    /// How sums become outputs.
    pub finish: Finish,
    /// As that of a [`Conv`](super::Conv).
    pub narrow: bool,
}

/// Products that are worth a second thread.
const WORTHWHILE: u64 = 1 << 18;
/// Bytes of the image that pass all blocks of channels before the next do: they stay in the cache.
const AT_ONCE: usize = 96 << 10;

/// Some rows of outputs of one block of channels: what a kernel gets, under the same promise as
/// that of a convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    /// The first element of the first window in each row of it; those beyond repeat the last.
    pub(crate) rows: [*const u8; MAXIMUM_ROWS],
    /// Rows of outputs.
    pub(crate) height: usize,
    /// Bytes of the input from one row of outputs to the next.
    pub(crate) row_step: usize,
    /// Rows and columns of the kernel.
    pub(crate) kernel: [usize; 2],
    /// Bytes from one column of the kernel to the next.
    pub(crate) column_step: usize,
    /// Columns of the kernel that a window is right of its neighbour, 0 where it lies between
    /// columns.
    #[cfg_attr(target_arch = "arm", allow(dead_code))]
    pub(crate) columns_between: usize,
    /// Bytes from one window to the next.
    pub(crate) window_step: usize,
    /// Vectors to write in a row.
    pub(crate) count: usize,
    /// A block of packed weights, at a multiple of 64.
    pub(crate) weights: *const u8,
    pub(crate) output: *mut u8,
    /// Bytes from one written vector to the next.
    pub(crate) output_step: usize,
    /// Bytes from one written row to the next.
    pub(crate) output_row_step: usize,
    /// Bytes to write of each vector.
    pub(crate) channels: usize,
    pub(crate) finish: Finish,
    #[cfg_attr(target_arch = "arm", allow(dead_code))]
    pub(crate) narrow: bool,
}

impl Depthwise {
    /// Multiplications of a run.
    pub fn products(&self) -> u64 {
        (self.size[0] * self.size[1]) as u64
            * (self.shape.channels * self.shape.kernel[0] * self.shape.kernel[1]) as u64
    }

    /// Runs it.
    ///
    /// # Panics
    /// As [`Conv::run`](super::Conv::run).
    pub fn run(
        &self,
        kernels: &Kernels,
        arena: &mut [u8],
        weights: &[u8],
        parallel: &dyn Parallel,
    ) {
        self.check(kernels, arena.len(), weights);
        let weights = &weights[self.weights..];
        let arena = Shared::new(arena);
        let parts = if self.products() < WORTHWHILE { 1 } else { parallel.threads() };
        let parts = parts.clamp(1, self.size[0]);
        parallel.run(parts, &|index| {
            let rows = part(self.size[0], 1, index, parts);
            let bytes = self.size[1] * self.stride[0] * self.stride[1] * self.input.pixel;
            let height = (AT_ONCE / bytes.max(1)).max(1);
            for first in rows.clone().step_by(height) {
                self.rows(kernels, arena, weights, first..rows.end.min(first + height));
            }
        });
    }

    fn check(&self, kernels: &Kernels, arena: usize, weights: &[u8]) {
        let [rows, columns] = self.size;
        let shape = self.shape;
        let span = |axis: usize| {
            (self.size[axis] - 1) * self.stride[axis]
                + (shape.kernel[axis] - 1) * self.dilation[axis]
                + 1
        };
        assert!(shape.kernel[0] <= MAXIMUM_ROWS, "the kernel has too many rows");
        let read = self.input.end(span(0), span(1), shape.channels);
        let written = self.output.end(rows, columns, shape.channels);
        assert!(read + SLACK <= arena && written + SLACK <= arena, "an image leaves the arena");
        assert!(
            read + SLACK <= self.output.offset || written <= self.input.offset,
            "a convolution reads what it writes"
        );
        assert!(self.output.is_disjoint(columns, shape.channels), "pixels overlap");
        let bytes = shape.bytes(kernels.packing()).unwrap_or(usize::MAX);
        assert!(
            weights.len().checked_sub(self.weights).is_some_and(|left| left >= bytes),
            "weights are missing"
        );
        let address = weights.as_ptr().addr() + self.weights;
        assert!(address.is_multiple_of(64), "weights lie at a multiple of 64");
    }

    fn rows(&self, kernels: &Kernels, arena: Shared, weights: &[u8], range: Range<usize>) {
        let shape = self.shape;
        let columns = self.size[1];
        let (pixel, stride) = (self.input.pixel, self.stride[1]);
        for block in shape.blocks(kernels.packing()) {
            let first = self.input.offset + range.start * self.stride[0] * self.input.row;
            let first = first + block.first;
            let rows = core::array::from_fn(|tap| {
                let tap = tap.min(shape.kernel[0] - 1);
                arena.at(first + tap * self.dilation[0] * self.input.row).cast_const()
            });
            let output = self.output.offset + range.start * self.output.row + block.first;
            let columns_between =
                if stride.is_multiple_of(self.dilation[1]) { stride / self.dilation[1] } else { 0 };
            let one = Rows {
                rows,
                height: range.len(),
                row_step: self.stride[0] * self.input.row,
                kernel: shape.kernel,
                column_step: self.dilation[1] * pixel,
                columns_between,
                window_step: stride * pixel,
                count: columns,
                weights: weights[block.offset..].as_ptr(),
                output: arena.at(output),
                output_step: self.output.pixel,
                output_row_step: self.output.row,
                channels: block.channels,
                finish: self.finish,
                narrow: self.narrow,
            };
            // Neighbouring pixels are one vector where nothing lies between them.
            let dense = stride == 1
                && pixel == shape.channels
                && self.output.pixel == shape.channels
                && block.repeats > 1;
            let together = if dense { columns / block.repeats } else { 0 };
            if together > 0 {
                let several = Rows {
                    columns_between: if self.dilation[1] == 1 { block.repeats } else { 0 },
                    window_step: block.repeats * pixel,
                    count: together,
                    output_step: block.repeats * self.output.pixel,
                    channels: block.repeats * shape.channels,
                    ..one
                };
                // SAFETY: as below.
                unsafe { (kernels.depthwise)(&several) };
            }
            let done = together * block.repeats;
            let rest = Rows {
                rows: rows.map(|row| row.wrapping_add(done * one.window_step)),
                count: columns - done,
                output: arena.at(output + done * self.output.pixel),
                ..one
            };
            if rest.count > 0 {
                // SAFETY: `check` found every window and output in the arena with the slack,
                // and the block in the weights, at a multiple of 64 since blocks are multiples
                // of it. Parts have rows of their own, and outputs are apart from each other and
                // from what is read. The table of an instruction set is only given out where the
                // processor has it.
                unsafe { (kernels.depthwise)(&rest) };
            }
        }
    }
}
