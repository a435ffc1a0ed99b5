//! The operator table: every operator of a graph, with its stable number.
//!
//! A number is never reused and never changes its meaning. When the attributes of an operator
//! must change, its version is incremented and the old form stays readable. Operators have the
//! semantics and dimension order (NCHW for images) of the ONNX operator of the same name, unless
//! documented otherwise.

use alloc::vec::Vec;

use serde::Deserialize;

use super::Dim;
use super::attributes::*;
use crate::DType;

macro_rules! operators {
    ($( $(#[$doc:meta])* $id:literal / $version:literal $name:ident $( ( $attributes:ty ) )? ),* $(,)?) => {
        /// An operator with its attributes.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum Operator {
            $( $(#[$doc])* $name $( ($attributes) )?, )*
        }

        impl Operator {
            /// The number, attribute version and name of every operator, by ascending number.
            pub const TABLE: &'static [(u16, u8, &'static str)] =
                &[ $( ($id, $version, stringify!($name)), )* ];

            /// Returns the stable number of the operator.
            pub const fn id(&self) -> u16 {
                match self { $( operators!(@pattern $name $( $attributes )?) => $id, )* }
            }

            /// Returns the version of the attributes that this crate writes.
            pub const fn version(&self) -> u8 {
                match self { $( operators!(@pattern $name $( $attributes )?) => $version, )* }
            }

            /// Returns the name of the operator.
            pub const fn name(&self) -> &'static str {
                match self { $( operators!(@pattern $name $( $attributes )?) => stringify!($name), )* }
            }

            /// Encodes the attributes as `postcard` bytes.
            pub(super) fn attributes(&self) -> Result<Vec<u8>, postcard::Error> {
                match self { $( operators!(@bind $name a $( $attributes )?) => operators!(@encode a $( $attributes )?), )* }
            }

            /// Decodes an operator. Returns `None` if its number or version is unknown.
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

/// Decodes attributes, which must not have extra bytes.
fn exact<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, postcard::Error> {
    match postcard::take_from_bytes(bytes)? {
        (value, []) => Ok(value),
        _ => Err(postcard::Error::SerdeDeCustom),
    }
}

operators! {
    /// An input of the graph, which the caller provides.
    1 / 1 Input,
    /// A constant tensor, given by its index in [`super::Graph::constants`].
    2 / 1 Constant(u32),
    /// An integer program, given by its number in the bundle. The inputs and outputs are those of
    /// the program. The engine runs it once for each index of a leading batch dimension.
    3 / 1 Program(u32),

    /// Element-wise binary operator. Inputs of the same rank; dimensions of size 1 are broadcast.
    10 / 1 Binary(Binary),
    /// Element-wise unary operator.
    11 / 1 Unary(Unary),
    /// Conversion to another element type.
    12 / 1 Cast(DType),
    /// Element-wise selection (ONNX `Where`). Inputs condition, then, else, of the same rank.
    13 / 1 Select,

    /// Convolution. Inputs x, kernel, bias. The bias has one element per output channel, or one
    /// for all channels.
    20 / 1 Conv(Conv),
    /// Transposed convolution. Inputs x, kernel, bias.
    21 / 1 ConvTranspose(ConvTranspose),
    /// Maximum of each window. The optional second output is the index of the maximum.
    22 / 1 MaxPool(MaxPool),
    /// Sum or mean of each window.
    23 / 1 SumPool(SumPool),
    /// Generalized matrix multiplication, given by an Einstein summation expression.
    24 / 1 Einsum(Einsum),
    /// Reduction of the given axes to size 1.
    25 / 1 Reduce(Reduce),
    /// Softmax or log-softmax, normalized jointly over the given axes.
    26 / 1 Softmax(Softmax),
    /// Root mean square normalization, without a learned scale.
    27 / 1 RmsNorm(RmsNorm),
    /// Resizing by interpolation. Inputs x and scales or sizes, at the indices that the attributes
    /// state.
    28 / 1 Resize(Resize),
    /// Nearest-neighbor upsampling: repeats each element this many times along each axis.
    29 / 1 NearestUpsample(Vec<u64>),
    /// Sampling of x at the positions of a grid.
    30 / 1 GridSample(GridSample),
    /// Local response normalization across channels (axis 1).
    31 / 1 Lrn(Lrn),

    /// Insertion of an axis of size 1 at this index.
    40 / 1 AddAxis(u32),
    /// Removal of the axis of size 1 at this index.
    41 / 1 RemoveAxis(u32),
    /// Move of an axis from the first index to the second.
    42 / 1 MoveAxis((u32, u32)),
    /// Replacement of consecutive dimensions by others with the same product.
    43 / 1 Reshape(Reshape),
    /// Broadcast of dimensions of size 1 to this shape.
    44 / 1 Broadcast(Vec<Dim>),
    /// The range `start..end` of an axis.
    45 / 1 Slice(Slice),
    /// A range with known length and a start computed at run time. Inputs x, start, end.
    46 / 1 DynamicSlice(DynamicSlice),
    /// Slice with ranges and steps computed at run time. Inputs x, begins, ends, and axes and
    /// steps at the indices that the attributes state.
    47 / 1 StridedSlice(StridedSlice),
    /// Concatenation of the inputs along an axis.
    48 / 1 Concat(u32),
    /// Padding of each axis.
    49 / 1 Pad(Pad),
    /// Repetition of the whole tensor along each axis.
    50 / 1 Tile(Vec<Dim>),
    /// Repetition by counts computed at run time (the second input). The dimensions represent
    /// these counts in shapes.
    51 / 1 DynamicTile(Vec<Dim>),
    /// Selection of slices along an axis by index. Inputs x, indices.
    52 / 1 Gather(Gather),
    /// Selection of elements along an axis by index. Inputs x, indices.
    53 / 1 GatherElements(u32),
    /// Selection of slices by index tuples. The attribute is the number of batch dimensions.
    54 / 1 GatherNd(u32),
    /// Update of elements along an axis. Inputs x, indices, updates.
    55 / 1 ScatterElements(ScatterElements),
    /// Update of slices by index tuples. Inputs x, indices, updates.
    56 / 1 ScatterNd(ScatterReduction),
    /// Numbers at regular intervals. Inputs start, end, step. The attribute is the length.
    57 / 1 Range(Dim),
    /// One-hot encoding with a constant depth and constant values.
    58 / 1 OneHot(OneHot),
    /// The k largest or smallest elements along an axis. Inputs x, k.
    59 / 1 TopK(TopK),
    /// Upper (`true`) or lower triangle of matrices. Inputs x, k.
    60 / 1 Trilu(bool),
    /// Cumulative sum.
    61 / 1 CumSum(CumSum),
    /// Every stride-th element of an axis.
    62 / 1 Downsample(Downsample),

    /// Loop that runs a body over slices of its inputs, such as a recurrent layer.
    70 / 1 Scan(Scan),
    /// Branch that runs one of two bodies. The first input is the condition.
    71 / 1 If(If),

    /// Discrete Fourier transform along an axis. The last dimension, of size 2, holds the real and
    /// imaginary parts.
    80 / 1 Fft(Fft),
    /// Short-time Fourier transform.
    81 / 1 Stft(Stft),

    /// Quantization, per tensor or along an axis. Inputs x (float), scale, zero point.
    90 / 1 QuantizeLinear(QuantizeLinear),
    /// Dequantization, per tensor or along an axis. Inputs x (integer), scale, zero point.
    91 / 1 DequantizeLinear(DequantizeLinear),
    /// Dynamically quantized matmul of floats by a constant matrix. Inputs x `[…, k]`, weights
    /// `[k, n]` (i8 or u8), weight scale and weight zero point (1 or n elements each), and an
    /// optional bias `[n]`.
    92 / 1 DynamicMatMul(DynamicMatMul),
    /// Unpacking of 4-bit integers into one byte each. Input: a vector of bytes with two integers
    /// each, the low half first. The node's output states their type (i8 in two's complement, or
    /// u8) and shape. If their number is odd, the high half of the last byte is 0.
    93 / 1 Unpack,
    /// Block-wise dequantization, with a scale for each block of an axis. Inputs x (i8 or u8),
    /// scale, zero point. Scales have the rank of x. Zero points have the type and rank of x, or
    /// there is one for all. The last block may be shorter.
    94 / 1 DequantizeBlocks(DequantizeBlocks),

    /// Ensemble of decision trees. Inputs: see [`TreeEnsemble`]; x has shape `[n, features]`.
    100 / 1 TreeEnsemble(TreeEnsemble),

    /// ONNX operators that have no number here, as an encoded model of the crate
    /// `hardtack-operators`, which evaluates them. The inputs and outputs are those of the model.
    110 / 1 Evaluate(Vec<u8>),
}
