//! Post-training static quantization to INT8: activations by their range over calibration data,
//! weights per output channel, and as much of the graph as can be as programs of the engine.
//!
//! Jacob et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference", 2018, has the scheme.

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
    /// The model, with its INT8 regions as programs.
    pub model: Model,
    /// The error of each layer, in the order they run.
    pub layers: Vec<LayerReport>,
    /// The graph that was quantized, and what became of each node.
    pub graph: Vec<GraphNode>,
    /// How many layers had weights of more than eight bits, which were rounded.
    pub rounded_weights: usize,
    /// What stays in float, causes before what follows from them.
    pub left_in_float: Vec<Told>,
    /// Layers whose values have 16 bits, and why; not those of a model that has them throughout.
    pub int16: Vec<Told>,
    /// What the user should know of the calibration.
    pub warnings: Vec<String>,
}

/// A node, and why it is as it is.
pub struct Told {
    /// Its name.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// How a model is quantized.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// How the ranges of activations are chosen.
    pub method: Method,
    /// Whether channels of one value get factors so that one scale suits them all.
    pub equalize: Equalize,
    /// How weights are rounded.
    pub rounding: Rounding,
    /// How many bits a weight may have in the mean, as an entropy; steps become coarser for it, and
    /// the transport form smaller.
    pub weight_bits: Option<f64>,
    /// How many weights become zero; those of depthwise layers all stay.
    pub sparsity: Option<Sparsity>,
    /// How many different integers the weights of a layer may be at most.
    pub palette: Option<usize>,
    /// Names of nodes that stay in float.
    pub keep_float: Vec<String>,
    /// Whose values have 16 bits: nodes by name, with the functions that follow them.
    pub int16: Int16,
    /// The most error that the outputs may have over calibration data: root mean square difference
    /// as a part of the root mean square, of the worst output. Layers stay in float to keep it.
    pub max_error: Option<f64>,
}

impl Settings {
    /// What differs from the default, as a bundle's provenance names it.
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
        // As one option: a manifest has room for a few.
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
    /// Where one setting takes away what another needs.
    fn check(&self) -> Result<(), Error> {
        if self.palette.is_some() && self.weight_bits.is_some() {
            return Err(Error::Options(
                "--palette and --weight-bits both say which integers weights may be; give one"
                    .into(),
            ));
        }
        let adaptive =
            self.weight_bits.is_some() || self.sparsity.is_some() || self.palette.is_some();
        if self.rounding == Rounding::Nearest && adaptive {
            return Err(Error::Options(
                "--weight-bits, --sparsity and --palette need --rounding adaptive: the error they \
                 make is spread among weights"
                    .into(),
            ));
        }
        Ok(())
    }
}

/// Whether channels of one value get factors so that one scale suits them all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Equalize {
    /// Where the estimated error falls to a small part.
    #[default]
    Auto,
    /// Channels stay as they were trained.
    Off,
}

/// Whose values have 16 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Int16 {
    /// Those of every node that can have them.
    All,
    /// Those of nodes of these names, with the functions that follow them.
    Nodes(Vec<String>),
}

impl Default for Int16 {
    fn default() -> Int16 {
        Int16::Nodes(Vec::new())
    }
}

/// How weights are rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// So that the outputs of their layer are nearest to the real ones over calibration data.
    #[default]
    Adaptive,
    /// Each to the nearest integer.
    Nearest,
}

/// Quantizes a model; `progress` is told how many of how many parts are done. The error of each
/// layer is that on the samples `measured`.
///
/// Scales that the model does not state come from its values on the samples where these are
/// `calibration`. Where they are not, what only such a scale could run in integers stays in float.
///
/// # Errors
/// Where the model cannot be run on a sample, or its values are not finite.
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
            "the weights of {nine_bits} layers, less their zero points, have 9 bits, and are \
             multiplied in two parts, which takes longer; symmetric weights of at most 127 are not"
        ));
    }
    drop(model);
    calibration.weights.clear();
    let layers = error::measure(&resting, &lowered, &calibration, &mut observer, measured)?;
    drop((calibration, observer));
    let model = assemble::assemble(resting.awake()?, &regions, lowered);
    Ok(Quantized { model, layers, graph, rounded_weights, left_in_float, int16, warnings })
}

/// The nodes that the user keeps in float, each with the functions that follow it.
fn kept(model: &Model, names: &[String]) -> Result<Refused, Error> {
    let nodes = named(model, "--keep-float", names)?;
    Ok(nodes.into_iter().map(|node| (node, "kept in float as asked".into())).collect())
}

/// Nodes whose values have 16 bits, and why.
type Int16Nodes = HashMap<usize, String>;

fn wide(model: &Model, int16: &Int16) -> Result<Int16Nodes, Error> {
    let nodes = match int16 {
        Int16::All => (0..model.graph.nodes.len()).collect(),
        Int16::Nodes(names) => named(model, "--int16", names)?,
    };
    Ok(nodes.into_iter().map(|node| (node, "as asked".into())).collect())
}

/// Nodes by their names, each with the functions that follow it.
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
                "{option} {name:?}: the model has no node of that name{}; `hardtack inspect \
                 --nodes` lists those of a float bundle",
                match alike[..] {
                    [] => String::new(),
                    _ => format!(" (it has {})", alike.join(", ")),
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

/// The layers among nodes of 16 bits, in the order they run.
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
