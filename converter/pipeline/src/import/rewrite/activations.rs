//! Activations and reductions that compute an exponential. tract's forms overflow for inputs of
//! moderate size; the forms here have finite intermediate values for all finite inputs.

use hardtack::Tensor;
use tract_onnx::pb::NodeProto;

use super::emit::Emit;
use crate::import::ImportError;
use crate::import::node::{Node, int};

/// The default attributes of Selu since operator set 6; tract rounds them to 5 digits.
const SELU: (f32, f32) = (1.673_263_2, 1.050_701);
/// The default attributes of Selu before operator set 6.
const FIRST_SELU: (f32, f32) = (1.6732, 1.0507);

/// Rewrites one node.
pub(crate) fn rewrite(node: &mut NodeProto, emit: &mut Emit<'_>) -> Result<bool, ImportError> {
    if !matches!(node.domain.as_str(), "" | "ai.onnx") {
        return Ok(false);
    }
    let (Some(x), Some(y)) = (node.given(0), node.wanted(0)) else { return Ok(false) };
    let selu = if emit.context.opset < 6 { FIRST_SELU } else { SELU };
    let (x, node) = (x.to_owned(), &*node);
    let mut terms = Terms { emit, x, y: y.to_owned(), label: node.label().to_owned() };
    let float = |name: &str, usual: f32| node.float(name).unwrap_or(usual);
    match node.op_type.as_str() {
        "Celu" => terms.celu(float("alpha", 1.0)),
        "Elu" => terms.elu(float("alpha", 1.0), 1.0),
        "Selu" => terms.elu(float("alpha", selu.0), float("gamma", selu.1)),
        "Mish" => terms.mish(),
        "ParametricSoftplus" => terms.softplus(float("alpha", 1.0), float("beta", 1.0)),
        "ReduceLogSumExp" => terms.log_sum_exp(node),
        "Softplus" => terms.softplus(1.0, 1.0),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Emits the terms of a function of `x`.
struct Terms<'t, 'e> {
    emit: &'t mut Emit<'e>,
    /// The input of the rewritten node.
    x: String,
    /// The output of the rewritten node.
    y: String,
    /// The name of the rewritten node.
    label: String,
}

impl Terms<'_, '_> {
    /// Emits a constant of the type of `x`.
    fn number(&mut self, suffix: &str, value: f32) -> String {
        let value = self.emit.constant(suffix, &Tensor::scalar(value));
        self.node("CastLike", &[&value, &self.x.clone()])
    }

    fn node(&mut self, operator: &str, inputs: &[&str]) -> String {
        self.emit.node(operator, inputs, vec![])
    }

    /// Emits the product of a value and a number.
    fn scaled(&mut self, value: String, suffix: &str, factor: f32) -> String {
        if factor == 1.0 {
            return value;
        }
        let factor = self.number(suffix, factor);
        self.node("Mul", &[&value, &factor])
    }

    /// Emits the node with the output and the name of the rewritten node.
    fn last(&mut self, operator: &str, inputs: &[&str]) {
        self.emit.whole(NodeProto {
            name: self.label.clone(),
            op_type: operator.into(),
            input: inputs.iter().map(|input| (*input).into()).collect(),
            output: vec![self.y.clone()],
            ..NodeProto::default()
        });
    }

    /// Emits `γ · max(x, 0) + γ · α · (exp(min(x, 0)) − 1)`.
    fn elu(&mut self, alpha: f32, gamma: f32) {
        let (zero, one) = (self.number("zero", 0.0), self.number("one", 1.0));
        let above = self.node("Max", &[&self.x.clone(), &zero]);
        let above = self.scaled(above, "gamma", gamma);
        let below = self.node("Min", &[&self.x.clone(), &zero]);
        let below = self.node("Exp", &[&below]);
        let below = self.node("Sub", &[&below, &one]);
        let below = self.scaled(below, "alpha", alpha * gamma);
        self.last("Add", &[&above, &below]);
    }

    /// Emits `max(x, 0) + min(α · (exp(min(x, 0) / α) − 1), 0)`.
    fn celu(&mut self, alpha: f32) {
        let (zero, one) = (self.number("zero", 0.0), self.number("one", 1.0));
        let above = self.node("Max", &[&self.x.clone(), &zero]);
        let below = self.node("Min", &[&self.x.clone(), &zero]);
        let divisor = self.number("alpha", alpha);
        let below = self.node("Div", &[&below, &divisor]);
        let below = self.node("Exp", &[&below]);
        let below = self.node("Sub", &[&below, &one]);
        let below = self.node("Mul", &[&below, &divisor]);
        let below = self.node("Min", &[&below, &zero]);
        self.last("Add", &[&above, &below]);
    }

    /// Emits `α · ln(1 + exp(β · x))` as `α · (max(z, 0) + 2 · atanh(u / (u + 2)))` with
    /// `z = β · x` and `u = exp(−|z|)`. The second term is `ln(1 + u)`, but exact for small `u`.
    fn softplus(&mut self, alpha: f32, beta: f32) {
        let (zero, two) = (self.number("zero", 0.0), self.number("two", 2.0));
        let z = self.scaled(self.x.clone(), "beta", beta);
        let above = self.node("Max", &[&z, &zero]);
        let above = self.scaled(above, "alpha", alpha);
        let size = self.node("Abs", &[&z]);
        let size = self.node("Neg", &[&size]);
        let u = self.node("Exp", &[&size]);
        let sum = self.node("Add", &[&u, &two]);
        let ratio = self.node("Div", &[&u, &sum]);
        let below = self.node("Atanh", &[&ratio]);
        let below = self.scaled(below, "twice_alpha", 2.0 * alpha);
        self.last("Add", &[&above, &below]);
    }

    /// Emits `x · tanh(ln(1 + exp(x)))` as `x · n / (n + 2 · a · a)` with `a = exp(−max(x, 0))`,
    /// `b = exp(min(x, 0))` and `n = b · (b + 2 · a)`.
    fn mish(&mut self) {
        let (zero, two) = (self.number("zero", 0.0), self.number("two", 2.0));
        let above = self.node("Max", &[&self.x.clone(), &zero]);
        let above = self.node("Neg", &[&above]);
        let a = self.node("Exp", &[&above]);
        let below = self.node("Min", &[&self.x.clone(), &zero]);
        let b = self.node("Exp", &[&below]);
        let twice = self.node("Mul", &[&a, &two]);
        let sum = self.node("Add", &[&b, &twice]);
        let n = self.node("Mul", &[&b, &sum]);
        let square = self.node("Mul", &[&a, &twice]);
        let sum = self.node("Add", &[&n, &square]);
        let gate = self.node("Div", &[&n, &sum]);
        self.last("Mul", &[&self.x.clone(), &gate]);
    }

    /// Emits `m + ln(Σ exp(x − m))`, where m is the maximum of the reduced elements. An infinite
    /// maximum is clamped, because the difference of two infinities is not a number.
    fn log_sum_exp(&mut self, node: &NodeProto) {
        let reduced = |this: &mut Self, operator: &str, x: &str, keepdims: i64| {
            let mut inputs = vec![x];
            inputs.extend(node.input.iter().skip(1).map(String::as_str));
            let mut attributes = node.attribute.clone();
            attributes.retain(|attribute| attribute.name != "keepdims");
            attributes.push(int("keepdims", keepdims));
            this.emit.node(operator, &inputs, attributes)
        };
        let (lowest, highest) = (self.number("low", f32::MIN), self.number("high", f32::MAX));
        let maximum = reduced(self, "ReduceMax", &self.x.clone(), 1);
        let maximum = self.node("Max", &[&maximum, &lowest]);
        let maximum = self.node("Min", &[&maximum, &highest]);
        let below = self.node("Sub", &[&self.x.clone(), &maximum]);
        let power = self.node("Exp", &[&below]);
        let sum = reduced(self, "ReduceLogSum", &power, 1);
        if node.int("keepdims").unwrap_or(1) == 1 {
            self.last("Add", &[&sum, &maximum]);
            return;
        }
        // The reduced axes have one element: their maximum only removes them.
        let sum = self.node("Add", &[&sum, &maximum]);
        let y = reduced(self, "ReduceMax", &sum, 0);
        self.last("Identity", &[&y]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{graph, model, node};
    use super::*;
    use crate::activations::Observer;
    use crate::import::node::{float, ints, text};
    use crate::import::translate::translate;
    use hardtack_bundle::graph::ValueId;
    use tract_onnx::pb::AttributeProto;

    const INPUTS: [f32; 14] =
        [-1e4, -200.0, -90.0, -20.0, -1.0, 0.0, 1.0, 20.0, 88.0, 89.0, 90.0, 100.0, 200.0, 1e4];

    /// Runs an operator on the pairs of 0 and each input, and asserts that each value is finite.
    fn outputs(
        opset: i64,
        operator: &str,
        operands: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> Vec<f32> {
        let rows = INPUTS.len().to_string();
        let axis = Tensor::new(&[1], vec![1i64]).unwrap();
        let inputs = [&["x"], operands].concat();
        let tested = node(operator, &inputs, &["y"], attributes);
        let mut model =
            model(graph(&[("x", &[&rows, "2"])], vec![tested], &[("axis", axis)], &["y"]));
        model.opset_import[0].version = opset;
        super::super::rewrite_unbound(&mut model).unwrap();
        let model = translate(model).unwrap();
        let pairs = INPUTS.iter().flat_map(|x| [0.0, *x]).collect::<Vec<f32>>();
        let sample = [Tensor::new(&[INPUTS.len(), 2], pairs).unwrap()];
        let nodes = 0..model.graph.nodes.len() as u32;
        let mut observer = Observer::new(&model, nodes.map(|node| ValueId { node, output: 0 }));
        let mut outputs = Vec::new();
        let last = model.graph.outputs[0];
        let check = |value_id: ValueId, _: &[usize], values: &[f32]| {
            let name = &model.graph.nodes[value_id.node as usize].name;
            assert!(values.iter().all(|value| value.is_finite()), "{operator}, {name}: {values:?}");
            if value_id == last {
                outputs = values.to_vec();
            }
        };
        observer.run(&sample, check).unwrap();
        outputs
    }

    fn softplus(x: f64) -> f64 {
        x.max(0.0) + (-x.abs()).exp().ln_1p()
    }

    fn logistic(x: f64) -> f64 {
        (-softplus(-x)).exp()
    }

    /// Asserts that results equal a function within a part of their size and of `scale`.
    fn equal(operator: &str, results: &[f32], expected: impl Fn(f64) -> f64, scale: f64) {
        assert_eq!(results.len(), INPUTS.len(), "{operator}");
        for (x, result) in INPUTS.iter().zip(results) {
            let expected = expected(f64::from(*x));
            let error = (f64::from(*result) - expected).abs();
            let limit = 1e-6 * expected.abs().max(scale);
            assert!(error <= limit, "{operator}({x}) is {result}, not {expected}");
        }
    }

    #[test]
    fn activations_have_finite_terms_and_follow_their_definition() {
        type Definition = fn(f64) -> f64;
        /// The smallest size of a result whose relative error counts.
        const TINY: f64 = 1e-35;
        let exact: [(&str, Vec<AttributeProto>, Definition); 13] = [
            ("Softplus", vec![], softplus),
            ("ParametricSoftplus", vec![float("alpha", 1.5), float("beta", 2.0)], |x| {
                1.5 * softplus(2.0 * x)
            }),
            ("Elu", vec![], |x| if x > 0.0 { x } else { x.exp_m1() }),
            ("Elu", vec![float("alpha", 1.5)], |x| if x > 0.0 { x } else { 1.5 * x.exp_m1() }),
            ("Selu", vec![], |x| {
                let (alpha, gamma) = (1.673_263_192_176_818_8, 1.050_701_022_148_132_3);
                gamma * if x > 0.0 { x } else { alpha * x.exp_m1() }
            }),
            ("Selu", vec![float("alpha", 2.0), float("gamma", 3.0)], |x| {
                3.0 * if x > 0.0 { x } else { 2.0 * x.exp_m1() }
            }),
            ("Celu", vec![float("alpha", 0.5)], |x| {
                x.max(0.0) + (0.5 * (x.min(0.0) / 0.5).exp_m1()).min(0.0)
            }),
            ("Mish", vec![], |x| x * softplus(x).tanh()),
            ("Softsign", vec![], |x| x / (1.0 + x.abs())),
            ("HardSwish", vec![], |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
            ("HardSigmoid", vec![], |x| (0.2 * x + 0.5).clamp(0.0, 1.0)),
            ("ThresholdedRelu", vec![], |x| if x > 1.0 { x } else { 0.0 }),
            ("Shrink", vec![float("bias", 0.25), float("lambd", 0.5)], |x| {
                if x < -0.5 {
                    x + 0.25
                } else if x > 0.5 {
                    x - 0.25
                } else {
                    0.0
                }
            }),
        ];
        for (operator, attributes, definition) in exact {
            let results = outputs(22, operator, &[], attributes);
            let results: Vec<f32> = results.chunks(2).map(|pair| pair[1]).collect();
            equal(operator, &results, definition, TINY);
        }
        // tract approximates the logistic function and tanh with an absolute error.
        let gelu = |x: f64| x * logistic(1.595_769_121_605_730_7 * (x + 0.044_715 * x.powi(3)));
        let approximate: [(&str, Vec<AttributeProto>, Definition, f64); 4] = [
            ("Sigmoid", vec![], logistic, 1.0),
            ("Tanh", vec![], f64::tanh, 1.0),
            ("Gelu", vec![text("approximate", "tanh")], gelu, 1e4),
            ("Swish", vec![], |x| x * logistic(x), 1e4),
        ];
        for (operator, attributes, definition, scale) in approximate {
            let results = outputs(24, operator, &[], attributes);
            let results: Vec<f32> = results.chunks(2).map(|pair| pair[1]).collect();
            equal(operator, &results, definition, scale);
        }
    }

    #[test]
    fn logarithms_of_sums_are_finite() {
        for opset in [11, 13] {
            let results = outputs(opset, "LogSoftmax", &[], vec![int("axis", 1)]);
            let second: Vec<f32> = results.chunks(2).map(|pair| pair[1]).collect();
            equal("LogSoftmax", &second, |x| x - softplus(x), 1.0);
        }
        for keepdims in [0, 1] {
            let attributes = vec![ints("axes", &[1]), int("keepdims", keepdims)];
            let results = outputs(13, "ReduceLogSumExp", &[], attributes);
            equal("ReduceLogSumExp", &results, softplus, 1.0);
            let results =
                outputs(18, "ReduceLogSumExp", &["axis"], vec![int("keepdims", keepdims)]);
            equal("ReduceLogSumExp", &results, softplus, 1.0);
        }
    }

    #[test]
    fn the_last_node_keeps_the_name() {
        let celu = node("Celu", &["x"], &["y"], vec![]);
        let mut model = model(graph(&[("x", &["2"])], vec![celu], &[], &["y"]));
        super::super::rewrite_unbound(&mut model).unwrap();
        let nodes = &model.graph.as_ref().unwrap().node;
        assert_eq!(nodes.last().unwrap().name, "y_node");
        assert!(nodes.iter().all(|node| node.name.starts_with("y_node")));
    }
}
