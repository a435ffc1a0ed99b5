//! The cost of layers, in MACs and bytes.

use hardtack::internal::Model;

use super::flow::Flow;
use crate::graph::channels::Unit;
use crate::graph::constants::float_tensor;
use crate::report::Price;
use crate::samples;

/// The cost of a model as a function of the kept channels.
pub(super) struct Cost {
    /// For each layer, the MACs and the number of weights per pair of input and output channel.
    layers: Vec<(f64, f64)>,
}

impl Cost {
    /// Computes the costs of a model, with small sizes for dynamic dimensions.
    pub(super) fn new(model: &Model, flow: &Flow) -> Cost {
        let pair = |layer: &crate::graph::channels::Layer| {
            let output = model.graph.fact(layer.output());
            let shape = samples::concrete(&output.shape, model.graph.symbols.len());
            let places: f64 = shape.iter().map(|size| *size as f64).product();
            let weights =
                float_tensor(model, layer.kernel(model)).map_or(0, |kernel| kernel.len()) as f64;
            let (inputs, outputs) = (layer.reads.len() as f64, layer.makes.len() as f64);
            let taps = weights / (inputs / layer.groups as f64 * outputs).max(1.0);
            (taps * places / outputs.max(1.0), taps)
        };
        Cost { layers: flow.layers.iter().map(pair).collect() }
    }

    /// Returns the cost of all layers with the kept units.
    pub(super) fn of(&self, flow: &Flow, kept: &[bool]) -> Price {
        let count = |units: &[Unit]| units.iter().filter(|unit| kept[**unit]).count() as f64;
        let mut price = Price::default();
        for (layer, (macs, weights)) in flow.layers.iter().zip(&self.layers) {
            let outputs = count(&layer.makes);
            let inputs = match layer.groups {
                1 => count(&layer.reads),
                groups => (layer.reads.len() / groups) as f64,
            };
            price.macs += macs * inputs * outputs;
            price.bytes += 4.0 * (weights * inputs + 1.0) * outputs;
        }
        price
    }
}
