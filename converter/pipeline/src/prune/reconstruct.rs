//! Refits layers to compensate for removed channels: layer by layer, least squares over calibration
//! data from the pruned model's inputs to the original model's outputs.
//!
//! He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", 2017.

use hardtack::internal::{Constant, Model};
use hardtack::{Data, Tensor};
use hardtack_bundle::graph::{Binary, Operator, ValueId};

use super::flow::{Flow, follow};
use super::importance::spread;
use super::matrix::{dot, solve};
use super::patches::{Channelwise, Patches};
use super::second_order::{Covariance, SecondOrder};
use crate::activations::Observer;
use crate::error::Error;
use crate::graph::channels::Layer;
use crate::graph::constants::float_tensor;
use crate::graph::rewriter::Rewriter;
use crate::graph::shape::strides;
use crate::samples::{SampleSource, each};

/// The number of output positions used per weight of an output channel.
const PLACES: usize = 32;
/// The ridge added to the diagonal of covariances, as a fraction of its mean.
const RIDGE: f64 = 1e-2;

/// The result of refitting one layer.
#[derive(Debug)]
pub(super) struct Refit {
    /// The index of the layer in [`Flow::layers`].
    pub layer: usize,
    /// The squared error of the layer's output, as a fraction of its variance.
    pub error: f64,
    /// The number of output positions used per weight of an output channel: equations per unknown.
    pub places: f64,
}

/// Refits the weights of all layers from the first that lost inputs, except grouped convolutions.
///
/// # Errors
/// Returns an error if a model cannot be run on a sample.
pub(super) fn reconstruct(
    original: &Model,
    flow: &Flow,
    kept: &[bool],
    mut pruned: Model,
    samples: &dyn SampleSource,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Model, Vec<Refit>), Error> {
    let lost = |layer: &Layer| layer.reads.iter().any(|unit| !kept[*unit]);
    let first = flow.layers.iter().position(lost).unwrap_or(flow.layers.len());
    let mut refits = Vec::new();
    for index in first..flow.layers.len() {
        progress(index - first, flow.layers.len() - first);
        if flow.layers[index].groups > 1 {
            continue;
        }
        let smaller = follow(&pruned);
        let pair = Pair {
            original,
            before: &flow.layers[index],
            pruned: &pruned,
            after: &smaller.layers[index],
            kept,
        };
        let Some(fitted) = pair.fit(samples)? else { continue };
        refits.push(Refit { layer: index, error: fitted.error, places: fitted.places });
        pruned = pair.with(fitted);
    }
    Ok((pruned, refits))
}

/// A layer in the original and the pruned model.
struct Pair<'m> {
    original: &'m Model,
    before: &'m Layer,
    pruned: &'m Model,
    after: &'m Layer,
    kept: &'m [bool],
}

/// New weights, one row per output channel, and the offset for the bias.
struct Fitted {
    rows: Vec<f64>,
    offset: Vec<f64>,
    error: f64,
    places: f64,
}

impl Pair<'_> {
    fn fit(&self, samples: &dyn SampleSource) -> Result<Option<Fitted>, Error> {
        let (before, after) = (self.before, self.after);
        let Some(kernel) = float_tensor(self.pruned, after.kernel(self.pruned)) else {
            return Ok(None);
        };
        let outputs = after.makes.len();
        let inputs = kernel.len() / outputs.max(1);
        let mut first = Observer::new(self.original, [before.output()]);
        let mut second = Observer::new(self.pruned, [after.output(), after.input]);
        let mut second_order = SecondOrder::new((inputs, outputs));
        let places = (PLACES * inputs).div_ceil(samples.count());
        for (index, sample) in each(samples).enumerate() {
            let sample = sample?;
            let wanted = first.values(&sample, |value_id| value_id == before.output())?;
            let given = second.values(&sample, |_| true)?;
            let (Some(wanted), Some(input), Some(output)) =
                (wanted.get(&before.output()), given.get(&after.input), given.get(&after.output()))
            else {
                return Ok(None);
            };
            let (Some(wanted), Some(patches)) = (
                Channelwise::of(wanted, before.channel_axes.1),
                Patches::new(self.pruned, after, input, output),
            ) else {
                return Ok(None);
            };
            for place in spread(patches.places(), places, index) {
                second_order.add(|x, y| {
                    patches.append(place, x);
                    let both = wanted.at(place).zip(&before.makes);
                    y.extend(both.filter(|(_, unit)| self.kept[**unit]).map(|(value, _)| value));
                });
            }
        }
        let second_order = second_order.finish(self.bias().is_some());
        Ok(solved(&second_order, &self.rows(kernel)))
    }

    /// Returns the weights in rows of output channels, ordered by input channel and window element.
    fn rows(&self, kernel: &Tensor) -> Vec<f64> {
        let places = places(kernel.shape(), self.after.axes);
        let values = kernel.as_f32().expect("layers have weights of f32");
        places.iter().map(|place| f64::from(values[*place])).collect()
    }

    /// Returns the location of the bias, as (node, input index).
    fn bias(&self) -> Option<(usize, usize)> {
        bias(self.pruned, self.after)
    }

    /// Returns the pruned model with the new weights.
    fn with(&self, fitted: Fitted) -> Model {
        let mut rewriter = Rewriter::new(self.pruned.clone());
        let kernel =
            float_tensor(self.pruned, self.after.kernel(self.pruned)).expect("fitted before");
        let mut values = vec![0f32; kernel.len()];
        let places = places(kernel.shape(), self.after.axes);
        places.iter().zip(&fitted.rows).for_each(|(place, weight)| values[*place] = *weight as f32);
        set(&mut rewriter, (self.after.node, self.after.weights), kernel.shape(), values);
        if let Some((node, input)) = self.bias() {
            let old = float_tensor(self.pruned, self.pruned.graph.nodes[node].inputs[input]);
            let old = old.expect("found to be constant");
            let is_conv = node == self.after.node;
            let value = |(channel, offset): (usize, &f64)| {
                let old = f64::from(
                    old.as_f32().expect("of f32")[if old.len() == 1 { 0 } else { channel }],
                );
                // The fitted output of a convolution includes its bias, so the offset replaces it.
                (if is_conv { *offset } else { old + offset }) as f32
            };
            let values: Vec<f32> = fitted.offset.iter().enumerate().map(value).collect();
            let shape = if old.len() == 1 { vec![values.len()] } else { old.shape().to_vec() };
            set(&mut rewriter, (node, input), &shape, values);
        }
        rewriter.finish()
    }
}

fn set(rewriter: &mut Rewriter, (node, input): (usize, usize), shape: &[usize], values: Vec<f32>) {
    let name = format!("{}.{input}.fitted", rewriter.node(node).name);
    let tensor = Tensor::new(shape, Data::F32(values)).expect("as many as before");
    let constant = rewriter.add_constant(name, Constant::Tensor(tensor.into()));
    rewriter.model.graph.nodes[node].inputs[input] = constant;
}

/// Returns the offsets of a kernel's weights, by output channel, input channel and window element.
fn places(shape: &[usize], (output, input): (usize, usize)) -> Vec<usize> {
    let strides = strides(shape);
    let mut places = vec![0];
    let others = (0..shape.len()).filter(|axis| *axis != output && *axis != input);
    for axis in [output, input].into_iter().chain(others) {
        let stride = strides[axis];
        let steps = |place: usize| (0..shape[axis]).map(move |at| place + at * stride);
        places = places.into_iter().flat_map(steps).collect();
    }
    places
}

/// Returns the location of a layer's constant bias, as (node, input index). For a matmul, it is the
/// other operand of an addition that is the only reader of the output.
fn bias(model: &Model, layer: &Layer) -> Option<(usize, usize)> {
    if let Operator::Conv(_) = model.graph.nodes[layer.node].operator {
        return Some((layer.node, 2));
    }
    let (node, input) = added(model, layer.output())?;
    let constant = float_tensor(model, model.graph.nodes[node].inputs[input])?;
    let channels = constant.shape().get(layer.channel_axes.1) == Some(&layer.makes.len());
    (channels && constant.len() == layer.makes.len()).then_some((node, input))
}

/// Returns the addition that is the only reader of a value, and the index of its other operand.
fn added(model: &Model, value_id: ValueId) -> Option<(usize, usize)> {
    let graph = &model.graph;
    let mut readers = graph.nodes.iter().enumerate().flat_map(|(index, node)| {
        let reads = node.inputs.iter().enumerate().filter(|(_, input)| **input == value_id);
        reads.map(move |(at, _)| (index, at))
    });
    let (node, at) = readers.next().filter(|_| !graph.outputs.contains(&value_id))?;
    let sum = graph.nodes[node].operator == Operator::Binary(Binary::Add);
    (readers.next().is_none() && sum).then_some((node, 1 - at))
}

/// Solves for the rows that best reproduce the wanted outputs, starting from `old`. Returns `None`
/// if the system cannot be solved.
fn solved(second_order: &Covariance, old: &[f64]) -> Option<Fitted> {
    let (inputs, outputs) = second_order.size;
    let places = second_order.count / inputs.max(1) as f64;
    let factor = second_order.factor(RIDGE)?;
    let mut rows = old.to_vec();
    let mut explained = 0.0;
    for (output, row) in rows.chunks_exact_mut(inputs).enumerate() {
        let wanted = |input: usize| second_order.xy[input * outputs + output];
        let line = |input: usize| &second_order.xx[input * inputs..][..inputs];
        let mut change: Vec<f64> =
            (0..inputs).map(|input| wanted(input) - dot(line(input), row)).collect();
        solve(&factor, &mut change);
        row.iter_mut().zip(&change).for_each(|(weight, change)| *weight += change);
        let twice =
            (0..inputs).map(|input| row[input] * (2.0 * wanted(input) - dot(line(input), row)));
        explained += twice.sum::<f64>();
    }
    if !rows.iter().all(|weight| weight.is_finite()) {
        return None;
    }
    let offset = |(row, mean): (&[f64], &f64)| mean - dot(row, &second_order.means.0);
    let offset = rows.chunks_exact(inputs).zip(&second_order.means.1).map(offset).collect();
    let error = (second_order.yy - explained).max(0.0) / second_order.yy.max(f64::MIN_POSITIVE);
    Some(Fitted { rows, offset, error, places })
}
