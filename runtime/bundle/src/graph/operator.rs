//! The operator table: every operation a graph may hold, with its stable number.
//!
//! A number is never reused and never changes its meaning. When the attributes of an
//! operator must change, its version is raised and the old form stays readable.
//! The semantics are those of the ONNX operator of the same name unless said otherwise;
//! shapes are in the order of that specification (NCHW for images).

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::Dim;
use crate::DType;

macro_rules! operators {
    ($( $(#[$doc:meta])* $id:literal / $version:literal $name:ident $( ( $attributes:ty ) )? ),* $(,)?) => {
        /// One operation with its attributes.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum Operator {
            $( $(#[$doc])* $name $( ($attributes) )?, )*
        }

        impl Operator {
            /// The operator's stable number.
            pub const fn id(&self) -> u16 {
                match self { $( operators!(@pattern $name $( $attributes )?) => $id, )* }
            }

            /// The version of its attributes that this crate writes.
            pub const fn version(&self) -> u8 {
                match self { $( operators!(@pattern $name $( $attributes )?) => $version, )* }
            }

            /// The operator's name.
            pub const fn name(&self) -> &'static str {
                match self { $( operators!(@pattern $name $( $attributes )?) => stringify!($name), )* }
            }

            /// The attributes as `postcard` bytes.
            pub(super) fn attributes(&self) -> Result<Vec<u8>, postcard::Error> {
                match self { $( operators!(@bind $name a $( $attributes )?) => operators!(@encode a $( $attributes )?), )* }
            }

            /// Reads an operator. `None` where number or version are unknown.
            pub(super) fn from_parts(id: u16, version: u8, bytes: &[u8]) -> Option<Result<Self, postcard::Error>> {
                match (id, version) {
                    $( ($id, $version) => Some(operators!(@decode $name bytes $( $attributes )?)), )*
                    _ => None,
                }
            }
        }
    };
    (@pattern $name:ident $attributes:ty) => { Operator::$name(_) };
    (@pattern $name:ident) => { Operator::$name };
    (@bind $name:ident $a:ident $attributes:ty) => { Operator::$name($a) };
    (@bind $name:ident $a:ident) => { Operator::$name };
    (@encode $a:ident $attributes:ty) => { postcard::to_allocvec($a) };
    (@encode $a:ident) => { Ok(Vec::new()) };
    (@decode $name:ident $bytes:ident $attributes:ty) => { exact::<$attributes>($bytes).map(Operator::$name) };
    (@decode $name:ident $bytes:ident) => {
        if $bytes.is_empty() { Ok(Operator::$name) } else { Err(postcard::Error::SerdeDeCustom) }
    };
}

/// Decodes attributes that must fill their bytes.
fn exact<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, postcard::Error> {
    match postcard::take_from_bytes(bytes)? {
        (value, []) => Ok(value),
        _ => Err(postcard::Error::SerdeDeCustom),
    }
}

operators! {
    /// A value the caller gives.
    1 / 1 Input,
    /// A constant tensor, by its index in [`super::Graph::constants`].
    2 / 1 Constant(u32),
    /// An integer program run by the engine, by its index among the bundle's programs.
    /// Inputs and outputs are the program's ports. A leading batch dimension is looped over.
    3 / 1 Program(u32),

    /// Two inputs of the same rank, dimensions of 1 repeated.
    10 / 1 Binary(Binary),
    /// One input, element by element.
    11 / 1 Unary(Unary),
    /// Changes the element type.
    12 / 1 Cast(DType),
    /// Inputs condition, then, else; element by element, same rank.
    13 / 1 Select,

    /// Inputs x, kernel, bias. The bias has one element per output channel, or one for all.
    20 / 1 Conv(Conv),
    /// Transposed convolution; inputs x, kernel, bias.
    21 / 1 ConvTranspose(ConvTranspose),
    /// Greatest value of each window; optionally a second output with its index.
    22 / 1 MaxPool(MaxPool),
    /// Sum or mean of each window.
    23 / 1 SumPool(SumPool),
    /// Generalised matrix product.
    24 / 1 Einsum(Einsum),
    /// Reduces the given axes to size 1.
    25 / 1 Reduce(Reduce),
    /// Softmax or its logarithm over the given axes together.
    26 / 1 Softmax(Softmax),
    /// Root mean square normalization without scale.
    27 / 1 RmsNorm(RmsNorm),
    /// Interpolation; inputs x and, as the attributes tell, scales or sizes.
    28 / 1 Resize(Resize),
    /// Repeats each element along each axis this many times.
    29 / 1 NearestUpsample(Vec<u64>),
    /// Samples x at the positions of a grid.
    30 / 1 GridSample(GridSample),
    /// Local response normalization across channels (axis 1).
    31 / 1 Lrn(Lrn),

    /// Inserts an axis of size 1 at this index.
    40 / 1 AddAxis(u32),
    /// Removes the axis of size 1 at this index.
    41 / 1 RemoveAxis(u32),
    /// Moves an axis from the first index to the second.
    42 / 1 MoveAxis((u32, u32)),
    /// Replaces a run of dimensions by another of the same product.
    43 / 1 Reshape(Reshape),
    /// Repeats dimensions of 1 up to this shape.
    44 / 1 Broadcast(Vec<Dim>),
    /// The range `start..end` of an axis.
    45 / 1 Slice(Slice),
    /// A range of known length and computed start; inputs x, start, end.
    46 / 1 DynamicSlice(DynamicSlice),
    /// Slice with computed ranges and steps.
    47 / 1 StridedSlice(StridedSlice),
    /// Joins the inputs along an axis.
    48 / 1 Concat(u32),
    /// Adds a border.
    49 / 1 Pad(Pad),
    /// Repeats the whole tensor along each axis.
    50 / 1 Tile(Vec<Dim>),
    /// Repeats by computed counts (second input); the dimensions stand for them in shapes.
    51 / 1 DynamicTile(Vec<Dim>),
    /// Takes slices along an axis by index; inputs x, indices.
    52 / 1 Gather(Gather),
    /// Takes elements along an axis by index.
    53 / 1 GatherElements(u32),
    /// Takes slices by index tuples; the attribute is the number of batch dimensions.
    54 / 1 GatherNd(u32),
    /// Writes updates along an axis; inputs x, indices, updates.
    55 / 1 ScatterElements(ScatterElements),
    /// Writes updates by index tuples.
    56 / 1 ScatterNd(ScatterReduction),
    /// Inputs start, end, step; the attribute is the length.
    57 / 1 Range(Dim),
    /// One-hot encoding with constant depth and values.
    58 / 1 OneHot(OneHot),
    /// Greatest or least k; inputs x, k.
    59 / 1 TopK(TopK),
    /// Upper or lower triangle; inputs x, k.
    60 / 1 Trilu(bool),
    /// Cumulative sum.
    61 / 1 CumSum(CumSum),
    /// Every stride-th element of an axis.
    62 / 1 Downsample(Downsample),

    /// Runs a body repeatedly over slices of its inputs; recurrent layers are of this kind.
    70 / 1 Scan(Scan),
    /// Runs one of two bodies; the first input is the condition.
    71 / 1 If(If),

    /// Discrete Fourier transform over an axis; the last dimension of 2 is the complex part.
    80 / 1 Fft(Fft),
    /// Short-time Fourier transform.
    81 / 1 Stft(Stft),

    /// Inputs x (real), scale, zero point; per tensor or along an axis.
    90 / 1 QuantizeLinear(QuantizeLinear),
    /// Inputs x (integer), scale, zero point; per tensor or along an axis.
    91 / 1 DequantizeLinear(DequantizeLinear),

    /// Decision trees; inputs x of shape `[n, features]`.
    100 / 1 TreeEnsemble(TreeEnsemble),
}

/// Which function of two values.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Minimum,
    Maximum,
    Power,
    ShiftLeft,
    ShiftRight,
    And,
    Or,
    Xor,
    BitAnd,
    BitOr,
    BitXor,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Right minus left.
    SubtractFrom,
}

/// Which function of one value.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Unary {
    Abs,
    Exp,
    Ln,
    PowConst(f32),
    Square,
    Sqrt,
    Reciprocal,
    ReciprocalSqrt,
    Ceil,
    Floor,
    Round,
    RoundHalfToEven,
    Cos,
    Sin,
    Tan,
    Acos,
    Asin,
    Atan,
    Cosh,
    Sinh,
    Tanh,
    Erf,
    Acosh,
    Asinh,
    Atanh,
    Negate,
    Sign,
    IsInf {
        positive: bool,
        negative: bool,
    },
    IsNan,
    Not,
    BitNot,
    Sigmoid,
    HardSwish,
    LeakyRelu(f32),
    Silu,
    /// By the error function.
    Gelu,
    /// By tanh.
    GeluApproximate,
}

/// Border around a window operator. Per spatial axis, outermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Padding {
    /// No border.
    Valid,
    /// Elements before and after.
    Explicit(Vec<u32>, Vec<u32>),
    /// As explicit, for pooling whose output size is rounded up.
    ExplicitCeil(Vec<u32>, Vec<u32>),
    /// As much as keeps `output = ceil(input / stride)`; the odd element goes after.
    SameUpper,
    /// As much as keeps `output = ceil(input / stride)`; the odd element goes before.
    SameLower,
}

/// Where the channels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageLayout {
    /// Batch, channels, spatial.
    Nchw,
    /// Batch, spatial, channels.
    Nhwc,
    /// Channels, spatial.
    Chw,
    /// Spatial, channels.
    Hwc,
}

/// Order of a kernel's dimensions; `I` is input channels per group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KernelLayout {
    /// Output, input, spatial.
    Oihw,
    /// Spatial, input, output.
    Hwio,
    /// Output, spatial, input.
    Ohwi,
}

/// A sliding window. Lists have one element per spatial axis, outermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Where the channels are.
    pub layout: ImageLayout,
    /// Size of the window.
    pub kernel: Vec<u32>,
    /// Steps between windows.
    pub strides: Vec<u32>,
    /// Distance of neighbouring window elements.
    pub dilations: Vec<u32>,
    /// Border.
    pub padding: Padding,
    /// Channels of the input.
    pub input_channels: u32,
    /// Channels of the output.
    pub output_channels: u32,
}

/// Attributes of [`Operator::Conv`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv {
    /// The sliding window.
    pub window: Window,
    /// Order of the kernel's dimensions.
    pub kernel_layout: KernelLayout,
    /// Number of groups the channels are split into.
    pub groups: u32,
}

/// Attributes of [`Operator::ConvTranspose`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvTranspose {
    /// The sliding window.
    pub window: Window,
    /// Order of the kernel's dimensions.
    pub kernel_layout: KernelLayout,
    /// Number of groups the channels are split into.
    pub groups: u32,
    /// Elements added to one side of the output, per spatial axis.
    pub output_padding: Vec<u32>,
}

/// Attributes of [`Operator::MaxPool`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxPool {
    /// The sliding window.
    pub window: Window,
    /// Element type of the second output, the index of each greatest value.
    pub index_dtype: Option<DType>,
}

/// Attributes of [`Operator::SumPool`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumPool {
    /// The sliding window.
    pub window: Window,
    /// Whether the border counts when the sum is divided.
    pub count_include_pad: bool,
    /// Whether the sum is divided by the number of elements.
    pub average: bool,
}

/// Attributes of [`Operator::Einsum`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Einsum {
    /// The expression, such as `mk,kn->mn`.
    pub expression: String,
    /// Element type of the products and sums.
    pub accumulator: DType,
}

/// How [`Operator::Reduce`] combines elements.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reducer {
    ArgMax { last: bool },
    ArgMin { last: bool },
    Maximum,
    Minimum,
    Product,
    Sum,
    MeanOfSquares,
    All,
    Any,
}

/// Attributes of [`Operator::Reduce`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reduce {
    /// Axes reduced to size 1.
    pub axes: Vec<u32>,
    /// How elements are combined.
    pub reducer: Reducer,
}

/// Attributes of [`Operator::Softmax`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Softmax {
    /// Axes the exponentials are summed over.
    pub axes: Vec<u32>,
    /// Whether the logarithm is returned.
    pub logarithm: bool,
}

/// Attributes of [`Operator::RmsNorm`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RmsNorm {
    /// The axis.
    pub axis: u32,
    /// Added under the root.
    pub epsilon: f32,
}

/// How an output coordinate becomes an input coordinate.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CoordinateTransform {
    HalfPixel,
    AlignCorners,
    Asymmetric,
    PytorchHalfPixel,
    HalfPixelSymmetric,
    TfHalfPixelForNn,
}

/// How values between elements are found.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interpolation {
    Linear,
    NearestFloor,
    NearestRoundPreferCeil,
    Cubic,
    NearestRoundPreferFloor,
    NearestCeil,
}

/// Attributes of [`Operator::Resize`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resize {
    /// How an output coordinate becomes an input coordinate.
    pub coordinates: CoordinateTransform,
    /// How values between elements are found.
    pub interpolation: Interpolation,
    /// Which input holds the scales.
    pub scales_input: Option<u32>,
    /// Which input holds the sizes.
    pub sizes_input: Option<u32>,
    /// Coefficient of the cubic kernel.
    pub cubic_coefficient: f32,
    /// Whether the cubic kernel leaves out what lies outside the tensor.
    pub exclude_outside: bool,
}

/// Attributes of [`Operator::GridSample`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridSample {
    /// How values between elements are found.
    pub interpolation: GridInterpolation,
    /// What lies outside.
    pub padding: GridPadding,
    /// Whether -1 and 1 are the centres of the corner elements.
    pub align_corners: bool,
}

/// How values between elements are found by [`Operator::GridSample`].
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GridInterpolation {
    Bilinear,
    Nearest,
    Bicubic,
}

/// What [`Operator::GridSample`] finds outside the tensor.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GridPadding {
    Zeros,
    Border,
    Reflection,
}

/// Attributes of [`Operator::Lrn`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lrn {
    /// Scaling parameter.
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
    /// Added to the sum of squares.
    pub bias: f32,
    /// Number of channels summed over.
    pub size: u32,
}

/// Attributes of [`Operator::Reshape`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reshape {
    /// First axis of the run.
    pub axis: u32,
    /// Dimensions of the run before.
    pub from: Vec<Dim>,
    /// Dimensions of the run after.
    pub to: Vec<Dim>,
}

/// Attributes of [`Operator::Slice`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The axis.
    pub axis: u32,
    /// First element.
    pub start: Dim,
    /// One past the last element.
    pub end: Dim,
}

/// Attributes of [`Operator::DynamicSlice`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DynamicSlice {
    /// The axis.
    pub axis: u32,
    /// Length of the range.
    pub length: Dim,
}

/// Attributes of [`Operator::StridedSlice`]; inputs x, begins, ends and, as told, axes, steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StridedSlice {
    /// Which input holds the axes.
    pub axes_input: Option<u32>,
    /// Which input holds the steps.
    pub steps_input: Option<u32>,
    /// Bit i: the begin of range i is left open.
    pub begin_mask: i64,
    /// Bit i: the end of range i is left open.
    pub end_mask: i64,
    /// Bit i: axis i is removed.
    pub shrink_axis_mask: i64,
}

/// What stands in a border.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PadMode {
    /// A constant of one element, by its index in [`super::Graph::constants`].
    Constant(u32),
    /// Mirrored without repeating the edge.
    Reflect,
    /// The edge repeated.
    Edge,
}

/// Attributes of [`Operator::Pad`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pad {
    /// Elements before and after, per axis.
    pub pads: Vec<(u32, u32)>,
    /// What stands there.
    pub mode: PadMode,
}

/// Attributes of [`Operator::Gather`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gather {
    /// The axis.
    pub axis: u32,
    /// Element type of the output where it differs from the input's.
    pub output_dtype: Option<DType>,
}

/// How an update is combined with what is there.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScatterReduction {
    None,
    Add,
    Multiply,
    Minimum,
    Maximum,
}

/// Attributes of [`Operator::ScatterElements`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScatterElements {
    /// The axis.
    pub axis: u32,
    /// How updates are combined.
    pub reduction: ScatterReduction,
}

/// Attributes of [`Operator::OneHot`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneHot {
    /// The new axis.
    pub axis: u32,
    /// Its size.
    pub depth: u64,
    /// Constant of one element for "off", by its index in [`super::Graph::constants`].
    pub off: u32,
    /// Constant of one element for "on".
    pub on: u32,
}

/// Attributes of [`Operator::TopK`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopK {
    /// The axis.
    pub axis: u32,
    /// Greatest instead of least.
    pub largest: bool,
    /// Stands for k in shapes.
    pub k: Dim,
}

/// Attributes of [`Operator::CumSum`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CumSum {
    /// The axis.
    pub axis: u32,
    /// Whether an element's own value is left out.
    pub exclusive: bool,
    /// Whether it sums from the end.
    pub reverse: bool,
}

/// Attributes of [`Operator::Downsample`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downsample {
    /// The axis.
    pub axis: u32,
    /// Every how many elements; negative to walk backwards.
    pub stride: i64,
    /// Elements skipped first.
    pub modulo: u64,
}

/// A slice of an axis per iteration of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanSlice {
    /// The axis.
    pub axis: u32,
    /// Elements per iteration; negative to walk backwards.
    pub chunk: i64,
}

/// What an input of a scan becomes in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScanInput {
    /// The whole tensor, each time.
    Full,
    /// The first value of a state.
    State,
    /// A slice per iteration.
    Slice(ScanSlice),
}

/// What an output of the body becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanOutput {
    /// The scan's output slot that collects the slices of all iterations.
    pub slices: Option<(u32, ScanSlice)>,
    /// Size of the collected axis, where known.
    pub full_dim: Option<Dim>,
    /// The scan's output slot that gets the value of the last iteration.
    pub last_value: Option<u32>,
    /// Whether it is fed back to the next iteration, as the state inputs in order.
    pub state: bool,
}

/// Attributes of [`Operator::Scan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// Index in [`super::Graph::bodies`].
    pub body: u32,
    /// Iterations whose collected output is dropped.
    pub skip: u64,
    /// Whether states start anew at every run.
    pub reset_every_turn: bool,
    /// Whether the caller gives and takes the state at every run.
    pub external_state: bool,
    /// One for each input of the body.
    pub inputs: Vec<ScanInput>,
    /// One for each output of the body.
    pub outputs: Vec<ScanOutput>,
}

/// Attributes of [`Operator::If`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct If {
    /// Body when the condition holds, index in [`super::Graph::bodies`].
    pub then_body: u32,
    /// For each input of that body, which input of this node.
    pub then_inputs: Vec<u32>,
    /// Body when it does not.
    pub else_body: u32,
    /// For each input of that body, which input of this node.
    pub else_inputs: Vec<u32>,
}

/// Attributes of [`Operator::Fft`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fft {
    /// The axis.
    pub axis: u32,
    /// Whether it is the inverse transform.
    pub inverse: bool,
}

/// Attributes of [`Operator::Stft`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stft {
    /// The axis.
    pub axis: u32,
    /// Samples per frame.
    pub frame: u64,
    /// Samples between frames.
    pub stride: u64,
    /// Window, a constant by its index in [`super::Graph::constants`].
    pub window: Option<u32>,
}

/// Attributes of [`Operator::QuantizeLinear`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantizeLinear {
    /// Integer element type of the output.
    pub dtype: DType,
    /// Axis along which scale and zero point vary; `None` per tensor.
    pub axis: Option<u32>,
}

/// Attributes of [`Operator::DequantizeLinear`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DequantizeLinear {
    /// Real element type of the output.
    pub dtype: DType,
    /// Axis along which scale and zero point vary; `None` per tensor.
    pub axis: Option<u32>,
}

/// What becomes of the summed leaf values of a [`TreeEnsemble`].
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeTransform {
    None,
    Softmax,
    Logistic,
    SoftmaxZero,
    Probit,
}

/// How the leaf values of the trees are combined.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeAggregate {
    Sum,
    Average,
    Minimum,
    Maximum,
}

/// The test of a tree node: whether the feature is … the threshold, then the true branch.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeTest {
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    Equal,
    NotEqual,
}

/// Attributes of [`Operator::TreeEnsemble`] (ai.onnx.ml). Inputs: x; then as constants, all of
/// equal length, one element a tree node: feature (u32), threshold (f32), test (u8, by
/// [`TreeTest`]), true branch (u32), false branch (u32), missing values take the true branch
/// (bool); then tree roots (u32); then, one element a leaf contribution, sorted by node: node
/// (u32), target (u32), weight (f32); then base values (f32, one a target, or none).
/// A node that is its own true branch is a leaf. Output: `[n, targets]` in f32.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEnsemble {
    /// Number of outputs per row.
    pub targets: u32,
    /// How trees are combined.
    pub aggregate: TreeAggregate,
    /// Applied to the combined values.
    pub transform: TreeTransform,
    /// Whether one target stands for two classes: the output gets a column for each.
    pub binary: bool,
}
