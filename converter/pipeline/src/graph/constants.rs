//! Constant values of a graph, and their elements.

use hardtack::internal::{Constant, Model};
use hardtack::{Data, Tensor};
use hardtack_bundle::graph::{Operator, ValueId};

/// Returns whether a value is constant.
pub(crate) fn is_constant(model: &Model, value_id: ValueId) -> bool {
    let node = &model.graph.nodes[value_id.node as usize];
    match node.operator {
        Operator::Constant(_) => true,
        Operator::DequantizeLinear(_) => node.inputs.iter().all(|x| is_constant(model, *x)),
        _ => keeps_elements(&node.operator) && is_constant(model, node.inputs[0]),
    }
}

/// Returns the inputs of a node that are not constants.
pub(crate) fn variable_inputs<'m>(
    model: &'m Model,
    index: usize,
) -> impl Iterator<Item = ValueId> + 'm {
    let read = model.graph.nodes[index].inputs.iter().copied();
    read.filter(|value_id| !is_constant(model, *value_id))
}

/// Returns whether an operator keeps its input's elements and their order.
pub(crate) fn keeps_elements(operator: &Operator) -> bool {
    matches!(operator, Operator::AddAxis(_) | Operator::RemoveAxis(_) | Operator::Reshape(_))
}

/// Returns the tensor of a value if it is a constant.
pub(crate) fn tensor(model: &Model, value_id: ValueId) -> Option<&Tensor> {
    match model.graph.nodes[value_id.node as usize].operator {
        Operator::Constant(index) => match model.constants.get(index as usize)? {
            Constant::Tensor(tensor) => Some(tensor),
            Constant::Stored(_) | Constant::Dims { .. } => None,
        },
        _ => None,
    }
}

/// Returns the elements of a float constant or of dequantized constant integers.
pub(crate) fn float_elements(model: &Model, value_id: ValueId) -> Option<Vec<f32>> {
    let node = &model.graph.nodes[value_id.node as usize];
    if keeps_elements(&node.operator) {
        return float_elements(model, node.inputs[0]);
    }
    if let Some(tensor) = tensor(model, value_id) {
        return Some(tensor.as_f32()?.to_vec());
    }
    let (integers, scales) = dequantized(model, value_id)?;
    let per_scale = integers.values.len() / (integers.outer * scales.len());
    let scale = |index: usize| scales[(index / per_scale) % scales.len()];
    Some(integers.values.iter().enumerate().map(|(i, v)| *v as f32 * scale(i)).collect())
}

/// Returns the tensor of a value if it is an f32 constant.
pub(crate) fn float_tensor(model: &Model, value_id: ValueId) -> Option<&Tensor> {
    match model.graph.nodes[value_id.node as usize].operator {
        Operator::Constant(index) => match model.constants.get(index as usize)? {
            Constant::Tensor(tensor) if matches!(tensor.data(), Data::F32(_)) => Some(tensor),
            _ => None,
        },
        _ => None,
    }
}

/// Constant integers, minus their zero points.
pub(crate) struct DequantizedIntegers {
    /// The integers.
    pub values: Vec<i32>,
    /// The product of the dimensions before the axis of the scales.
    pub outer: usize,
}

/// Returns constant integers that are dequantized, minus their zero points, and their scales.
pub(crate) fn dequantized(
    model: &Model,
    value_id: ValueId,
) -> Option<(DequantizedIntegers, Vec<f32>)> {
    let node = &model.graph.nodes[value_id.node as usize];
    let Operator::DequantizeLinear(attributes) = &node.operator else { return None };
    let [x, scale, zero_point] = node.inputs[..] else { return None };
    let x = tensor(model, x)?;
    let scales = tensor(model, scale)?.as_f32()?.to_vec();
    let zeros = integers(tensor(model, zero_point)?)?;
    let axis = attributes.axis.map_or(0, |axis| axis as usize);
    let outer: usize = x.shape().iter().take(axis).product();
    let mut values = integers(x)?;
    let per_scale = values.len() / (outer * scales.len());
    for (index, value) in values.iter_mut().enumerate() {
        let channel = (index / per_scale) % scales.len();
        *value -= zeros[if zeros.len() == 1 { 0 } else { channel }];
    }
    (per_scale > 0).then_some((DequantizedIntegers { values, outer }, scales))
}

fn integers(tensor: &Tensor) -> Option<Vec<i32>> {
    match tensor.data() {
        Data::I8(values) => Some(values.iter().map(|v| i32::from(*v)).collect()),
        Data::U8(values) => Some(values.iter().map(|v| i32::from(*v)).collect()),
        Data::I32(values) => Some(values.clone()),
        _ => None,
    }
}
