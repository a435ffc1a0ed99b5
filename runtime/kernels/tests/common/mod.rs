//! Strategies for shapes and values, many of them extreme.
#![allow(dead_code, reason = "each test file uses only some of these")]

pub mod guarded;

use hardtack_kernels::{Clamp, Window, round_significant};
use proptest::prelude::*;

/// A window, an input size, and an output size with arbitrary padding below and to the right.
#[derive(Clone, Debug)]
pub struct Geometry {
    pub window: Window,
    pub input: (usize, usize),
    pub output: (usize, usize),
}

pub fn geometry() -> impl Strategy<Value = Geometry> {
    let axis = (1usize..6, 1usize..4, 1usize..4, 0usize..5, 1usize..10, 0usize..4);
    (axis.clone(), axis).prop_map(|(a, b)| {
        type Axis = (usize, usize, usize, usize, usize, usize);
        let output = |(kernel, stride, dilation, pad, size, end): Axis| {
            let extent = (kernel - 1) * dilation + 1;
            (size + pad + end).saturating_sub(extent) / stride + 1
        };
        Geometry {
            window: Window {
                kernel: [a.0, b.0],
                stride: [a.1, b.1],
                dilation: [a.2, b.2],
                pad: [a.3, b.3],
            },
            input: (a.4, b.4),
            output: (output(a), output(b)),
        }
    })
}

/// Returns the (row, column) of each window element in row-major order; `None` outside the image.
pub fn positions(g: &Geometry, row: usize, column: usize) -> Vec<Option<(usize, usize)>> {
    let Window { kernel, stride, dilation, pad } = g.window;
    let at = |axis: usize, output: usize, tap: usize, size: usize| {
        (output * stride[axis] + tap * dilation[axis])
            .checked_sub(pad[axis])
            .filter(|&position| position < size)
    };
    (0..kernel[0])
        .flat_map(|y| (0..kernel[1]).map(move |x| (y, x)))
        .map(|(y, x)| Some((at(0, row, y, g.input.0)?, at(1, column, x, g.input.1)?)))
        .collect()
}

/// i8 values, many of them extreme.
pub fn activation() -> impl Strategy<Value = i8> {
    prop_oneof![Just(i8::MIN), Just(i8::MAX), any::<i8>()]
}

pub fn weight() -> impl Strategy<Value = i8> {
    prop_oneof![Just(-127i8), Just(127i8), -127..=127i8]
}

pub fn clamp() -> impl Strategy<Value = Clamp> {
    prop_oneof![
        Just(Clamp::FULL),
        any::<(i8, i8)>().prop_map(|(a, b)| Clamp { low: a.min(b), high: a.max(b) })
    ]
}

pub fn cycle<T: Copy>(values: &[T], count: usize) -> Vec<T> {
    values.iter().copied().cycle().take(count).collect()
}

/// Biases, many of them unrealistically large.
pub fn bias() -> impl Strategy<Value = i32> {
    prop_oneof![-100_000..100_000i32, any::<i32>()]
}

/// Requantization scales of accumulators.
pub fn scale() -> impl Strategy<Value = f32> {
    let likely = (-18.0..1.0f32).prop_map(|exponent| round_significant(exponent.exp2(), 22));
    prop_oneof![4 => likely, 1 => Just(0.0), 1 => Just(1e19), 1 => Just(6e-20)]
}

/// Scales of residuals.
pub fn term_scale() -> impl Strategy<Value = f32> {
    let likely = (-8.0..8.0f32).prop_map(|exponent| round_significant(exponent.exp2(), 15));
    prop_oneof![4 => likely.clone(), 1 => likely.prop_map(|scale| -scale), 1 => Just(0.0)]
}
