//! Post-training static quantization to INT8: activations by their range over calibration data,
//! weights per output channel, and as much of the graph as can be as programs of the engine.
//!
//! Jacob et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference", 2018, has the scheme.

pub mod arena;
mod calibrate;
mod clip;
mod error;
mod function;
mod fuse;
mod histogram;
pub mod integer_io;
mod lattice;
mod lower;
mod moments;
mod region;
mod round;
mod scale;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::{HashMap, HashSet};

use hardtack::{Model, Program, Tensor};
use hardtack_bundle::graph::{Node, Operator, Outlet};

use self::calibrate::Observer;
use self::clip::Chosen;
use self::function::Function;
use self::histogram::Histogram;
use self::lower::Lowered;
use self::region::{Refused, Region};
use self::scale::Range;
use self::weights::{Rounded, Values};
use crate::edit::Editor;
use crate::error::Error;
use crate::outline::outline;
use crate::report::{GraphNode, LayerReport};

pub use self::clip::Method;
pub(crate) use self::region::is_constant;

/// Samples on which the error of each layer is measured.
const MEASURED: usize = 8;

/// A quantized model.
pub struct Quantized {
    /// The model, with its INT8 regions as programs.
    pub model: Model,
    /// The error of each layer, in the order they run.
    pub layers: Vec<LayerReport>,
    /// The graph that was quantized, and what became of each node.
    pub graph: Vec<GraphNode>,
    /// What stays in float.
    pub left_in_float: Vec<LeftInFloat>,
}

/// A node that stays in float.
pub struct LeftInFloat {
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
    /// How weights are rounded.
    pub rounding: Rounding,
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

/// What calibration data tell of a model.
struct Calibration {
    /// The range of every value that was observed.
    ranges: HashMap<Outlet, Chosen>,
    /// The weights of layers, by their nodes, where they are rounded ahead.
    weights: HashMap<usize, Rounded>,
}

/// Quantizes a model by its values on calibration samples; `progress` is told how many of how
/// many are done.
///
/// # Errors
/// Where the model cannot be run on a sample, or its values are not finite.
pub fn quantize(
    model: Model,
    samples: &[Vec<Tensor>],
    settings: &Settings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Quantized, Error> {
    let mut editor = Editor::new(model);
    fuse::fuse(&mut editor);
    let model = editor.finish();

    let mut refused = Refused::new();
    let regions = region::regions(&model, &mut refused);
    let within = regions.iter().flat_map(|region| &region.nodes);
    let values = within.flat_map(|index| {
        let made = Outlet { node: *index as u32, slot: 0 };
        region::reads(&model, *index).chain([made])
    });
    let mut observer = Observer::new(&model, values)?;
    let histograms = calibrate::statistics(&mut observer, &model, samples, progress)?;
    let ranges = ranges(&model, &histograms, settings.method);
    let weights = match settings.rounding {
        Rounding::Nearest => HashMap::new(),
        Rounding::Adaptive => weights(&model, &regions, &ranges, samples)?,
    };
    let calibration = Calibration { ranges, weights };

    let (regions, lowered) = lower_all(&model, &calibration, &mut refused);
    let measured = &samples[..samples.len().min(MEASURED)];
    let ranges = &calibration.ranges;
    let layers = error::measure(&model, &lowered, ranges, &histograms, &mut observer, measured)?;
    let graph =
        outline(&model, |index| regions.iter().position(|region| region.nodes.contains(&index)));
    let left_in_float = left_in_float(&model, &refused);
    let model = assemble(model, &regions, lowered);
    Ok(Quantized { model, layers, graph, left_in_float })
}

/// The range of every value that was observed.
fn ranges(
    model: &Model,
    histograms: &HashMap<Outlet, Histogram>,
    method: Method,
) -> HashMap<Outlet, Chosen> {
    // What the caller gets, or a softmax: its greatest values are the answer, and are not clipped.
    let mut answers: HashSet<Outlet> = model.graph.outputs.iter().copied().collect();
    let softmax = |node: &&Node| matches!(node.operator, Operator::Softmax(_));
    answers.extend(model.graph.nodes.iter().filter(softmax).flat_map(|node| &node.inputs));
    let choose = |(outlet, histogram): (&Outlet, &Histogram)| {
        if method == Method::Auto && answers.contains(outlet) {
            return (*outlet, clip::choose(histogram, Method::MinMax, None));
        }
        let Range { low, high } = histogram.range();
        let function = Function::of_reader(model, *outlet, low.min(0.0), high.max(0.0));
        let at = function.as_ref().map(|function| move |x: f64| function.at(x));
        let transfer = at.as_ref().map(|at| at as &dyn Fn(f64) -> f64);
        (*outlet, clip::choose(histogram, method, transfer))
    };
    histograms.iter().map(choose).collect()
}

/// The weights of all layers, rounded for the sake of their outputs.
fn weights(
    model: &Model,
    regions: &[Region],
    ranges: &HashMap<Outlet, Chosen>,
    samples: &[Vec<Tensor>],
) -> Result<HashMap<usize, Rounded>, Error> {
    let layers: Vec<usize> = regions.iter().flat_map(|region| region.nodes.clone()).collect();
    let mut weights = HashMap::new();
    moments::measure(model, &layers, samples, |index, linear, groups| {
        if let Values::Real(values) = &linear.weights.values {
            let noise = ranges.get(&linear.input).map_or(0.0, |chosen| chosen.error);
            weights.insert(index, round::round(values, &groups, noise));
        }
        Ok(())
    })?;
    Ok(weights)
}

/// Lowers every region. A node that is refused stays in float, and the regions are made anew
/// without it.
fn lower_all(
    model: &Model,
    calibration: &Calibration,
    refused: &mut Refused,
) -> (Vec<Region>, Vec<Lowered>) {
    loop {
        let regions = region::regions(model, refused);
        let lowered: Result<Vec<Lowered>, _> =
            regions.iter().map(|region| lower::lower(model, region, calibration)).collect();
        match lowered {
            Ok(lowered) => return (regions, lowered),
            Err(refusal) => {
                refused.insert(refusal.node, refusal.reason);
            }
        }
    }
}

fn left_in_float(model: &Model, refused: &Refused) -> Vec<LeftInFloat> {
    let mut left: Vec<(&usize, &String)> = refused.iter().collect();
    left.sort();
    left.into_iter()
        .map(|(index, reason)| {
            let node = &model.graph.nodes[*index];
            LeftInFloat {
                node: node.name.clone(),
                operator: node.operator.name().into(),
                reason: reason.clone(),
            }
        })
        .collect()
}

/// Puts programs in place of their regions.
fn assemble(model: Model, regions: &[Region], lowered: Vec<Lowered>) -> Model {
    let mut editor = Editor::new(model);
    for (region, lowered) in regions.iter().zip(lowered) {
        let index = editor.model.programs.len();
        let graph = &editor.model.graph;
        let last = region.nodes.last().map(|last| graph.nodes[*last].name.as_str());
        let program = Node {
            name: format!("{}.int8", last.unwrap_or("program")),
            operator: Operator::Program(index as u32),
            outputs: lowered.outputs.iter().map(|outlet| graph.fact(*outlet).clone()).collect(),
            inputs: lowered.inputs.clone(),
        };
        editor.model.programs.push(Program {
            code: lowered.built.code.into(),
            weights: lowered.built.weights.into(),
            packing: None,
        });
        let node = editor.add(program).node;
        for (slot, outlet) in lowered.outputs.iter().enumerate() {
            editor.redirect(*outlet, Outlet { node, slot: slot as u32 });
        }
    }
    editor.finish()
}
