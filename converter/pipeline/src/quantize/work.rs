//! Estimates the work of nodes.

use hardtack::internal::Model;

use super::weights::linear::Linear;
use crate::graph::first_output;
use crate::graph::shape::sample_shape;

/// The work of an element of a node's output, in MACs.
const PER_ELEMENT: f64 = 16.0;

/// Returns the work of a node in MACs. Estimated, so that the choice does not depend on the
/// machine that converts.
pub(super) fn work(model: &Model, node: usize) -> f64 {
    let output = sample_shape(model.graph.fact(first_output(node))).unwrap_or_default();
    let output = output.iter().product::<usize>() as f64;
    let taps = match Linear::of(model, node) {
        Ok(linear) => linear.weights.depth as f64,
        Err(_) => 0.0,
    };
    output * (taps + PER_ELEMENT)
}
