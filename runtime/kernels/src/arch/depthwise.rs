//! The walk of every depthwise kernel: four rows of the image are interleaved, so that one
//! instruction adds the products of a column of the kernel; each column of the image is
//! interleaved once and used for every output it belongs to.

use crate::packed::depthwise::ROWS;
use crate::strided::DepthwiseRows;

/// What an instruction set does with the channels of a block, or with some of them.
///
/// # Safety of its functions
/// All need the processor. Where they have a block, they need the rows as well.
pub(super) trait Channels {
    /// What every output begins with and ends in.
    type Ends;
    /// The sums of one output.
    type Sums: Copy;
    /// A step of the weights, made ready.
    type Weights: Copy;
    /// Four rows of the image at one place, channel by channel, made ready.
    type Values: Copy;

    /// Bytes of a step of the weights.
    const STEP: usize;

    /// # Safety
    /// The processor and the rows.
    unsafe fn ends(block: &DepthwiseRows) -> Self::Ends;

    /// # Safety
    /// The processor.
    unsafe fn start(ends: &Self::Ends) -> Self::Sums;

    /// The first step of the weights.
    ///
    /// # Safety
    /// The processor and the rows.
    unsafe fn weights(block: &DepthwiseRows) -> *const u8;

    /// # Safety
    /// The processor. [`Channels::weights`] gave the pointer, moved on by as many times
    /// [`Channels::STEP`] as there are steps at most, less one: so it is a multiple of 64, and what a
    /// step needs can be read.
    unsafe fn load(weights: *const u8) -> Self::Weights;

    /// Interleaves one to four rows; the last stands for those beyond.
    ///
    /// # Safety
    /// The processor. A vector (of the layout, see [`DepthwiseRows`]) of bytes can be read `at` bytes
    /// behind each of the rows, of which there is one.
    unsafe fn interleave(rows: &[*const u8], at: usize) -> Self::Values;

    /// # Safety
    /// The processor.
    unsafe fn add(sums: &mut Self::Sums, values: Self::Values, weights: Self::Weights);

    /// # Safety
    /// The processor and the rows. `output` is the place of an output, where `channels` bytes can be
    /// written.
    unsafe fn write(block: &DepthwiseRows, ends: &Self::Ends, sums: Self::Sums, output: *mut u8);
}

/// A kernel of `R` rows and `K` columns whose windows are `S` columns apart, `N` outputs at work
/// at a time.
///
/// # Safety
/// The processor, which has the instructions of `C`, and the rows. The kernel has `R` rows and `K`
/// columns, and `columns_between` is `S`, at most `K`.
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
    // SAFETY: of each row of outputs, columns are read from the first of the first window to the last
    // of the last, `(count − 1) · S + K` of them: all of them belong to a window, as windows are `S`
    // columns apart. Weights are those of the `K · groups` steps there are, at least one. An output is
    // written for each window.
    unsafe {
        let groups = const { R.div_ceil(ROWS) };
        let ends = C::ends(block);
        let weights = C::weights(block);
        // Few enough to stay in registers.
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
            // Column `$column` of the image, counted from the first window at work.
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

/// Any kernel and any distance of windows.
///
/// # Safety
/// The processor, which has the instructions of `C`, and the rows.
#[inline(always)]
pub(super) unsafe fn general<C: Channels>(block: &DepthwiseRows) {
    // SAFETY: every column of every window is read, with the step of the weights that belongs to it,
    // and the output of every window is written. `rows` has two groups of four, of which `groups`,
    // at most both, are read.
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
