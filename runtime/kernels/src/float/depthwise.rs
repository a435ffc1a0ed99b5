//! Depthwise convolutions.

use core::ops::Range;

use super::packed::DepthwiseShape;
use super::vector::Vector;
use super::{Clamp, Kernels};
use crate::strided::{Alone, Parallel, Shared, View, are_apart, part};

/// The MACs from which a second thread is worthwhile.
const WORTHWHILE: u64 = 1 << 18;

/// The arguments of a depthwise convolution. Offsets and strides are in elements.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthwisePlan {
    /// The first element of the first window, padding included, and the strides of the image.
    pub input: View,
    /// The output image.
    pub output: View,
    /// The rows and columns of the output.
    pub size: [usize; 2],
    /// The rows and columns between adjacent windows.
    pub stride: [usize; 2],
    /// The rows and columns between adjacent elements of a window.
    pub dilation: [usize; 2],
    /// The shape of the weights.
    pub shape: DepthwiseShape,
    /// The range of outputs.
    pub clamp: Clamp,
}

/// A depthwise convolution with a validated plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Depthwise {
    plan: DepthwisePlan,
    lanes: usize,
    weights: usize,
    arena: usize,
}

/// The arguments of a kernel: one vector of channels in one row of outputs.
///
/// # Safety
/// Until the kernel returns, its caller must guarantee:
///
/// - `channels` elements, at most a vector, are readable at
///   `input + p · pixel_step + r · row_step + c · column_step` for each p below `pixels` and all r
///   and c below `kernel`, and writable at `output + p · output_step`.
/// - `1 + kernel[0] · kernel[1]` vectors are readable at `weights`.
/// - The written elements do not overlap anything that is read, and no other thread reads or writes
///   them. No other thread writes anything that is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    pub(super) input: *const f32,
    pub(super) pixels: usize,
    pub(super) pixel_step: usize,
    pub(super) kernel: [usize; 2],
    pub(super) row_step: usize,
    pub(super) column_step: usize,
    pub(super) weights: *const f32,
    pub(super) channels: usize,
    pub(super) output: *mut f32,
    pub(super) output_step: usize,
    pub(super) clamp: Clamp,
}

impl Depthwise {
    /// Validates a plan for kernels with vectors of `lanes` elements. Returns `None` if a size is 0
    /// or inconsistent, or if output pixels overlap each other or the inputs.
    pub fn new(plan: DepthwisePlan, lanes: usize) -> Option<Self> {
        let DepthwisePlan { size, stride, dilation, shape, .. } = plan;
        if lanes == 0 || shape.channels == 0 || shape.kernel.contains(&0) {
            return None;
        }
        let weights = shape.elements(lanes)?;
        // The input rows and columns that the windows span.
        let span = |axis: usize| {
            let windows = size[axis].checked_sub(1)?.checked_mul(stride[axis])?;
            let taps = (shape.kernel[axis] - 1).checked_mul(dilation[axis])?;
            windows.checked_add(taps)?.checked_add(1)
        };
        let read = plan.input.extent([span(0)?, span(1)?], shape.channels)?;
        let written = plan.output.written(size, shape.channels)?;
        // The distances between windows and between their elements, which the rows compute.
        for steps in [stride, dilation] {
            steps[0].checked_mul(plan.input.row)?;
            steps[1].checked_mul(plan.input.pixel)?;
        }
        let arena = read.end.max(written.end);
        are_apart(&read, &written).then_some(Self { plan, lanes, weights, arena })
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
        arena: &mut [f32],
        weights: &[f32],
        parallel: &dyn Parallel,
    ) {
        assert_eq!(self.lanes, kernels.lanes, "weights are packed for other kernels");
        assert!(self.arena <= arena.len(), "an image exceeds the arena");
        assert_eq!(self.weights, weights.len(), "the weights have another size");
        let arena = Shared::of_reals(arena);
        let rows = self.plan.size[0];
        let parallel = if self.macs() < WORTHWHILE { &Alone } else { parallel };
        let parts = parallel.threads().clamp(1, rows);
        parallel.run(parts, &|index| {
            self.rows(kernels, arena, weights, part(rows, 1, index, parts));
        });
    }

    /// Computes the output rows in `range`.
    fn rows(&self, kernels: &Kernels, arena: Shared, weights: &[f32], range: Range<usize>) {
        let DepthwisePlan { input, output, size, stride, dilation, shape, clamp } = self.plan;
        let block = (1 + shape.kernel[0] * shape.kernel[1]) * self.lanes;
        for row in range {
            let (from, to) =
                (input.offset + row * stride[0] * input.row, output.offset + row * output.row);
            for (index, weights) in weights.chunks_exact(block).enumerate() {
                let first = index * self.lanes;
                let rows = Rows {
                    input: arena.at(4 * (from + first)).cast::<f32>().cast_const(),
                    pixels: size[1],
                    pixel_step: stride[1] * input.pixel,
                    kernel: shape.kernel,
                    row_step: dilation[0] * input.row,
                    column_step: dilation[1] * input.pixel,
                    weights: weights.as_ptr(),
                    channels: (shape.channels - first).min(self.lanes),
                    output: arena.at(4 * (to + first)).cast(),
                    output_step: output.pixel,
                    clamp,
                };
                // SAFETY: a `Kernels` table exists only if the CPU supports its instruction set.
                // The contract of `Rows` holds: `new` computed without overflow that every window
                // and every output lies in the first `self.arena` elements, which `run` checked,
                // and that outputs do not overlap each other or anything that is read. The block
                // belongs to the layer, whose size `run` checked. Each part has its own rows.
                unsafe { (kernels.depthwise)(&rows) };
            }
        }
    }
}

/// Computes one vector of channels in a row.
///
/// # Safety
/// Requires the CPU features of `V` and the contract of [`Rows`].
#[inline(always)]
pub(super) unsafe fn depthwise<V: Vector>(rows: &Rows) {
    let whole = rows.channels == V::LANES;
    let mut first = 0;
    // SAFETY: the caller's, and tiles stay below `pixels`.
    unsafe {
        while first < rows.pixels {
            let left = rows.pixels - first;
            match (whole, rows.kernel == [3, 3], left) {
                (true, true, 4..) => tile::<V, 4, true, true>(rows, first),
                (true, true, _) => tile::<V, 1, true, true>(rows, first),
                (true, false, 4..) => tile::<V, 4, true, false>(rows, first),
                (true, false, _) => tile::<V, 1, true, false>(rows, first),
                (false, _, 4..) => tile::<V, 4, false, false>(rows, first),
                (false, ..) => tile::<V, 1, false, false>(rows, first),
            }
            first += if left >= 4 { 4 } else { 1 };
        }
    }
}

/// Computes `M` pixels from `first`. `WHOLE` states that all channels of the vector exist, and
/// `SMALL` that the kernel is 3 × 3.
///
/// # Safety
/// Requires the CPU features of `V`, the contract of [`Rows`], that it has `first + M` pixels, and
/// that `WHOLE` and `SMALL` are true statements.
#[inline(always)]
unsafe fn tile<V: Vector, const M: usize, const WHOLE: bool, const SMALL: bool>(
    rows: &Rows,
    first: usize,
) {
    // SAFETY: the caller's. Addresses are those that the contract names.
    unsafe {
        let input = rows.input.add(first * rows.pixel_step);
        let mut weights = rows.weights;
        let bias = V::load(weights);
        let mut sums = [V::splat(0.0); M];
        let [height, width] = if SMALL { [3, 3] } else { rows.kernel };
        for row in 0..height {
            for column in 0..width {
                weights = weights.add(V::LANES);
                let factor = V::load(weights);
                let tap = input.add(row * rows.row_step + column * rows.column_step);
                for (pixel, sum) in sums.iter_mut().enumerate() {
                    let from = tap.add(pixel * rows.pixel_step);
                    let value =
                        if WHOLE { V::load(from) } else { V::load_some(from, rows.channels) };
                    *sum = value.fma(factor, *sum);
                }
            }
        }
        let (low, high) = (V::splat(rows.clamp.low), V::splat(rows.clamp.high));
        for (pixel, sum) in sums.iter().enumerate() {
            let output = rows.output.add((first + pixel) * rows.output_step);
            let sum = sum.add(bias).clamp(low, high);
            if WHOLE { sum.store(output) } else { sum.store_some(output, rows.channels) }
        }
    }
}
