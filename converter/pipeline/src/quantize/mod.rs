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
mod output_error;
mod partition;
mod prelu;
pub(crate) mod rounding;
mod scale;
mod statistics;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::HashMap;

use hardtack::internal::Model;
use hardtack_bundle::graph::{Operator, ValueId};

use self::calibrate::Calibration;
use self::calibrate::range::ChosenRange;
use self::equalize::Parts;
use self::float_reason::{FloatReason, Int16Reason};
use self::lower::assemble;
use self::output_error::{OutputError, Reference};
use self::partition::{FloatReasons, Int16Nodes, Partition};
use self::statistics::histogram::Histogram;
use crate::activations::Observer;
use crate::error::Error;
use crate::graph::constants::variable_inputs;
use crate::graph::rewriter::Rewriter;
use crate::graph::summary::graph_summary;
use crate::offloaded_model::{ModelSource, OffloadedModel};
use crate::options::quantize::{Equalize, Int16, QuantizeOptions, RangeMethod};
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
    let mut attempt =
        Attempt { samples, measured, calibration, settings, mixed: settings.max_error.is_some() };
    let first = attempt.quantize(source.load()?, progress)?;
    let exceeds = |error: &OutputError| !attempt.mixed && error.excess > 1.0;
    let Some(error) = first.error.filter(exceeds) else {
        return Ok(first);
    };
    let departs = departing(&first.layers, error.relative / error.excess);
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
    attempt.mixed = true;
    let mut repaired = attempt.quantize(source.load()?, progress)?;
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

/// Returns the first layer whose relative error exceeds `limit`.
fn departing(layers: &[LayerReport], limit: f64) -> Option<&LayerReport> {
    layers.iter().find(|layer| layer.sqnr_db < -20.0 * limit.log10())
}

/// One quantization of a model.
struct Attempt<'a> {
    samples: &'a dyn SampleSource,
    measured: &'a dyn SampleSource,
    calibration: bool,
    settings: &'a QuantizeOptions,
    /// Whether layers may use int16 or stay in float to make the outputs more accurate.
    mixed: bool,
}

impl Attempt<'_> {
    fn quantize(
        &self,
        model: Model,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Quantized, Error> {
        let Attempt { samples, measured, settings, .. } = *self;
        let (model, parts) = self.equalized(model, progress)?;
        let mut float_reasons = kept(&model, &parts, &settings.keep_float)?;
        if self.calibration && !settings.strict_int8 {
            float_reasons.extend(partition::dense_scores(&model));
        }
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
        let mut reference = match self.calibration && !partitions.is_empty() {
            true => Some(Reference::new(&model, samples, settings.max_error)?),
            false => None,
        };
        let offloaded = OffloadedModel::new(model)?;
        let mut observer = Observer::new(&offloaded, values);
        let choice = RangeChoice { int16: &int16, float_reasons: &float_reasons };
        let (mut calibration, warning) = match self.calibration {
            true => {
                let of = (&offloaded, &partitions[..]);
                self.calibrated(of, &mut observer, &choice, reference.as_ref(), progress)?
            }
            false => Default::default(),
        };
        let mut warnings: Vec<String> = warning.into_iter().collect();
        let model = offloaded.load()?;
        if let Some(reference) = reference.as_mut().filter(|_| self.mixed) {
            let forms = (&mut int16, &mut float_reasons);
            let reference = (reference, settings.allows_int16_weights());
            mixed_precision::search(&model, &calibration, forms, reference, progress)?;
        }

        let (partitions, lowered) =
            assemble::lower(&model, &calibration, &int16, &mut float_reasons);
        let graph = graph_summary(&model, |index| {
            partitions.iter().position(|partition| partition.nodes.contains(&index))
        });
        let left_in_float = left_in_float(&model, &float_reasons);
        let int16 = match settings.int16 {
            Int16::All => Vec::new(),
            Int16::Nodes(_) => int16_layers(&model, &int16),
        };
        let within = partitions.iter().flat_map(|partition| &partition.nodes);
        let (rounded_weights, warning) = wide_weights(&model, within);
        warnings.extend(warning);
        drop(model);
        calibration.weights.clear();
        calibration.quantized.take();
        let layers =
            layer_error::measure(&offloaded, &lowered, &calibration, &mut observer, measured)?;
        drop((calibration, observer));
        let model = assemble::assemble(offloaded.load()?, &partitions, lowered);
        let error = reference.map(|reference| reference.compare(&model)).transpose()?;
        Ok(Quantized {
            model,
            layers,
            graph,
            rounded_weights,
            left_in_float,
            int16,
            warnings,
            error,
        })
    }
}

impl Attempt<'_> {
    fn may_use_int16(&self) -> bool {
        self.mixed || self.settings.int16 != Int16::default()
    }

    /// Fuses and equalizes a model. Also returns the parts of split layers.
    fn equalized(
        &self,
        model: Model,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(Model, Parts), Error> {
        let mut rewriter = Rewriter::new(model);
        fuse::fuse(&mut rewriter);
        prelu::rewrite(&mut rewriter);
        let model = rewriter.finish();
        if !self.calibration || self.settings.equalize == Equalize::Off {
            return Ok((model, Parts::new()));
        }
        let placement = match self.may_use_int16() {
            true => equalize::flow::FactorPlacement::AfterGate,
            false => equalize::flow::FactorPlacement::BeforeGate,
        };
        equalize::equalize(model, self.samples, placement, progress)
    }

    /// Measures activations and chooses ranges and weights. Also returns a warning about the data.
    fn calibrated(
        &self,
        (model, partitions): (&OffloadedModel, &[Partition]),
        observer: &mut Observer<'_>,
        choice: &RangeChoice<'_>,
        reference: Option<&Reference<'_>>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(Calibration, Option<String>), Error> {
        let Attempt { samples, settings, .. } = *self;
        let statistics = calibrate::statistics(observer, model.graph(), samples, progress)?;
        observer.unload();
        let warning = statistics.warning(samples.count());
        let histograms = statistics.histograms;
        let method = (settings.method, self.may_use_int16());
        let ranges = choice.ranges(model, &histograms, method, reference)?;
        let chosen = (histograms, ranges);
        let calibration = Calibration::new(model, partitions, chosen, samples, settings, progress)?;
        Ok((calibration, warning))
    }
}

/// Chooses the method of the activation ranges.
struct RangeChoice<'a> {
    int16: &'a Int16Nodes,
    float_reasons: &'a FloatReasons,
}

impl RangeChoice<'_> {
    /// Returns the ranges of `method`. For [`RangeMethod::Auto`], those with the more accurate
    /// outputs of two: ranges that clip nothing that changes a result, and those with the least
    /// squared error. Weights are rounded to nearest for this.
    fn ranges(
        &self,
        model: &dyn ModelSource,
        histograms: &HashMap<ValueId, Histogram>,
        (method, may_use_int16): (RangeMethod, bool),
        reference: Option<&Reference<'_>>,
    ) -> Result<HashMap<ValueId, ChosenRange>, Error> {
        let model = model.load()?;
        let ranges = |method| calibrate::ranges(&model, histograms, method, may_use_int16);
        let Some(reference) = reference.filter(|_| method == RangeMethod::Auto) else {
            return Ok(ranges(method));
        };
        let judged = |method| {
            let ranges = ranges(method);
            let calibration = Calibration { ranges, ..Calibration::default() };
            let mut float_reasons = self.float_reasons.clone();
            let quantized =
                assemble::quantized(&model, &calibration, self.int16, &mut float_reasons);
            Ok::<_, Error>((reference.compare(&quantized)?, calibration.ranges))
        };
        let (whole, clipped) = (judged(RangeMethod::Auto)?, judged(RangeMethod::Mse)?);
        Ok(match clipped.0.is_better_than(&whole.0) {
            true => clipped.1,
            false => whole.1,
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
    let activations = nodes.into_iter().map(|node| (node, Int16Reason::Requested)).collect();
    Ok(Int16Nodes { activations, ..Int16Nodes::default() })
}

/// Returns the indices of the nodes with these names, and the unary element-wise ops after them.
/// All parts of a split layer have its name. `name` also stands for the nodes named `name.suffix`.
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
            let part = whole_name(&node.name).strip_prefix(name.as_str());
            let is_part = part.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            node.name == *name || (!constant && is_part)
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
