//! Pooling and interpolation.

use super::rows::each_row;
use super::{Kernels, Parallel, View};
use crate::{Clamp, Image, Sample, Window};

/// The greatest value of each window; what lies outside the image is left out.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxPool {
    /// What is read.
    pub input: View,
    /// Its shape.
    pub input_shape: Image,
    /// What is written.
    pub output: View,
    /// Rows and columns of the output.
    pub size: [usize; 2],
    /// The sliding window.
    pub window: Window,
    /// Fused activation.
    pub clamp: Clamp,
}

/// The mean of each window: see [`AveragePool`](crate::AveragePool).
#[derive(Clone, Debug, PartialEq)]
pub struct AveragePool {
    /// What is read.
    pub input: View,
    /// Its shape.
    pub input_shape: Image,
    /// The integer that represents 0 in the input.
    pub zero_point: i8,
    /// What is written.
    pub output: View,
    /// Rows and columns of the output.
    pub size: [usize; 2],
    /// The sliding window.
    pub window: Window,
    /// As in [`AveragePool`](crate::AveragePool).
    pub scale: f32,
    /// Whether elements outside the image count.
    pub count_include_pad: bool,
    /// The integer that represents 0 in the output.
    pub output_zero_point: i8,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// Interpolation: see [`Resize`](crate::Resize).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resize {
    /// What is read.
    pub input: View,
    /// Columns of the input.
    pub input_columns: usize,
    /// What is written.
    pub output: View,
    /// Rows and columns of the output.
    pub size: [usize; 2],
    /// Channels.
    pub channels: usize,
}

/// One row of an interpolation.
pub(crate) struct ResizeRow<'a> {
    /// Where it is sampled.
    pub(crate) sample: Sample,
    /// The two rows of the input.
    pub(crate) rows: [&'a [u8]; 2],
    /// Where columns are sampled.
    pub(crate) columns: &'a [[u8; 8]],
}

impl MaxPool {
    /// Runs it.
    ///
    /// # Panics
    /// Where an image is empty or lies outside the arena, where pixels of the output overlap, and
    /// where it reads what it writes.
    pub fn run(&self, kernels: &Kernels, arena: &mut [u8], parallel: &dyn Parallel) {
        let Image { height, width, channels } = self.input_shape;
        let read = self.input.extent([height, width], channels);
        let read = read.expect("the input has pixels and lies in memory");
        each_row(arena, &self.output, self.size, channels, parallel, |around, row, output| {
            let input = around.bytes(read.clone());
            // SAFETY: the processor has the instructions of a table.
            unsafe { (kernels.max_pool)(self, input, row, output) }
        });
    }
}

impl AveragePool {
    /// Runs it.
    ///
    /// # Panics
    /// As [`MaxPool::run`].
    pub fn run(&self, kernels: &Kernels, arena: &mut [u8], parallel: &dyn Parallel) {
        let Image { height, width, channels } = self.input_shape;
        let read = self.input.extent([height, width], channels);
        let read = read.expect("the input has pixels and lies in memory");
        each_row(arena, &self.output, self.size, channels, parallel, |around, row, output| {
            let input = around.bytes(read.clone());
            // SAFETY: the processor has the instructions of a table.
            unsafe { (kernels.average_pool)(self, input, row, output) }
        });
    }
}

impl Resize {
    /// Runs it, with a [`Sample`] for each row and each column of the output.
    ///
    /// # Panics
    /// As [`MaxPool::run`]; also where there are fewer samples than rows, more than columns, or one
    /// lies outside the input.
    pub fn run(
        &self,
        kernels: &Kernels,
        [rows, columns]: [&[[u8; 8]]; 2],
        arena: &mut [u8],
        parallel: &dyn Parallel,
    ) {
        let channels = self.channels;
        each_row(arena, &self.output, self.size, channels, parallel, |around, row, output| {
            let sample = Sample::from_bytes(rows[row]);
            let read = |row: u16| around.row(&self.input, row.into(), self.input_columns, channels);
            let rows = [read(sample.first), read(sample.second)];
            let row = ResizeRow { sample, rows, columns };
            // SAFETY: the processor has the instructions of a table.
            unsafe { (kernels.resize)(self, &row, output) }
        });
    }
}
