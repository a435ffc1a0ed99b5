//! What each operation takes. The slices hold exactly what the shapes beside them say;
//! a kernel panics where they hold less.

use crate::{Image, Ranges, Walk, Window};

/// Least and greatest output integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clamp {
    /// Least.
    pub low: i8,
    /// Greatest.
    pub high: i8,
}

impl Clamp {
    /// Every i8.
    pub const FULL: Self = Self { low: i8::MIN, high: i8::MAX };
}

/// What a convolution adds before rounding: `f32(q − zero_point) · scale`.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a> {
    /// Shaped as the output.
    pub values: &'a [i8],
    /// Its zero point.
    pub zero_point: i8,
    /// Its scale over the output's, of at most 15 significant bits.
    pub scale: f32,
}

/// A convolution: for each output channel c, with the accumulator
/// `a = bias[c] + Σ (x − zero_point) · w` over the elements of the window inside the image,
/// `y = clamp(round_half_even(f32(a) · scales[c] + residual) + output_zero_point)`.
///
/// Accumulators wrap; the converter proves that they never need to.
#[derive(Clone, Copy, Debug)]
pub struct Conv<'a> {
    /// What is read.
    pub input: &'a [i8],
    /// Its shape.
    pub input_shape: Image,
    /// The integer that represents 0 in the input.
    pub zero_point: i8,
    /// Shape of what is written.
    pub output_shape: Image,
    /// The sliding window.
    pub window: Window,
    /// Groups the channels are split into; divides both channel counts.
    pub groups: usize,
    /// [`Conv::is_depthwise`]: kernel row, kernel column, channel. Otherwise output channel,
    /// kernel row, kernel column, input channel of the group, every output channel's run
    /// padded to a multiple of 4.
    pub weights: &'a [i8],
    /// Per output channel.
    pub bias: &'a [i32],
    /// Per output channel, of at most 22 significant bits.
    pub scales: &'a [f32],
    /// Fused addition.
    pub residual: Option<Residual<'a>>,
    /// The integer that represents 0 in the output.
    pub output_zero_point: i8,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

impl Conv<'_> {
    /// Whether every channel is a group of its own, which has its own layout of weights.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1
            && self.groups == self.input_shape.channels
            && self.groups == self.output_shape.channels
    }

    /// Number of weights of one output channel, without padding.
    pub fn depth(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1] * (self.input_shape.channels / self.groups)
    }
}

/// A sum: `clamp(round_half_even((a − za) · scale_a + (b − zb) · scale_b) + zero_point)`.
#[derive(Clone, Copy, Debug)]
pub struct Add<'a> {
    /// Left operand, as long as the output.
    pub a: &'a [i8],
    /// Right operand; where shorter than the output, repeated.
    pub b: &'a [i8],
    /// Zero point of a.
    pub zero_point_a: i8,
    /// Zero point of b.
    pub zero_point_b: i8,
    /// Scale of a over the output's, of at most 15 significant bits.
    pub scale_a: f32,
    /// Scale of b over the output's, of at most 15 significant bits.
    pub scale_b: f32,
    /// The integer that represents 0 in the output.
    pub zero_point: i8,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// A product: `clamp(round_half_even((a − za) · (b − zb) · scale) + zero_point)`.
#[derive(Clone, Copy, Debug)]
pub struct Multiply<'a> {
    /// Left operand, as long as the output.
    pub a: &'a [i8],
    /// Right operand; where shorter than the output, repeated.
    pub b: &'a [i8],
    /// Zero point of a.
    pub zero_point_a: i8,
    /// Zero point of b.
    pub zero_point_b: i8,
    /// Scale of a times scale of b over the output's, of at most 22 significant bits.
    pub scale: f32,
    /// The integer that represents 0 in the output.
    pub zero_point: i8,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// The greatest value of each window, clamped. A window outside the image gives the least.
#[derive(Clone, Copy, Debug)]
pub struct MaxPool<'a> {
    /// What is read.
    pub input: &'a [i8],
    /// Its shape.
    pub input_shape: Image,
    /// Shape of what is written.
    pub output_shape: Image,
    /// The sliding window.
    pub window: Window,
    /// Fused activation.
    pub clamp: Clamp,
}

/// The mean of each window: `clamp(round_half_even(f32(Σ (x − zero_point)) · s) +
/// output_zero_point)` over the elements inside the image.
#[derive(Clone, Copy, Debug)]
pub struct AveragePool<'a> {
    /// What is read.
    pub input: &'a [i8],
    /// Its shape.
    pub input_shape: Image,
    /// The integer that represents 0 in the input.
    pub zero_point: i8,
    /// Shape of what is written.
    pub output_shape: Image,
    /// The sliding window; of at most 2²³ elements.
    pub window: Window,
    /// s itself if [`AveragePool::count_include_pad`]; otherwise s is this divided, in f32, by
    /// the number of elements inside the image, and rounded to 22 significant bits.
    pub scale: f32,
    /// Whether elements outside the image count.
    pub count_include_pad: bool,
    /// The integer that represents 0 in the output.
    pub output_zero_point: i8,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// A copy in any order: `round_half_even((x − zero_point) · scale) + output_zero_point`,
/// or, without a scale, x itself.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    /// What is read.
    pub input: &'a [i8],
    /// Which elements go where.
    pub walk: Walk,
    /// Scale of the input over the output's, of at most 15 significant bits.
    pub scale: Option<f32>,
    /// The integer that represents 0 in the input.
    pub zero_point: i8,
    /// The integer that represents 0 in the output.
    pub output_zero_point: i8,
}

/// Where an output row or column is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// First row or column.
    pub first: u16,
    /// Second row or column.
    pub second: u16,
    /// Weight of the second in 1/2048, from 0 to 2048; the first has the rest.
    pub weight: i32,
}

impl Sample {
    /// As it lies in a table: the fields in order, little-endian.
    pub fn from_bytes([a, b, c, d, weight @ ..]: [u8; 8]) -> Self {
        Self {
            first: u16::from_le_bytes([a, b]),
            second: u16::from_le_bytes([c, d]),
            weight: i32::from_le_bytes(weight),
        }
    }

    /// The inverse of [`Sample::from_bytes`].
    pub fn to_bytes(self) -> [u8; 8] {
        let ([a, b], [c, d]) = (self.first.to_le_bytes(), self.second.to_le_bytes());
        let [e, f, g, h] = self.weight.to_le_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

/// Interpolation: with the four weighted elements in units of 2⁻²², their sum, rounded half up.
#[derive(Clone, Copy, Debug)]
pub struct Resize<'a> {
    /// What is read.
    pub input: &'a [i8],
    /// Its shape.
    pub input_shape: Image,
    /// Per output row, a [`Sample`].
    pub rows: &'a [[u8; 8]],
    /// Per output column, a [`Sample`].
    pub columns: &'a [[u8; 8]],
}

/// Softmax over the channels of each pixel: with m the greatest integer,
/// `e = table[m − x]`, `y = min(round_half_up(e · 256 / Σe) − 128, 127)`.
#[derive(Clone, Copy, Debug)]
pub struct Softmax<'a> {
    /// What is read.
    pub input: &'a [i8],
    /// Channels of a pixel; divides the input's length.
    pub channels: usize,
    /// `round(exp(−d · scale) · 2²⁴)`: see [`softmax_table`](crate::softmax_table).
    pub table: &'a [u32; 256],
}

/// From real values: `clamp(round_half_even(x · inverse_scale) + zero_point)`; NaN gives the
/// zero point.
#[derive(Clone, Copy, Debug)]
pub struct Quantize<'a> {
    /// What is read.
    pub input: &'a [f32],
    /// Which elements go where.
    pub walk: Walk,
    /// 1 over the output's scale.
    pub inverse_scale: f32,
    /// The integer that represents 0 in the output.
    pub zero_point: i8,
}

/// To real values: `f32(x − zero_point) · scale`.
#[derive(Clone, Copy, Debug)]
pub struct Dequantize<'a> {
    /// What is read.
    pub input: &'a [i8],
    /// Which elements go where.
    pub walk: Walk,
    /// Real value of one integer step.
    pub scale: f32,
    /// The integer that represents 0 in the input.
    pub zero_point: i8,
}

/// A product of rows of reals with a matrix of integers: with `q`, `scale` and `zero_point` by
/// [`Affine`](crate::Affine) from the rows, the reals
/// `f32(Σ (q − zero_point) · w) · (scale · scales[c]) + bias[c]`.
///
/// Sums are exact for at most [`Product::DEPTH`] weights of a column, and wrap beyond.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// What is read, row by row.
    pub input: &'a [f32],
    /// Elements of a row.
    pub depth: usize,
    /// Which of them share a scale.
    pub ranges: Ranges,
    /// As many rows as the input's have elements, each with one of every column.
    pub weights: &'a [i8],
    /// Per column.
    pub scales: &'a [f32],
    /// Per column.
    pub bias: &'a [f32],
}

impl Product<'_> {
    /// So many products of 255 and 127 fit an i32.
    pub const DEPTH: usize = 66_311;
}
