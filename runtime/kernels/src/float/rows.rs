//! Reductions, softmax and normalizations of rows whose elements are adjacent.
//!
//! Every reduction has one order. Partial result `i` of 16 takes the elements `i`, `i + 16`, … of
//! the row in ascending order. Then partial result `i` takes `i + 8` for `i < 8`, `i + 4` for
//! `i < 4`, `i + 2` for `i < 2`, and 0 takes 1. Partial results start with the neutral element and
//! take part even if the row has fewer than 16 elements.
//!
//! An output has the length of the row. Elements without a counterpart are not written.

use super::functions::{canonical, exp, fma, log};

/// The number of partial results of a reduction.
const LANES: usize = 16;

/// Parameters of a normalization.
#[derive(Clone, Copy, Debug, Default)]
pub struct Normalization<'a> {
    /// Added to the variance, or to the mean of squares, before the square root.
    pub epsilon: f32,
    /// A factor for each element of a row; 1 if absent.
    pub scale: Option<&'a [f32]>,
    /// A summand for each element of a row, in one `fma` with the factor; none if absent.
    pub bias: Option<&'a [f32]>,
}

/// Mean and reciprocal standard deviation of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// The mean.
    pub mean: f32,
    /// `1 / √(variance + epsilon)`.
    pub inverse_deviation: f32,
}

/// Reduces two rows, the longer one cut to the length of the other, in the order of this module.
#[inline(always)]
fn fold(
    a: &[f32],
    b: &[f32],
    neutral: f32,
    update: impl Fn(f32, f32, f32) -> f32,
    combine: impl Fn(f32, f32) -> f32,
) -> f32 {
    let length = a.len().min(b.len());
    let (a_blocks, a_rest) = a[..length].as_chunks::<LANES>();
    let (b_blocks, b_rest) = b[..length].as_chunks::<LANES>();
    let mut partial = [neutral; LANES];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            partial[lane] = update(partial[lane], a[lane], b[lane]);
        }
    }
    for ((partial, &a), &b) in partial.iter_mut().zip(a_rest).zip(b_rest) {
        *partial = update(*partial, a, b);
    }
    canonical(tree(partial, combine))
}

/// Combines partial results.
#[inline(always)]
fn tree(mut partial: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            partial[lane] = combine(partial[lane], partial[lane + half]);
        }
    }
    partial[0]
}

#[inline(always)]
fn add(a: f32, b: f32) -> f32 {
    a + b
}

/// Returns the sum; 0 for an empty row.
#[inline(always)]
pub fn sum(row: &[f32]) -> f32 {
    fold(row, row, 0.0, |sum, x, _| sum + x, add)
}

/// Returns the sum divided by the number of elements; NaN for an empty row.
#[inline(always)]
pub fn mean(row: &[f32]) -> f32 {
    canonical(sum(row) / row.len() as f32)
}

/// Returns the largest element: NaN if there is a NaN, −∞ for an empty row.
#[inline(always)]
pub fn max(row: &[f32]) -> f32 {
    let most = max_number(row);
    if has_nan(row) { f32::NAN } else { most }
}

/// Returns the smallest element: NaN if there is a NaN, ∞ for an empty row.
#[inline(always)]
pub fn min(row: &[f32]) -> f32 {
    let smaller = |a: f32, b: f32| if b < a { b } else { a };
    let least = fold(row, row, f32::INFINITY, |least, x, _| smaller(least, x), smaller);
    if has_nan(row) { f32::NAN } else { least }
}

/// Returns the largest element that is a number, −∞ if there is none.
#[inline(always)]
fn max_number(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    fold(row, row, f32::NEG_INFINITY, |most, x, _| larger(most, x), larger)
}

#[inline(always)]
fn has_nan(row: &[f32]) -> bool {
    row.iter().fold(0, |found, x| found | u32::from(x.is_nan())) != 0
}

/// Returns the sum of `a[i] · b[i]`, each added by `fma`; 0 for empty rows.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    fold(a, b, 0.0, |sum, a, b| fma(a, b, sum), add)
}

/// Returns the sum of squares, each added by `fma`; 0 for an empty row.
#[inline(always)]
pub fn sum_squares(row: &[f32]) -> f32 {
    dot(row, row)
}

/// Returns the Euclidean (L2) norm, the square root of [`sum_squares`].
#[inline(always)]
pub fn norm(row: &[f32]) -> f32 {
    sum_squares(row).sqrt()
}

/// Computes the softmax: `e = exp(x − max)`, times the reciprocal of the sum of all `e`. The result
/// is NaN in the whole row if an element is NaN or ∞, or if all are −∞.
#[inline(always)]
pub fn softmax(input: &[f32], output: &mut [f32]) {
    // A NaN makes the sum NaN.
    let most = max_number(input);
    let length = input.len().min(output.len());
    let output = &mut output[..length];
    for (output, &x) in output.iter_mut().zip(input) {
        *output = exp(x - most);
    }
    let factor = 1.0 / sum(output);
    output.iter_mut().for_each(|output| *output = canonical(*output * factor));
}

/// Computes the logarithm of the softmax: `(x − max) − log(sum of exp(x − max))`. The result is NaN
/// in the whole row if an element is NaN or ∞, or if all are −∞.
#[inline(always)]
pub fn log_softmax(input: &[f32], output: &mut [f32]) {
    // A NaN makes the sum NaN.
    let most = max_number(input);
    let sum = fold(input, input, 0.0, |sum, x, _| sum + exp(x - most), add);
    let offset = log(sum);
    for (output, &x) in output.iter_mut().zip(input) {
        *output = canonical(x - most - offset);
    }
}

/// Computes `(x − mean) / √(variance + epsilon) · scale + bias`. The variance is the mean of
/// `(x − mean)²`, in a second pass; the division is a product with the reciprocal.
#[inline(always)]
pub fn layer_normalization(
    input: &[f32],
    normalization: &Normalization<'_>,
    output: &mut [f32],
) -> Moments {
    let mean = mean(input);
    let square = |sum: f32, x: f32, _| fma(x - mean, x - mean, sum);
    let variance = fold(input, input, 0.0, square, add) / input.len() as f32;
    let inverse_deviation = inverse_root(variance, normalization.epsilon);
    normalize(input, mean, inverse_deviation, normalization, output);
    Moments { mean, inverse_deviation }
}

/// Computes `x / √(mean of x² + epsilon) · scale + bias`. The division is a product with the
/// reciprocal, which is returned.
#[inline(always)]
pub fn rms_normalization(
    input: &[f32],
    normalization: &Normalization<'_>,
    output: &mut [f32],
) -> f32 {
    let factor = inverse_root(sum_squares(input) / input.len() as f32, normalization.epsilon);
    normalize(input, 0.0, factor, normalization, output);
    factor
}

/// Returns `1 / √(square + epsilon)`.
#[inline(always)]
pub(super) fn inverse_root(square: f32, epsilon: f32) -> f32 {
    super::functions::rsqrt(square + epsilon)
}

#[inline(always)]
fn normalize(
    input: &[f32],
    mean: f32,
    factor: f32,
    normalization: &Normalization<'_>,
    output: &mut [f32],
) {
    let normal = |x: f32| (x - mean) * factor;
    let elements = output.iter_mut().zip(input);
    match (normalization.scale, normalization.bias) {
        (None, None) => elements.for_each(|(output, &x)| *output = canonical(normal(x))),
        (Some(scale), None) => elements
            .zip(scale)
            .for_each(|((output, &x), scale)| *output = canonical(normal(x) * scale)),
        (None, Some(bias)) => elements
            .zip(bias)
            .for_each(|((output, &x), bias)| *output = canonical(normal(x) + bias)),
        (Some(scale), Some(bias)) => {
            elements.zip(scale).zip(bias).for_each(|(((output, &x), &scale), &bias)| {
                *output = canonical(fma(normal(x), scale, bias));
            });
        }
    }
}
