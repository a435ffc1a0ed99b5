//! Bit allocation: coarser steps for weights whose entropy must shrink for the compressed bundle.
//!
//! The total error is least if the noise that each layer adds to its output, relative to that
//! output, is proportional to the number of its weights: then one more bit reduces the total error
//! equally in every layer (reverse water-filling; Cover and Thomas, "Elements of Information
//! Theory", 10.3). All weights of a layer share one step: uniform steps with entropy coding are
//! within a quarter bit of the optimum (Gish and Pierce, "Asymptotically Efficient Quantizing",
//! 1968).

use std::collections::HashMap;

use hardtack::internal::Model;
use hardtack_bundle::graph::ValueId;

use crate::quantize::statistics::histogram::Histogram;
use crate::quantize::weights::Values;
use crate::quantize::weights::linear::Linear;

/// The number of bisection steps in the search for the noise level.
const HALVINGS: usize = 40;

/// The number of weights sampled from a matrix to estimate its entropy.
const SAMPLED: usize = 1 << 16;

/// The weights of one layer in a bit allocation.
pub(crate) struct AllocatedLayer {
    /// All weights, or a strided sample of them.
    weights: Vec<f32>,
    /// The number of weights in the layer.
    count: usize,
    /// The step at which the rounding noise in the layer's output equals the output's energy.
    unit_step: f64,
}

/// Returns the step of each layer's weights, by node index, for an average entropy of `bits` per
/// weight.
pub(crate) fn steps(
    model: &Model,
    layers: &[usize],
    histograms: &HashMap<ValueId, Histogram>,
    bits: f64,
) -> HashMap<usize, f32> {
    let (nodes, layers): (Vec<usize>, Vec<AllocatedLayer>) = layers
        .iter()
        .filter_map(|node| Some((*node, AllocatedLayer::of_layer(model, *node, histograms)?)))
        .unzip();
    nodes.into_iter().zip(allocate(&layers, bits)).collect()
}

/// Returns the step of each layer for an average entropy of `bits` per weight.
pub(crate) fn allocate(layers: &[AllocatedLayer], bits: f64) -> Vec<f32> {
    let count: usize = layers.iter().map(|layer| layer.count).sum();
    let step = |layer: &AllocatedLayer, noise: f64| {
        layer.unit_step * (noise * layer.count as f64 / count as f64).sqrt()
    };
    let mean = |noise: f64| {
        let all = layers
            .iter()
            .map(|layer| layer.count as f64 * entropy(&layer.weights, step(layer, noise)));
        all.sum::<f64>() / count.max(1) as f64
    };
    // The logarithm of the noise. The entropy falls as the noise grows.
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

impl AllocatedLayer {
    fn of_layer(
        model: &Model,
        node: usize,
        histograms: &HashMap<ValueId, Histogram>,
    ) -> Option<AllocatedLayer> {
        let linear = Linear::of(model, node).ok()?;
        let Values::Float(weights) = linear.weights.values else { return None };
        let output = histograms.get(&ValueId { node: node as u32, output: 0 })?.mean_square();
        let input = histograms.get(&linear.input)?.mean_square();
        // Rounding adds an error of variance step²/12 to each weight.
        let unit = linear.weights.depth as f64 * input / 12.0;
        let unit_step = (output / unit.max(f64::MIN_POSITIVE)).sqrt();
        let count = weights.len();
        (unit_step.is_finite() && unit_step > 0.0).then_some(AllocatedLayer {
            weights,
            count,
            unit_step,
        })
    }

    /// A matrix with unknown inputs, which are assumed uncorrelated and of equal energy.
    pub(crate) fn of_matrix(weights: &[f32]) -> AllocatedLayer {
        let count = weights.len();
        let squares: f64 = weights.iter().map(|weight| f64::from(*weight).powi(2)).sum();
        let unit_step = (12.0 * squares / count as f64).sqrt().max(f64::from(f32::MIN_POSITIVE));
        let weights = weights.iter().copied().step_by(count.div_ceil(SAMPLED) | 1).collect();
        AllocatedLayer { weights, count, unit_step }
    }
}

/// Returns the entropy of weights rounded to multiples of `step`, in bits per weight.
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
    fn entropy_counts_distinct_integers() {
        assert_eq!(entropy(&[0.1, 0.9, 2.1, 3.0], 1.0), 2.0);
        assert_eq!(entropy(&[0.1, -0.2, 0.3, 0.4], 1.0).abs(), 0.0);
        let weights: Vec<f32> = (0..4096).map(|i| (i as f32 - 2048.0) / 2048.0).collect();
        assert!((entropy(&weights, 2.0 / 16.0) - 4.0).abs() < 0.1);
    }
}
