//! Reads the model a second time, as a model of the evaluator.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use hardtack_onnx::proto;
use hardtack_operators::{Dimension, Model, Tensor, ValueInfo, ValueType};
use prost::Message as _;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as SizeOrName;
use tract_onnx::pb::type_proto::Value::TensorType;
use tract_onnx::pb::{GraphProto, TensorProto};

use crate::import::ImportError;
use crate::import::proto::External;
use crate::import::reference::to_reference;
use crate::import::tensor;

/// Reads a model. Its inputs get the shapes that they have in `bound`, after `--set`. Inputs that
/// are constants there become initializers.
pub(crate) fn load(path: &Path, bound: &GraphProto) -> Result<Model, ImportError> {
    let mut model = read(path)?;
    bind(&mut model, bound);
    Ok(model)
}

/// Reads a model as it is in the file.
pub(crate) fn read(path: &Path) -> Result<Model, ImportError> {
    let problem = |problem: String| ImportError::NotOnnx { path: path.into(), problem };
    let bytes = std::fs::read(path)
        .map_err(|error| ImportError::Read { path: path.into(), problem: error.to_string() })?;
    let mut proto = proto::ModelProto::decode(&bytes[..]).map_err(|e| problem(e.to_string()))?;
    drop(bytes);
    let mut external = External::in_folder_of(path);
    if let Some(graph) = &mut proto.graph {
        complete_graph(graph, &mut external)?;
    }
    for function in &mut proto.functions {
        complete_nodes(&mut function.node, &mut external)?;
    }
    let read = hardtack_onnx::read(&proto);
    drop(proto);
    let mut read = read.map_err(|error| ImportError::Malformed(error.to_string()))?;
    drop_unread(&mut read);
    Ok(read)
}

/// Removes the nodes whose results neither an output nor another node reads.
fn drop_unread(model: &mut Model) {
    let graph = &mut model.graph;
    let mut read: HashSet<&str> = graph.outputs.iter().map(|output| &*output.name).collect();
    let mut is_read = vec![false; graph.nodes.len()];
    // Nodes follow those that they read.
    for (node, is_read) in graph.nodes.iter().zip(&mut is_read).rev() {
        if node.outputs.iter().any(|output| read.contains(output.as_str())) {
            *is_read = true;
            read.extend(node.reads());
        }
    }
    let mut is_read = is_read.into_iter();
    graph.nodes.retain(|_| is_read.next().unwrap_or(true));
    graph.prepare();
}

fn bind(model: &mut Model, bound: &GraphProto) {
    let inputs = std::mem::take(&mut model.graph.inputs);
    for mut input in inputs {
        let Some(other) = bound.input.iter().find(|other| other.name == input.name) else {
            let constants = &mut model.graph.initializers;
            let constant = bound.initializer.iter().find(|other| other.name == input.name);
            if let (false, Some(constant)) = (constants.contains_key(&input.name), constant)
                && let Some(value) = convert(constant)
            {
                constants.insert(input.name, Arc::new(value));
            }
            continue;
        };
        let shape = other.r#type.as_ref().and_then(|of| of.value.as_ref());
        let shape = shape.and_then(|TensorType(of)| of.shape.as_ref());
        if let (Some(bound), Some(ValueType::Tensor { shape, .. })) = (shape, &mut input.value_type)
        {
            let dimension = |value: &Option<SizeOrName>| match value {
                Some(SizeOrName::DimValue(size)) => {
                    usize::try_from(*size).map_or(Dimension::Unknown, Dimension::Size)
                }
                Some(SizeOrName::DimParam(name)) => Dimension::Named(name.clone()),
                None => Dimension::Unknown,
            };
            *shape = Some(bound.dim.iter().map(|dim| dimension(&dim.value)).collect());
        }
        // The default value of an input is no constant.
        model.graph.initializers.remove(&input.name);
        model.graph.inputs.push(input);
    }
    let inputs: Vec<ValueInfo> = std::mem::take(&mut model.graph.inputs);
    // The order of the bundle's inputs is that of the bound graph.
    let place = |input: &ValueInfo| bound.input.iter().position(|other| other.name == input.name);
    let mut placed: Vec<(Option<usize>, ValueInfo)> =
        inputs.into_iter().map(|input| (place(&input), input)).collect();
    placed.sort_by_key(|(place, _)| *place);
    model.graph.inputs = placed.into_iter().map(|(_, input)| input).collect();
}

/// Converts a normalized tensor of protobuf.
fn convert(constant: &TensorProto) -> Option<Tensor> {
    to_reference(&tensor::load(constant)?, None).ok()
}

fn complete_graph(
    graph: &mut proto::GraphProto,
    external: &mut External<'_>,
) -> Result<(), ImportError> {
    graph.initializer.iter_mut().try_for_each(|tensor| complete(tensor, external))?;
    complete_nodes(&mut graph.node, external)
}

fn complete_nodes(
    nodes: &mut [proto::NodeProto],
    external: &mut External<'_>,
) -> Result<(), ImportError> {
    for attribute in nodes.iter_mut().flat_map(|node| &mut node.attribute) {
        let mut tensors = attribute.t.iter_mut().chain(&mut attribute.tensors);
        tensors.try_for_each(|tensor| complete(tensor, external))?;
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            complete_graph(graph, external)?;
        }
    }
    Ok(())
}

/// Reads the data of an external tensor.
fn complete(
    tensor: &mut proto::TensorProto,
    external: &mut External<'_>,
) -> Result<(), ImportError> {
    const EXTERNAL: i32 = 1;
    if tensor.data_location == Some(EXTERNAL) {
        let entries = tensor.external_data.iter();
        let entries: Vec<(&str, &str)> =
            entries.map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
        tensor.raw_data = external.read(&tensor.name, &entries)?;
        tensor.data_location = None;
        tensor.external_data.clear();
    }
    Ok(())
}
