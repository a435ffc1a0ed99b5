//! The table of step kinds: numbers, encoding, and the tensors and weights that steps access.

use crate::program::*;

/// The reason why a step cannot be decoded.
pub(crate) enum Undecoded {
    /// The number of the kind is unknown.
    Kind,
    /// The attribute version is not supported for the kind with this name.
    Version(&'static str),
    /// The attributes of the kind with this name are malformed.
    Attributes(&'static str),
}

/// One row per step kind: number, name, attribute version. Numbers are never reused.
macro_rules! table {
    ($($(#[$present:meta])? $id:literal $name:ident $version:literal)*) => {
        impl Step {
            /// Returns the number of the step's kind in the program format.
            pub fn id(&self) -> u16 {
                match self { $($(#[$present])? Self::$name(_) => $id,)* }
            }

            /// Returns the name of the step's kind.
            pub fn kind(&self) -> &'static str {
                match self { $($(#[$present])? Self::$name(_) => stringify!($name),)* }
            }

            /// Returns the version of the step's attributes.
            pub fn version(&self) -> u8 {
                match self { $($(#[$present])? Self::$name(_) => $version,)* }
            }

            /// Decodes a step from its kind number, attribute version and encoded attributes.
            pub(crate) fn decode(id: u16, version: u8, bytes: &[u8]) -> Result<Self, Undecoded> {
                match (id, version) {
                    $($(#[$present])? ($id, $version) => match postcard::take_from_bytes(bytes) {
                        Ok((attributes, [])) => Ok(Self::$name(attributes)),
                        _ => Err(Undecoded::Attributes(stringify!($name))),
                    },)*
                    $($(#[$present])? ($id, _) => Err(Undecoded::Version(stringify!($name))),)*
                    _ => Err(Undecoded::Kind),
                }
            }

            /// Encodes the attributes.
            #[cfg(feature = "alloc")]
            pub(crate) fn encode(&self) -> postcard::Result<alloc::vec::Vec<u8>> {
                match self {
                    $($(#[$present])? Self::$name(attributes) => postcard::to_allocvec(attributes),)*
                }
            }
        }
    };
}

table! {
    1 Quantize 1
    2 Dequantize 1
    3 Conv 2
    4 Add 1
    5 Multiply 1
    6 MaxPool 1
    7 AveragePool 1
    8 Lookup 1
    9 Move 1
    10 Fill 1
    11 Resize 1
    12 Softmax 1
    13 RowTile 1
    #[cfg(feature = "sparse")] 14 Sparse 1
}

impl Step {
    /// Returns the tensors that the step reads.
    pub fn reads(&self) -> impl Iterator<Item = TensorId> + use<> {
        let (first, second) = match self {
            Self::Quantize(_) | Self::Fill(_) => (None, None),
            Self::Dequantize(step) => (Some(step.input), None),
            Self::Conv(conv) | Self::RowTile(RowTile { conv, .. }) => {
                (Some(conv.input), conv.residual.map(|residual| residual.tensor))
            }
            #[cfg(feature = "sparse")]
            Self::Sparse(RowTile { conv, .. }) => {
                (Some(conv.input), conv.residual.map(|residual| residual.tensor))
            }
            Self::Add(step) => (Some(step.a), Some(step.b)),
            Self::Multiply(step) => (Some(step.a), Some(step.b)),
            Self::MaxPool(step) => (Some(step.input), None),
            Self::AveragePool(step) => (Some(step.input), None),
            Self::Lookup(step) => (Some(step.input), None),
            Self::Move(step) => (Some(step.input), None),
            Self::Resize(step) => (Some(step.input), None),
            Self::Softmax(step) => (Some(step.input), None),
        };
        first.into_iter().chain(second)
    }

    /// Returns the weight ranges that the step reads.
    #[cfg(feature = "alloc")]
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> + use<> {
        let conv = |conv: &Conv| [Some(conv.weights), Some(conv.bias), Some(conv.scales)];
        let spans = match self {
            Self::Conv(step) => conv(step),
            Self::RowTile(step) => conv(&step.conv),
            #[cfg(feature = "sparse")]
            Self::Sparse(step) => conv(&step.conv),
            Self::Lookup(step) => [Some(step.table), None, None],
            Self::Softmax(step) => [Some(step.table), None, None],
            Self::Resize(step) => [Some(step.rows), Some(step.columns), None],
            Self::Quantize(_)
            | Self::Dequantize(_)
            | Self::Add(_)
            | Self::Multiply(_)
            | Self::MaxPool(_)
            | Self::AveragePool(_)
            | Self::Move(_)
            | Self::Fill(_) => [None; 3],
        };
        spans.into_iter().flatten()
    }

    /// Returns the tensor that the step writes, or `None` if it writes a program output.
    pub fn writes(&self) -> Option<TensorId> {
        match self {
            Self::Quantize(step) => Some(step.output),
            Self::Dequantize(_) => None,
            Self::Conv(conv) | Self::RowTile(RowTile { conv, .. }) => Some(conv.output),
            #[cfg(feature = "sparse")]
            Self::Sparse(RowTile { conv, .. }) => Some(conv.output),
            Self::Add(step) => Some(step.output),
            Self::Multiply(step) => Some(step.output),
            Self::MaxPool(step) => Some(step.output),
            Self::AveragePool(step) => Some(step.output),
            Self::Lookup(step) => Some(step.output),
            Self::Move(step) => Some(step.output),
            Self::Fill(step) => Some(step.output),
            Self::Resize(step) => Some(step.output),
            Self::Softmax(step) => Some(step.output),
        }
    }

    /// Returns a convolution step as a row tile, which covers all rows for [`Step::Conv`]. `None`
    /// for other steps. `tensor` looks up a tensor.
    pub(crate) fn tile(&self, tensor: impl Fn(TensorId) -> Tensor) -> Option<RowTile> {
        match self {
            Self::Conv(conv) => Some(RowTile::whole(*conv, tensor(conv.output).height)),
            Self::RowTile(tile) => Some(*tile),
            #[cfg(feature = "sparse")]
            Self::Sparse(tile) => Some(*tile),
            _ => None,
        }
    }
}
