//! Foreign models in `Evaluate` nodes stay within the limits, and their outputs are checked.
#![cfg(feature = "float")]

mod graphs;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use graphs::{Sketch, fact, tensor};
use hardtack::float::FloatModel;
use hardtack::{DType, Limits, Tensor};
use hardtack_bundle::graph::Operator;
use hardtack_operators as onnx;
use hardtack_operators::{Attribute, ElementType, Graph, Node, ValueInfo, ValueType};

fn value(name: &str, element: ElementType) -> ValueInfo {
    let value_type = Some(ValueType::Tensor { element, shape: None });
    ValueInfo { name: name.into(), value_type }
}

fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    Node {
        operator: operator.into(),
        inputs: inputs.iter().map(|name| (*name).into()).collect(),
        outputs: outputs.iter().map(|name| (*name).into()).collect(),
        ..Node::default()
    }
}

/// Encodes a model with the input `x` and the output `y`.
fn encoded(nodes: Vec<Node>, constants: &[(&str, onnx::Tensor)]) -> Vec<u8> {
    let constants =
        constants.iter().map(|(name, value)| (name.to_string(), Arc::new(value.clone())));
    let (x, y) = (value("x", ElementType::F32), value("y", ElementType::F32));
    let graph = Graph::new(vec![x], vec![y], constants.collect::<BTreeMap<_, _>>(), nodes);
    let opsets = [(String::new(), 21)].into();
    onnx::Model { opsets, graph, ..onnx::Model::default() }.to_bytes().unwrap()
}

/// Runs a model on one element, with an output that the graph states to have one element.
fn run(model: Vec<u8>, limits: Limits) -> Result<Vec<Tensor>, String> {
    let mut sketch = Sketch::default();
    let x = sketch.input(DType::F32, &[1]);
    let y = sketch.node(Operator::Evaluate(model), &[x], vec![fact(DType::F32, &[1])]);
    sketch.output(y);
    let loaded =
        FloatModel::load_with(&sketch.model(), false, limits).map_err(|error| error.to_string())?;
    let mut plan = loaded.plan(&[&[1]]).map_err(|error| error.to_string())?;
    plan.run(&[&tensor(&[1], &[2f32])]).map_err(|error| error.to_string())
}

fn negated() -> Vec<u8> {
    encoded(vec![node("Neg", &["x"], &["y"])], &[])
}

/// A loop that adds 1 for ever.
fn endless() -> Vec<u8> {
    let body = Graph::new(
        vec![
            value("i", ElementType::I64),
            value("c", ElementType::Bool),
            value("v", ElementType::F32),
        ],
        vec![value("d", ElementType::Bool), value("w", ElementType::F32)],
        BTreeMap::new(),
        vec![node("Identity", &["c"], &["d"]), node("Abs", &["v"], &["w"])],
    );
    let mut looped = node("Loop", &["", "go", "x"], &["y"]);
    looped.attributes.insert("body".into(), Attribute::Graph(Arc::new(body)));
    encoded(vec![looped], &[("go", onnx::Tensor::scalar(true))])
}

#[test]
fn models_are_evaluated() {
    assert_eq!(run(negated(), Limits::default()).unwrap(), [tensor(&[1], &[-2f32])]);
}

#[test]
fn endless_loops_end_at_the_limits() {
    let began = Instant::now();
    let problem = run(endless(), Limits::default().with_operations(10_000_000)).unwrap_err();
    assert!(problem.contains("operations"), "{problem}");
    let problem =
        run(endless(), Limits::default().with_run_time(Duration::from_millis(200))).unwrap_err();
    assert!(problem.contains("took longer than its limit"), "{problem}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn values_are_within_the_memory_limit() {
    let limits = Limits::default().with_memory_bytes(1 << 20);
    for size in [1i64 << 18, 1 << 40, i64::MAX] {
        let nodes = vec![node("Expand", &["x", "n"], &["z"]), node("ReduceSum", &["z"], &["y"])];
        let n = onnx::Tensor::vector(vec![size]);
        let problem = run(encoded(nodes, &[("n", n)]), limits).unwrap_err();
        assert!(problem.contains("elements") || problem.contains("memory"), "{size}: {problem}");
    }
}

#[test]
fn damaged_models_and_other_outputs_are_refused() {
    let whole = negated();
    for length in 0..whole.len() {
        assert!(run(whole[..length].to_vec(), Limits::default()).is_err(), "{length}");
    }
    // Flipped bits give an error or a value, never a panic.
    for byte in 0..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1 << bit;
            let limits = Limits::default().with_memory_bytes(1 << 20).with_operations(1 << 24);
            if let Err(problem) = run(damaged, limits) {
                assert!(!problem.contains("panicked"), "{problem}");
            }
        }
    }
    for operator in ["Shape", "NonZero"] {
        let problem =
            run(encoded(vec![node(operator, &["x"], &["y"])], &[]), Limits::default()).unwrap_err();
        assert!(problem.contains("but the graph states"), "{problem}");
    }
}
