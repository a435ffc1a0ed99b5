//! Pooling: the maximum, sum or mean of each window of an image.

use core::ops::Range;

use super::{Kernels, disjoint};
use crate::strided::{Alone, Parallel, Shared, View, are_apart, part};
use crate::{Image, Window};

/// The elements read from which a second thread is worthwhile.
const WORTHWHILE: usize = 1 << 14;

/// How a pool combines the elements of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// The largest element; NaN if there is one. Elements outside the image are ignored.
    Maximum,
    /// The sum, in the order of rows and columns. Elements outside the image are 0.
    Sum,
    /// The sum divided by the number of elements inside the image.
    Mean,
    /// The sum divided by the size of the window.
    MeanWithPadding,
}

/// The arguments of a pool. Offsets and strides are in elements.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolPlan {
    /// The input image.
    pub input: View,
    /// The shape of the input.
    pub input_shape: Image,
    /// The output image.
    pub output: View,
    /// The rows and columns of the output.
    pub size: [usize; 2],
    /// The sliding window.
    pub window: Window,
    /// How elements are combined.
    pub reduction: Reduction,
}

/// A pool with a validated plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    plan: PoolPlan,
    read: Range<usize>,
    written: Range<usize>,
}

impl Pool {
    /// Validates a plan. Returns `None` if a size is 0 or output pixels overlap each other or the
    /// input, or if a window of a mean or maximum has no element inside the image.
    pub fn new(plan: PoolPlan) -> Option<Self> {
        let Image { height, width, channels } = plan.input_shape;
        let window = &plan.window;
        let sizes = [window.kernel, window.stride, window.dilation];
        if sizes.as_flattened().contains(&0) {
            return None;
        }
        let read = plan.input.extent([height, width], channels)?;
        let written = plan.output.written(plan.size, channels)?;
        for (axis, size) in [height, width].into_iter().enumerate() {
            let last = plan.size[axis].checked_sub(1)?.checked_mul(window.stride[axis])?;
            last.checked_add(window.kernel[axis].checked_mul(window.dilation[axis])?)?
                .checked_add(window.pad[axis])?;
            size.checked_add(window.pad[axis])?;
            let full = (0..plan.size[axis]).all(|at| !window.taps(axis, at, size).range.is_empty());
            if plan.reduction != Reduction::Sum && !full {
                return None;
            }
        }
        are_apart(&read, &written).then_some(Self { plan, read, written })
    }

    /// Runs the pool.
    ///
    /// # Panics
    /// If an image exceeds the arena.
    pub fn run(&self, kernels: &Kernels, arena: &mut [f32], parallel: &dyn Parallel) {
        let PoolPlan { output, size: [rows, columns], input_shape, .. } = &self.plan;
        let (input, written) = disjoint(arena, &self.read, &self.written);
        let length = (columns - 1) * output.pixel + input_shape.channels;
        let work = self.plan.window.kernel.iter().product::<usize>() * self.written.len();
        let parallel = if work < WORTHWHILE { &Alone } else { parallel };
        let shared = Shared::of_reals(written);
        let parts = parallel.threads().clamp(1, *rows);
        parallel.run(parts, &|index| {
            for row in part(*rows, 1, index, parts) {
                // SAFETY: `View::written` checked that rows do not overlap and lie in the written
                // range, which was split off the arena. Each row belongs to one part.
                let results = unsafe {
                    let start = shared.at(4 * row * output.row).cast::<f32>();
                    core::slice::from_raw_parts_mut(start, length)
                };
                // SAFETY: a `Kernels` table exists only if the CPU supports its instruction set.
                unsafe { (kernels.pool)(&self.plan, input, row, results) }
            }
        });
    }
}

/// Computes one row of outputs.
#[inline(always)]
pub(super) fn row(plan: &PoolPlan, input: &[f32], row: usize, output: &mut [f32]) {
    let Image { height, width, channels } = plan.input_shape;
    let rows = plan.window.taps(0, row, height);
    for (column, results) in output.chunks_mut(plan.output.pixel).enumerate() {
        let results = &mut results[..channels];
        let columns = plan.window.taps(1, column, width);
        let start = if plan.reduction == Reduction::Maximum { f32::NEG_INFINITY } else { 0.0 };
        results.fill(start);
        for down in rows.range.clone() {
            for right in columns.range.clone() {
                let at = rows.position(down) * plan.input.row
                    + columns.position(right) * plan.input.pixel;
                let values = &input[at..at + channels];
                match plan.reduction {
                    Reduction::Maximum => {
                        for (result, value) in results.iter_mut().zip(values) {
                            // A NaN stays, because no comparison with it is true.
                            let keep = *result >= *value || result.is_nan();
                            *result = if keep { *result } else { *value };
                        }
                    }
                    _ => {
                        for (result, value) in results.iter_mut().zip(values) {
                            *result += *value;
                        }
                    }
                }
            }
        }
        let count = match plan.reduction {
            Reduction::Mean => rows.range.len() * columns.range.len(),
            Reduction::MeanWithPadding => plan.window.kernel[0] * plan.window.kernel[1],
            Reduction::Maximum | Reduction::Sum => continue,
        };
        let count = count as f32;
        results.iter_mut().for_each(|result| *result /= count);
    }
}
