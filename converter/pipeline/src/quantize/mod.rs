//! Post-training static quantization to INT8.
//!
//! Activations get one scale per tensor, from their range over calibration data, and weights one
//! scale per output channel. As much of the graph as possible becomes programs of the engine.
//!
//! The scheme is that of Jacob et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference", 2018.

pub(crate) mod arena;
mod calibrate;
mod equalize;
pub(crate) mod float_reason;
mod function;
mod fuse;
pub(crate) mod integer_io;
mod layer_error;
mod lower;
mod mixed_precision;
mod operators;
mod partition;
pub(crate) mod rounding;
mod scale;
mod statistics;
#[cfg(test)]
mod tests;
mod weights;

use hardtack::internal::Model;
use hardtack_bundle::graph::{Operator, ValueId};

use self::calibrate::Calibration;
use self::equalize::Parts;
use self::float_reason::{FloatReason, Int16Reason};
use self::lower::assemble;
use self::partition::{FloatReasons, Int16Nodes};
use crate::activations::Observer;
use crate::error::Error;
use crate::graph::constants::variable_inputs;
use crate::graph::rewriter::Rewriter;
use crate::graph::summary::graph_summary;
use crate::offloaded_model::{ModelSource as _, OffloadedModel};
use crate::options::quantize::{Equalize, Int16, QuantizeOptions};
use crate::report::{GraphNode, LayerReport};
use crate::samples::SampleSource;

/// A quantized model.
pub(crate) struct Quantized {
    /// The model, with each INT8 partition replaced by a program.
    pub model: Model,
    /// The error of each layer, in execution order.
    pub layers: Vec<LayerReport>,
    /// The nodes of the graph that was quantized, each with the partition it belongs to, if any.
    pub graph: Vec<GraphNode>,
    /// The number of layers whose integer weights had more than 9 bits and were re-quantized.
    pub rounded_weights: usize,
    /// Nodes that stay in float, with the reason. Nodes that only follow others come last.
    pub left_in_float: Vec<NodeReason>,
    /// Layers with int16 activations, with the reason; empty where all nodes use int16.
    pub int16: Vec<NodeReason>,
    /// Warnings about the calibration and the weights.
    pub warnings: Vec<String>,
}

/// A node and the reason for its number format.
pub(crate) struct NodeReason {
    /// The name of the node.
    pub node: String,
    /// The operator of the node.
    pub operator: String,
    /// The reason, as a phrase without a final period.
    pub reason: String,
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
pub(crate) fn quantize(
    model: Model,
    samples: &dyn SampleSource,
    measured: &dyn SampleSource,
    calibration: bool,
    settings: &QuantizeOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Quantized, Error> {
    settings.check()?;
    let mut rewriter = Rewriter::new(model);
    fuse::fuse(&mut rewriter);
    let (mut model, mut parts) = (rewriter.finish(), Parts::new());
    if calibration && settings.equalize == Equalize::Auto {
        let placement = match settings.may_use_int16() {
            true => equalize::flow::FactorPlacement::AfterGate,
            false => equalize::flow::FactorPlacement::BeforeGate,
        };
        (model, parts) = equalize::equalize(model, samples, placement, progress)?;
    }

    let mut float_reasons = kept(&model, &parts, &settings.keep_float)?;
    let mut int16 = int16_nodes(&model, &parts, &settings.int16)?;
    let partitions = partition::partitions(&model, &mut float_reasons);
    let within = partitions.iter().flat_map(|partition| &partition.nodes);
    let values = within.flat_map(|index| {
        let made = ValueId { node: *index as u32, output: 0 };
        variable_inputs(&model, *index).chain([made])
    });
    let values: Vec<ValueId> = values.collect();
    weights::finite(
        &model,
        partitions.iter().flat_map(|partition| partition.nodes.iter().copied()),
    )?;
    let offloaded = OffloadedModel::new(model)?;
    let mut observer = Observer::new(&offloaded, values);
    let mut warnings = Vec::new();
    let mut calibration = match calibration {
        true => {
            let statistics =
                calibrate::statistics(&mut observer, offloaded.graph(), samples, progress)?;
            observer.unload();
            warnings.extend(statistics.warning(samples.count()));
            let histograms = statistics.histograms;
            Calibration::new(&offloaded, &partitions, histograms, samples, settings, progress)?
        }
        false => Calibration::default(),
    };
    let model = offloaded.load()?;
    if let Some(budget) = settings.max_error {
        let forms = (&mut int16, &mut float_reasons);
        mixed_precision::search(&model, &calibration, forms, samples, budget, progress)?;
    }

    let (partitions, lowered) = assemble::lower(&model, &calibration, &int16, &mut float_reasons);
    let graph = graph_summary(&model, |index| {
        partitions.iter().position(|partition| partition.nodes.contains(&index))
    });
    let left_in_float = left_in_float(&model, &float_reasons);
    let int16 = match settings.int16 {
        Int16::All => Vec::new(),
        Int16::Nodes(_) => int16_layers(&model, &int16),
    };
    let within = partitions.iter().flat_map(|partition| &partition.nodes);
    let greatest: Vec<i32> = within.map(|index| weights::max_magnitude(&model, *index)).collect();
    let rounded_weights = greatest.iter().filter(|size| **size > weights::MAX_MAGNITUDE).count();
    let nine_bits =
        greatest.iter().filter(|size| (128..=weights::MAX_MAGNITUDE).contains(size)).count();
    if nine_bits > 0 {
        warnings.push(format!(
            "the weights of {nine_bits} layers need 9 bits after their zero points are subtracted \
             and are multiplied in two parts, which is slower; use symmetric weights of at most 127"
        ));
    }
    drop(model);
    calibration.weights.clear();
    let layers = layer_error::measure(&offloaded, &lowered, &calibration, &mut observer, measured)?;
    drop((calibration, observer));
    let model = assemble::assemble(offloaded.load()?, &partitions, lowered);
    Ok(Quantized { model, layers, graph, rounded_weights, left_in_float, int16, warnings })
}

/// Returns the nodes that the user keeps in float, and the unary element-wise ops that follow them.
fn kept(model: &Model, parts: &Parts, names: &[String]) -> Result<FloatReasons, Error> {
    let nodes = named(model, parts, "--keep-float", names)?;
    Ok(nodes.into_iter().map(|node| (node, FloatReason::KeepFloat)).collect())
}

fn int16_nodes(model: &Model, parts: &Parts, int16: &Int16) -> Result<Int16Nodes, Error> {
    let nodes = match int16 {
        Int16::All => (0..model.graph.nodes.len()).collect(),
        Int16::Nodes(names) => named(model, parts, "--int16", names)?,
    };
    Ok(nodes.into_iter().map(|node| (node, Int16Reason::Requested)).collect())
}

/// Returns the indices of the nodes with these names, and the unary element-wise ops after them.
/// All parts of a split layer have its name.
fn named(
    model: &Model,
    parts: &Parts,
    option: &str,
    names: &[String],
) -> Result<Vec<usize>, Error> {
    let whole_name = |name| parts.get(name).map_or(name, String::as_str);
    let mut found = Vec::new();
    for name in names {
        let nodes = &model.graph.nodes;
        let named = |index: &usize| {
            let node = &nodes[*index];
            let constant = matches!(node.operator, Operator::Constant(_));
            node.name == *name || (!constant && whole_name(&node.name) == name)
        };
        let before = found.len();
        for index in (0..nodes.len()).filter(named) {
            found.extend(mixed_precision::with_followers(model, index));
        }
        if found.len() == before {
            let others = nodes.iter().filter(|n| !matches!(n.operator, Operator::Constant(_)));
            let others = others.map(|node| whole_name(&node.name));
            let mut similar: Vec<&str> = others
                .filter(|other| {
                    let (a, b) = (other.to_lowercase(), name.to_lowercase());
                    a.contains(&b) || b.contains(&a)
                })
                .collect();
            similar.dedup();
            similar.truncate(5);
            return Err(Error::Options(format!(
                "{option} {name:?}: the model has no node with this name{}; `hardtack inspect \
                 --nodes` lists the nodes of a float bundle",
                match similar[..] {
                    [] => String::new(),
                    _ => format!(" (similar names: {})", similar.join(", ")),
                }
            )));
        }
    }
    Ok(found)
}

fn left_in_float(model: &Model, float_reasons: &FloatReasons) -> Vec<NodeReason> {
    let mut left: Vec<(&usize, &_)> = float_reasons.iter().collect();
    left.sort_by_key(|(index, reason)| (reason.follows_others(), **index));
    left.into_iter().map(|(index, reason)| node_reason(model, *index, reason)).collect()
}

/// Returns the layers among the int16 nodes, in execution order.
fn int16_layers(model: &Model, int16: &Int16Nodes) -> Vec<NodeReason> {
    let operator = |index: &usize| &model.graph.nodes[*index].operator;
    let layer = |index: &usize| matches!(operator(index), Operator::Conv(_) | Operator::Einsum(_));
    let mut layers: Vec<(&usize, &_)> = int16.iter().filter(|(index, _)| layer(index)).collect();
    layers.sort_by_key(|(index, _)| **index);
    layers.into_iter().map(|(index, reason)| node_reason(model, *index, reason)).collect()
}

fn node_reason(model: &Model, index: usize, reason: &impl ToString) -> NodeReason {
    let node = &model.graph.nodes[index];
    let (name, operator) = (node.name.clone(), node.operator.name().into());
    NodeReason { node: name, operator, reason: reason.to_string() }
}
