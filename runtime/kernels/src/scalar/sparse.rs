//! Convolution whose weights have no zeros: [`Sparse`] says how they lie.
//!
//! Four bits at a time choose the code that adds what is there of four elements, so that zeros take
//! no products and no bit is looked for.

use super::conv::{Place, finish};
use crate::sparse::{self, Row, Sparse, WORD};
use crate::{Conv, Requantize};

/// Output pixels that share one pass over the weights, where there are so many.
const TOGETHER: usize = 4;

/// See [`Kernels::sparse`](crate::Kernels::sparse).
pub fn sparse(conv: &Conv<'_>, output: &mut [i8]) {
    let pixels = conv.output_shape.height * conv.output_shape.width;
    if pixels < TOGETHER {
        for pixel in 0..pixels {
            block::<1, 512, 64>(conv, pixel, output);
        }
        return;
    }
    // The last block begins earlier where it would be cut; some pixels are then computed twice.
    for pixel in (0..pixels).step_by(TOGETHER) {
        block::<TOGETHER, 128, 32>(conv, pixel.min(pixels - TOGETHER), output);
    }
}

/// Every channel of `P` output pixels from number `pixel` on: `N` elements of their windows at
/// once, a multiple of [`WORD`], for `C` channels.
fn block<const P: usize, const N: usize, const C: usize>(
    conv: &Conv<'_>,
    pixel: usize,
    output: &mut [i8],
) {
    let width = conv.output_shape.width;
    let channels = conv.output_shape.channels;
    let group_channels = channels / conv.groups;
    let depth = conv.depth();
    let form = Sparse::new(conv.weights, channels, depth).expect("weights hold what shapes say");
    let mut rest = form.rows();
    let requantize = Requantize::new(conv.output_zero_point, conv.clamp);

    let places: [Place<'_>; P] =
        core::array::from_fn(|i| Place::new(conv, (pixel + i) / width, (pixel + i) % width));
    // Elements of all windows in turn.
    let mut windows = [[0; P]; N];
    let mut sums = [[0; P]; C];
    let mut open = [Row::default(); C];
    for group in 0..conv.groups {
        let (first, end) = (group * group_channels, (group + 1) * group_channels);
        for start in (first..end).step_by(C) {
            let count = C.min(end - start);
            for (sums, &bias) in sums.iter_mut().zip(&conv.bias[start..start + count]) {
                *sums = [bias; P];
            }
            for from in (0..depth).step_by(N) {
                let length = N.min(depth - from);
                // A window that fits is gathered once for all channels of the group.
                if start == first || depth > N {
                    for (index, place) in places.iter().enumerate() {
                        gather(conv, place, (group, from), index, &mut windows[..length]);
                    }
                }
                let windows = &windows[..length.next_multiple_of(WORD)];
                for (sums, row) in sums[..count].iter_mut().zip(&mut open) {
                    if from == 0 {
                        *row = Row::first(rest, depth).expect("weights hold what shapes say");
                    }
                    *row = add(*row, windows, sums);
                    // What is left of the row is skipped, and added with the next elements.
                    if from == 0 {
                        rest = &row.weights[row.count()..];
                    }
                }
            }
            for i in 0..P {
                let sums: [i32; C] = core::array::from_fn(|channel| sums[channel][i]);
                let at = (pixel + i) * channels + start;
                finish(conv, &requantize, start, &sums[..count], at, output);
            }
        }
    }
}

/// Elements of the window of `group` from `from` on, less the zero point, at `index` of each.
fn gather<const P: usize>(
    conv: &Conv<'_>,
    place: &Place<'_>,
    (group, from): (usize, usize),
    index: usize,
    windows: &mut [[i32; P]],
) {
    if !place.is_inside() {
        windows.iter_mut().for_each(|window| window[index] = 0);
    }
    place.runs(group, from, windows.len(), |source, at| {
        for (window, &value) in windows[at..at + source.len()].iter_mut().zip(source) {
            window[index] = i32::from(value) - i32::from(conv.zero_point);
        }
    });
}

/// Adds the products of the first elements of a row with those of windows, of whole words; what is
/// left of the row.
fn add<'a, const P: usize>(row: Row<'a>, windows: &[[i32; P]], sums: &mut [i32; P]) -> Row<'a> {
    let Row { bits, mut weights } = row;
    let mut total = *sums;
    let (words, left) = bits.split_at(windows.len() / WORD);
    for (&word, windows) in words.iter().zip(windows.as_chunks::<WORD>().0) {
        let mut bits = sparse::word(word);
        for four in windows.as_chunks::<4>().0 {
            macro_rules! choose {
                ($($bits:literal)*) => {
                    match bits & 15 {
                        $($bits => products::<$bits, P>(weights, four, &mut total),)*
                        _ => weights,
                    }
                };
            }
            weights = choose!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            bits >>= 4;
        }
    }
    *sums = total;
    Row { bits: left, weights }
}

/// Adds the products of the next weights with those of four elements that `BITS` has; what follows
/// these weights.
#[inline(always)]
fn products<'a, const BITS: u32, const P: usize>(
    weights: &'a [i8],
    four: &[[i32; P]; 4],
    sums: &mut [i32; P],
) -> &'a [i8] {
    let Some((next, rest)) = weights.split_at_checked(BITS.count_ones() as usize) else {
        return weights;
    };
    let mut next = next.iter();
    for (place, window) in four.iter().enumerate() {
        if BITS >> place & 1 == 1
            && let Some(&weight) = next.next()
        {
            for (sum, value) in sums.iter_mut().zip(window) {
                *sum = sum.wrapping_add(value * i32::from(weight));
            }
        }
    }
    rest
}
