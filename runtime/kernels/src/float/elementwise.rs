//! Functions of one and of two numbers, applied to slices.

use super::functions;

/// A function of one number. See [`functions`](super::functions) for definitions and error bounds.
#[allow(missing_docs, reason = "the names of the functions say it")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    Abs,
    Negate,
    Square,
    Sqrt,
    Reciprocal,
    ReciprocalSqrt,
    Exp,
    Ln,
    Tanh,
    Sigmoid,
    Erf,
    Sin,
    Cos,
    Silu,
    Gelu,
    GeluTanh,
    HardSwish,
    LeakyRelu(f32),
    Clamp { low: f32, high: f32 },
}

/// A function of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// a + b
    Add,
    /// a − b
    Subtract,
    /// a · b
    Multiply,
    /// a ÷ b
    Divide,
    /// The smaller number, or NaN if either is NaN. Zeros of both signs are equal: then a.
    Minimum,
    /// The larger number, or NaN if either is NaN. Zeros of both signs are equal: then a.
    Maximum,
}

#[inline(always)]
fn map(values: &[f32], results: &mut [f32], function: impl Fn(f32) -> f32) {
    for (result, value) in results.iter_mut().zip(values) {
        *result = function(*value);
    }
}

/// Applies a function to each value.
#[inline(always)]
pub(super) fn unary(unary: Unary, values: &[f32], results: &mut [f32]) {
    match unary {
        Unary::Abs => map(values, results, f32::abs),
        Unary::Negate => map(values, results, |x| -x),
        Unary::Square => map(values, results, |x| x * x),
        Unary::Sqrt => map(values, results, functions::sqrt),
        Unary::Reciprocal => map(values, results, functions::reciprocal),
        Unary::ReciprocalSqrt => map(values, results, functions::rsqrt),
        Unary::Exp => map(values, results, functions::exp),
        Unary::Ln => map(values, results, functions::log),
        Unary::Tanh => map(values, results, functions::tanh),
        Unary::Sigmoid => map(values, results, functions::sigmoid),
        Unary::Erf => map(values, results, functions::erf),
        Unary::Sin => map(values, results, functions::sin),
        Unary::Cos => map(values, results, functions::cos),
        Unary::Silu => map(values, results, functions::silu),
        Unary::Gelu => map(values, results, functions::gelu),
        Unary::GeluTanh => map(values, results, functions::gelu_tanh),
        Unary::HardSwish => map(values, results, functions::hard_swish),
        Unary::LeakyRelu(slope) => map(values, results, |x| if x < 0.0 { x * slope } else { x }),
        Unary::Clamp { low, high } => map(values, results, |x| super::clamp(x, low, high)),
    }
}

#[inline(always)]
fn pairs(a: &[f32], b: &[f32], results: &mut [f32], function: impl Fn(f32, f32) -> f32) {
    for ((result, a), b) in results.iter_mut().zip(a).zip(b) {
        *result = function(*a, *b);
    }
}

/// Applies a function to each pair of values.
#[inline(always)]
pub(super) fn binary(binary: Binary, a: &[f32], b: &[f32], results: &mut [f32]) {
    match binary {
        Binary::Add => pairs(a, b, results, |a, b| a + b),
        Binary::Subtract => pairs(a, b, results, |a, b| a - b),
        Binary::Multiply => pairs(a, b, results, |a, b| a * b),
        Binary::Divide => pairs(a, b, results, |a, b| a / b),
        Binary::Minimum => pairs(a, b, results, minimum),
        Binary::Maximum => pairs(a, b, results, maximum),
    }
}

/// Returns the smaller number, as [`Binary::Minimum`].
#[inline(always)]
pub fn minimum(a: f32, b: f32) -> f32 {
    // In this form a NaN in either is not lost: see the comparison.
    if a <= b {
        a
    } else if a > b || b.is_nan() {
        b
    } else {
        a
    }
}

/// Returns the larger number, as [`Binary::Maximum`].
#[inline(always)]
pub fn maximum(a: f32, b: f32) -> f32 {
    if a >= b {
        a
    } else if a < b || b.is_nan() {
        b
    } else {
        a
    }
}
