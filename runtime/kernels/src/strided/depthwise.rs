//! Depthwise convolutions on packed weights.

use core::ops::Range;

use super::parallel::{Shared, part};
use super::{Finish, Kernels, Parallel, SLACK, View, are_apart};
use crate::packed::Packing;
use crate::packed::depthwise::{self as packed, MAXIMUM_ROWS};

/// What a depthwise convolution reads, computes and writes.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthwisePlan {
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

/// A depthwise convolution whose plan was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Depthwise {
    plan: DepthwisePlan,
    packing: Packing,
    /// Bytes of its weights.
    bytes: usize,
    /// The arena has at least this many bytes.
    arena: usize,
    /// Bytes of the input from one window to the next, down and right.
    window_step: [usize; 2],
    /// Bytes of the input from one element of a window to the next, down and right.
    tap_step: [usize; 2],
}

/// Products that are worth a second thread.
const WORTHWHILE: u64 = 1 << 18;
/// Bytes of the image that pass all blocks of channels before the next do: they stay in the cache.
const AT_ONCE: usize = 96 << 10;

/// Some rows of outputs of one block of channels: what a kernel gets.
///
/// # Safety
/// The caller of a kernel with rows promises, until it returns, with *vector* for the number of
/// channels in a block of the kernel's layout ([`Packing::channels`]):
///
/// - A vector of bytes can be read at `rows[t] + h · row_step + i · window_step + k · column_step`,
///   for each t, also those beyond the kernel, and for all h below `height`, i below `count` and k
///   below `kernel[1]`. As the first of them belongs to the image, kernels read up to a vector less
///   1 behind it, which is less than [`SLACK`].
/// - `kernel` has 1 to [`MAXIMUM_ROWS`] rows and at least one column.
/// - `columns_between` is 0, or `window_step` is that many times `column_step`.
/// - `weights` is a multiple of 64, and `8 + 4 · kernel[1] · ⌈kernel[0] / 4⌉` vectors of bytes can be
///   read there. No kernel reads further.
/// - `channels`, at least 1 and at most a vector, bytes can be written at
///   `output + h · output_row_step + i · output_step`. These share no byte with each other or with
///   what is read, and no other thread reads or writes them. No kernel writes anything else.
/// - No other thread writes what is read.
///
/// As with a [`ConvBlock`](super::ConvBlock), nothing follows from what the bytes hold.
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
    /// A block of packed weights.
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
    /// Checks a plan for kernels that read weights in this layout. `None` where a size or a dilation
    /// is 0 or the kernel has more than [`MAXIMUM_ROWS`] rows, where pixels overlap, where the output
    /// shares bytes with what is read, and where something lies beyond all memory.
    pub fn new(plan: DepthwisePlan, packing: Packing) -> Option<Self> {
        let DepthwisePlan { size, stride, dilation, shape, .. } = plan;
        let possible = (1..=MAXIMUM_ROWS).contains(&shape.kernel[0])
            && ![shape.kernel[1], shape.channels, dilation[0], dilation[1]].contains(&0);
        if !possible {
            return None;
        }
        let bytes = shape.bytes(packing)?;
        // Rows and columns of the input that windows reach over.
        let span = |axis: usize| {
            let windows = size[axis].checked_sub(1)?.checked_mul(stride[axis])?;
            let taps = (shape.kernel[axis] - 1).checked_mul(dilation[axis])?;
            windows.checked_add(taps)?.checked_add(1)
        };
        let mut read = plan.input.extent([span(0)?, span(1)?], shape.channels)?;
        read.end = read.end.checked_add(SLACK)?;
        let written = plan.output.written(size, shape.channels)?;
        if !are_apart(&read, &written) {
            return None;
        }
        let steps = |counts: [usize; 2]| {
            let View { row, pixel, .. } = plan.input;
            Some([counts[0].checked_mul(row)?, counts[1].checked_mul(pixel)?])
        };
        let (window_step, tap_step) = (steps(stride)?, steps(dilation)?);
        let arena = read.end.max(written.end);
        Some(Self { plan, packing, bytes, arena, window_step, tap_step })
    }

    /// Multiplications of a run.
    pub fn products(&self) -> u64 {
        let ([rows, columns], shape) = (self.plan.size, self.plan.shape);
        let counts = [rows, columns, shape.channels, shape.kernel[0], shape.kernel[1]];
        counts.into_iter().fold(1, |products, count| products.saturating_mul(count as u64))
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
        assert_eq!(self.packing, kernels.packing(), "weights are packed for other kernels");
        assert!(self.arena <= arena.len(), "an image leaves the arena");
        let weights = &weights[self.plan.weights..][..self.bytes];
        assert!(weights.as_ptr().addr().is_multiple_of(64), "weights lie at a multiple of 64");
        let arena = Shared::new(arena);
        let [rows, columns] = self.plan.size;
        let parts = if self.products() < WORTHWHILE { 1 } else { parallel.threads() };
        let parts = parts.clamp(1, rows);
        let bytes = columns.saturating_mul(self.plan.stride[0]).saturating_mul(self.window_step[1]);
        let height = (AT_ONCE / bytes.max(1)).max(1);
        parallel.run(parts, &|index| {
            let rows = part(rows, 1, index, parts);
            for first in rows.clone().step_by(height) {
                self.rows(kernels, arena, weights, first..rows.end.min(first + height));
            }
        });
    }

    /// Some rows of the output, at least one.
    fn rows(&self, kernels: &Kernels, arena: Shared, weights: &[u8], range: Range<usize>) {
        let DepthwisePlan { input, output, stride, dilation, shape, .. } = self.plan;
        let columns = self.plan.size[1];
        for block in shape.blocks(self.packing) {
            let first = input.offset + range.start * self.window_step[0] + block.first;
            let rows = core::array::from_fn(|tap| {
                let tap = tap.min(shape.kernel[0] - 1);
                arena.at(first + tap * self.tap_step[0]).cast_const()
            });
            let written = output.offset + range.start * output.row + block.first;
            let columns_between =
                if stride[1].is_multiple_of(dilation[1]) { stride[1] / dilation[1] } else { 0 };
            let one = Rows {
                rows,
                height: range.len(),
                row_step: self.window_step[0],
                kernel: shape.kernel,
                column_step: self.tap_step[1],
                columns_between,
                window_step: self.window_step[1],
                count: columns,
                weights: weights[block.offset..].as_ptr(),
                output: arena.at(written),
                output_step: output.pixel,
                output_row_step: output.row,
                channels: block.channels,
                finish: self.plan.finish,
                narrow: self.plan.narrow,
            };
            // Neighbouring pixels are one vector where nothing lies between them.
            let dense = stride[1] == 1
                && input.pixel == shape.channels
                && output.pixel == shape.channels
                && block.repeats > 1;
            let together = if dense { columns / block.repeats } else { 0 };
            if together > 0 {
                let several = Rows {
                    columns_between: if dilation[1] == 1 { block.repeats } else { 0 },
                    window_step: block.repeats * input.pixel,
                    count: together,
                    output_step: block.repeats * output.pixel,
                    channels: block.repeats * shape.channels,
                    ..one
                };
                // SAFETY: as below. `repeats` windows that are pixels in a row are read and written
                // as one, of `repeats · channels` bytes, which are a vector.
                unsafe { (kernels.depthwise)(&several) };
            }
            let done = together * block.repeats;
            let rest = Rows {
                rows: rows.map(|row| row.wrapping_add(done * one.window_step)),
                count: columns - done,
                output: arena.at(written + done * output.pixel),
                ..one
            };
            if rest.count > 0 {
                // SAFETY: the processor has the instructions of a table. The rows are as they must
                // be:
                // - Every window, with the slack, and every output lies in the first `self.arena`
                //   bytes, as `new` computed without overflow, and the arena has these, as `run`
                //   checked. A vector begins at a channel of the image and is no longer than the
                //   slack. Rows beyond the kernel are its last.
                // - The block is one of the layer, whose `self.bytes` bytes `run` found. The layer is
                //   at a multiple of 64, and so is every block, which has a multiple of 16 channels
                //   of a multiple of 4 bytes.
                // - `new` found outputs apart from each other and from all that is read. A part has
                //   rows of its own.
                unsafe { (kernels.depthwise)(&rest) };
            }
        }
    }
}
