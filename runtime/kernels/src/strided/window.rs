//! Pooling and resizing.

use super::rows::each_row;
use super::{Kernels, Parallel, View};
use crate::{Clamp, Image, Sample, Window};

/// Max pooling. Elements outside the image are ignored.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxPool {
    /// The input image.
    pub input: View,
    /// The shape of the input.
    pub input_shape: Image,
    /// The output image.
    pub output: View,
    /// The rows and columns of the output.
    pub size: [usize; 2],
    /// The sliding window.
    pub window: Window,
    /// A fused activation function.
    pub clamp: Clamp,
}

/// Average pooling: see [`AveragePool`](crate::AveragePool).
#[derive(Clone, Debug, PartialEq)]
pub struct AveragePool {
    /// The input image.
    pub input: View,
    /// The shape of the input.
    pub input_shape: Image,
    /// The zero point of the input.
    pub zero_point: i8,
    /// The output image.
    pub output: View,
    /// The rows and columns of the output.
    pub size: [usize; 2],
    /// The sliding window.
    pub window: Window,
    /// See [`AveragePool::scale`](crate::AveragePool::scale).
    pub scale: f32,
    /// Whether padding elements count in the divisor.
    pub count_include_pad: bool,
    /// The zero point of the output.
    pub output_zero_point: i8,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// Resizing by linear interpolation: see [`Resize`](crate::Resize).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resize {
    /// The input image.
    pub input: View,
    /// The number of columns of the input.
    pub input_columns: usize,
    /// The output image.
    pub output: View,
    /// The rows and columns of the output.
    pub size: [usize; 2],
    /// The number of channels.
    pub channels: usize,
}

/// One output row of a resize.
pub(crate) struct ResizeRow<'a> {
    /// The sample of the row.
    pub(crate) sample: Sample,
    /// The two input rows of the sample.
    pub(crate) rows: [&'a [u8]; 2],
    /// The encoded [`Sample`] of each column.
    pub(crate) columns: &'a [[u8; 8]],
}

impl MaxPool {
    /// Runs the pooling.
    ///
    /// # Panics
    /// If an image is empty or exceeds the arena, output pixels overlap, or the output overlaps the
    /// input.
    pub fn run(&self, kernels: &Kernels, arena: &mut [u8], parallel: &dyn Parallel) {
        let Image { height, width, channels } = self.input_shape;
        let read = self.input.extent([height, width], channels);
        let read = read.expect("the input must not be empty or overflow");
        each_row(arena, &self.output, self.size, channels, parallel, |around, row, output| {
            let input = around.bytes(read.clone());
            // SAFETY: a `Kernels` table exists only if the CPU supports its instruction set.
            unsafe { (kernels.max_pool)(self, input, row, output) }
        });
    }
}

impl AveragePool {
    /// Runs the pooling.
    ///
    /// # Panics
    /// See [`MaxPool::run`].
    pub fn run(&self, kernels: &Kernels, arena: &mut [u8], parallel: &dyn Parallel) {
        let Image { height, width, channels } = self.input_shape;
        let read = self.input.extent([height, width], channels);
        let read = read.expect("the input must not be empty or overflow");
        each_row(arena, &self.output, self.size, channels, parallel, |around, row, output| {
            let input = around.bytes(read.clone());
            // SAFETY: a `Kernels` table exists only if the CPU supports its instruction set.
            unsafe { (kernels.average_pool)(self, input, row, output) }
        });
    }
}

impl Resize {
    /// Runs the resize with an encoded [`Sample`] for each output row and output column.
    ///
    /// # Panics
    /// See [`MaxPool::run`]. Also if there are fewer row samples than output rows, more column
    /// samples than output columns, or a sample is outside the input.
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
            // SAFETY: a `Kernels` table exists only if the CPU supports its instruction set.
            unsafe { (kernels.resize)(self, &row, output) }
        });
    }
}
