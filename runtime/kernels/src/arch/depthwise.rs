//! The loop structure of all depthwise kernels. Four image rows are interleaved, so that one
//! instruction accumulates a column of the kernel. Each image column is interleaved once and used
//! for all outputs that it contributes to.

use crate::packed::depthwise::ROWS;
use crate::strided::DepthwiseRows;

/// The operations of an instruction set on all or some channels of a block.
///
/// # Safety of the functions
/// The CPU must support the instruction set of the implementation, and a `block` argument must
/// satisfy the contract of [`DepthwiseRows`].
pub(super) trait Channels {
    /// The biases and other constants of all outputs.
    type Ends;
    /// The accumulators of one output.
    type Sums: Copy;
    /// A step of the weights, prepared for [`Channels::add`].
    type Weights: Copy;
    /// Four image rows at one column, interleaved by channel, prepared for [`Channels::add`].
    type Values: Copy;

    /// The bytes of a step of the weights.
    const STEP: usize;

    /// Loads the constants.
    ///
    /// # Safety
    /// The CPU features and the contract of [`DepthwiseRows`].
    unsafe fn ends(block: &DepthwiseRows) -> Self::Ends;

    /// Returns the initial accumulators of an output.
    ///
    /// # Safety
    /// The CPU features.
    unsafe fn start(ends: &Self::Ends) -> Self::Sums;

    /// Returns the address of the first step of the weights.
    ///
    /// # Safety
    /// The CPU features and the contract of [`DepthwiseRows`].
    unsafe fn weights(block: &DepthwiseRows) -> *const u8;

    /// Loads a step of the weights.
    ///
    /// # Safety
    /// The CPU features. `weights` must be the result of [`Channels::weights`] plus n ·
    /// [`Channels::STEP`] bytes, with n less than the number of steps. It is then aligned to 64,
    /// and a step is readable.
    unsafe fn load(weights: *const u8) -> Self::Weights;

    /// Interleaves one to four rows. The last row replaces missing ones.
    ///
    /// # Safety
    /// The CPU features. `rows` must not be empty, and a vector (as defined in [`DepthwiseRows`])
    /// must be readable `at` bytes past each row pointer.
    unsafe fn interleave(rows: &[*const u8], at: usize) -> Self::Values;

    /// Multiplies values and weights and adds to the accumulators.
    ///
    /// # Safety
    /// The CPU features.
    unsafe fn add(sums: &mut Self::Sums, values: Self::Values, weights: Self::Weights);

    /// Applies the epilogue and writes an output.
    ///
    /// # Safety
    /// The CPU features and the contract of [`DepthwiseRows`]. `block.channels` bytes must be
    /// writable at `output`.
    unsafe fn write(block: &DepthwiseRows, ends: &Self::Ends, sums: Self::Sums, output: *mut u8);
}

/// Runs a kernel of `R` rows and `K` columns with horizontal stride `S` (in kernel columns). `N`
/// outputs are in progress at a time.
///
/// # Safety
/// The CPU must support the instructions of `C`, and `block` must satisfy the contract of
/// [`DepthwiseRows`]. Its kernel must have `R` rows and `K` columns, and `columns_between` must be
/// `S`, at most `K`.
#[inline(always)]
pub(super) unsafe fn rolling<
    C: Channels,
    const R: usize,
    const K: usize,
    const S: usize,
    const N: usize,
>(
    block: &DepthwiseRows,
) {
    // SAFETY: each output row reads `(count − 1) · S + K` columns, from the first column of the
    // first window to the last column of the last. They all belong to a window, because windows are
    // `S` columns apart, so the contract of `DepthwiseRows` makes them readable. Weights are read
    // from the `K · groups` existing steps, at least one. One output is written per window.
    unsafe {
        let groups = const { R.div_ceil(ROWS) };
        let ends = C::ends(block);
        let weights = C::weights(block);
        // Three steps stay in registers.
        let few = K * groups == 3;
        let last = if few { 2 } else { 0 };
        let held = [
            C::load(weights),
            C::load(weights.add(C::STEP * last.min(1))),
            C::load(weights.add(C::STEP * last)),
        ];
        for row in 0..block.height {
            let mut sums = [C::start(&ends); N];
            let mut at = row * block.row_step;
            let mut output = block.output.add(row * block.output_row_step);
            // Processes image column `$column`, relative to the first window in progress.
            macro_rules! column {
                ($column:expr) => {{
                    for group in 0..groups {
                        let rows = &block.rows[ROWS * group..R.min(ROWS * (group + 1))];
                        let values = C::interleave(rows, at);
                        for n in 0..N {
                            if $column >= n * S && $column - n * S < K {
                                let step = ($column - n * S) * groups + group;
                                let weights = if few {
                                    held[step]
                                } else {
                                    C::load(weights.add(C::STEP * step))
                                };
                                C::add(&mut sums[n], values, weights);
                            }
                        }
                    }
                    at += block.column_step;
                }};
            }
            for column in 0..K - S {
                column!(column);
            }
            for _ in 0..block.count {
                for column in K - S..K {
                    column!(column);
                }
                C::write(block, &ends, sums[0], output);
                output = output.add(block.output_step);
                for n in 1..N {
                    sums[n - 1] = sums[n];
                }
                sums[N - 1] = C::start(&ends);
            }
        }
    }
}

/// Runs a kernel of any size and stride.
///
/// # Safety
/// The CPU must support the instructions of `C`, and `block` must satisfy the contract of
/// [`DepthwiseRows`].
#[inline(always)]
pub(super) unsafe fn general<C: Channels>(block: &DepthwiseRows) {
    // SAFETY: reads each column of each window and the corresponding step of the weights, and
    // writes the output of each window, as the contract of `DepthwiseRows` permits. `rows` has two
    // groups of four pointers, and `groups` is at most 2.
    unsafe {
        let ends = C::ends(block);
        let groups = block.kernel[0].div_ceil(ROWS);
        for row in 0..block.height {
            for index in 0..block.count {
                let mut sums = C::start(&ends);
                let mut weights = C::weights(block);
                for column in 0..block.kernel[1] {
                    let at = row * block.row_step
                        + index * block.window_step
                        + column * block.column_step;
                    for group in 0..groups {
                        let rows = &block.rows[ROWS * group..ROWS * (group + 1)];
                        let values = C::interleave(rows, at);
                        C::add(&mut sums, values, C::load(weights));
                        weights = weights.add(C::STEP);
                    }
                }
                let output = row * block.output_row_step + index * block.output_step;
                C::write(block, &ends, sums, block.output.add(output));
            }
        }
    }
}
