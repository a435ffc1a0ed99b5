//! The arguments of each operation. Slices have exactly the lengths that the shapes require; a
//! kernel panics if one is shorter.

use crate::{Image, Ranges, StridedCopy, Window};

/// The range of output integers: saturation and fused activation functions such as ReLU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clamp {
    /// The smallest output.
    pub low: i8,
    /// The largest output.
    pub high: i8,
}

impl Clamp {
    /// The full range of i8.
    pub const FULL: Self = Self { low: i8::MIN, high: i8::MAX };
}

/// The residual that a convolution adds before rounding: `f32(q − zero_point) · scale`.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a> {
    /// The values, with the shape of the output.
    pub values: &'a [i8],
    /// The zero point of the values.
    pub zero_point: i8,
    /// The scale of the values divided by the output's, with at most 15 significant bits.
    pub scale: f32,
}

/// A convolution. For each output channel c,
/// `y = clamp(round_half_even(f32(a) · scales[c] + residual) + output_zero_point)`, where the
/// accumulator is `a = bias[c] + Σ (x − zero_point) · w` over the window elements inside the image.
///
/// Accumulators wrap on overflow; the converter proves that they never overflow.
///
/// # Examples
///
/// A fully connected layer of three inputs and one output:
///
/// ```
/// use hardtack_kernels::{Clamp, Conv, Image, ReferenceKernels, Window};
///
/// let conv = Conv {
///     input: &[1, 2, 3],
///     input_shape: Image { height: 1, width: 1, channels: 3 },
///     zero_point: 0,
///     output_shape: Image { height: 1, width: 1, channels: 1 },
///     window: Window { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pad: [0, 0] },
///     groups: 1,
///     weights: &[10, 20, -5, 0], // padded to a multiple of 4
///     bias: &[7],
///     scales: &[0.25],
///     residual: None,
///     output_zero_point: -1,
///     clamp: Clamp::FULL,
/// };
/// let mut output = [0];
/// (ReferenceKernels::NATIVE.conv)(&conv, &mut output);
/// assert_eq!(output, [9]); // (10 + 40 - 15 + 7) / 4 = 10.5 rounds to 10, plus the zero point
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Conv<'a> {
    /// The input image.
    pub input: &'a [i8],
    /// The shape of the input.
    pub input_shape: Image,
    /// The zero point of the input.
    pub zero_point: i8,
    /// The shape of the output.
    pub output_shape: Image,
    /// The sliding window.
    pub window: Window,
    /// The number of groups, which divides both channel counts.
    pub groups: usize,
    /// The weights in the order output channel, kernel row, kernel column, input channel of the
    /// group; the weights of each output channel are padded to a multiple of 4. If
    /// [`Conv::is_depthwise`]: kernel row, kernel column, channel.
    pub weights: &'a [i8],
    /// The bias of each output channel, in units of input scale · weight scale.
    pub bias: &'a [i32],
    /// The requantization scale of each output channel, with at most 22 significant bits.
    pub scales: &'a [f32],
    /// A fused residual addition.
    pub residual: Option<Residual<'a>>,
    /// The zero point of the output.
    pub output_zero_point: i8,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

impl Conv<'_> {
    /// Returns whether every channel is its own group. Such a convolution has a different weight
    /// layout.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1
            && self.groups == self.input_shape.channels
            && self.groups == self.output_shape.channels
    }

    /// Returns the number of weights per output channel, without padding.
    pub fn depth(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1] * (self.input_shape.channels / self.groups)
    }
}

/// An addition: `clamp(round_half_even((a − za) · scale_a + (b − zb) · scale_b) + zero_point)`.
#[derive(Clone, Copy, Debug)]
pub struct Add<'a> {
    /// The left operand, with the length of the output.
    pub a: &'a [i8],
    /// The right operand, repeated if it is shorter than the output.
    pub b: &'a [i8],
    /// The zero point of `a`.
    pub zero_point_a: i8,
    /// The zero point of `b`.
    pub zero_point_b: i8,
    /// The scale of `a` divided by the output's, with at most 15 significant bits.
    pub scale_a: f32,
    /// The scale of `b` divided by the output's, with at most 15 significant bits.
    pub scale_b: f32,
    /// The zero point of the output.
    pub zero_point: i8,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// A multiplication: `clamp(round_half_even((a − za) · (b − zb) · scale) + zero_point)`.
#[derive(Clone, Copy, Debug)]
pub struct Multiply<'a> {
    /// The left operand, with the length of the output.
    pub a: &'a [i8],
    /// The right operand, repeated if it is shorter than the output.
    pub b: &'a [i8],
    /// The zero point of `a`.
    pub zero_point_a: i8,
    /// The zero point of `b`.
    pub zero_point_b: i8,
    /// The product of the operands' scales divided by the output's, with at most 22 significant
    /// bits.
    pub scale: f32,
    /// The zero point of the output.
    pub zero_point: i8,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// A max pooling. A window outside the image gives the lower clamp bound.
#[derive(Clone, Copy, Debug)]
pub struct MaxPool<'a> {
    /// The input image.
    pub input: &'a [i8],
    /// The shape of the input.
    pub input_shape: Image,
    /// The shape of the output.
    pub output_shape: Image,
    /// The sliding window.
    pub window: Window,
    /// A fused activation function.
    pub clamp: Clamp,
}

/// An average pooling: `clamp(round_half_even(f32(Σ (x − zero_point)) · s) + output_zero_point)`
/// over the window elements inside the image.
#[derive(Clone, Copy, Debug)]
pub struct AveragePool<'a> {
    /// The input image.
    pub input: &'a [i8],
    /// The shape of the input.
    pub input_shape: Image,
    /// The zero point of the input.
    pub zero_point: i8,
    /// The shape of the output.
    pub output_shape: Image,
    /// The sliding window, with at most 2²³ elements.
    pub window: Window,
    /// The scale. It equals s if [`AveragePool::count_include_pad`]. Otherwise s is this scale
    /// divided, in f32, by the number of elements inside the image and rounded to 22 significant
    /// bits.
    pub scale: f32,
    /// Whether padding elements count in the divisor.
    pub count_include_pad: bool,
    /// The zero point of the output.
    pub output_zero_point: i8,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// A strided copy of `round_half_even((x − zero_point) · scale) + output_zero_point`, or of x
/// unchanged if there is no scale.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    /// The input tensor.
    pub input: &'a [i8],
    /// The strided copy from the input to the output.
    pub copy: StridedCopy,
    /// The scale of the input divided by the output's, with at most 15 significant bits.
    pub scale: Option<f32>,
    /// The zero point of the input.
    pub zero_point: i8,
    /// The zero point of the output.
    pub output_zero_point: i8,
}

/// The two input rows (or columns) that an output row (or column) of a resize interpolates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The first row or column.
    pub first: u16,
    /// The second row or column.
    pub second: u16,
    /// The weight of the second one in units of 1/2048, from 0 to 2048. The weight of the first one
    /// is 2048 minus this.
    pub weight: i32,
}

impl Sample {
    /// Decodes a table entry: the fields in order, little-endian.
    pub fn from_bytes([a, b, c, d, weight @ ..]: [u8; 8]) -> Self {
        Self {
            first: u16::from_le_bytes([a, b]),
            second: u16::from_le_bytes([c, d]),
            weight: i32::from_le_bytes(weight),
        }
    }

    /// Encodes a table entry; the inverse of [`Sample::from_bytes`].
    pub fn to_bytes(self) -> [u8; 8] {
        let ([a, b], [c, d]) = (self.first.to_le_bytes(), self.second.to_le_bytes());
        let [e, f, g, h] = self.weight.to_le_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

/// A resize by linear interpolation: the weighted sum of four elements in units of 2⁻²², rounded
/// half up.
#[derive(Clone, Copy, Debug)]
pub struct Resize<'a> {
    /// The input image.
    pub input: &'a [i8],
    /// The shape of the input.
    pub input_shape: Image,
    /// The encoded [`Sample`] of each output row.
    pub rows: &'a [[u8; 8]],
    /// The encoded [`Sample`] of each output column.
    pub columns: &'a [[u8; 8]],
}

/// A softmax over the channels of each pixel: `e = table[m − x]` with m the maximum of the integers
/// x, and `y = min(round_half_up(e · 256 / Σe) − 128, 127)`.
#[derive(Clone, Copy, Debug)]
pub struct Softmax<'a> {
    /// The input image.
    pub input: &'a [i8],
    /// The number of channels, which divides the length of the input.
    pub channels: usize,
    /// The table of `round(exp(−d · scale) · 2²⁴)`: see [`softmax_table`](crate::softmax_table).
    pub table: &'a [u32; 256],
}

/// A quantization: `clamp(round_half_even(x · inverse_scale) + zero_point)`. NaN becomes the zero
/// point.
#[derive(Clone, Copy, Debug)]
pub struct Quantize<'a> {
    /// The float input.
    pub input: &'a [f32],
    /// The strided copy from the input to the output.
    pub copy: StridedCopy,
    /// The reciprocal of the output's scale.
    pub inverse_scale: f32,
    /// The zero point of the output.
    pub zero_point: i8,
}

/// A dequantization: `f32(x − zero_point) · scale`.
#[derive(Clone, Copy, Debug)]
pub struct Dequantize<'a> {
    /// The input tensor.
    pub input: &'a [i8],
    /// The strided copy from the input to the output.
    pub copy: StridedCopy,
    /// The scale of the input.
    pub scale: f32,
    /// The zero point of the input.
    pub zero_point: i8,
}

/// A dynamically quantized matmul of float rows with an INT8 matrix:
/// `f32(Σ (q − zero_point) · w) · (scale · scales[c]) + bias[c]`, where
/// [`Affine`](crate::Affine) computes `q`, `scale` and `zero_point` from the input.
///
/// Accumulators are exact for at most [`Product::DEPTH`] weights per column, and wrap beyond.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// The input rows, contiguous.
    pub input: &'a [f32],
    /// The number of elements per row.
    pub depth: usize,
    /// The granularity of the activation scales.
    pub ranges: Ranges,
    /// The weights: `depth` contiguous rows with one element per column.
    pub weights: &'a [i8],
    /// The weight scale of each column.
    pub scales: &'a [f32],
    /// The float bias of each column.
    pub bias: &'a [f32],
}

impl Product<'_> {
    /// The largest depth whose accumulators cannot overflow an i32: activations differ from the
    /// zero point by at most 255, and weights are at most 127.
    pub const DEPTH: usize = 66_311;
}
