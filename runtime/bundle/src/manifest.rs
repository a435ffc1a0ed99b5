//! The manifest: what a bundle is and what it needs, read without an allocator.

use heapless::Vec;
use serde::{Deserialize, Serialize};

use crate::{DType, Error, SectionKind};

/// Most inputs, and most outputs, a model may have.
pub const MAX_PORTS: usize = 32;
/// Most dimensions a tensor of a model's border may have.
pub const MAX_RANK: usize = 8;
/// Most notes, options and figures of each kind.
pub const MAX_ENTRIES: usize = 32;

/// One dimension of an input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extent<'a> {
    /// Always this.
    Fixed(u64),
    /// Given by the caller; equal names are equal sizes.
    Named(&'a str),
}

/// What the dimensions of a tensor mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// Nothing is known about them.
    Plain,
    /// Batch, channels, height, width.
    Nchw,
    /// Batch, height, width, channels.
    Nhwc,
}

/// How integers stand for reals: `real = scale · (integer − zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantization {
    /// Real value of one step.
    pub scale: f32,
    /// The integer that represents 0.
    pub zero_point: i32,
}

/// An input or output of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port<'a> {
    /// Its name in the source model.
    #[serde(borrow)]
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<Extent<'a>, MAX_RANK>,
    /// What the dimensions mean.
    pub layout: Layout,
    /// Scale and zero point, where the elements are quantized.
    pub quantization: Option<Quantization>,
}

/// An output that is to be fed back into an input at the next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Index of the input; zero before the first run.
    pub input: u8,
    /// Index of the output.
    pub output: u8,
}

/// A name and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<'a> {
    /// Name.
    pub name: &'a str,
    /// Value.
    pub value: &'a str,
}

/// A measured figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure<'a> {
    /// What was measured, such as `parity of fold` or `top-1`.
    pub name: &'a str,
    /// The value; what 0 and 1 mean follows from the name.
    pub value: f64,
    /// On how many samples.
    pub samples: u32,
    /// Where the samples came from: `calibration`, `random`, a file's name.
    pub source: &'a str,
}

/// Where the bundle came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance<'a> {
    /// SHA-256 of the source ONNX file.
    pub source_digest: [u8; 32],
    /// Bytes of the source ONNX file.
    pub source_bytes: u64,
    /// Who wrote the source, as it says itself.
    pub producer: &'a str,
    /// Version of the ONNX operator set.
    pub opset: u32,
    /// Version of the converter.
    pub converter: &'a str,
    /// The options that shaped the bundle, in the order they were given.
    #[serde(borrow)]
    pub options: Vec<Entry<'a>, MAX_ENTRIES>,
}

/// What a bundle is and what it needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest<'a> {
    /// Name of the model.
    pub name: &'a str,
    /// Version of the model's content, given by whoever made it; may be empty.
    pub version: &'a str,
    /// What the caller gives, in order.
    #[serde(borrow)]
    pub inputs: Vec<Port<'a>, MAX_PORTS>,
    /// What the caller gets, in order.
    pub outputs: Vec<Port<'a>, MAX_PORTS>,
    /// Outputs that feed inputs.
    pub states: Vec<State, MAX_PORTS>,
    /// Where it came from.
    pub provenance: Provenance<'a>,
    /// Parity and accuracy as measured at conversion.
    pub figures: Vec<Figure<'a>, MAX_ENTRIES>,
    /// Operators of an INT8 bundle that run in float, with the number of nodes as value.
    pub float_operators: Vec<Entry<'a>, MAX_ENTRIES>,
    /// Bytes of the arenas that the integer programs need, all together.
    pub arena_bytes: u64,
    /// Whether the runtime must have the `float` feature.
    pub needs_float: bool,
    /// Whether the graph is simplified already, so that loading it pays for the
    /// machine-dependent part alone.
    pub prepared: bool,
}

impl Manifest<'_> {
    /// Checks that states name inputs and outputs that exist.
    ///
    /// # Errors
    /// [`Error::Invalid`] where one does not.
    pub fn check(&self) -> Result<(), Error> {
        let known = |state: &State| {
            usize::from(state.input) < self.inputs.len()
                && usize::from(state.output) < self.outputs.len()
        };
        if self.states.iter().all(known) {
            return Ok(());
        }
        let problem = "a state names an input or output that does not exist";
        Err(Error::Invalid { section: SectionKind::Manifest, problem })
    }
}
