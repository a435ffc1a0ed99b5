//! Operations over the rows of a matrix.

use core::ops::Range;

use super::rows::{self, Normalization};
use super::{Kernels, disjoint};
use crate::strided::{Alone, Parallel, Shared, are_apart, part};

/// The elements from which a second thread is worthwhile.
const WORTHWHILE: usize = 1 << 13;

/// An operation over a row. See [`rows`](super::rows) for the order of sums.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowFunction {
    /// The sum: one number for each row.
    Sum,
    /// The largest element: one number for each row.
    Maximum,
    /// The smallest element: one number for each row.
    Minimum,
    /// The mean of the squares: one number for each row.
    MeanOfSquares,
    /// The softmax: a row for each row.
    Softmax,
    /// The logarithm of the softmax: a row for each row.
    LogSoftmax,
    /// `x / √(mean of x² + epsilon)`: a row for each row.
    RmsNormalization {
        /// The number that is added under the root.
        epsilon: f32,
    },
}

impl RowFunction {
    /// Returns the number of results for a row of `length` elements.
    pub fn results(self, length: usize) -> usize {
        match self {
            Self::Sum | Self::Maximum | Self::Minimum | Self::MeanOfSquares => 1,
            Self::Softmax | Self::LogSoftmax | Self::RmsNormalization { .. } => length,
        }
    }
}

/// An operation over the rows of a matrix without gaps. Offsets are in elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    function: RowFunction,
    length: usize,
    read: Range<usize>,
    written: Range<usize>,
}

impl Rows {
    /// Validates an operation on `count` rows of `length` elements. Returns `None` if a size is 0
    /// or overflows, or if the results overlap the input.
    pub fn new(
        function: RowFunction,
        count: usize,
        length: usize,
        input: usize,
        output: usize,
    ) -> Option<Self> {
        let range = |first: usize, each: usize| {
            let size = count.checked_mul(each).filter(|size| *size > 0)?;
            Some(first..first.checked_add(size)?)
        };
        let (read, written) = (range(input, length)?, range(output, function.results(length))?);
        are_apart(&read, &written).then_some(Self { function, length, read, written })
    }

    /// Runs the operation.
    ///
    /// # Panics
    /// If the input or the results exceed the arena.
    pub fn run(&self, kernels: &Kernels, arena: &mut [f32], parallel: &dyn Parallel) {
        let (input, output) = disjoint(arena, &self.read, &self.written);
        let (length, results) = (self.length, self.function.results(self.length));
        let count = input.len() / length;
        let parallel = if input.len() < WORTHWHILE { &Alone } else { parallel };
        let shared = Shared::of_reals(output);
        let parts = parallel.threads().clamp(1, count);
        parallel.run(parts, &|index| {
            let range = part(count, 1, index, parts);
            // SAFETY: the results of the rows in `range` lie in `output`, which has `results`
            // elements for each row and stays borrowed. Each row belongs to one part.
            let output = unsafe {
                let start = shared.at(4 * range.start * results).cast::<f32>();
                core::slice::from_raw_parts_mut(start, range.len() * results)
            };
            let input = &input[range.start * length..range.end * length];
            // SAFETY: a `Kernels` table exists only if the CPU supports its instruction set.
            unsafe { (kernels.rows)(self.function, length, input, output) }
        });
    }
}

/// Computes all rows of a matrix.
#[inline(always)]
pub(super) fn compute(function: RowFunction, length: usize, input: &[f32], output: &mut [f32]) {
    let results = function.results(length);
    let pairs = input.chunks_exact(length).zip(output.chunks_exact_mut(results));
    match function {
        RowFunction::Sum => pairs.for_each(|(row, result)| result[0] = rows::sum(row)),
        RowFunction::Maximum => pairs.for_each(|(row, result)| result[0] = rows::max(row)),
        RowFunction::Minimum => pairs.for_each(|(row, result)| result[0] = rows::min(row)),
        RowFunction::MeanOfSquares => pairs.for_each(|(row, result)| {
            result[0] = rows::sum_squares(row) / length as f32;
        }),
        RowFunction::Softmax => pairs.for_each(|(row, result)| rows::softmax(row, result)),
        RowFunction::LogSoftmax => pairs.for_each(|(row, result)| rows::log_softmax(row, result)),
        RowFunction::RmsNormalization { epsilon } => {
            let normalization = Normalization { epsilon, ..Normalization::default() };
            pairs.for_each(|(row, result)| {
                rows::rms_normalization(row, &normalization, result);
            });
        }
    }
}
