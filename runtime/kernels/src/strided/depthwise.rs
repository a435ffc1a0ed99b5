//! Depthwise convolutions on packed weights.

use core::ops::Range;

use super::parallel::{Shared, part};
use super::{Epilogue, Kernels, Parallel, SLACK, View, are_apart};
use crate::packed::Packing;
use crate::packed::depthwise::{self as packed, MAXIMUM_ROWS};

/// The arguments of a depthwise convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthwisePlan {
    /// The first element of the first window.
    pub input: View,
    /// The output image.
    pub output: View,
    /// The rows and columns of the output.
    pub size: [usize; 2],
    /// The distance between adjacent windows, in rows and in pixels.
    pub stride: [usize; 2],
    /// The distance between adjacent window elements, in rows and in pixels.
    pub dilation: [usize; 2],
    /// The shape of the weights.
    pub shape: packed::Depthwise,
    /// The first byte of the packed weights.
    pub weights: usize,
    /// The epilogue.
    pub epilogue: Epilogue,
    /// See [`ConvPlan::narrow`](super::ConvPlan::narrow).
    pub narrow: bool,
}

/// A depthwise convolution with a validated plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Depthwise {
    plan: DepthwisePlan,
    packing: Packing,
    /// The bytes of the weights.
    bytes: usize,
    /// The minimum size of the arena in bytes.
    arena: usize,
    /// The input bytes from one window to the next, down and right.
    window_step: [usize; 2],
    /// The input bytes from one window element to the next, down and right.
    tap_step: [usize; 2],
}

/// The MACs from which a second thread is worthwhile.
const WORTHWHILE: u64 = 1 << 18;
/// The bytes of the image that are processed with all channel blocks before the next ones: few
/// enough to stay in the cache.
const AT_ONCE: usize = 96 << 10;

/// The arguments of a depthwise kernel: some output rows of one block of channels.
///
/// # Safety
/// Until the kernel returns, its caller must guarantee the following. A *vector* has as many bytes
/// as a block of the kernel's layout has channels ([`Packing::channels`]).
///
/// - A vector is readable at `rows[t] + h · row_step + i · window_step + k · column_step` for each
///   t (even beyond the kernel's rows), h below `height`, i below `count` and k below `kernel[1]`.
///   Only its first byte must belong to the image: kernels read past it by less than a vector,
///   which is less than [`SLACK`].
/// - `kernel` has 1 to [`MAXIMUM_ROWS`] rows and at least one column.
/// - `columns_between` is 0, or `window_step` is that many times `column_step`.
/// - `weights` is aligned to 64, and `8 + 4 · kernel[1] · ⌈kernel[0] / 4⌉` vectors are readable
///   there. Kernels read no further.
/// - `channels` is at least 1 and at most a vector. That many bytes are writable at
///   `output + h · output_row_step + i · output_step`. They do not overlap each other or anything
///   that is read, and no other thread reads or writes them. Kernels write nothing else.
/// - No other thread writes anything that is read.
///
/// As with [`ConvBlock`](super::ConvBlock), the values of the bytes do not matter for safety.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    /// The first element in each row of the first window. Entries beyond the kernel repeat the
    /// last.
    pub(crate) rows: [*const u8; MAXIMUM_ROWS],
    /// The number of output rows.
    pub(crate) height: usize,
    /// The input bytes from one output row to the next.
    pub(crate) row_step: usize,
    /// The rows and columns of the kernel.
    pub(crate) kernel: [usize; 2],
    /// The input bytes from one kernel column to the next.
    pub(crate) column_step: usize,
    /// The distance between adjacent windows in kernel columns; 0 if it is not a whole number.
    #[cfg_attr(target_arch = "arm", allow(dead_code))]
    pub(crate) columns_between: usize,
    /// The input bytes from one window to the next.
    pub(crate) window_step: usize,
    /// The number of vectors to write per row.
    pub(crate) count: usize,
    /// A block of packed weights.
    pub(crate) weights: *const u8,
    pub(crate) output: *mut u8,
    /// The output bytes from one written vector to the next.
    pub(crate) output_step: usize,
    /// The output bytes from one written row to the next.
    pub(crate) output_row_step: usize,
    /// The number of bytes to write of each vector.
    pub(crate) channels: usize,
    pub(crate) epilogue: Epilogue,
    #[cfg_attr(target_arch = "arm", allow(dead_code))]
    pub(crate) narrow: bool,
}

impl Depthwise {
    /// Validates a plan for kernels with the weight layout `packing`. Returns `None` if a size or
    /// dilation is 0, if the kernel has more than [`MAXIMUM_ROWS`] rows, if output pixels overlap
    /// each other or the input, or if an offset overflows.
    pub fn new(plan: DepthwisePlan, packing: Packing) -> Option<Self> {
        let DepthwisePlan { size, stride, dilation, shape, .. } = plan;
        let possible = (1..=MAXIMUM_ROWS).contains(&shape.kernel[0])
            && ![shape.kernel[1], shape.channels, dilation[0], dilation[1]].contains(&0);
        if !possible {
            return None;
        }
        let bytes = shape.bytes(packing)?;
        // The input rows and columns that the windows span.
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

    /// Returns the multiply-accumulates (MACs) of the convolution. Saturates.
    pub fn macs(&self) -> u64 {
        let ([rows, columns], shape) = (self.plan.size, self.plan.shape);
        let counts = [rows, columns, shape.channels, shape.kernel[0], shape.kernel[1]];
        counts.into_iter().fold(1, |macs, count| macs.saturating_mul(count as u64))
    }

    /// Runs the convolution.
    ///
    /// # Panics
    /// See [`Conv::run`](super::Conv::run).
    pub fn run(
        &self,
        kernels: &Kernels,
        arena: &mut [u8],
        weights: &[u8],
        parallel: &dyn Parallel,
    ) {
        assert_eq!(self.packing, kernels.packing(), "weights are packed for other kernels");
        assert!(self.arena <= arena.len(), "an image exceeds the arena");
        let weights = &weights[self.plan.weights..][..self.bytes];
        assert!(weights.as_ptr().addr().is_multiple_of(64), "weights must be aligned to 64 bytes");
        let arena = Shared::new(arena);
        let [rows, columns] = self.plan.size;
        let parts = if self.macs() < WORTHWHILE { 1 } else { parallel.threads() };
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

    /// Computes the output rows in `range`, which is not empty.
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
                epilogue: self.plan.epilogue,
                narrow: self.plan.narrow,
            };
            // Adjacent pixels form one vector if they are contiguous.
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
                // SAFETY: as for `rest` below. `repeats` contiguous windows are read and written as
                // one of `repeats · channels` bytes, which is at most a vector.
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
                // SAFETY: a `Kernels` table exists only if the CPU supports its instruction set.
                // The contract of `DepthwiseRows` holds:
                // - `new` computed without overflow that every window (with the slack) and every
                //   output lies in the first `self.arena` bytes, and `run` checked that the arena
                // has   these. A vector starts at a channel of the image and is not longer than the
                // slack. Rows beyond the kernel repeat its last row.
                // - The block belongs to the layer, whose `self.bytes` bytes `run` sliced. The
                //   layer is aligned to 64, and so is every block, because it has a multiple of 16
                // channels   of a multiple of 4 bytes.
                // - `new` checked that outputs do not overlap each other or anything that is read.
                //   Each part has its own rows.
                unsafe { (kernels.depthwise)(&rest) };
            }
        }
    }
}
