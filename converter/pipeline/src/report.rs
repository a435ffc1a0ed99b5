//! What a conversion did, for people and machines.

use serde::Serialize;

use crate::prune::PruneReport;
use crate::quantize::Method;

/// One stage of the pipeline.
#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    /// Name of the stage.
    pub name: &'static str,
    /// Operations after it.
    pub nodes: usize,
    /// Elements of constant tensors after it, integer programs aside.
    pub parameters: u64,
    /// Bytes of constant tensors and integer programs after it.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Largest difference of an output from the imported model's, as a part of the output's
    /// range, where it was measured.
    pub parity: Option<f64>,
}

/// A node of an INT8 conversion that stays in float, or whose values have 16 bits.
#[derive(Clone, Debug, Serialize)]
pub struct FloatNode {
    /// Its name.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// How far a quantized tensor is from the float model's, over the samples measured. A program is
/// given the float model's values, so that errors add up within a program but not from one program
/// to the next.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Name of the node that makes it.
    pub name: String,
    /// What the step that makes it is.
    pub kind: String,
    /// Signal to quantization noise ratio in dB.
    pub sqnr_db: f64,
    /// Cosine of the angle between the two.
    pub cosine: f64,
    /// Largest difference of an element.
    pub largest: f64,
    /// How its integers were chosen; none where the source states them.
    pub range: Option<RangeReport>,
    /// How its values are spread over the calibration data, where they were observed.
    pub spread: Option<Spread>,
    /// What it is multiplied with, where it is a layer.
    pub weights: Option<WeightsReport>,
}

/// How the values of a tensor are spread.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Least and greatest value.
    pub seen: [f32; 2],
    /// How many are exactly 0; these are not in `counts`.
    pub zeros: u64,
    /// How many are in each of the parts, all as wide, that the range is cut into.
    pub counts: Vec<u64>,
}

/// The weights of a layer.
#[derive(Clone, Debug, Serialize)]
pub struct WeightsReport {
    /// How many there are.
    pub elements: u64,
    /// Bytes of them and the bias as f32.
    pub float_bytes: u64,
    /// Bytes of them as i8, with bias and scale of each output channel.
    pub integer_bytes: u64,
    /// Least and greatest real value of one step, over output channels.
    pub step: [f32; 2],
    /// How many of the 255 integers occur.
    pub levels: usize,
    /// How many weights are −128 to −125, −124 to −121, and so on up to 127.
    pub counts: Vec<u64>,
}

/// A node of the graph that was converted. Constants and what is made of them are left out.
#[derive(Clone, Debug, Serialize)]
pub struct GraphNode {
    /// Its name.
    pub name: String,
    /// Its operator.
    pub operator: String,
    /// The nodes it reads, by their places in the graph.
    pub reads: Vec<usize>,
    /// The integer program it is part of; none where it is in float.
    pub program: Option<usize>,
}

/// What a tensor's integers cover.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RangeReport {
    /// Least and greatest value over the calibration data.
    pub seen: [f32; 2],
    /// What is covered.
    pub covered: [f32; 2],
    /// Bits of an integer: 8, or 16 as two tensors.
    pub bits: u32,
    /// What chose it.
    pub method: Method,
}

/// What a conversion did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the model.
    pub name: String,
    /// The bundle's root digest, in hexadecimal.
    pub digest: String,
    /// Bytes of the ONNX file.
    pub source_bytes: u64,
    /// Bytes of the bundle.
    pub bundle_bytes: u64,
    /// Bytes of its transport form, if it was asked for.
    pub transport_bytes: Option<u64>,
    /// What happened, in order.
    pub stages: Vec<StageReport>,
    /// What was measured on the bundle's model.
    pub figures: Vec<FigureReport>,
    /// What the import stage had to change to keep the meaning.
    pub rewritten: Vec<String>,
    /// What was pruned, if that was asked for.
    pub pruned: Option<PruneReport>,
    /// What stays in float, if INT8 was asked for.
    pub float_nodes: Vec<FloatNode>,
    /// Layers whose values have 16 bits, where not all have.
    pub int16_nodes: Vec<FloatNode>,
    /// The graph that was converted, each node after those it reads.
    pub graph: Vec<GraphNode>,
    /// Tensors of the integer programs, if INT8 was asked for.
    pub layers: Vec<LayerReport>,
    /// Bytes of the arena that the integer programs need.
    pub arena_bytes: u64,
    /// Things the user should know.
    pub warnings: Vec<String>,
}

/// A measured figure.
#[derive(Clone, Debug, Serialize)]
pub struct FigureReport {
    /// What was measured.
    pub name: String,
    /// The value.
    pub value: f64,
    /// On how many samples.
    pub samples: u32,
    /// Where they came from.
    pub source: String,
}

/// Hears how a conversion goes on.
pub trait Progress {
    /// A stage begins.
    fn stage(&mut self, name: &'static str);
    /// `done` of `of` parts of the stage are done.
    fn step(&mut self, done: usize, of: usize);
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn stage(&mut self, _: &'static str) {}
    fn step(&mut self, _: usize, _: usize) {}
}
