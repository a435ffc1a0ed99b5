//! Replaces values that do not depend on the inputs by initializers.

use std::collections::HashSet;

use hardtack_operators::{Data, Model, Tensor};
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::trace::Trace;

/// The maximum number of elements of a folded value. Larger ones, such as weights that are
/// computed, are left to the stage `fold`.
const FOLDED: usize = 1 << 10;

/// Replaces small constant values by initializers, in the graph and in the model.
pub(crate) fn fold(graph: &mut GraphProto, model: &mut Model, trace: &Trace) {
    let produced: HashSet<String> =
        model.graph.nodes.iter().flat_map(|node| node.outputs.clone()).collect();
    let kept: HashSet<&str> = model.graph.outputs.iter().map(|o| o.name.as_str()).collect();
    let quantized = quantized(model);
    let mut folded: HashSet<String> = HashSet::new();
    for (name, constant) in trace.constants() {
        let small = constant.len() <= FOLDED;
        if small
            && produced.contains(name)
            && !kept.contains(name)
            && !quantized.contains(name)
            && let Some(tensor) = store(name, constant)
        {
            graph.initializer.push(tensor);
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

/// Returns the values that are quantized or dequantized, or computed from such values. Later stages
/// take scales and integers from the nodes that compute them.
fn quantized(model: &Model) -> HashSet<String> {
    let mut found: HashSet<String> = HashSet::new();
    for node in &model.graph.nodes {
        let is_quantized = node.operator.ends_with("QuantizeLinear")
            || node.operator.ends_with("DequantizeLinear")
            || node.reads().into_iter().any(|name| found.contains(name));
        if is_quantized {
            found.extend(node.outputs.iter().cloned());
        }
    }
    found
}

/// Converts a tensor to a normalized one of protobuf; `None` for types that tract lacks.
fn store(name: &str, tensor: &Tensor) -> Option<TensorProto> {
    fn bytes<T: Copy, const N: usize>(values: &[T], convert: impl Fn(T) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(|value| convert(*value)).collect()
    }
    let plain = hardtack_operators::ElementType::from_number(tensor.element().number().into());
    if plain.is_none_or(|element| element.bits().is_none_or(|bits| bits < 8)) {
        return None;
    }
    if tensor.element().is_narrow_float() {
        return None;
    }
    let raw_data = match tensor.data() {
        Data::F32(v) => bytes(v, f32::to_le_bytes),
        Data::F64(v) => bytes(v, f64::to_le_bytes),
        Data::F16(v) => bytes(v, half::f16::to_le_bytes),
        Data::I8(v) => bytes(v, i8::to_le_bytes),
        Data::I16(v) => bytes(v, i16::to_le_bytes),
        Data::I32(v) => bytes(v, i32::to_le_bytes),
        Data::I64(v) => bytes(v, i64::to_le_bytes),
        Data::U8(v) => v.clone(),
        Data::U16(v) => bytes(v, u16::to_le_bytes),
        Data::U32(v) => bytes(v, u32::to_le_bytes),
        Data::U64(v) => bytes(v, u64::to_le_bytes),
        Data::Bool(v) => bytes(v, |value| [u8::from(value)]),
        Data::BF16(_) | Data::Text(_) | Data::Complex64(_) | Data::Complex128(_) => return None,
    };
    Some(TensorProto {
        name: name.into(),
        dims: tensor.shape().iter().map(|size| *size as i64).collect(),
        data_type: tensor.element().number(),
        raw_data,
        ..TensorProto::default()
    })
}
