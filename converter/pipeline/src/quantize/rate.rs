//! Coarser steps for weights that are to take fewer bits where a bundle is shipped.
//!
//! Of all ways to spend a number of bits, the one with the least error makes the noise that each
//! layer adds to its output, as a part of that output, proportional to the number of its weights:
//! then a bit more or less changes the whole error alike everywhere (reverse water-filling; Cover and
//! Thomas, "Elements of Information Theory", 10.3). Within a layer all weights have one step, as
//! uniform steps with entropy coding are within a quarter bit of the best there is (Gish and Pierce,
//! "Asymptotically Efficient Quantizing", 1968).

use std::collections::HashMap;

use hardtack::Model;
use hardtack_bundle::graph::Outlet;

use super::histogram::Histogram;
use super::lower::linear::Linear;
use super::weights::Values;

/// Halvings of the interval in which the noise is sought.
const HALVINGS: usize = 40;

/// Weights whose entropy stands for that of a matrix.
const SAMPLED: usize = 1 << 16;

/// Weights that share a number of bits with others.
pub struct Spent {
    /// The weights, or every so many of them.
    weights: Vec<f32>,
    /// How many there are in all.
    count: usize,
    /// The step at which they make as much noise as their output is loud.
    loud: f64,
}

/// The step of each layer's weights, by its node, so that together they take this many bits each in
/// the mean.
pub fn steps(
    model: &Model,
    layers: &[usize],
    histograms: &HashMap<Outlet, Histogram>,
    bits: f64,
) -> HashMap<usize, f32> {
    let (nodes, layers): (Vec<usize>, Vec<Spent>) = layers
        .iter()
        .filter_map(|node| Some((*node, Spent::of_layer(model, *node, histograms)?)))
        .unzip();
    nodes.into_iter().zip(spread(&layers, bits)).collect()
}

/// The step of each, so that together they take this many bits a weight in the mean.
pub fn spread(layers: &[Spent], bits: f64) -> Vec<f32> {
    let count: usize = layers.iter().map(|layer| layer.count).sum();
    let step =
        |layer: &Spent, noise: f64| layer.loud * (noise * layer.count as f64 / count as f64).sqrt();
    let mean = |noise: f64| {
        let all = layers
            .iter()
            .map(|layer| layer.count as f64 * entropy(&layer.weights, step(layer, noise)));
        all.sum::<f64>() / count.max(1) as f64
    };
    // Logarithms of the noise: entropy falls as it grows.
    let (mut low, mut high) = (-30.0f64, 10.0f64);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        match mean(middle.exp()) > bits {
            true => low = middle,
            false => high = middle,
        }
    }
    layers.iter().map(|layer| step(layer, high.exp()) as f32).collect()
}

impl Spent {
    fn of_layer(
        model: &Model,
        node: usize,
        histograms: &HashMap<Outlet, Histogram>,
    ) -> Option<Spent> {
        let linear = Linear::of(model, node).ok()?;
        let Values::Real(weights) = linear.weights.values else { return None };
        let output = histograms.get(&Outlet { node: node as u32, slot: 0 })?.mean_square();
        let input = histograms.get(&linear.input)?.mean_square();
        // Rounding makes an error of a twelfth of a squared step in each weight.
        let unit = linear.weights.depth as f64 * input / 12.0;
        let loud = (output / unit.max(f64::MIN_POSITIVE)).sqrt();
        let count = weights.len();
        (loud.is_finite() && loud > 0.0).then_some(Spent { weights, count, loud })
    }

    /// Of a matrix whose inputs are not known: they are taken for alike and independent.
    pub fn alone(weights: &[f32]) -> Spent {
        let count = weights.len();
        let squares: f64 = weights.iter().map(|weight| f64::from(*weight).powi(2)).sum();
        let loud = (12.0 * squares / count as f64).sqrt().max(f64::from(f32::MIN_POSITIVE));
        let weights = weights.iter().copied().step_by(count.div_ceil(SAMPLED) | 1).collect();
        Spent { weights, count, loud }
    }
}

/// Bits of a weight in the mean, in steps of this size.
fn entropy(weights: &[f32], step: f64) -> f64 {
    let mut counts: HashMap<i64, usize> = HashMap::new();
    for weight in weights {
        *counts.entry((f64::from(*weight) / step).round_ties_even() as i64).or_default() += 1;
    }
    let all = weights.len() as f64;
    let part = |count: &usize| *count as f64 / all;
    -counts.values().map(|count| part(count) * part(count).log2()).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_counts_what_differs() {
        assert_eq!(entropy(&[0.1, 0.9, 2.1, 3.0], 1.0), 2.0);
        assert_eq!(entropy(&[0.1, -0.2, 0.3, 0.4], 1.0).abs(), 0.0);
        let weights: Vec<f32> = (0..4096).map(|i| (i as f32 - 2048.0) / 2048.0).collect();
        assert!((entropy(&weights, 2.0 / 16.0) - 4.0).abs() < 0.1);
    }
}
