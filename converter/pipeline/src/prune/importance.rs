//! The importance of each channel: the error that its removal leaves in the layers that read it,
//! after these compensate with the remaining channels.
//!
//! With weights `W` over inputs of covariance `H`, removing channel `c` costs `Wc·([H⁻¹]cc)⁻¹·Wcᵀ`:
//! Frantar and Alistarh, "Optimal Brain Compression", 2022, applied to channels instead of weights.
//! The elements of a window are assumed to be independent, so `H` has only one row per channel.

use std::collections::HashMap;

use hardtack::internal::Model;
use hardtack_bundle::graph::ValueId;

use super::flow::Flow;
use super::groups::Group;
use super::matrix::{add_products, cholesky, dot, inverse, solve};
use super::patches::Channelwise;
use super::second_order::{Covariance, SecondOrder};
use crate::activations::Observer;
use crate::error::Error;
use crate::graph::channels::{Layer, Unit};
use crate::graph::constants::float_tensor;
use crate::samples::{SampleSource, each};

/// The maximum number of positions used per sample.
const PLACES: usize = 256;
/// The ridge added to the diagonal of covariances, as a fraction of its mean.
const RIDGE: f64 = 1e-3;

/// The removal order of a group's units, and the resulting error.
pub(super) struct Curve {
    /// The units, in the order of removal.
    pub order: Vec<Unit>,
    /// Element `n` is the error after the first `n` units are removed: the sum over the layers that
    /// read the group, each as a fraction of its output's variance.
    pub loss: Vec<f64>,
}

/// Computes the covariance of the layers' input channels over the samples.
///
/// # Errors
/// Returns an error if the model cannot be run on a sample.
pub(super) fn covariances(
    model: &Model,
    layers: &[&Layer],
    samples: &dyn SampleSource,
    progress: &mut dyn FnMut(usize),
) -> Result<HashMap<ValueId, Covariance>, Error> {
    let mut observer = Observer::new(model, layers.iter().map(|layer| layer.input));
    let mut second_order: HashMap<ValueId, SecondOrder> = HashMap::new();
    for (index, sample) in each(samples).enumerate() {
        observer.run(&sample?, |value_id, shape, values| {
            let Some(layer) = layers.iter().find(|layer| layer.input == value_id) else { return };
            let size = (layer.reads.len(), 0);
            let axis = layer.channel_axes.0;
            let Some(input) = Channelwise::new(shape, values, axis) else { return };
            let second_order =
                second_order.entry(value_id).or_insert_with(|| SecondOrder::new(size));
            for place in spread(input.places(), PLACES, index) {
                second_order.add(|x, _| x.extend(input.at(place)));
            }
        })?;
        progress(index + 1);
    }
    Ok(second_order
        .into_iter()
        .map(|(value_id, second_order)| (value_id, second_order.finish(true)))
        .collect())
}

/// Returns at most `most` positions, evenly spaced, with another offset for each sample.
pub(super) fn spread(places: usize, most: usize, sample: usize) -> impl Iterator<Item = usize> {
    let step = places.div_ceil(most.max(1)).max(1);
    (sample * 7 % step..places).step_by(step)
}

/// Computes the removal order and errors of a group's channels by greedy elimination.
pub(super) fn curve(
    model: &Model,
    flow: &Flow,
    group: &Group,
    covariances: &HashMap<ValueId, Covariance>,
) -> Option<Curve> {
    let mut readers = group
        .readers
        .iter()
        .map(|layer| {
            let layer = &flow.layers[*layer];
            Reader::new(model, layer, covariances.get(&layer.input)?)
        })
        .collect::<Option<Vec<_>>>()?;
    let mut left = group.units.clone();
    let (mut order, mut loss) = (Vec::new(), vec![0.0]);
    while left.len() > 1 {
        let cost = |unit: Unit| readers.iter().map(|reader| reader.cost(unit)).sum::<f64>();
        let costs: Vec<f64> = left.iter().map(|unit| cost(*unit)).collect();
        let least = (0..left.len()).min_by(|a, b| costs[*a].total_cmp(&costs[*b]))?;
        let unit = left.remove(least);
        readers.iter_mut().for_each(|reader| reader.remove(unit));
        order.push(unit);
        loss.push(loss.last().copied().unwrap_or(0.0) + costs[least].max(0.0));
    }
    Some(Curve { order, loss })
}

/// A layer whose input channels are removed one after another.
struct Reader {
    reads: Vec<Unit>,
    /// `WᵀW`, for each pair of input channels.
    weights: Vec<f64>,
    /// The inverse covariance of the remaining channels.
    inverse: Vec<f64>,
    /// The variance of the output.
    variance: f64,
}

impl Reader {
    fn new(model: &Model, layer: &Layer, covariance: &Covariance) -> Option<Reader> {
        let inputs = layer.reads.len();
        let kernel = Channelwise::of(float_tensor(model, layer.kernel(model))?, layer.axes.1)?;
        let rows: Vec<f32> = (0..kernel.places()).flat_map(|place| kernel.at(place)).collect();
        let mut weights = vec![0.0; inputs * inputs];
        add_products(&rows, &rows, (inputs, inputs), &mut weights);
        let variance = dot(&weights, &covariance.xx).max(f64::MIN_POSITIVE);
        let inverse = inverse(&covariance.factor(RIDGE)?, inputs);
        Some(Reader { reads: layer.reads.clone(), weights, inverse, variance })
    }

    /// Returns the input channels of a unit.
    fn places(&self, unit: Unit) -> Vec<usize> {
        (0..self.reads.len()).filter(|place| self.reads[*place] == unit).collect()
    }

    /// Returns the Cholesky factor of the inverse covariance's block for these channels.
    fn block(&self, places: &[usize]) -> Option<Vec<f64>> {
        let size = self.reads.len();
        let block = places.iter().flat_map(|i| places.iter().map(move |j| (i, j)));
        cholesky(block.map(|(i, j)| self.inverse[i * size + j]).collect(), places.len())
    }

    fn cost(&self, unit: Unit) -> f64 {
        let (places, size) = (self.places(unit), self.reads.len());
        let Some(block) = self.block(&places) else { return f64::INFINITY };
        let diagonal = places.iter().enumerate().map(|(at, i)| {
            let mut line: Vec<f64> = places.iter().map(|j| self.weights[i * size + j]).collect();
            solve(&block, &mut line);
            line[at]
        });
        diagonal.sum::<f64>() / self.variance
    }

    /// Removes a unit, and updates the weights and the inverse covariance of the other channels.
    fn remove(&mut self, unit: Unit) {
        let (places, size) = (self.places(unit), self.reads.len());
        let Some(block) = self.block(&places) else { return };
        let lines: Vec<Vec<f64>> =
            places.iter().map(|place| self.inverse[place * size..][..size].to_vec()).collect();
        let take = |row: &mut [f64]| {
            let mut parts: Vec<f64> = places.iter().map(|place| row[*place]).collect();
            solve(&block, &mut parts);
            for (part, line) in parts.iter().zip(&lines) {
                row.iter_mut().zip(line).for_each(|(value, other)| *value -= part * other);
            }
            places.iter().for_each(|place| row[*place] = 0.0);
        };
        for _ in 0..2 {
            self.weights.chunks_exact_mut(size).for_each(take);
            transpose(&mut self.weights, size);
        }
        self.inverse.chunks_exact_mut(size).for_each(take);
        // Keep the inverse positive definite.
        places.iter().for_each(|place| self.inverse[place * size + place] = 1.0);
    }
}

fn transpose(matrix: &mut [f64], size: usize) {
    for i in 0..size {
        for j in 0..i {
            matrix.swap(i * size + j, j * size + i);
        }
    }
}
