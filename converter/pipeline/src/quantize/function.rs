//! Unary element-wise functions, composed of any number of operators.

use hardtack::Tensor;
use hardtack::internal::{Constant, Model};
use hardtack_bundle::graph::{Dim, Fact, Node, Operator, ValueId};

use crate::graph::constants::{float_elements, is_constant};
use crate::quantize::float_reason::FloatReason;

/// The number of points that a function is sampled at; it is interpolated linearly between them.
const POINTS: usize = 1 << 13;

/// Evaluates a node on these inputs, each of one element or `count` elements. Returns an error if
/// the result does not have `count` elements.
pub(super) fn evaluate(
    model: &Model,
    index: usize,
    inputs: Vec<Tensor>,
    count: usize,
) -> Result<Tensor, FloatReason> {
    let node = &model.graph.nodes[index];
    let inputs: Vec<Constant> =
        inputs.into_iter().map(|tensor| Constant::Tensor(tensor.into())).collect();
    let fact = Fact { dtype: node.outputs[0].dtype, shape: vec![Dim::Value(count as i64)] };
    let probe = Node { outputs: vec![fact], ..node.clone() };
    let results = hardtack::float::evaluate(model, &probe, &inputs);
    match results.map_err(|error| FloatReason::Evaluation(error.to_string()))?.into_iter().next() {
        Some(Constant::Tensor(tensor)) if tensor.len() == count => Ok((*tensor).clone()),
        _ => Err(FloatReason::NotElementWise),
    }
}

/// Returns the operations that are element-wise functions of this value alone, in execution order.
pub(super) fn of(model: &Model, value: ValueId) -> Vec<usize> {
    let graph = &model.graph;
    let mut nodes: Vec<usize> = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate().skip(value.node as usize + 1) {
        let known = |input: &ValueId| *input == value || nodes.contains(&(input.node as usize));
        let number = |input: &ValueId| {
            is_constant(model, *input)
                && graph.fact(*input).shape.iter().all(|dim| dim.value() == Some(1))
        };
        let element_wise = matches!(node.operator, Operator::Unary(_) | Operator::Binary(_));
        if element_wise
            && node.inputs.iter().any(known)
            && node.inputs.iter().all(|input| known(input) || number(input))
        {
            nodes.push(index);
        }
    }
    nodes
}

/// A function of one variable, sampled at evenly spaced points.
pub(super) struct Function {
    low: f64,
    step: f64,
    results: Vec<f32>,
}

impl Function {
    /// Returns the composed function of all readers of `value`, sampled from `low` to `high`, or
    /// `None` if they do not form exactly one function.
    pub(super) fn of_readers(
        model: &Model,
        value: ValueId,
        low: f32,
        high: f32,
    ) -> Option<Function> {
        let graph = &model.graph;
        let nodes = of(model, value);
        let inside =
            |value_id: &ValueId| *value_id == value || nodes.contains(&(value_id.node as usize));
        // The values that other nodes read, or that are outputs of the model.
        let others = (0..graph.nodes.len()).filter(|index| !nodes.contains(index));
        let read = others.flat_map(|index| &graph.nodes[index].inputs).chain(&graph.outputs);
        let mut ends: Vec<ValueId> = read.filter(|value_id| inside(value_id)).copied().collect();
        ends.sort();
        ends.dedup();
        let [end] = ends[..] else { return None };
        let step = (f64::from(high) - f64::from(low)) / (POINTS - 1) as f64;
        if end == value || step <= 0.0 || !step.is_finite() {
            return None;
        }
        let points = (0..POINTS).map(|i| (f64::from(low) + i as f64 * step) as f32);
        let mut results: Vec<(ValueId, Tensor)> =
            vec![(value, Tensor::new(&[POINTS], points.collect::<Vec<f32>>()).ok()?)];
        for index in nodes {
            let inputs = graph.nodes[index].inputs.iter().map(|input| {
                let known = results.iter().find(|(value_id, _)| value_id == input);
                match known {
                    Some((_, tensor)) => Some(tensor.clone()),
                    None => Tensor::new(&[1], float_elements(model, *input)?).ok(),
                }
            });
            let inputs: Option<Vec<Tensor>> = inputs.collect();
            let made = evaluate(model, index, inputs?, POINTS).ok()?;
            results.push((ValueId { node: index as u32, output: 0 }, made));
        }
        let (_, results) = results.into_iter().find(|(value_id, _)| *value_id == end)?;
        let results = results.as_f32()?.to_vec();
        results.iter().all(|y| y.is_finite()).then_some(Function { low: low.into(), step, results })
    }

    /// Returns the interpolated value at `x`, which is clamped to the sampled range.
    pub(super) fn at(&self, x: f64) -> f64 {
        let place = ((x - self.low) / self.step).clamp(0.0, (POINTS - 1) as f64);
        let index = (place as usize).min(POINTS - 2);
        let (left, right) = (f64::from(self.results[index]), f64::from(self.results[index + 1]));
        left + (right - left) * (place - index as f64)
    }
}
