//! The walk of every depthwise kernel: four rows of the image are interleaved, so that one
//! instruction adds the products of a column of the kernel; each column of the image is
//! interleaved once and used for every output it belongs to.

use crate::packed::depthwise::ROWS;
use crate::strided::DepthwiseRows;

/// What an instruction set does with the channels of a block, or with some of them.
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
    /// The processor has the instructions, here and in all that follows. The block is whole.
    unsafe fn ends(block: &DepthwiseRows) -> Self::Ends;

    /// # Safety
    /// See [`Channels::ends`].
    unsafe fn start(ends: &Self::Ends) -> Self::Sums;

    /// The first step of the weights.
    ///
    /// # Safety
    /// See [`Channels::ends`].
    unsafe fn weights(block: &DepthwiseRows) -> *const u8;

    /// # Safety
    /// There is a step of the weights.
    unsafe fn load(weights: *const u8) -> Self::Weights;

    /// Interleaves one to four rows; the last stands for those beyond.
    ///
    /// # Safety
    /// The rows can be read there, with the slack behind them.
    unsafe fn interleave(rows: &[*const u8], at: usize) -> Self::Values;

    /// # Safety
    /// See [`Channels::ends`].
    unsafe fn add(sums: &mut Self::Sums, values: Self::Values, weights: Self::Weights);

    /// # Safety
    /// There is an output, of as many channels as the block has.
    unsafe fn write(block: &DepthwiseRows, ends: &Self::Ends, sums: Self::Sums, output: *mut u8);
}

/// A kernel of `R` rows and `K` columns whose windows are `S` columns apart, `N` outputs at work
/// at a time.
///
/// # Safety
/// As [`DepthwiseRows`] says; the processor has the instructions of `C`.
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
    // SAFETY: columns up to the last one's window are read, as the block promises, and its terms
    // and weights.
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
/// As [`rolling`].
#[inline(always)]
pub(super) unsafe fn general<C: Channels>(block: &DepthwiseRows) {
    // SAFETY: as in `rolling`.
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
