//! Operations that are functions of one number: what they make of any number.

use hardtack::{Constant, Model, Tensor};
use hardtack_bundle::graph::{Dim, Fact, Node, Operator, Outlet};

use super::region::{is_constant, reads};

/// Points between which a function is taken for straight.
const POINTS: usize = 1 << 13;

/// What a node makes of these numbers in place of the value it reads.
///
/// # Errors
/// Why it is no function of one number.
pub fn apply(
    model: &Model,
    index: usize,
    value: Outlet,
    reals: Vec<f32>,
) -> Result<Vec<f32>, String> {
    let node = &model.graph.nodes[index];
    let count = reals.len();
    let mut inputs = Vec::new();
    for input in &node.inputs {
        let constant = match model.graph.nodes[input.node as usize].operator {
            Operator::Constant(index) => model.constants.get(index as usize),
            _ => None,
        };
        let (shape, elements) = match constant {
            _ if *input == value => (vec![count], reals.clone()),
            Some(Constant::Tensor(tensor)) => {
                (vec![1], tensor.as_f32().ok_or("its constant is no real number")?.to_vec())
            }
            _ => return Err("it reads two computed values".into()),
        };
        let tensor = Tensor::new(&shape, elements).ok_or("its constant is no single number")?;
        inputs.push(Constant::Tensor(tensor.into()));
    }
    let fact = Fact { dtype: node.outputs[0].dtype, shape: vec![Dim::Value(count as i64)] };
    let probe = Node { outputs: vec![fact], ..node.clone() };
    let results = hardtack::float::evaluate(model, &probe, &inputs);
    match results.map_err(|error| error.to_string())?.first() {
        Some(Constant::Tensor(tensor)) if tensor.len() == count => {
            Ok(tensor.as_f32().ok_or("it gives no real number")?.to_vec())
        }
        _ => Err("it is no function of one number".into()),
    }
}

/// A function of one number, by points.
pub struct Function {
    low: f64,
    step: f64,
    results: Vec<f32>,
}

impl Function {
    /// The function that alone reads a value, over a range. `None` where others read it too, or
    /// what reads it is no function of one number.
    pub fn of_reader(model: &Model, value: Outlet, low: f32, high: f32) -> Option<Function> {
        let graph = &model.graph;
        let mut readers = (0..graph.nodes.len()).filter(|i| reads(model, *i).any(|o| o == value));
        let (reader, None) = (readers.next()?, readers.next()) else { return None };
        if graph.outputs.contains(&value) {
            return None;
        }
        let node = &graph.nodes[reader];
        let one = match node.operator {
            Operator::Unary(_) => true,
            Operator::Binary(_) => node.inputs.iter().any(|input| is_constant(model, *input)),
            _ => false,
        };
        let step = (f64::from(high) - f64::from(low)) / (POINTS - 1) as f64;
        if !one || step <= 0.0 || !step.is_finite() {
            return None;
        }
        let points = (0..POINTS).map(|i| (f64::from(low) + i as f64 * step) as f32).collect();
        let results = apply(model, reader, value, points).ok()?;
        results.iter().all(|y| y.is_finite()).then_some(Function { low: low.into(), step, results })
    }

    /// Its value; beyond the range, that at the end.
    pub fn at(&self, x: f64) -> f64 {
        let place = ((x - self.low) / self.step).clamp(0.0, (POINTS - 1) as f64);
        let index = (place as usize).min(POINTS - 2);
        let (left, right) = (f64::from(self.results[index]), f64::from(self.results[index + 1]));
        left + (right - left) * (place - index as f64)
    }
}
