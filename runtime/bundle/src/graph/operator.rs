//! The operator table: every operation a graph may hold, with its stable number.
//!
//! A number is never reused and never changes its meaning. When the attributes of an
//! operator must change, its version is raised and the old form stays readable.
//! The semantics are those of the ONNX operator of the same name unless said otherwise;
//! shapes are in the order of that specification (NCHW for images).

use alloc::vec::Vec;

use serde::Deserialize;

use super::Dim;
use super::attributes::*;
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
            /// Number, version of the attributes and name of every operator, in the order of
            /// the numbers.
            pub const TABLE: &'static [(u16, u8, &'static str)] =
                &[ $( ($id, $version, stringify!($name)), )* ];

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
    /// A product of reals with a constant matrix, in integers: inputs x `[…, k]`, weights of i8 or
    /// u8 `[k, n]`, their scale and their zero point (one each, or n), and maybe a bias `[n]`.
    92 / 1 DynamicMatMul(DynamicMatMul),
    /// Integers of 4 bits, each in a byte of its own. Input: bytes in one dimension, with two
    /// integers in each, the low half first. The node states their type (i8 in two's complement, or
    /// u8) and shape; the high half of a byte that none is left for is 0.
    93 / 1 Unpack,
    /// Inputs x (i8 or u8), scale, zero point; a scale for each block of an axis. Scales have the
    /// rank of x, and so do zero points of x's type, or there is one for all. The last block may be
    /// shorter.
    94 / 1 DequantizeBlocks(DequantizeBlocks),

    /// Decision trees; inputs x of shape `[n, features]`.
    100 / 1 TreeEnsemble(TreeEnsemble),
}
