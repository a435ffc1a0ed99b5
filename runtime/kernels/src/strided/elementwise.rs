//! Operations on single elements.

use super::rows::{Around, each_row};
use super::{Kernels, Parallel, View};
use crate::Clamp;

/// What [`Binary`] computes of integers: sum or product of differences to zero points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pairs {
    /// The integers that represent 0 in the operands.
    pub zero_points: [i8; 2],
    /// Of a sum: the operands' over the output's, of at most 15 significant bits. Of a product:
    /// theirs multiplied, over the output's, of at most 22; the second is not used.
    pub scales: [f32; 2],
    /// The integer that represents 0 in the output.
    pub zero_point: i8,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// A change of scale: `round_half_even((x − zero_point) · scale) + output_zero_point`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear {
    /// The integer that represents 0 in the input.
    pub zero_point: i8,
    /// Scale of the input over the output's, of at most 15 significant bits.
    pub scale: f32,
    /// The integer that represents 0 in the output.
    pub output_zero_point: i8,
}

/// Which function of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryKind {
    /// See [`Add`](crate::Add).
    Add,
    /// See [`Multiply`](crate::Multiply).
    Multiply,
}

/// A function of two images.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// Which.
    pub kind: BinaryKind,
    /// Its numbers.
    pub pairs: Pairs,
    /// Left operand, shaped as the output.
    pub a: View,
    /// Right operand.
    pub b: View,
    /// Whether the right operand is one pixel, repeated.
    pub repeated: bool,
    /// What is written.
    pub output: View,
    /// Rows and columns.
    pub size: [usize; 2],
    /// Channels.
    pub channels: usize,
}

/// A function of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Unary {
    /// Which.
    pub kind: UnaryKind,
    /// What is read.
    pub input: View,
    /// What is written.
    pub output: View,
    /// Rows and columns.
    pub size: [usize; 2],
    /// Channels.
    pub channels: usize,
}

/// Which function of one operand.
#[allow(clippy::large_enum_variant, reason = "tables lie in the operation, without an allocator")]
#[derive(Clone, Debug, PartialEq)]
pub enum UnaryKind {
    /// The stored output of each stored input.
    Lookup([u8; 256]),
    /// A change of scale.
    Rescale(Linear),
    /// None.
    Copy,
    /// Softmax over channels; the table of [`Softmax`](crate::Softmax).
    Softmax([u32; 256]),
}

impl Binary {
    /// Runs it.
    ///
    /// # Panics
    /// Where an image is empty or lies outside the arena, where pixels of the output overlap, and
    /// where it reads what it writes.
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
                // SAFETY: the processor has the instructions of a table.
                return unsafe { function(&self.pairs, a, b, output) };
            }
            for column in 0..columns {
                let of = |view: &View| column * view.pixel..column * view.pixel + channels;
                let b = if self.repeated { b } else { &b[of(&self.b)] };
                // SAFETY: as above.
                unsafe { function(&self.pairs, &a[of(&self.a)], b, &mut output[of(&self.output)]) }
            }
        });
    }
}

impl Unary {
    /// Runs it.
    ///
    /// # Panics
    /// As [`Binary::run`].
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
        // SAFETY: the processor has the instructions of a table.
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
