//! Couples the probabilities of pairs of classes to those of the classes, as libsvm does.

use hardtack::Tensor;
use hardtack_bundle::DType;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimensionValue;
use tract_onnx::pb::type_proto::{Tensor as TensorType, Value as TypeValue};
use tract_onnx::pb::{
    AttributeProto, GraphProto, NodeProto, TensorShapeProto, TypeProto, ValueInfoProto,
};

use super::emit::Emit;
use crate::import::node::int;
use crate::import::tensor;

/// The number of iterations, as in libsvm and ONNX Runtime.
const ITERATIONS: usize = 100;

/// Emits the iterations that minimize pᵀQp from the matrices Q, of shape `[n, classes, classes]`.
/// The result has shape `[n, classes, 1]`.
pub(super) fn coupled(emit: &mut Emit<'_>, q: &str, classes: usize) -> String {
    let start = Tensor::new(&[classes, 1], vec![0f32; classes]).expect("as many elements");
    let start = emit.constant("start", &start);
    let start = emit.node("MatMul", &[q, &start], vec![]);
    let equal = emit.constant("equal", &Tensor::scalar(1.0 / classes as f32));
    let start = emit.node("Add", &[&start, &equal], vec![]);
    // Each iteration reads one element, the tolerance.
    let tolerance = 0.005 / classes as f32;
    let tolerance = Tensor::new(&[ITERATIONS, 1], vec![tolerance; ITERATIONS]);
    let tolerance = emit.constant("tolerance", &tolerance.expect("as many elements"));
    let mut body = Body { emit: &mut *emit, graph: GraphProto::default() };
    let k = classes as i64;
    let p = body.input("p", &[None, Some(k), Some(1)]);
    let q_in = body.input("q", &[None, Some(k), Some(k)]);
    let one_tolerance = body.input("tolerance", &[Some(1)]);
    let result = body.iteration(&p, &q_in, &one_tolerance, classes);
    body.output(&result);
    let kept = body.node("Identity", &[&q_in]);
    body.output(&kept);
    let graph = body.graph;
    let result = emit.context.fresh("coupled");
    let unused = emit.context.fresh("coupled.q");
    emit.whole(NodeProto {
        name: result.clone(),
        op_type: "Scan".into(),
        input: vec![start, q.into(), tolerance],
        output: vec![result.clone(), unused],
        attribute: vec![
            int("num_scan_inputs", 1),
            AttributeProto {
                name: "body".into(),
                r#type: AttributeType::Graph as i32,
                g: Some(graph),
                ..AttributeProto::default()
            },
        ],
        ..NodeProto::default()
    });
    result
}

/// A graph that is executed repeatedly.
struct Body<'e, 's> {
    emit: &'e mut Emit<'s>,
    graph: GraphProto,
}

impl Body<'_, '_> {
    fn input(&mut self, base: &str, shape: &[Option<i64>]) -> String {
        let name = self.emit.context.fresh(base);
        let dim = |size: &Option<i64>| Dimension {
            value: size.map(DimensionValue::DimValue),
            ..Dimension::default()
        };
        let of = TensorType {
            elem_type: tensor::number_of(DType::F32),
            shape: Some(TensorShapeProto { dim: shape.iter().map(dim).collect() }),
        };
        self.graph.input.push(ValueInfoProto {
            name: name.clone(),
            r#type: Some(TypeProto {
                value: Some(TypeValue::TensorType(of)),
                ..TypeProto::default()
            }),
            ..ValueInfoProto::default()
        });
        name
    }

    fn output(&mut self, name: &str) {
        self.graph.output.push(ValueInfoProto { name: name.into(), ..ValueInfoProto::default() });
    }

    fn constant(&mut self, shape: &[usize], values: Vec<f32>) -> String {
        let name = self.emit.context.fresh("coupling");
        let value = Tensor::new(shape, values).expect("as many elements");
        self.graph.initializer.push(tensor::store(&name, &value));
        name
    }

    fn node(&mut self, operator: &str, inputs: &[&str]) -> String {
        let output = self.emit.context.fresh("coupling");
        let attribute = match operator {
            "Cast" => vec![int("to", tensor::number_of(DType::F32) as i64)],
            _ => vec![],
        };
        self.graph.node.push(NodeProto {
            name: output.clone(),
            op_type: operator.into(),
            input: inputs.iter().map(|input| (*input).into()).collect(),
            output: vec![output.clone()],
            attribute,
            ..NodeProto::default()
        });
        output
    }

    /// Emits one iteration of libsvm's `multiclass_probability`: it changes nothing once all
    /// elements of Qp are close to pᵀQp. Returns the new p.
    fn iteration(&mut self, p: &str, q: &str, tolerance: &str, classes: usize) -> String {
        let ones = self.constant(&[1, classes], vec![1.0; classes]);
        let one = self.constant(&[1, 1, 1], vec![1.0]);
        let two = self.constant(&[1, 1, 1], vec![2.0]);
        let almost_all = self.constant(&[1, 1, 1], vec![classes as f32 - 0.5]);
        let mut qp = self.node("MatMul", &[q, p]);
        let products = self.node("Mul", &[p, &qp]);
        let mut pqp = self.node("MatMul", &[&ones, &products]);
        let error = self.node("Sub", &[&qp, &pqp]);
        let error = self.node("Abs", &[&error]);
        let close = self.node("Less", &[&error, tolerance]);
        let close = self.node("Cast", &[&close]);
        let close = self.node("MatMul", &[&ones, &close]);
        let active = self.node("Less", &[&close, &almost_all]);
        let active = self.node("Cast", &[&active]);
        let mut p = p.to_owned();
        for class in 0..classes {
            let mut unit = vec![0.0; classes];
            unit[class] = 1.0;
            let row = self.constant(&[1, classes], unit.clone());
            let column = self.constant(&[classes, 1], unit);
            let q_of = self.node("MatMul", &[q, &column]);
            let diagonal = self.node("MatMul", &[&row, &q_of]);
            let qp_of = self.node("MatMul", &[&row, &qp]);
            // The step, and 0 if the iterations are complete.
            let step = self.node("Sub", &[&pqp, &qp_of]);
            let step = self.node("Div", &[&step, &diagonal]);
            let step = self.node("Mul", &[&step, &active]);
            let sum = self.node("Add", &[&one, &step]);
            let change = self.node("Mul", &[&step, &column]);
            let changed = self.node("Add", &[&p, &change]);
            p = self.node("Div", &[&changed, &sum]);
            let twice = self.node("Mul", &[&qp_of, &two]);
            let slope = self.node("Mul", &[&step, &diagonal]);
            let slope = self.node("Add", &[&slope, &twice]);
            let change = self.node("Mul", &[&step, &slope]);
            let changed = self.node("Add", &[&pqp, &change]);
            let changed = self.node("Div", &[&changed, &sum]);
            pqp = self.node("Div", &[&changed, &sum]);
            let change = self.node("Mul", &[&step, &q_of]);
            let changed = self.node("Add", &[&qp, &change]);
            qp = self.node("Div", &[&changed, &sum]);
        }
        p
    }
}
