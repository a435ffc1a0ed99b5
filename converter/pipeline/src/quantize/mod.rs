//! Post-training static quantization to INT8.
//!
//! Activations get one scale per tensor, from their range over calibration data, and weights one
//! scale per output channel. As much of the graph as possible becomes programs of the engine.
//!
//! The scheme is that of Jacob et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference", 2018.

pub mod arena;
mod assemble;
mod blocks;
mod calibrate;
mod clip;
pub mod dynamic;
mod equalize;
mod error;
mod function;
mod fuse;
mod histogram;
pub mod integer_io;
mod lattice;
pub mod lookup;
mod lower;
pub mod matrices;
mod mixed;
mod moments;
mod palette;
mod rate;
mod region;
mod round;
mod scale;
mod sparse;
mod split;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::HashMap;

use hardtack::Model;
use hardtack_bundle::graph::{Operator, Outlet};

use self::calibrate::Calibration;
use self::region::Refused;
use crate::edit::Editor;
use crate::error::Error;
use crate::observe::Observer;
use crate::outline::outline;
use crate::report::{GraphNode, LayerReport};
use crate::resting::{Resting, Sleeper as _};
use crate::samples::Source;

pub use self::clip::Method;
pub(crate) use self::region::is_constant;
pub use self::sparse::Sparsity;
pub(crate) use self::weights::keeps_elements;

/// A quantized model.
pub struct Quantized {
    /// The model, with each INT8 partition replaced by a program.
    pub model: Model,
    /// The error of each layer, in execution order.
    pub layers: Vec<LayerReport>,
    /// The nodes of the graph that was quantized, each with the partition it belongs to, if any.
    pub graph: Vec<GraphNode>,
    /// The number of layers whose integer weights had more than 9 bits and were re-quantized.
    pub rounded_weights: usize,
    /// Nodes that stay in float, with the reason. Nodes that only follow others come last.
    pub left_in_float: Vec<Told>,
    /// Layers with int16 activations, with the reason; empty where all nodes use int16.
    pub int16: Vec<Told>,
    /// Warnings about the calibration and the weights.
    pub warnings: Vec<String>,
}

/// A node and the reason for its number format.
pub struct Told {
    /// The name of the node.
    pub node: String,
    /// The operator of the node.
    pub operator: String,
    /// The reason, as a phrase without a final period.
    pub reason: String,
}

/// Options of quantization.
///
/// # Examples
///
/// ```
/// use hardtack_converter::Options;
/// use hardtack_converter::quantize::{Method, Settings};
///
/// let quantize = Settings {
///     method: Method::Percentile,
///     keep_float: vec!["Softmax_12".into()],
///     max_error: Some(0.02),
///     ..Settings::default()
/// };
/// let texts = quantize.texts();
/// assert_eq!(texts[0], ("ranges".into(), "percentile".into()));
/// let options = Options { int8: true, quantize, ..Options::default() };
/// ```
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The method that chooses the ranges of activations.
    pub method: Method,
    /// Whether cross-layer equalization runs.
    pub equalize: Equalize,
    /// The rounding mode of weights.
    pub rounding: Rounding,
    /// The target average entropy of a weight, in bits. Fewer bits mean coarser steps and a smaller
    /// compressed bundle; 8 or more mean full resolution. `None` means 6 if a compressed bundle is
    /// written and nothing else determines the weights, and full resolution otherwise.
    pub weight_bits: Option<f64>,
    /// The weights to prune to zero. Depthwise layers are not pruned.
    pub sparsity: Option<Sparsity>,
    /// The maximum number of distinct integers among the weights of a layer.
    pub palette: Option<usize>,
    /// Names of nodes that stay in float.
    pub keep_float: Vec<String>,
    /// The nodes with int16 activations.
    pub int16: Int16,
    /// The maximum error of the worst output over calibration data: the RMS difference divided by
    /// the RMS of the float output. Layers get int16 activations or stay in float to meet it.
    pub max_error: Option<f64>,
}

impl Settings {
    /// Returns the settings that differ from the defaults, as named in a bundle's provenance.
    pub fn texts(&self) -> Vec<(String, String)> {
        let mut texts = Vec::new();
        let mut text = |name: &str, value: Option<String>| {
            texts.extend(value.map(|value| (name.to_string(), value)));
        };
        text("ranges", (self.method != Method::Auto).then(|| self.method.name().into()));
        text("rounding", (self.rounding == Rounding::Nearest).then(|| "nearest".into()));
        text("equalize", (self.equalize == Equalize::Off).then(|| "off".into()));
        text("weight-bits", self.weight_bits.map(|bits| bits.to_string()));
        text("sparsity", self.sparsity.map(|sparsity| sparsity.to_string()));
        text("palette", self.palette.map(|count| count.to_string()));
        text("max-error", self.max_error.map(|error| format!("{}%", 100.0 * error)));
        // Node names share one entry because a manifest holds only a few.
        let listed = |nodes: &[String]| (!nodes.is_empty()).then(|| nodes.join(", "));
        match &self.int16 {
            Int16::All => text("int16", Some("all".into())),
            Int16::Nodes(nodes) => text("int16", listed(nodes)),
        }
        text("keep-float", listed(&self.keep_float));
        texts
    }

    fn may_have_16_bits(&self) -> bool {
        self.int16 != Int16::default() || self.max_error.is_some()
    }

    /// # Errors
    /// Returns an error if two settings conflict.
    fn check(&self) -> Result<(), Error> {
        if self.palette.is_some() && self.weight_bits.is_some() {
            return Err(Error::Options(
                "--palette and --weight-bits both choose the integers of the weights; give only one"
                    .into(),
            ));
        }
        let adaptive =
            self.weight_bits.is_some() || self.sparsity.is_some() || self.palette.is_some();
        if self.rounding == Rounding::Nearest && adaptive {
            return Err(Error::Options(
                "--weight-bits, --sparsity and --palette need --rounding adaptive, which adjusts \
                 other weights to compensate for the error"
                    .into(),
            ));
        }
        Ok(())
    }
}

/// Whether cross-layer equalization rescales the channels of activations to share one scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Equalize {
    /// Rescales channels where that greatly reduces the estimated error.
    #[default]
    Auto,
    /// Leaves channels unchanged.
    Off,
}

/// The nodes with int16 activations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Int16 {
    /// Every node that supports int16.
    All,
    /// The nodes with these names, and the unary element-wise ops that follow them.
    Nodes(Vec<String>),
}

impl Default for Int16 {
    fn default() -> Int16 {
        Int16::Nodes(Vec::new())
    }
}

/// The rounding mode of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// GPTQ: minimizes the error of each layer's outputs over calibration data.
    #[default]
    Adaptive,
    /// Rounds each weight to the nearest integer.
    Nearest,
}

/// Quantizes a model and measures the error of each layer on the samples `measured`.
///
/// With `calibration`, scales that the model does not define come from its activations on
/// `samples`. Without it, nodes that would need such a scale stay in float. `progress` is called
/// with the number of completed steps and their total.
///
/// # Errors
/// Returns an error if settings conflict or name a missing node, if the model cannot be run on a
/// sample, or if its values are not finite.
pub fn quantize(
    model: Model,
    samples: &dyn Source,
    measured: &dyn Source,
    calibration: bool,
    settings: &Settings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Quantized, Error> {
    settings.check()?;
    let mut editor = Editor::new(model);
    fuse::fuse(&mut editor);
    let mut model = editor.finish();
    if calibration && settings.equalize == Equalize::Auto {
        let gates = match settings.may_have_16_bits() {
            true => equalize::Gates::Behind,
            false => equalize::Gates::Within,
        };
        model = equalize::equalize(model, samples, gates, progress)?;
    }

    let mut refused = kept(&model, &settings.keep_float)?;
    let mut int16 = wide(&model, &settings.int16)?;
    let regions = region::regions(&model, &mut refused);
    let within = regions.iter().flat_map(|region| &region.nodes);
    let values = within.flat_map(|index| {
        let made = Outlet { node: *index as u32, slot: 0 };
        region::reads(&model, *index).chain([made])
    });
    let values: Vec<Outlet> = values.collect();
    weights::finite(&model, &regions)?;
    let resting = Resting::new(model)?;
    let mut observer = Observer::new(&resting, values);
    let mut warnings = Vec::new();
    let mut calibration = match calibration {
        true => {
            let statistics =
                calibrate::statistics(&mut observer, resting.graph(), samples, progress)?;
            observer.rest();
            warnings.extend(statistics.warning(samples.count()));
            let histograms = statistics.histograms;
            Calibration::new(&resting, &regions, histograms, samples, settings, progress)?
        }
        false => Calibration::default(),
    };
    let model = resting.awake()?;
    if let Some(budget) = settings.max_error {
        let forms = (&mut int16, &mut refused);
        mixed::search(&model, &calibration, forms, samples, budget, progress)?;
    }

    let (regions, lowered) = assemble::lower(&model, &calibration, &int16, &mut refused);
    let graph =
        outline(&model, |index| regions.iter().position(|region| region.nodes.contains(&index)));
    let left_in_float = left_in_float(&model, &refused);
    let int16 = match settings.int16 {
        Int16::All => Vec::new(),
        Int16::Nodes(_) => of_16_bits(&model, &int16),
    };
    let within = regions.iter().flat_map(|region| &region.nodes);
    let greatest: Vec<i32> =
        within.map(|index| weights::greatest_integer(&model, *index)).collect();
    let rounded_weights = greatest.iter().filter(|size| **size > weights::WIDEST).count();
    let nine_bits = greatest.iter().filter(|size| (128..=weights::WIDEST).contains(size)).count();
    if nine_bits > 0 {
        warnings.push(format!(
            "the weights of {nine_bits} layers need 9 bits after their zero points are subtracted \
             and are multiplied in two parts, which is slower; use symmetric weights of at most 127"
        ));
    }
    drop(model);
    calibration.weights.clear();
    let layers = error::measure(&resting, &lowered, &calibration, &mut observer, measured)?;
    drop((calibration, observer));
    let model = assemble::assemble(resting.awake()?, &regions, lowered);
    Ok(Quantized { model, layers, graph, rounded_weights, left_in_float, int16, warnings })
}

/// Returns the nodes that the user keeps in float, and the unary element-wise ops that follow them.
fn kept(model: &Model, names: &[String]) -> Result<Refused, Error> {
    let nodes = named(model, "--keep-float", names)?;
    Ok(nodes.into_iter().map(|node| (node, "kept in float by --keep-float".into())).collect())
}

/// Indices of the nodes with int16 activations, and the reason for each.
type Int16Nodes = HashMap<usize, String>;

fn wide(model: &Model, int16: &Int16) -> Result<Int16Nodes, Error> {
    let nodes = match int16 {
        Int16::All => (0..model.graph.nodes.len()).collect(),
        Int16::Nodes(names) => named(model, "--int16", names)?,
    };
    Ok(nodes.into_iter().map(|node| (node, "requested by --int16".into())).collect())
}

/// Returns the indices of the nodes with these names, and the unary element-wise ops after them.
fn named(model: &Model, option: &str, names: &[String]) -> Result<Vec<usize>, Error> {
    let mut found = Vec::new();
    for name in names {
        let nodes = &model.graph.nodes;
        let named = |index: &usize| {
            let node = &nodes[*index];
            let constant = matches!(node.operator, Operator::Constant(_));
            node.name == *name || (!constant && equalize::whole_name(&node.name) == name)
        };
        let before = found.len();
        for index in (0..nodes.len()).filter(named) {
            found.extend(mixed::with_followers(model, index));
        }
        if found.len() == before {
            let others = nodes.iter().filter(|n| !matches!(n.operator, Operator::Constant(_)));
            let others = others.map(|node| equalize::whole_name(&node.name));
            let mut alike: Vec<&str> = others
                .filter(|other| {
                    let (a, b) = (other.to_lowercase(), name.to_lowercase());
                    a.contains(&b) || b.contains(&a)
                })
                .collect();
            alike.dedup();
            alike.truncate(5);
            return Err(Error::Options(format!(
                "{option} {name:?}: the model has no node with this name{}; `hardtack inspect \
                 --nodes` lists the nodes of a float bundle",
                match alike[..] {
                    [] => String::new(),
                    _ => format!(" (similar names: {})", alike.join(", ")),
                }
            )));
        }
    }
    Ok(found)
}

fn left_in_float(model: &Model, refused: &Refused) -> Vec<Told> {
    let mut left: Vec<(&usize, &String)> = refused.iter().collect();
    left.sort_by_key(|(index, reason)| (region::follows_others(reason), **index));
    left.into_iter().map(|(index, reason)| told(model, *index, reason)).collect()
}

/// Returns the layers among the int16 nodes, in execution order.
fn of_16_bits(model: &Model, int16: &Int16Nodes) -> Vec<Told> {
    let operator = |index: &usize| &model.graph.nodes[*index].operator;
    let layer = |index: &usize| matches!(operator(index), Operator::Conv(_) | Operator::Einsum(_));
    let mut layers: Vec<(&usize, &String)> =
        int16.iter().filter(|(index, _)| layer(index)).collect();
    layers.sort_by_key(|(index, _)| **index);
    layers.into_iter().map(|(index, reason)| told(model, *index, reason)).collect()
}

fn told(model: &Model, index: usize, reason: &str) -> Told {
    let node = &model.graph.nodes[index];
    let (name, operator) = (node.name.clone(), node.operator.name().into());
    Told { node: name, operator, reason: reason.into() }
}
