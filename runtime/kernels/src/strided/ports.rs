//! Strided copies into, out of and within the arena.

use core::ops::Range;

use super::rows::Around;
use super::{Kernels, Linear, View};
use crate::{Clamp, Requantize, StridedCopy};

/// The number of contiguous values quantized at once.
const RUN: usize = 64;

/// Quantizes floats into the arena: see [`Quantize`](crate::Quantize).
#[derive(Clone, Debug, PartialEq)]
pub struct Quantize {
    /// The strided copy from the input to the arena.
    pub copy: StridedCopy,
    /// The reciprocal of the output's scale.
    pub inverse_scale: f32,
    /// The zero point of the output.
    pub zero_point: i8,
}

impl Quantize {
    /// Runs the operation.
    ///
    /// # Panics
    /// If the strided copy exceeds the input or the arena.
    pub fn run(&self, kernels: &Kernels, input: &[f32], arena: &mut [u8]) {
        let requantize = Requantize::new(self.zero_point, Clamp::FULL);
        let (copy, scale) = (&self.copy, self.inverse_scale);
        let planes = copy.dims[5];
        let interleaves = copy.source_strides[4] == 1
            && copy.target_strides[5] == 1
            && copy.target_strides[4] == planes
            && planes <= 4;
        let quantize = |input: &[f32], output: &mut [u8]| {
            // SAFETY: a `Kernels` table exists only if the CPU supports its instruction set.
            unsafe { (kernels.quantize)(scale, &requantize, input, output) }
        };
        if interleaves {
            // CHW to HWC: quantize a run of each plane, then interleave the planes.
            let (count, plane) = (copy.dims[4], copy.source_strides[5]);
            copy.outer(2).for_each_run(|from, to| {
                let mut runs = [[0u8; RUN]; 4];
                for start in (0..count).step_by(RUN) {
                    let length = RUN.min(count - start);
                    for (index, run) in runs.iter_mut().enumerate().take(planes) {
                        let from = from + start + index * plane;
                        quantize(&input[from..from + length], &mut run[..length]);
                    }
                    let output = &mut arena[to + start * planes..][..length * planes];
                    // SAFETY: a `Kernels` table exists only if the CPU supports its instruction
                    // set.
                    unsafe { (kernels.interleave)(&runs, planes, output) }
                }
            });
        } else if copy.source_strides[5] == 1 && copy.target_strides[5] == 1 {
            let count = copy.dims[5];
            copy.outer(1).for_each_run(|from, to| {
                quantize(&input[from..from + count], &mut arena[to..to + count]);
            });
        } else {
            let offset_mask = kernels.packing().activation_offset() as u8;
            copy.apply(input, arena, |x: f32| {
                let x = if x.is_nan() { 0.0 } else { x };
                requantize.apply(x * scale) as u8 ^ offset_mask
            });
        }
    }
}

/// Dequantizes from the arena to floats: see [`Dequantize`](crate::Dequantize).
#[derive(Clone, Debug, PartialEq)]
pub struct Dequantize {
    /// The strided copy from the arena to the output.
    pub copy: StridedCopy,
    /// The scale of the input.
    pub scale: f32,
    /// The zero point of the input.
    pub zero_point: i8,
}

impl Dequantize {
    /// Runs the operation.
    ///
    /// # Panics
    /// If the strided copy exceeds the arena or the output.
    pub fn run(&self, kernels: &Kernels, arena: &[u8], output: &mut [f32]) {
        let (offset_mask, zero_point) =
            (kernels.packing().activation_offset() as u8, i32::from(self.zero_point));
        let real = |x: u8| (i32::from((x ^ offset_mask) as i8) - zero_point) as f32 * self.scale;
        self.copy.apply(arena, output, real);
    }
}

/// A strided copy within the arena: see [`Move`](crate::Move).
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// The strided copy, with offsets relative to `input.start` and `output.start`.
    pub copy: StridedCopy,
    /// The byte range of the input in the arena.
    pub input: Range<usize>,
    /// The byte range of the output in the arena.
    pub output: Range<usize>,
    /// An optional requantization.
    pub linear: Option<Linear>,
}

impl Move {
    /// Runs the copy.
    ///
    /// # Panics
    /// If the copy exceeds the input or output range, or the ranges overlap or exceed the arena.
    pub fn run(&self, kernels: &Kernels, arena: &mut [u8]) {
        let (around, output) = Around::split(arena, self.output.clone());
        let input = around.bytes(self.input.clone());
        let copy = &self.copy;
        let runs = copy.source_strides[5] == 1 && copy.target_strides[5] == 1;
        let count = copy.dims[5];
        match &self.linear {
            None if runs => copy.outer(1).for_each_run(|from, to| {
                output[to..to + count].copy_from_slice(&input[from..from + count]);
            }),
            None => copy.apply(input, output, |x| x),
            Some(linear) if runs => copy.outer(1).for_each_run(|from, to| {
                let (input, output) = (&input[from..from + count], &mut output[to..to + count]);
                // SAFETY: a `Kernels` table exists only if the CPU supports its instruction set.
                unsafe { (kernels.rescale)(linear, input, output) }
            }),
            Some(linear) => {
                let offset_mask = kernels.packing().activation_offset() as u8;
                let requantize = Requantize::new(linear.output_zero_point, Clamp::FULL);
                let zero_point = i32::from(linear.zero_point);
                copy.apply(input, output, |x: u8| {
                    let value = i32::from((x ^ offset_mask) as i8) - zero_point;
                    requantize.apply(value as f32 * linear.scale) as u8 ^ offset_mask
                });
            }
        }
    }
}

/// The halo of an image: the bytes around it and between its rows, which contain padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halo {
    /// The first byte of the halo.
    pub start: usize,
    /// The end of the halo (exclusive).
    pub end: usize,
    /// The view of the image.
    pub image: View,
    /// The number of rows of the image.
    pub rows: usize,
    /// The bytes of a row of the image.
    pub length: usize,
    /// The stored activation to fill the halo with.
    pub value: u8,
}

impl Halo {
    /// Fills the halo.
    ///
    /// # Panics
    /// If the halo exceeds the arena.
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

/// Fills an image with a constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The output image.
    pub image: View,
    /// The number of rows.
    pub rows: usize,
    /// The bytes of a row.
    pub length: usize,
    /// The stored activation to write.
    pub value: u8,
}

impl Fill {
    /// Fills the image.
    ///
    /// # Panics
    /// If the image exceeds the arena.
    pub fn run(&self, arena: &mut [u8]) {
        for row in 0..self.rows {
            arena[self.image.offset + row * self.image.row..][..self.length].fill(self.value);
        }
    }
}

/// A strided copy between integers of a program input or output and stored activations, which
/// differ by an XOR mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// The strided copy.
    pub copy: StridedCopy,
    /// The XOR mask.
    pub offset_mask: u8,
}

impl Bytes {
    /// Copies from `source` to `target`.
    ///
    /// # Panics
    /// If the copy exceeds `source` or `target`.
    pub fn run(&self, source: &[u8], target: &mut [u8]) {
        self.copy.apply(source, target, |x| x ^ self.offset_mask);
    }
}
