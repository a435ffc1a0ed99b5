//! The report of a conversion. It is serialized to JSON and formatted for users.

use serde::Serialize;

use crate::options::quantize::RangeMethod;

/// One stage of the pipeline.
#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    /// The name of the stage.
    pub name: &'static str,
    /// The number of nodes after the stage.
    pub nodes: usize,
    /// The number of elements in constant tensors after the stage, without integer programs.
    pub parameters: u64,
    /// The bytes of constant tensors and integer programs after the stage.
    pub bytes: u64,
    /// The wall-clock time of the stage in seconds.
    pub seconds: f64,
    /// The largest output difference measured for the stage, as a fraction of the output's range.
    pub parity: Option<f64>,
}

/// A node of an INT8 conversion that stays in float or uses 16-bit activations, with the reason.
#[derive(Clone, Debug, Serialize)]
pub struct FloatNode {
    /// The name of the node.
    pub node: String,
    /// The operator of the node.
    pub operator: String,
    /// Why it is not INT8.
    pub reason: String,
}

/// The error of a quantized tensor against the float model, over the measured samples. Each integer
/// program gets the float model's values as its inputs, so errors accumulate within a program but
/// not across programs.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// The name of the node that computes the tensor.
    pub name: String,
    /// The kind of the step that computes the tensor.
    pub kind: String,
    /// The signal-to-quantization-noise ratio in dB.
    pub sqnr_db: f64,
    /// The cosine similarity of the quantized and the float tensor.
    pub cosine: f64,
    /// The largest absolute difference of an element.
    pub largest: f64,
    /// The quantization range. `None` in a pre-quantized model.
    pub range: Option<RangeReport>,
    /// The histogram of the values over the calibration data, if they were observed.
    pub spread: Option<HistogramReport>,
    /// The weights of the layer, if the tensor is the output of one.
    pub weights: Option<WeightsReport>,
}

/// A histogram of a tensor's values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HistogramReport {
    /// The minimum and maximum value.
    pub seen: [f32; 2],
    /// The number of values that are exactly 0. They are not in `counts`.
    pub zeros: u64,
    /// The number of values in each bin. The bins divide the range `seen` evenly.
    pub counts: Vec<u64>,
}

/// The weights of a layer.
#[derive(Clone, Debug, Serialize)]
pub struct WeightsReport {
    /// The number of weights.
    pub elements: u64,
    /// The bytes of weights and bias as f32.
    pub float_bytes: u64,
    /// The bytes of weights as i8, with the bias and scale of each output channel.
    pub integer_bytes: u64,
    /// The minimum and maximum weight scale over the output channels.
    pub step: [f32; 2],
    /// The number of distinct integers among the weights.
    pub levels: usize,
    /// The number of weights from −128 to −125, from −124 to −121, and so on up to 127.
    pub counts: Vec<u64>,
}

/// A node of the converted graph. Constants and nodes that depend only on constants are omitted.
#[derive(Clone, Debug, Serialize)]
pub struct GraphNode {
    /// The name of the node.
    pub name: String,
    /// The operator of the node.
    pub operator: String,
    /// The indices in [`Report::graph`] of the nodes whose outputs it reads.
    pub reads: Vec<usize>,
    /// The index of the integer program that contains it; `None` if it runs in float.
    pub program: Option<usize>,
}

/// The quantization range of a tensor.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RangeReport {
    /// The minimum and maximum value over the calibration data.
    pub seen: [f32; 2],
    /// The range that the integers represent.
    pub covered: [f32; 2],
    /// The bits of an integer: 8, or 16 as two i8 tensors.
    pub bits: u32,
    /// The calibration method that chose the range.
    pub method: RangeMethod,
}

/// The result of a conversion.
///
/// # Examples
///
/// ```
/// use hardtack_converter::{ConvertOptions, NoProgress, convert};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/keyword_spotting");
/// # let folder = tempfile::tempdir()?;
/// # for name in ["kws_dscnn.onnx", "calibration.npz"] {
/// #     std::fs::copy(format!("{data}/{name}"), folder.path().join(name))?;
/// # }
/// # std::env::set_current_dir(&folder)?;
/// let options = ConvertOptions::default();
/// let (onnx, bundle) = ("kws_dscnn.onnx".as_ref(), "kws.tack".as_ref());
/// let report = convert(onnx, bundle, &options, &mut NoProgress)?;
/// for stage in &report.stages {
///     println!("{}: {} nodes, {:.1} ms", stage.name, stage.nodes, 1e3 * stage.seconds);
/// }
/// assert_eq!(report.stages[0].name, "import");
/// assert!(report.warnings.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The name of the model.
    pub name: String,
    /// The bundle's root digest, in hexadecimal.
    pub digest: String,
    /// The size of the ONNX file in bytes.
    pub source_bytes: u64,
    /// The size of the bundle in bytes.
    pub bundle_bytes: u64,
    /// The size of the compressed bundle in bytes, if one was written.
    pub transport_bytes: Option<u64>,
    /// The stages that ran, in order.
    pub stages: Vec<StageReport>,
    /// The measurements on the converted model.
    pub figures: Vec<FigureReport>,
    /// How the two readings of the model agreed.
    pub readings: Option<ReadingsReport>,
    /// The rewrites that the import stage made to preserve ONNX semantics.
    pub rewritten: Vec<String>,
    /// The result of channel pruning, if it was requested.
    pub pruned: Option<PruneReport>,
    /// The nodes that stay in float in an INT8 conversion.
    pub float_nodes: Vec<FloatNode>,
    /// The layers with 16-bit activations, unless all have them.
    pub int16_nodes: Vec<FloatNode>,
    /// The converted graph in topological order.
    pub graph: Vec<GraphNode>,
    /// The tensors of the integer programs.
    pub layers: Vec<LayerReport>,
    /// The size of the integer programs' arena in bytes.
    pub arena_bytes: u64,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// How the two readings of a model agreed.
#[derive(Clone, Debug, Serialize)]
pub struct ReadingsReport {
    /// The number of output values that were compared; 0 if there was no second reading.
    pub values: u64,
    /// The number of samples that were compared.
    pub samples: u32,
    /// The source of the samples: `random` or a file name.
    pub source: String,
    /// The largest difference of a value, as a fraction of its output's range.
    pub difference: f64,
    /// What the reference implementation evaluates, such as `node "Mod_3"`, with the reason.
    pub evaluated: Vec<(String, String)>,
}

/// A measurement on the converted model.
#[derive(Clone, Debug, Serialize)]
pub struct FigureReport {
    /// The name of the measured quantity.
    pub name: String,
    /// The measured value.
    pub value: f64,
    /// The number of samples.
    pub samples: u32,
    /// The source of the samples: `random`, or a file name.
    pub source: String,
}

/// The result of pruning.
#[derive(Clone, Debug, Serialize)]
pub struct PruneReport {
    /// The groups that lost channels.
    pub groups: Vec<GroupReport>,
    /// The cost of all layers before pruning.
    pub before: Price,
    /// The cost of all layers after pruning.
    pub after: Price,
    /// The remaining fraction of the inference time, if latency was the target.
    pub latency: Option<f64>,
    /// A warning for the user.
    #[serde(skip)]
    pub warning: Option<String>,
}

/// A group of channels that pass through the same values.
#[derive(Clone, Debug, Serialize)]
pub struct GroupReport {
    /// The name of the layer that computes them.
    pub name: String,
    /// The number of channels before pruning.
    pub before: usize,
    /// The number of channels after pruning.
    pub after: usize,
    /// The squared error of a refitted layer that reads them, as a fraction of its output's
    /// variance, averaged over these layers.
    pub error: f64,
}

/// The MACs of one inference, and the bytes of f32 weights and biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Price {
    /// The number of MACs.
    pub macs: f64,
    /// The bytes of weights and biases as f32.
    pub bytes: f64,
}
