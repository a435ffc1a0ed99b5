//! The integer program: tensors at fixed offsets in one arena, and a flat list of steps.
//!
//! A tensor is a block of i8 in HWC order (height, width, channels) that represents
//! `y = (i8 − zero_point) · scale`. A matrix is an image of height 1; a vector is an image of
//! height and width 1. Programs have no batch dimension: the caller runs them once per sample.
//! Everything a step needs is in its fixed-size attributes and in the weights section, so a
//! program runs in place (for example from flash) without an allocator.

use serde::{Deserialize, Serialize};

/// The index of a tensor in the program's tensor table.
pub type TensorId = u16;

/// A byte range of the weights section. The offset is a multiple of 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first byte.
    pub offset: u32,
    /// The number of bytes.
    pub length: u32,
}

/// A tensor in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// The first byte in the arena, a multiple of 16.
    pub offset: u32,
    /// The number of rows.
    pub height: u32,
    /// The number of columns.
    pub width: u32,
    /// The number of channels.
    pub channels: u32,
    /// The difference in float value between consecutive integers.
    pub scale: f32,
    /// The zero point: the integer that represents 0.
    pub zero_point: i8,
}

impl Tensor {
    /// Returns the number of elements, which is also the number of bytes. Saturates.
    pub const fn elements(&self) -> u32 {
        self.height.saturating_mul(self.width).saturating_mul(self.channels)
    }

    /// Returns the tensor restricted to `rows` rows from row `first`. `None` if `rows` is 0 or
    /// exceeds the tensor.
    pub(crate) fn rows(&self, first: u32, rows: u32) -> Option<Self> {
        let inside = first.checked_add(rows).is_some_and(|end| rows > 0 && end <= self.height);
        inside.then(|| {
            let offset = self.offset + first * self.width * self.channels;
            Self { offset, height: rows, ..*self }
        })
    }

    /// Returns the tensor's elements in the arena of its program, or `None` if the arena is too
    /// small.
    pub fn in_arena<'a>(&self, arena: &'a [i8]) -> Option<&'a [i8]> {
        arena.get(self.offset as usize..)?.get(..self.elements() as usize)
    }
}

/// The element type of a program input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortType {
    /// Float values, quantized or dequantized by the program.
    F32,
    /// The quantized values of the tensor.
    I8,
    /// The quantized values of the tensor plus 128.
    U8,
}

/// The type and size of a program input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The element type.
    pub element: PortType,
    /// The number of elements.
    pub elements: u32,
}

/// A strided copy over up to six dimensions of a source and a destination, innermost last.
///
/// Offsets and strides are in elements. Unused leading dimensions are 1.
///
/// # Examples
///
/// Transpose a matrix of 2 × 3 elements:
///
/// ```
/// use hardtack_engine::program::CopyLayout;
///
/// let walk = CopyLayout::gather(&[3, 2], 0, &[1, 3]).unwrap();
/// assert_eq!(walk.dims, [1, 1, 1, 1, 3, 2]);
/// assert_eq!(walk.source_strides[4..], [1, 3]);
/// assert_eq!(walk.target_strides[4..], [2, 1]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyLayout {
    /// The number of elements along each dimension.
    pub dims: [u32; 6],
    /// The index of the first source element.
    pub source_offset: u32,
    /// The stride of each dimension in the source; 0 repeats an element.
    pub source_strides: [u32; 6],
    /// The index of the first destination element.
    pub target_offset: u32,
    /// The stride of each dimension in the destination.
    pub target_strides: [u32; 6],
}

impl CopyLayout {
    /// Copies the first `count` elements of the source to the start of the destination.
    pub const fn contiguous(count: u32) -> Self {
        let strides = [0, 0, 0, 0, 0, 1];
        Self {
            dims: [1, 1, 1, 1, 1, count],
            source_offset: 0,
            source_strides: strides,
            target_offset: 0,
            target_strides: strides,
        }
    }

    /// Fills a contiguous row-major destination with the dimensions `dims` from a strided source.
    /// Merges adjacent dimensions where possible, so that the innermost one is long.
    ///
    /// Returns `None` for more than six dimensions, for slices of different lengths, and for
    /// sizes that exceed u32.
    pub fn gather(dims: &[u32], source_offset: u32, source_strides: &[u32]) -> Option<Self> {
        let mut copy = Self { source_offset, ..Self::contiguous(1) };
        copy.source_strides = [0; 6];
        copy.target_strides = [0; 6];
        if dims.len() > 6 || dims.len() != source_strides.len() {
            return None;
        }
        let mut place = 6;
        let mut target_stride = 1u32;
        for (&dim, &stride) in dims.iter().zip(source_strides).rev() {
            if dim != 1 {
                let joined = place < 6
                    && copy.source_strides[place].checked_mul(copy.dims[place]) == Some(stride);
                if joined {
                    copy.dims[place] = copy.dims[place].checked_mul(dim)?;
                } else {
                    place -= 1;
                    copy.dims[place] = dim;
                    copy.source_strides[place] = stride;
                    copy.target_strides[place] = target_stride;
                }
            }
            target_stride = target_stride.checked_mul(dim)?;
        }
        if place == 6 {
            return Some(Self { source_offset, ..Self::contiguous(1) });
        }
        Some(copy)
    }

    /// Returns the copy in the opposite direction: source and destination swapped.
    pub const fn reversed(self) -> Self {
        Self {
            dims: self.dims,
            source_offset: self.target_offset,
            source_strides: self.target_strides,
            target_offset: self.source_offset,
            target_strides: self.source_strides,
        }
    }
}

/// A sliding window over height and width. Each array is in the order height, width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The number of window elements along each axis.
    pub kernel: [u16; 2],
    /// The distance between windows of adjacent outputs, in input elements.
    pub stride: [u16; 2],
    /// The distance between adjacent window elements, in input elements.
    pub dilation: [u16; 2],
    /// The padding above and to the left of the image, which reads as the zero point. The padding
    /// below and to the right follows from the output size.
    pub pad: [u16; 2],
}

/// The range of output integers: saturation and fused activation functions such as ReLU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// A tensor that a convolution adds to its result before rounding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Residual {
    /// The tensor to add; it has the shape of the output.
    pub tensor: TensorId,
    /// The tensor's scale divided by the output's, with at most 15 significant bits; negative for a
    /// subtraction.
    pub scale: f32,
}

/// Attributes of [`Step::Conv`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conv {
    /// The input tensor.
    pub input: TensorId,
    /// The output tensor.
    pub output: TensorId,
    /// The sliding window.
    pub window: Window,
    /// The number of groups. The convolution is depthwise if this is more than 1 and equals both
    /// the number of input channels and the number of output channels.
    pub groups: u32,
    /// The weights: i8 in [−127, 127]. In the family `mcu` their order is output channel, kernel
    /// row, kernel column, input channel of the group; the weights of each output channel are
    /// padded with zeros to a multiple of 4 bytes. Depthwise weights are in the order kernel
    /// row, kernel column, channel, without padding.
    pub weights: Span,
    /// The bias: an i32 per output channel, in units of input scale · weight scale.
    pub bias: Span,
    /// The requantization scales: an f32 per output channel, input scale · weight scale / output
    /// scale, rounded to 22 significant bits.
    pub scales: Span,
    /// The magnitude of every accumulator is less than 2 to this power, for any input.
    pub accumulator_bits: u8,
    /// A fused residual addition.
    pub residual: Option<Residual>,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// Attributes of [`Step::RowTile`]: a row tile of a convolution. Depth-first execution in row tiles
/// keeps only a part of the intermediate tensors in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowTile {
    /// The convolution. Its window starts after the skipped input rows.
    pub conv: Conv,
    /// The number of input rows to skip; 0 if the window has padding above.
    pub skipped_rows: u32,
    /// The first output row to compute, and the first row of the residual to add.
    pub first_row: u32,
    /// The number of output rows to compute.
    pub rows: u32,
    /// The distance back to the convolution or row tile whose packed weights this one reuses, at
    /// most [`RowTile::LONGEST_REUSE`]; 0 if it has its own. The n-th convolution before it has
    /// distance n.
    pub reuse_weights_of: u8,
}

impl RowTile {
    /// The largest distance back to a convolution whose packed weights can be reused.
    pub const LONGEST_REUSE: usize = 8;

    /// Returns the row tile that covers a whole convolution with `rows` output rows.
    pub(crate) fn whole(conv: Conv, rows: u32) -> Self {
        Self { conv, skipped_rows: 0, first_row: 0, rows, reuse_weights_of: 0 }
    }

    /// Returns the input without the skipped rows, or `None` if no row is left.
    pub(crate) fn input(&self, whole: &Tensor) -> Option<Tensor> {
        whole.rows(self.skipped_rows, whole.height.checked_sub(self.skipped_rows)?)
    }

    /// Returns the rows of the output (or residual) that the tile computes, or `None` if the
    /// tensor has fewer rows.
    pub(crate) fn output(&self, whole: &Tensor) -> Option<Tensor> {
        whole.rows(self.first_row, self.rows)
    }
}

/// Attributes of [`Step::Add`]: `rne((a − za) · scale_a + (b − zb) · scale_b) + z`, where `rne`
/// rounds to nearest, ties to even.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Add {
    /// The left operand, with the shape of the output.
    pub a: TensorId,
    /// The right operand, with the shape of the output, or 1×1×channels and broadcast.
    pub b: TensorId,
    /// The output tensor.
    pub output: TensorId,
    /// The scale of `a` divided by the output's, with at most 15 significant bits.
    pub scale_a: f32,
    /// The scale of `b` divided by the output's, with at most 15 significant bits. Negative for a
    /// subtraction.
    pub scale_b: f32,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// Attributes of [`Step::Multiply`]: `rne((a − za) · (b − zb) · scale) + z`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Multiply {
    /// The left operand, with the shape of the output.
    pub a: TensorId,
    /// The right operand, with the shape of the output, or 1×1×channels and broadcast.
    pub b: TensorId,
    /// The output tensor.
    pub output: TensorId,
    /// The product of the operands' scales divided by the output's, with at most 22 significant
    /// bits.
    pub scale: f32,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// Attributes of [`Step::MaxPool`]. Input and output have the same scale and zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxPool {
    /// The input tensor.
    pub input: TensorId,
    /// The output tensor.
    pub output: TensorId,
    /// The sliding window. Elements outside the image are ignored.
    pub window: Window,
    /// A fused activation function.
    pub clamp: Clamp,
}

/// Attributes of [`Step::AveragePool`]: the i32 sum of `x − z` over each window, requantized.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AveragePool {
    /// The input tensor.
    pub input: TensorId,
    /// The output tensor.
    pub output: TensorId,
    /// The sliding window. A window of the image's size computes a global average.
    pub window: Window,
    /// The scale of the input divided by the output's, with at most 22 significant bits.
    ///
    /// With [`AveragePool::count_include_pad`] it includes the division by the window size.
    /// Otherwise each output divides it, in f32, by the number of window elements inside the image
    /// and rounds the quotient to 22 significant bits.
    pub scale: f32,
    /// Whether padding elements count in the divisor.
    pub count_include_pad: bool,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// Attributes of [`Step::Lookup`]: `output = table[input + 128]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The input tensor.
    pub input: TensorId,
    /// The output tensor, with as many elements as the input.
    pub output: TensorId,
    /// The lookup table (LUT): 256 i8.
    pub table: Span,
}

/// Attributes of [`Step::Move`]: a strided copy that requantizes if it has a scale. Implements
/// transpose, slice, concatenation, the interior of padding, and pixel shuffle.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// The input tensor.
    pub input: TensorId,
    /// The output tensor, which may be written in part.
    pub output: TensorId,
    /// The strided copy from the input to the output.
    pub copy: CopyLayout,
    /// The scale of the input divided by the output's, with at most 15 significant bits:
    /// `rne((x − z_in) · scale) + z_out`. `None` copies the integers unchanged.
    pub scale: Option<f32>,
}

/// Attributes of [`Step::Fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// The output tensor.
    pub output: TensorId,
    /// The integer to write to every element.
    pub value: i8,
}

/// Attributes of [`Step::Resize`]: linear interpolation between two rows and two columns, in
/// units of 2⁻²², rounded half up. Input and output have the same scale and zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    /// The input tensor.
    pub input: TensorId,
    /// The output tensor.
    pub output: TensorId,
    /// 8 bytes per output row: first input row (u16), second input row (u16), and the weight of the
    /// second one (i32) in units of 1/2048, from 0 to 2048.
    pub rows: Span,
    /// The same for each output column.
    pub columns: Span,
}

/// Attributes of [`Step::Softmax`], over the channels of each pixel: `e = table[m − x]` with m the
/// maximum of the integers x, and `y = clamp(round(e · 256 / Σe) − 128)`. The output has scale
/// 1/256 and zero point −128. Rounding is half up, computed in u64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Softmax {
    /// The input tensor.
    pub input: TensorId,
    /// The output tensor.
    pub output: TensorId,
    /// 256 u32, entry d being `round(exp(−d · scale) · 2^24)`. Every entry is at most 2^24, the
    /// first at least 1.
    pub table: Span,
}

/// Attributes of [`Step::Quantize`]: `clamp(rne(x · inverse_scale) + z)`. NaN becomes z. Integer
/// inputs are copied; u8 inputs are reduced by 128.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantize {
    /// The index of the program input.
    pub port: u16,
    /// The output tensor.
    pub output: TensorId,
    /// The reciprocal of the tensor's scale.
    pub inverse_scale: f32,
    /// The strided copy from the program input to the tensor.
    pub copy: CopyLayout,
}

/// Attributes of [`Step::Dequantize`]: `(x − z) · scale`. Integer outputs are copied; 128 is added
/// for u8 outputs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dequantize {
    /// The input tensor.
    pub input: TensorId,
    /// The index of the program output.
    pub port: u16,
    /// The strided copy from the tensor to the program output.
    pub copy: CopyLayout,
}

/// One operation of a program.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// Quantizes a program input.
    Quantize(Quantize),
    /// Dequantizes into a program output.
    Dequantize(Dequantize),
    /// Computes a convolution, depthwise convolution or fully connected layer.
    Conv(Conv),
    /// Adds or subtracts two tensors.
    Add(Add),
    /// Multiplies two tensors element by element.
    Multiply(Multiply),
    /// Computes the maximum of each window.
    MaxPool(MaxPool),
    /// Computes the mean of each window.
    AveragePool(AveragePool),
    /// Applies an element-wise function with a lookup table (LUT).
    Lookup(Lookup),
    /// Copies and optionally requantizes elements.
    Move(Move),
    /// Fills a tensor with a constant.
    Fill(Fill),
    /// Resizes an image by linear interpolation.
    Resize(Resize),
    /// Computes a softmax over channels.
    Softmax(Softmax),
    /// Computes a row tile of a convolution.
    RowTile(RowTile),
    /// Computes a whole convolution or a row tile of one with sparse weights. In the family `mcu`
    /// they have the encoding of [`sparse`](hardtack_kernels::sparse), with one row per output
    /// channel in the order of [`Conv::weights`], without padding. Never depthwise.
    #[cfg(feature = "sparse")]
    Sparse(RowTile),
}
