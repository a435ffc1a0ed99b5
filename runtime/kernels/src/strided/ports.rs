//! Copies in any order, into the arena, out of it and within it.

use core::ops::Range;

use super::rows::Around;
use super::{Kernels, Linear, View};
use crate::{Clamp, Requantize, Walk};

/// Values of a run quantized at once.
const RUN: usize = 64;

/// From real values: see [`Quantize`](crate::Quantize).
#[derive(Clone, Debug, PartialEq)]
pub struct Quantize {
    /// From the elements of the input to bytes of the arena.
    pub walk: Walk,
    /// 1 over the output's scale.
    pub inverse_scale: f32,
    /// The integer that represents 0 in the output.
    pub zero_point: i8,
}

impl Quantize {
    /// Runs it.
    ///
    /// # Panics
    /// Where the walk leaves the input or the arena.
    pub fn run(&self, kernels: &Kernels, input: &[f32], arena: &mut [u8]) {
        let requantize = Requantize::new(self.zero_point, Clamp::FULL);
        let (walk, scale) = (&self.walk, self.inverse_scale);
        let planes = walk.dims[5];
        let interleaves = walk.source_strides[4] == 1
            && walk.target_strides[5] == 1
            && walk.target_strides[4] == planes
            && planes <= 4;
        let quantize = |input: &[f32], output: &mut [u8]| {
            // SAFETY: the processor has the instructions of a table.
            unsafe { (kernels.quantize)(scale, &requantize, input, output) }
        };
        if interleaves {
            // Planes to pixels: each plane's run, then the bytes in turns.
            let (count, plane) = (walk.dims[4], walk.source_strides[5]);
            walk.outer(2).for_each_run(|from, to| {
                let mut runs = [[0u8; RUN]; 4];
                for start in (0..count).step_by(RUN) {
                    let length = RUN.min(count - start);
                    for (index, run) in runs.iter_mut().enumerate().take(planes) {
                        let from = from + start + index * plane;
                        quantize(&input[from..from + length], &mut run[..length]);
                    }
                    let output = &mut arena[to + start * planes..][..length * planes];
                    // SAFETY: as above.
                    unsafe { (kernels.interleave)(&runs, planes, output) }
                }
            });
        } else if walk.source_strides[5] == 1 && walk.target_strides[5] == 1 {
            let count = walk.dims[5];
            walk.outer(1).for_each_run(|from, to| {
                quantize(&input[from..from + count], &mut arena[to..to + count]);
            });
        } else {
            let flip = kernels.packing().raise() as u8;
            walk.apply(input, arena, |x: f32| {
                let x = if x.is_nan() { 0.0 } else { x };
                requantize.apply(x * scale) as u8 ^ flip
            });
        }
    }
}

/// To real values: see [`Dequantize`](crate::Dequantize).
#[derive(Clone, Debug, PartialEq)]
pub struct Dequantize {
    /// From bytes of the arena to the elements of the output.
    pub walk: Walk,
    /// Real value of one integer step.
    pub scale: f32,
    /// The integer that represents 0 in the input.
    pub zero_point: i8,
}

impl Dequantize {
    /// Runs it.
    ///
    /// # Panics
    /// Where the walk leaves the arena or the output.
    pub fn run(&self, kernels: &Kernels, arena: &[u8], output: &mut [f32]) {
        let (flip, zero_point) = (kernels.packing().raise() as u8, i32::from(self.zero_point));
        let real = |x: u8| (i32::from((x ^ flip) as i8) - zero_point) as f32 * self.scale;
        self.walk.apply(arena, output, real);
    }
}

/// A copy within the arena: see [`Move`](crate::Move).
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// From bytes to bytes, both counted from the first of their tensor.
    pub walk: Walk,
    /// The bytes of the arena it reads from.
    pub input: Range<usize>,
    /// The bytes of the arena it writes into.
    pub output: Range<usize>,
    /// A change of scale.
    pub linear: Option<Linear>,
}

impl Move {
    /// Runs it.
    ///
    /// # Panics
    /// Where the walk leaves its bytes, and where those overlap.
    pub fn run(&self, kernels: &Kernels, arena: &mut [u8]) {
        let (around, output) = Around::split(arena, self.output.clone());
        let input = around.bytes(self.input.clone());
        let walk = &self.walk;
        let runs = walk.source_strides[5] == 1 && walk.target_strides[5] == 1;
        let count = walk.dims[5];
        match &self.linear {
            None if runs => walk.outer(1).for_each_run(|from, to| {
                output[to..to + count].copy_from_slice(&input[from..from + count]);
            }),
            None => walk.apply(input, output, |x| x),
            Some(linear) if runs => walk.outer(1).for_each_run(|from, to| {
                let (input, output) = (&input[from..from + count], &mut output[to..to + count]);
                // SAFETY: the processor has the instructions of a table.
                unsafe { (kernels.rescale)(linear, input, output) }
            }),
            Some(linear) => {
                let flip = kernels.packing().raise() as u8;
                let requantize = Requantize::new(linear.output_zero_point, Clamp::FULL);
                let zero_point = i32::from(linear.zero_point);
                walk.apply(input, output, |x: u8| {
                    let value = i32::from((x ^ flip) as i8) - zero_point;
                    requantize.apply(value as f32 * linear.scale) as u8 ^ flip
                });
            }
        }
    }
}

/// The bytes around an image, and between its rows, that read as zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halo {
    /// First byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
    /// The image.
    pub image: View,
    /// Rows of the image.
    pub rows: usize,
    /// Bytes of a row of the image.
    pub length: usize,
    /// What they hold.
    pub value: u8,
}

impl Halo {
    /// Fills it.
    ///
    /// # Panics
    /// Where it leaves the arena.
    pub fn run(&self, arena: &mut [u8]) {
        let mut from = self.start;
        for row in 0..self.rows {
            let to = self.image.offset + row * self.image.row;
            arena[from..to].fill(self.value);
            from = to + self.length;
        }
        arena[from..self.end].fill(self.value);
    }
}

/// One value everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// What is written.
    pub image: View,
    /// Its rows.
    pub rows: usize,
    /// Bytes of a row.
    pub length: usize,
    /// The stored activation.
    pub value: u8,
}

impl Fill {
    /// Runs it.
    ///
    /// # Panics
    /// Where the image leaves the arena.
    pub fn run(&self, arena: &mut [u8]) {
        for row in 0..self.rows {
            arena[self.image.offset + row * self.image.row..][..self.length].fill(self.value);
        }
    }
}

/// Copies the integers of a port, which differ from stored activations by a bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// Between the elements of the port and bytes of the arena.
    pub walk: Walk,
    /// The bit.
    pub flip: u8,
}

impl Bytes {
    /// Copies from `source` to `target`.
    ///
    /// # Panics
    /// Where the walk leaves them.
    pub fn run(&self, source: &[u8], target: &mut [u8]) {
        self.walk.apply(source, target, |x| x ^ self.flip);
    }
}
