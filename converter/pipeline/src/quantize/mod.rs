//! Post-training static quantization to INT8.
//!
//! Activations get one scale per tensor, from their range over calibration data, and weights one
//! scale per output channel. As much of the graph as possible becomes programs of the engine.
//!
//! The scheme is that of Jacob et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference", 2018.

pub(crate) mod arena;
mod calibrate;
mod calibrated;
mod equalize;
pub(crate) mod float_reason;
mod function;
mod fuse;
pub(crate) mod integer_io;
mod layer_error;
mod lower;
mod mixed_precision;
mod named_nodes;
mod operators;
mod output_error;
mod partition;
mod prelu;
pub(crate) mod rounding;
mod scale;
mod statistics;
#[cfg(test)]
mod tests;
mod weights;
mod work;

use hardtack::internal::Model;
use hardtack_bundle::graph::Operator;

use self::calibrated::Calibrated;
use self::float_reason::FloatReason;
use self::lower::assemble;
use self::output_error::OutputError;
use self::partition::{FloatReasons, Int16Nodes};
use crate::activations::Observer;
use crate::error::Error;
use crate::graph::summary::graph_summary;
use crate::offloaded_model::ModelSource;
use crate::options::quantize::{Int16, QuantizeOptions};
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
    /// Whether layers stay in float because INT8 and int16 are too inaccurate for them.
    pub needs_float: bool,
    /// Layers with int16 activations, with the reason; empty where all nodes use int16.
    pub int16: Vec<NodeReason>,
    /// Warnings about the calibration, the weights and the accuracy.
    pub warnings: Vec<String>,
    /// The error of the outputs over calibration data, if there are any.
    pub error: Option<OutputError>,
}

impl Quantized {
    /// Returns the number of layers that the error budget keeps in float.
    fn layers_in_float(&self) -> usize {
        let layer = |left: &&NodeReason| ["Conv", "Einsum"].contains(&left.operator.as_str());
        self.left_in_float.iter().filter(layer).count()
    }
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
/// `samples`. Without it, nodes that would need such a scale stay in float. If the outputs of the
/// INT8 model differ too much from the float model's on `samples`, the layers that cause most of
/// the difference use 16-bit activations or stay in float. `progress` is called with the number of
/// completed steps and their total.
///
/// # Errors
/// Returns an error if settings conflict or name a missing node, if the model cannot be run on a
/// sample, if its values are not finite, or if INT8 alone is too inaccurate and the settings do not
/// allow anything else.
pub(crate) fn quantize(
    source: &dyn ModelSource,
    samples: &dyn SampleSource,
    measured: &dyn SampleSource,
    calibration: bool,
    settings: &QuantizeOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Quantized, Error> {
    settings.check()?;
    let task = Task { samples, measured, calibration, settings };
    let mixed = settings.max_error.is_some();
    let may_use_int16 = mixed || settings.int16 != Int16::default();
    let calibrated = Calibrated::new(&task, source.load()?, None, may_use_int16, progress)?;
    if mixed {
        return calibrated.quantize(true, progress);
    }
    let first = calibrated.quantize(false, progress)?;
    let Some(error) = first.error.filter(|error| error.excess > 1.0) else {
        return Ok(first);
    };
    let departs = departing(&first.layers, (error.relative / error.excess).max(DEPARTS));
    let problem = format!(
        "INT8 alone changes the outputs by {:.1} % (RMS, {:.1} dB) on the calibration data{}",
        100.0 * error.relative,
        -20.0 * error.relative.log10(),
        match departs {
            Some(layer) => format!(
                "; the first layer that departs is {:?} with {:.1} dB",
                layer.name, layer.sqnr_db
            ),
            None => String::new(),
        },
    );
    if settings.strict_int8 {
        return Err(Error::Accuracy(format!(
            "{problem}; omit --strict-int8 to use 16 bits or float where needed, or accept the \
             error with --max-error 100%"
        )));
    }
    // 16 bits cannot bring back what the user takes from the weights.
    if !settings.allows_int16_weights() {
        let mut first = first;
        first.warnings.push(format!(
            "{problem}; keep more of the weights or of their bits if that is too much"
        ));
        return Ok(first);
    }
    drop(first);
    let calibrated = match calibrated.suits_int16 {
        true => calibrated,
        false => {
            let reference = calibrated.reference.clone();
            drop(calibrated);
            Calibrated::new(&task, source.load()?, reference, true, progress)?
        }
    };
    let mut repaired = calibrated.quantize(true, progress)?;
    let after = repaired.error.map_or(0.0, |error| error.relative);
    repaired.warnings.push(format!(
        "{problem}; 16 bits in {} layers and float in {} layers reduce this to {:.1} %; \
         --max-error sets another limit",
        repaired.int16.len(),
        repaired.layers_in_float(),
        100.0 * after,
    ));
    Ok(repaired)
}

/// The least relative error of a layer that is named in a warning: 20 dB.
const DEPARTS: f64 = 0.1;

/// Returns the first layer whose relative error exceeds `limit`.
fn departing(layers: &[LayerReport], limit: f64) -> Option<&LayerReport> {
    layers.iter().find(|layer| layer.sqnr_db < -20.0 * limit.log10())
}

/// What [`quantize`] is asked to do.
struct Task<'a> {
    samples: &'a dyn SampleSource,
    measured: &'a dyn SampleSource,
    calibration: bool,
    settings: &'a QuantizeOptions,
}

impl Calibrated<'_> {
    /// Replaces partitions by programs. With `mixed`, layers may use int16 or stay in float to make
    /// the outputs more accurate.
    fn quantize(
        &self,
        mixed: bool,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Quantized, Error> {
        let Task { settings, measured, .. } = *self.task;
        let mut warnings: Vec<String> = self.warning.iter().cloned().collect();
        let (mut float_reasons, mut int16) = (self.float_reasons.clone(), self.int16.clone());
        let model = self.model.load()?;
        if let Some(reference) = self.reference.as_ref().filter(|_| mixed) {
            let forms = (&mut int16, &mut float_reasons);
            let reference = (reference, settings.allows_int16_weights());
            mixed_precision::search(&model, &self.calibration, forms, reference, progress)?;
        }
        let (partitions, lowered) =
            assemble::lower(&model, &self.calibration, &int16, &mut float_reasons);
        let graph = graph_summary(&model, |index| {
            partitions.iter().position(|partition| partition.nodes.contains(&index))
        });
        let left_in_float = left_in_float(&model, &float_reasons);
        let needs_float =
            float_reasons.values().any(|reason| matches!(reason, FloatReason::ErrorBudget(_)));
        let int16 = match settings.int16 {
            Int16::All => Vec::new(),
            Int16::Nodes(_) => int16_layers(&model, &int16),
        };
        let within = partitions.iter().flat_map(|partition| &partition.nodes);
        let (rounded_weights, warning) = wide_weights(&model, within);
        warnings.extend(warning);
        drop(model);
        self.calibration.quantized.take();
        let layers = layer_error::measure(
            &self.model,
            &lowered,
            &self.calibration,
            &mut Observer::new(&self.model, self.observed.iter().copied()),
            measured,
        )?;
        let model = assemble::assemble(self.model.load()?, &partitions, lowered);
        let error = self.reference.as_ref().map(|reference| reference.compare(&model));
        Ok(Quantized {
            model,
            layers,
            graph,
            rounded_weights,
            left_in_float,
            needs_float,
            int16,
            warnings,
            error: error.transpose()?,
        })
    }
}

/// Returns the number of layers whose integer weights had too many bits and were quantized again,
/// and a warning about those that are multiplied in two parts.
fn wide_weights<'n>(
    model: &Model,
    nodes: impl Iterator<Item = &'n usize>,
) -> (usize, Option<String>) {
    let greatest: Vec<i32> = nodes.map(|index| weights::max_magnitude(model, *index)).collect();
    let rounded_weights = greatest.iter().filter(|size| **size > weights::MAX_MAGNITUDE).count();
    let nine_bits =
        greatest.iter().filter(|size| (128..=weights::MAX_MAGNITUDE).contains(size)).count();
    let warning = (nine_bits > 0).then(|| {
        format!(
            "the weights of {nine_bits} layers need 9 bits after their zero points are subtracted \
             and are multiplied in two parts, which is slower; use symmetric weights of at most 127"
        )
    });
    (rounded_weights, warning)
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
    let all = int16.activations.iter();
    let mut layers: Vec<(&usize, &_)> = all.filter(|(index, _)| layer(index)).collect();
    layers.sort_by_key(|(index, _)| **index);
    layers.into_iter().map(|(index, reason)| node_reason(model, *index, reason)).collect()
}

fn node_reason(model: &Model, index: usize, reason: &impl ToString) -> NodeReason {
    let node = &model.graph.nodes[index];
    let (name, operator) = (node.name.clone(), node.operator.name().into());
    NodeReason { node: name, operator, reason: reason.to_string() }
}
