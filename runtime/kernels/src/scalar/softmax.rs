//! Softmax over the channels of each pixel.

use crate::Softmax;

/// Runs a [`Softmax`].
pub fn softmax(softmax: &Softmax<'_>, output: &mut [i8]) {
    let channels = softmax.channels.max(1);
    let pixels = softmax.input.chunks_exact(channels).zip(output.chunks_exact_mut(channels));
    for (input, output) in pixels {
        let greatest = input.iter().copied().max().unwrap_or(i8::MIN);
        let exponential = |x: i8| u64::from(softmax.table[usize::from(greatest.abs_diff(x))]);
        let sum = input.iter().map(|&x| exponential(x)).sum::<u64>().max(1);
        for (output, &x) in output.iter_mut().zip(input) {
            *output = share(exponential(x), sum);
        }
    }
}

/// Returns `exponential / sum` in units of 1/256, rounded half up, minus 128.
#[inline(always)]
pub(crate) fn share(exponential: u64, sum: u64) -> i8 {
    // (2 · 256 · e + sum) / (2 · sum), in [0, 256].
    let share = (512 * exponential + sum) / (2 * sum);
    (share.min(255) as i32 - 128) as i8
}
