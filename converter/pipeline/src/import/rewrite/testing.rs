//! Builds small protobuf graphs for the tests of rewrites.

use hardtack::Tensor;
use hardtack_bundle::DType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::type_proto::{Tensor as TensorType, Value};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
};

use super::emit::Context;
use crate::import::tensor;

/// Creates the context of an empty model of operator set 13.
pub(crate) fn context() -> Context {
    Context::of(&model(GraphProto::default()))
}

/// Creates a model of operator set 13.
pub(crate) fn model(graph: GraphProto) -> ModelProto {
    let import = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    ModelProto {
        ir_version: 8,
        opset_import: vec![import("", 13), import("ai.onnx.ml", 3), import("com.microsoft", 1)],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// Creates a graph. Its inputs are f32 tensors of the given dimensions.
pub(crate) fn graph(
    inputs: &[(&str, &[&str])],
    nodes: Vec<NodeProto>,
    constants: &[(&str, Tensor)],
    outputs: &[&str],
) -> GraphProto {
    GraphProto {
        name: "test".into(),
        input: inputs.iter().map(|(name, dims)| input(name, DType::F32, dims)).collect(),
        node: nodes,
        initializer: constants.iter().map(|(name, value)| tensor::store(name, value)).collect(),
        output: outputs
            .iter()
            .map(|name| ValueInfoProto { name: (*name).into(), ..ValueInfoProto::default() })
            .collect(),
        ..GraphProto::default()
    }
}

/// Creates an input. A dimension is a size, a name, or empty.
pub(crate) fn input(name: &str, dtype: DType, dims: &[&str]) -> ValueInfoProto {
    let dim = |text: &&str| Dimension {
        value: (!text.is_empty()).then(|| match text.parse() {
            Ok(size) => dimension::Value::DimValue(size),
            Err(_) => dimension::Value::DimParam((*text).into()),
        }),
        ..Dimension::default()
    };
    let of = TensorType {
        elem_type: tensor::number_of(dtype),
        shape: Some(TensorShapeProto { dim: dims.iter().map(dim).collect() }),
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { value: Some(Value::TensorType(of)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

/// Creates a node named after its first output. The operator is `domain::Operator` for domains
/// other than the standard one.
pub(crate) fn node(
    operator: &str,
    inputs: &[&str],
    outputs: &[&str],
    attribute: Vec<AttributeProto>,
) -> NodeProto {
    let (domain, op_type) = operator.split_once("::").unwrap_or(("", operator));
    NodeProto {
        name: format!("{}_node", outputs[0]),
        op_type: op_type.into(),
        domain: domain.into(),
        input: inputs.iter().map(|name| (*name).into()).collect(),
        output: outputs.iter().map(|name| (*name).into()).collect(),
        attribute,
        ..NodeProto::default()
    }
}
