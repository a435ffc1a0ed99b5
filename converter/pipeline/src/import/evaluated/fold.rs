//! Replaces values that do not depend on the inputs by initializers.

use std::collections::HashSet;
use std::sync::Arc;

use hardtack_operators::{Model, Tensor, Value};
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::dependence::quantized;
use super::emit::passed_as;
use super::trace::Trace;
use crate::import::reference::from_reference;
use crate::import::tensor;

/// Replaces small constant values by initializers, in the graph and in the model.
pub(crate) fn fold(graph: &mut GraphProto, model: &mut Model, trace: &Trace) {
    let produced: HashSet<String> =
        model.graph.nodes.iter().flat_map(|node| node.outputs.clone()).collect();
    let kept: HashSet<&str> = model.graph.outputs.iter().map(|o| o.name.as_str()).collect();
    let quantized = quantized(model);
    let mut folded: HashSet<String> = HashSet::new();
    for (name, constant) in trace.constants() {
        if produced.contains(name)
            && !kept.contains(name)
            && !quantized.contains(name)
            && let Some(stored) = store(name, constant)
        {
            graph.initializer.push(stored);
            model.graph.initializers.insert(name.into(), constant.clone());
            folded.insert(name.into());
        }
    }
    // A node goes if all its outputs are constants, and the outputs of others get names that
    // nobody reads.
    let is_folded =
        |outputs: &[String]| outputs.iter().all(|name| name.is_empty() || folded.contains(name));
    let keep = |node: &NodeProto| !is_folded(&node.output);
    let in_graph: Vec<NodeProto> = std::mem::take(&mut graph.node);
    graph.node = in_graph.into_iter().filter(keep).collect();
    model.graph.nodes.retain(|node| !is_folded(&node.outputs));
    let left: HashSet<&str> = graph.node.iter().flat_map(|n| &n.output).map(|n| &**n).collect();
    graph.initializer.retain(|initializer| !left.contains(initializer.name.as_str()));
    let left: HashSet<String> = left.into_iter().map(String::from).collect();
    model.graph.initializers.retain(|name, _| !left.contains(name));
    model.graph.prepare();
}

/// Replaces sparse initializers by dense ones.
pub(crate) fn densify(graph: &mut GraphProto, model: &Model) {
    for sparse in std::mem::take(&mut graph.sparse_initializer) {
        let name = sparse.values.map(|values| values.name).unwrap_or_default();
        let dense = model.graph.initializers.get(&name);
        graph.initializer.extend(dense.and_then(|dense| store(&name, dense)));
    }
}

/// Converts a tensor to a normalized one of protobuf; `None` for types that tract lacks.
fn store(name: &str, tensor: &Arc<Tensor>) -> Option<TensorProto> {
    let is_same = passed_as(tensor.element()) == tensor.element();
    let converted = from_reference(&Value::Tensor(tensor.clone())).filter(|_| is_same)?;
    Some(tensor::store(name, &converted))
}
