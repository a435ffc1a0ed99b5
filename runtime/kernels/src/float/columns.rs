//! Reductions, softmax and normalizations of the columns of a block `[length][columns]`.
//!
//! A reduction has one result for each column, and takes the elements of the column in ascending
//! order. Operations are vectorized across columns. For a single column, [`rows`](super::rows) is
//! faster, and its sums have another order. An incomplete last row of a block is ignored.

use core::ops::Range;

use super::functions::{canonical, exp, fma, log};
use super::rows::{Normalization, inverse_root};

/// The number of columns that are processed at once, so that their state stays in the cache.
const STRIP: usize = 256;

/// Returns the strips that cover all columns.
#[inline(always)]
fn strips(columns: usize) -> impl Iterator<Item = Range<usize>> {
    (0..columns).step_by(STRIP).map(move |start| start..columns.min(start + STRIP))
}

/// Updates the state of each column of a strip with the elements of the column, in order. `other`
/// is a constant of each column.
#[inline(always)]
fn fold(
    block: &[f32],
    columns: usize,
    strip: Range<usize>,
    (state, other): (&mut [f32], &[f32]),
    update: impl Fn(f32, f32, f32) -> f32,
) {
    for row in block.chunks_exact(columns) {
        let elements = row[strip.clone()].iter().zip(other);
        for (state, (&x, &other)) in state.iter_mut().zip(elements) {
            *state = update(*state, x, other);
        }
    }
}

/// Computes each element of a strip from the element of `input`, two constants of its column, and
/// the number of its row.
#[inline(always)]
fn map(
    input: &[f32],
    columns: usize,
    strip: Range<usize>,
    (first, second): (&[f32], &[f32]),
    output: &mut [f32],
    function: impl Fn(f32, f32, f32, usize) -> f32,
) {
    let rows = input.chunks_exact(columns).zip(output.chunks_exact_mut(columns));
    for (index, (input, output)) in rows.enumerate() {
        let elements = output[strip.clone()].iter_mut().zip(&input[strip.clone()]);
        for ((output, &x), (&first, &second)) in elements.zip(first.iter().zip(second)) {
            *output = function(x, first, second, index);
        }
    }
}

/// Sets each element of `output` to the reduction of a column.
#[inline(always)]
fn reduce(block: &[f32], output: &mut [f32], neutral: f32, update: impl Fn(f32, f32) -> f32) {
    let columns = output.len();
    output.fill(neutral);
    for strip in strips(columns) {
        let state = &mut output[strip.clone()];
        fold(block, columns, strip, (state, &[0.0; STRIP]), |state, x, _| update(state, x));
    }
    output.iter_mut().for_each(|output| *output = canonical(*output));
}

/// Returns the larger number, `a` if they are equal; NaN if one is NaN.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// Returns the smaller number, `a` if they are equal; NaN if one is NaN.
#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if b < a || b.is_nan() { b } else { a }
}

/// Returns the number of rows as f32.
#[inline(always)]
fn length(block: &[f32], columns: usize) -> f32 {
    block.len().checked_div(columns).unwrap_or(0) as f32
}

/// Sets `output` to the sum of each column; 0 without rows.
#[inline(always)]
pub fn sum(block: &[f32], output: &mut [f32]) {
    reduce(block, output, 0.0, |sum, x| sum + x);
}

/// Sets `output` to the sum of each column, divided by the number of rows; NaN without rows.
#[inline(always)]
pub fn mean(block: &[f32], output: &mut [f32]) {
    sum(block, output);
    let length = length(block, output.len());
    output.iter_mut().for_each(|output| *output = canonical(*output / length));
}

/// Sets `output` to the largest element of each column: NaN if there is a NaN, −∞ without rows.
#[inline(always)]
pub fn max(block: &[f32], output: &mut [f32]) {
    reduce(block, output, f32::NEG_INFINITY, larger);
}

/// Sets `output` to the smallest element of each column: NaN if there is a NaN, ∞ without rows.
#[inline(always)]
pub fn min(block: &[f32], output: &mut [f32]) {
    reduce(block, output, f32::INFINITY, smaller);
}

/// Sets `output` to the sum of squares of each column, each added by `fma`; 0 without rows.
#[inline(always)]
pub fn sum_squares(block: &[f32], output: &mut [f32]) {
    reduce(block, output, 0.0, |sum, x| fma(x, x, sum));
}

/// Sets `output` to the sum of products of two columns, each added by `fma`; 0 without rows. The
/// shorter block limits the number of rows.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32], output: &mut [f32]) {
    let columns = output.len();
    output.fill(0.0);
    for strip in strips(columns) {
        for (a, b) in a.chunks_exact(columns).zip(b.chunks_exact(columns)) {
            let elements = a[strip.clone()].iter().zip(&b[strip.clone()]);
            for (sum, (&a, &b)) in output[strip.clone()].iter_mut().zip(elements) {
                *sum = fma(a, b, *sum);
            }
        }
    }
    output.iter_mut().for_each(|output| *output = canonical(*output));
}

/// Sets `output` to the Euclidean (L2) norm of each column, the square root of [`sum_squares`].
#[inline(always)]
pub fn norm(block: &[f32], output: &mut [f32]) {
    sum_squares(block, output);
    output.iter_mut().for_each(|output| *output = output.sqrt());
}

/// Computes the softmax of each column, as [`rows::softmax`](super::rows::softmax) does of a row.
#[inline(always)]
pub fn softmax(input: &[f32], columns: usize, output: &mut [f32]) {
    const ZERO: &[f32; STRIP] = &[0.0; STRIP];
    for strip in strips(columns) {
        let (mut most, mut sums) = ([f32::NEG_INFINITY; STRIP], [0.0; STRIP]);
        fold(input, columns, strip.clone(), (&mut most, ZERO), |most, x, _| larger(most, x));
        map(input, columns, strip.clone(), (&most, ZERO), output, |x, most, _, _| exp(x - most));
        fold(output, columns, strip.clone(), (&mut sums, ZERO), |sum, e, _| sum + e);
        let factors = sums.map(|sum| 1.0 / sum);
        for row in output.chunks_exact_mut(columns) {
            for (output, factor) in row[strip.clone()].iter_mut().zip(&factors) {
                *output = canonical(*output * factor);
            }
        }
    }
}

/// Computes the logarithm of the softmax of each column, as
/// [`rows::log_softmax`](super::rows::log_softmax) does of a row.
#[inline(always)]
pub fn log_softmax(input: &[f32], columns: usize, output: &mut [f32]) {
    for strip in strips(columns) {
        let (mut most, mut sums) = ([f32::NEG_INFINITY; STRIP], [0.0; STRIP]);
        fold(input, columns, strip.clone(), (&mut most, &[0.0; STRIP]), |most, x, _| {
            larger(most, x)
        });
        fold(input, columns, strip.clone(), (&mut sums, &most), |sum, x, most| sum + exp(x - most));
        let offsets = sums.map(log);
        map(input, columns, strip, (&most, &offsets), output, |x, most, offset, _| {
            canonical(x - most - offset)
        });
    }
}

/// Normalizes each column, as [`rows::layer_normalization`](super::rows::layer_normalization)
/// normalizes a row. Scale and bias have an element for each row of the block.
#[inline(always)]
pub fn layer_normalization(
    input: &[f32],
    columns: usize,
    normalization: &Normalization<'_>,
    output: &mut [f32],
) {
    let length = length(input, columns);
    for strip in strips(columns) {
        let (mut means, mut squares) = ([0.0; STRIP], [0.0; STRIP]);
        fold(input, columns, strip.clone(), (&mut means, &[0.0; STRIP]), |sum, x, _| sum + x);
        let means = means.map(|sum| sum / length);
        fold(input, columns, strip.clone(), (&mut squares, &means), |sum, x, mean| {
            fma(x - mean, x - mean, sum)
        });
        normalize(input, columns, strip, (&means, &squares), normalization, output);
    }
}

/// Normalizes each column, as [`rows::rms_normalization`](super::rows::rms_normalization)
/// normalizes a row. Scale and bias have an element for each row of the block.
#[inline(always)]
pub fn rms_normalization(
    input: &[f32],
    columns: usize,
    normalization: &Normalization<'_>,
    output: &mut [f32],
) {
    const ZERO: &[f32; STRIP] = &[0.0; STRIP];
    for strip in strips(columns) {
        let mut squares = [0.0; STRIP];
        fold(input, columns, strip.clone(), (&mut squares, ZERO), |sum, x, _| fma(x, x, sum));
        normalize(input, columns, strip, (ZERO, &squares), normalization, output);
    }
}

/// Normalizes a strip, given its means and the sums of squares of differences.
#[inline(always)]
fn normalize(
    input: &[f32],
    columns: usize,
    strip: Range<usize>,
    (means, squares): (&[f32; STRIP], &[f32; STRIP]),
    normalization: &Normalization<'_>,
    output: &mut [f32],
) {
    let length = length(input, columns);
    let factors = squares.map(|sum| inverse_root(sum / length, normalization.epsilon));
    let (scale, bias) = (normalization.scale, normalization.bias);
    map(input, columns, strip, (means, &factors), output, |x, mean, factor, row| {
        // With 1 and −0, `fma` is the other term alone, down to the sign of 0.
        let scale = scale.map_or(1.0, |scale| scale.get(row).copied().unwrap_or(1.0));
        let bias = bias.map_or(-0.0, |bias| bias.get(row).copied().unwrap_or(-0.0));
        canonical(fma((x - mean) * factor, scale, bias))
    });
}
