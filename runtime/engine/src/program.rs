//! The integer program: tensors at fixed places in one arena, and a flat list of steps.
//!
//! A tensor is a block of i8 in the order height, width, channels (`y = (i8 − zero_point) ·
//! scale`); vectors and matrices are images of height 1, or of height and width 1. A batch
//! dimension is not part of a program: the caller runs it once per sample. Everything a step
//! needs is in its fixed-size attributes and in the weights section, so that a program runs
//! where it lies, without an allocator.

use serde::{Deserialize, Serialize};

/// Index of a tensor in the program's table.
pub type TensorId = u16;

/// A range of bytes of the weights section. Offsets are multiples of 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First byte.
    pub offset: u32,
    /// Number of bytes.
    pub length: u32,
}

/// A tensor in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// First byte in the arena, a multiple of 16.
    pub offset: u32,
    /// Height.
    pub height: u32,
    /// Width.
    pub width: u32,
    /// Channels.
    pub channels: u32,
    /// Real value of one integer step.
    pub scale: f32,
    /// The integer that represents 0.
    pub zero_point: i8,
}

impl Tensor {
    /// Number of elements, which is the number of bytes; saturates.
    pub const fn elements(&self) -> u32 {
        self.height.saturating_mul(self.width).saturating_mul(self.channels)
    }

    /// Some of its rows; `None` where it has fewer, and for none.
    pub(crate) fn rows(&self, first: u32, rows: u32) -> Option<Self> {
        let inside = first.checked_add(rows).is_some_and(|end| rows > 0 && end <= self.height);
        inside.then(|| {
            let offset = self.offset + first * self.width * self.channels;
            Self { offset, height: rows, ..*self }
        })
    }

    /// Its integers in the arena of a program it is part of; `None` where the arena is
    /// smaller than that.
    pub fn in_arena<'a>(&self, arena: &'a [i8]) -> Option<&'a [i8]> {
        arena.get(self.offset as usize..)?.get(..self.elements() as usize)
    }
}

/// Element type of a port: what the caller gives or gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortType {
    /// Real values.
    F32,
    /// The integers of the tensor themselves.
    I8,
    /// The integers of the tensor, raised by 128.
    U8,
}

/// An input or output of the program, of `elements` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Element type.
    pub element: PortType,
    /// Number of values.
    pub elements: u32,
}

/// Walks up to six dimensions of two blocks at once, innermost last.
/// Strides are in elements; unused leading dimensions are 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walk {
    /// How many elements along each dimension.
    pub dims: [u32; 6],
    /// First element of the source.
    pub source_offset: u32,
    /// Distance of neighbours in the source; may be 0 (repeat).
    pub source_strides: [u32; 6],
    /// First element of the destination.
    pub target_offset: u32,
    /// Distance of neighbours in the destination.
    pub target_strides: [u32; 6],
}

impl Walk {
    /// `count` elements in a row, from the first of the source to the first of the destination.
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

    /// All of a destination of these dimensions, row-major, from places of the source with
    /// these strides. Dimensions that can be joined are, so that the innermost is long.
    /// `None` for more than six dimensions, for dimensions and strides of unequal number, and
    /// for sizes beyond a u32.
    pub fn gather(dims: &[u32], source_offset: u32, source_strides: &[u32]) -> Option<Self> {
        let mut walk = Self { source_offset, ..Self::contiguous(1) };
        walk.source_strides = [0; 6];
        walk.target_strides = [0; 6];
        if dims.len() > 6 || dims.len() != source_strides.len() {
            return None;
        }
        let mut place = 6;
        let mut target_stride = 1u32;
        for (&dim, &stride) in dims.iter().zip(source_strides).rev() {
            if dim != 1 {
                let joined = place < 6
                    && walk.source_strides[place].checked_mul(walk.dims[place]) == Some(stride);
                if joined {
                    walk.dims[place] = walk.dims[place].checked_mul(dim)?;
                } else {
                    place -= 1;
                    walk.dims[place] = dim;
                    walk.source_strides[place] = stride;
                    walk.target_strides[place] = target_stride;
                }
            }
            target_stride = target_stride.checked_mul(dim)?;
        }
        if place == 6 {
            return Some(Self { source_offset, ..Self::contiguous(1) });
        }
        Some(walk)
    }

    /// The same elements in the other direction.
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

/// A sliding window over height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Height and width of the window.
    pub kernel: [u16; 2],
    /// Steps down and right.
    pub stride: [u16; 2],
    /// Distance of neighbouring window elements.
    pub dilation: [u16; 2],
    /// Rows above and columns to the left of the image that read as its zero point. How many
    /// there are below and to the right follows from the output's size.
    pub pad: [u16; 2],
}

/// Least and greatest output integer: saturation and fused activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// A tensor added before rounding, as part of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Residual {
    /// What is added; shaped as the output.
    pub tensor: TensorId,
    /// Its scale over the output's, of at most 15 significant bits.
    pub scale: f32,
}

/// Attributes of [`Step::Conv`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conv {
    /// What is read.
    pub input: TensorId,
    /// What is written.
    pub output: TensorId,
    /// The sliding window.
    pub window: Window,
    /// Groups the channels are split into. More than one, and as many as input channels and
    /// output channels: depthwise.
    pub groups: u32,
    /// Weights: i8 in [−127, 127], in the layout of the section's family. In the family `mcu`:
    /// output channel, kernel row, kernel column, input channel of the group; every output
    /// channel's run padded with zeros to a multiple of 4 bytes. Depthwise: kernel row, kernel
    /// column, channel; without padding.
    pub weights: Span,
    /// i32 per output channel, in units of input scale · weight scale.
    pub bias: Span,
    /// f32 per output channel: input scale · weight scale / output scale, rounded to 22
    /// significant bits.
    pub scales: Span,
    /// Every accumulator is less than 2 to this power in size, for any input.
    pub accumulator_bits: u8,
    /// Fused addition.
    pub residual: Option<Residual>,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// Attributes of [`Step::Strip`]: some rows of a convolution, so that not all of what it reads
/// and writes need be in the arena at once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Strip {
    /// The convolution, of an input without its first rows.
    pub conv: Conv,
    /// How many rows these are; 0 where the window has rows of padding above.
    pub skip: u32,
    /// The first row that is computed, of the output and of what is added.
    pub first: u32,
    /// How many are.
    pub rows: u32,
    /// Its weights are those of the so-manieth convolution or strip before it, at most
    /// [`Strip::SHARES`]; 0: of none.
    pub shares: u8,
}

impl Strip {
    /// How far apart two that share weights may be.
    pub const SHARES: usize = 8;

    /// All of a convolution whose output has so many rows.
    pub(crate) fn whole(conv: Conv, rows: u32) -> Self {
        Self { conv, skip: 0, first: 0, rows, shares: 0 }
    }

    /// Of what is read, the rows that the windows slide over; `None` where there are none.
    pub(crate) fn input(&self, whole: &Tensor) -> Option<Tensor> {
        whole.rows(self.skip, whole.height.checked_sub(self.skip)?)
    }

    /// Of what is written or added, the rows that are computed; `None` where it has fewer.
    pub(crate) fn output(&self, whole: &Tensor) -> Option<Tensor> {
        whole.rows(self.first, self.rows)
    }
}

/// Attributes of [`Step::Add`]: `rne((a − za) · scale_a + (b − zb) · scale_b) + z`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Add {
    /// Left operand, shaped as the output.
    pub a: TensorId,
    /// Right operand: shaped as the output, or 1×1×channels and repeated.
    pub b: TensorId,
    /// What is written.
    pub output: TensorId,
    /// Scale of a over the output's, of at most 15 significant bits.
    pub scale_a: f32,
    /// Scale of b over the output's (negative: subtraction), of at most 15 significant bits.
    pub scale_b: f32,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// Attributes of [`Step::Multiply`]: `rne((a − za) · (b − zb) · scale) + z`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Multiply {
    /// Left operand, shaped as the output.
    pub a: TensorId,
    /// Right operand: shaped as the output, or 1×1×channels and repeated.
    pub b: TensorId,
    /// What is written.
    pub output: TensorId,
    /// Product of the operands' scales over the output's, of at most 22 significant bits.
    pub scale: f32,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// Attributes of [`Step::MaxPool`]. Input and output have the same scale and zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxPool {
    /// What is read.
    pub input: TensorId,
    /// What is written.
    pub output: TensorId,
    /// The sliding window; what lies outside the image is left out.
    pub window: Window,
    /// Fused activation.
    pub clamp: Clamp,
}

/// Attributes of [`Step::AveragePool`]: the i32 sum of `x − z`, requantized.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AveragePool {
    /// What is read.
    pub input: TensorId,
    /// What is written.
    pub output: TensorId,
    /// The sliding window; a window of the image's size is a mean over the image.
    pub window: Window,
    /// Scale of the input over the output's, of at most 22 significant bits. Where
    /// [`AveragePool::count_include_pad`], it is divided by the window's size already; else it
    /// is divided, in f32, by the number of elements inside the image, and rounded to 22
    /// significant bits again.
    pub scale: f32,
    /// Whether elements outside the image count.
    pub count_include_pad: bool,
    /// Saturation and fused activation.
    pub clamp: Clamp,
}

/// Attributes of [`Step::Lookup`]: `output = table[input + 128]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// What is read.
    pub input: TensorId,
    /// What is written; of the same size.
    pub output: TensorId,
    /// 256 i8.
    pub table: Span,
}

/// Attributes of [`Step::Move`]: copies elements, requantizing them where a scale is given.
/// Transposition, slices, concatenation, padding's inside and pixel shuffles are all moves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// What is read.
    pub input: TensorId,
    /// What is written, in part or whole.
    pub output: TensorId,
    /// Which elements go where.
    pub walk: Walk,
    /// Scale of the input over the output's, of at most 15 significant bits:
    /// `rne((x − z_in) · scale) + z_out`. `None` copies the integers themselves.
    pub scale: Option<f32>,
}

/// Attributes of [`Step::Fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// What is written.
    pub output: TensorId,
    /// With what.
    pub value: i8,
}

/// Attributes of [`Step::Resize`]: the weighted sum of two rows and two columns, in units of
/// 2⁻²² and rounded half up. Input and output have the same scale and zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    /// What is read.
    pub input: TensorId,
    /// What is written.
    pub output: TensorId,
    /// Per output row: first row u16, second row u16, weight of the second i32 in 1/2048, from
    /// 0 to 2048.
    pub rows: Span,
    /// Per output column, the same.
    pub columns: Span,
}

/// Attributes of [`Step::Softmax`], over the channels of each pixel: with m the greatest
/// integer, `e = table[m − x]`, `y = clamp(round(e · 256 / Σe) − 128)`. The output has scale
/// 1/256 and zero point −128. Rounding is half up, in u64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Softmax {
    /// What is read.
    pub input: TensorId,
    /// What is written.
    pub output: TensorId,
    /// 256 u32, at most 2^24 and the first at least 1: `round(exp(−d · scale) · 2^24)`.
    pub table: Span,
}

/// Attributes of [`Step::Quantize`]: `clamp(rne(x · inverse_scale) + z)`; NaN gives z.
/// Integer ports are copied (u8 lowered by 128).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantize {
    /// Which input port.
    pub port: u16,
    /// What is written.
    pub output: TensorId,
    /// 1 over the tensor's scale.
    pub inverse_scale: f32,
    /// From the port's order to the tensor's.
    pub walk: Walk,
}

/// Attributes of [`Step::Dequantize`]: `(x − z) · scale`. Integer ports are copied.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dequantize {
    /// What is read.
    pub input: TensorId,
    /// Which output port.
    pub port: u16,
    /// From the tensor's order to the port's.
    pub walk: Walk,
}

/// One operation of a program.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// Real input to integers.
    Quantize(Quantize),
    /// Integers to real output.
    Dequantize(Dequantize),
    /// Convolution, depthwise convolution and fully connected layer.
    Conv(Conv),
    /// Sum of two tensors.
    Add(Add),
    /// Product of two tensors.
    Multiply(Multiply),
    /// Greatest value of each window.
    MaxPool(MaxPool),
    /// Mean of each window.
    AveragePool(AveragePool),
    /// An 8-bit function by table.
    Lookup(Lookup),
    /// Copy or requantize.
    Move(Move),
    /// A constant everywhere.
    Fill(Fill),
    /// Interpolation.
    Resize(Resize),
    /// Softmax over channels.
    Softmax(Softmax),
    /// Some rows of a convolution.
    Strip(Strip),
    /// The same, or a whole convolution, with weights that are stored without their zeros: in the
    /// family `mcu` in the form of [`sparse`](hardtack_kernels::sparse), with a row for each output
    /// channel in the order of [`Conv::weights`], not padded. Never depthwise.
    #[cfg(feature = "sparse")]
    Sparse(Strip),
}
