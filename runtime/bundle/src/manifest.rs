//! The manifest, which describes a bundle and its requirements. It is read without an allocator.

use heapless::Vec;
use serde::{Deserialize, Serialize};

use crate::{DType, Error, SectionKind};

/// The maximum number of inputs of a model, and of outputs.
pub const MAX_PORTS: usize = 32;
/// The maximum number of dimensions of a model's input or output.
pub const MAX_RANK: usize = 8;
/// The maximum number of options, of figures, and of float operators.
pub const MAX_ENTRIES: usize = 32;

/// One dimension of an input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extent<'a> {
    /// A fixed size.
    Fixed(u64),
    /// A size that the caller chooses. Dimensions with the same name have the same size.
    Named(&'a str),
}

/// The meaning of a tensor's dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// Unknown.
    Plain,
    /// Batch, channels, height, width.
    Nchw,
    /// Batch, height, width, channels.
    Nhwc,
}

/// Affine quantization parameters: `real = scale · (integer − zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantization {
    /// The difference in real value between two adjacent integers.
    pub scale: f32,
    /// The integer that represents 0.
    pub zero_point: i32,
}

/// An input or output of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port<'a> {
    /// The name in the source model.
    #[serde(borrow)]
    pub name: &'a str,
    /// The element type.
    pub dtype: DType,
    /// The dimensions, outermost first.
    pub shape: Vec<Extent<'a>, MAX_RANK>,
    /// The meaning of the dimensions.
    pub layout: Layout,
    /// The scale and zero point, if the elements are quantized.
    pub quantization: Option<Quantization>,
}

/// A state: an output that is fed back into an input at the next inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The index of the input. At the first inference, it has its default value, or zeros if it has
    /// none.
    pub input: u8,
    /// The index of the output.
    pub output: u8,
}

/// A name with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<'a> {
    /// The name.
    pub name: &'a str,
    /// The value.
    pub value: &'a str,
}

/// A measured metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure<'a> {
    /// The name of the metric, such as `parity of fold` or `top-1`.
    pub name: &'a str,
    /// The value. Its unit and range depend on the metric.
    pub value: f64,
    /// The number of samples that were measured.
    pub samples: u32,
    /// The source of the samples: `calibration`, `random` or a file name.
    pub source: &'a str,
}

/// The origin of a bundle: its source model, converter and options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance<'a> {
    /// SHA-256 of the source ONNX file.
    pub source_digest: [u8; 32],
    /// Size of the source ONNX file in bytes.
    pub source_bytes: u64,
    /// The producer that the source ONNX file names.
    pub producer: &'a str,
    /// The version of the ONNX operator set.
    pub opset: u32,
    /// The version of the converter.
    pub converter: &'a str,
    /// The conversion options that affect the bundle, in the order they were given.
    #[serde(borrow)]
    pub options: Vec<Entry<'a>, MAX_ENTRIES>,
}

/// The description of a bundle and its requirements.
///
/// # Examples
///
/// ```
/// use hardtack_bundle::Bundle;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let file = std::fs::read("kws_dscnn.tack")?;
/// let manifest = Bundle::parse(&file)?.manifest()?;
/// println!("{} needs an arena of {} bytes", manifest.name, manifest.arena_bytes);
/// for figure in &manifest.figures {
///     println!("{}: {} ({} samples)", figure.name, figure.value, figure.samples);
/// }
/// assert!(!manifest.needs_float);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest<'a> {
    /// The name of the model.
    pub name: &'a str,
    /// The version of the model, given by its author. May be empty.
    pub version: &'a str,
    /// The inputs of the model, in order.
    #[serde(borrow)]
    pub inputs: Vec<Port<'a>, MAX_PORTS>,
    /// The outputs of the model, in order.
    pub outputs: Vec<Port<'a>, MAX_PORTS>,
    /// The outputs that are fed back into inputs.
    pub states: Vec<State, MAX_PORTS>,
    /// The origin of the bundle.
    pub provenance: Provenance<'a>,
    /// Parity and accuracy, measured during conversion.
    pub figures: Vec<Figure<'a>, MAX_ENTRIES>,
    /// The operators of an INT8 bundle that run in float. The value is the number of nodes.
    pub float_operators: Vec<Entry<'a>, MAX_ENTRIES>,
    /// Total size in bytes of the arenas of all integer programs.
    pub arena_bytes: u64,
    /// Whether the bundle needs a runtime with the `float` feature.
    pub needs_float: bool,
    /// Whether the graph is already simplified, so that loading does only machine-dependent work.
    pub prepared: bool,
}

impl Manifest<'_> {
    /// Checks that every state refers to an input and output that exist.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if a state does not.
    pub fn check(&self) -> Result<(), Error> {
        let known = |state: &State| {
            usize::from(state.input) < self.inputs.len()
                && usize::from(state.output) < self.outputs.len()
        };
        if self.states.iter().all(known) {
            return Ok(());
        }
        let problem = "a state refers to an input or output that does not exist";
        Err(Error::Invalid { section: SectionKind::Manifest, problem })
    }
}
