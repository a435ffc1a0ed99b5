//! Element-wise operations.

use super::rows::{Around, each_row};
use super::{Kernels, Parallel, View};
use crate::Clamp;

/// The quantization parameters of [`Binary`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pairs {
    /// The zero points of the operands.
    pub zero_points: [i8; 2],
    /// For an addition: the operands' scales divided by the output's, with at most 15 significant
    /// bits. For a multiplication: the first is the product of the operands' scales divided by the
    /// output's, with at most 22 significant bits; the second is unused.
    pub scales: [f32; 2],
    /// The zero point of the output.
    pub zero_point: i8,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// A requantization: `round_half_even((x − zero_point) · scale) + output_zero_point`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear {
    /// The zero point of the input.
    pub zero_point: i8,
    /// The scale of the input divided by the output's, with at most 15 significant bits.
    pub scale: f32,
    /// The zero point of the output.
    pub output_zero_point: i8,
}

/// A binary element-wise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryKind {
    /// See [`Add`](crate::Add).
    Add,
    /// See [`Multiply`](crate::Multiply).
    Multiply,
}

/// A binary element-wise operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// The function.
    pub kind: BinaryKind,
    /// The quantization parameters.
    pub pairs: Pairs,
    /// The left operand, with the shape of the output.
    pub a: View,
    /// The right operand.
    pub b: View,
    /// Whether the right operand is a single pixel, broadcast over the image.
    pub repeated: bool,
    /// The output image.
    pub output: View,
    /// The rows and columns of the output.
    pub size: [usize; 2],
    /// The number of channels.
    pub channels: usize,
}

/// A unary operation on an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Unary {
    /// The function.
    pub kind: UnaryKind,
    /// The input image.
    pub input: View,
    /// The output image.
    pub output: View,
    /// The rows and columns of both images.
    pub size: [usize; 2],
    /// The number of channels.
    pub channels: usize,
}

/// A unary function.
#[allow(clippy::large_enum_variant, reason = "tables are stored inline, without an allocator")]
#[derive(Clone, Debug, PartialEq)]
pub enum UnaryKind {
    /// A lookup table (LUT) from stored input to stored output.
    Lookup([u8; 256]),
    /// A requantization.
    Rescale(Linear),
    /// The identity.
    Copy,
    /// A softmax over channels, with the table of [`Softmax`](crate::Softmax).
    Softmax([u32; 256]),
}

impl Binary {
    /// Runs the operation.
    ///
    /// # Panics
    /// If an image is empty or exceeds the arena, output pixels overlap, or the output overlaps an
    /// input.
    pub fn run(&self, kernels: &Kernels, arena: &mut [u8], parallel: &dyn Parallel) {
        let [_, columns] = self.size;
        let channels = self.channels;
        let function = match self.kind {
            BinaryKind::Add => kernels.add,
            BinaryKind::Multiply => kernels.multiply,
        };
        let dense = self.a.pixel == channels
            && self.output.pixel == channels
            && (self.repeated || self.b.pixel == channels);
        each_row(arena, &self.output, self.size, channels, parallel, |around, row, output| {
            let a = around.row(&self.a, row, columns, channels);
            let b = match self.repeated {
                true => around.row(&self.b, 0, 1, channels),
                false => around.row(&self.b, row, columns, channels),
            };
            if dense {
                // SAFETY: a `Kernels` table exists only if the CPU supports its instruction set.
                return unsafe { function(&self.pairs, a, b, output) };
            }
            for column in 0..columns {
                let of = |view: &View| column * view.pixel..column * view.pixel + channels;
                let b = if self.repeated { b } else { &b[of(&self.b)] };
                // SAFETY: a `Kernels` table exists only if the CPU supports its instruction set.
                unsafe { function(&self.pairs, &a[of(&self.a)], b, &mut output[of(&self.output)]) }
            }
        });
    }
}

impl Unary {
    /// Runs the operation.
    ///
    /// # Panics
    /// See [`Binary::run`].
    pub fn run(&self, kernels: &Kernels, arena: &mut [u8], parallel: &dyn Parallel) {
        let [_, columns] = self.size;
        let channels = self.channels;
        let by_pixel = matches!(self.kind, UnaryKind::Softmax(_));
        let dense = self.input.pixel == channels && self.output.pixel == channels && !by_pixel;
        let work = |around: &Around<'_>, row: usize, output: &mut [u8]| {
            let input = around.row(&self.input, row, columns, channels);
            if dense {
                return self.apply(kernels, input, output);
            }
            for column in 0..columns {
                let of = |view: &View| column * view.pixel..column * view.pixel + channels;
                self.apply(kernels, &input[of(&self.input)], &mut output[of(&self.output)]);
            }
        };
        each_row(arena, &self.output, self.size, channels, parallel, work);
    }

    fn apply(&self, kernels: &Kernels, input: &[u8], output: &mut [u8]) {
        // SAFETY: a `Kernels` table exists only if the CPU supports its instruction set.
        unsafe {
            match &self.kind {
                UnaryKind::Lookup(table) => (kernels.lookup)(table, input, output),
                UnaryKind::Rescale(linear) => (kernels.rescale)(linear, input, output),
                UnaryKind::Copy => output.copy_from_slice(input),
                UnaryKind::Softmax(table) => (kernels.softmax)(table, input, output),
            }
        }
    }
}
