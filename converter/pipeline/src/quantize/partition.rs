//! Partitions the graph: decides which nodes run as integers, and in which program.

use std::collections::{BTreeMap, HashMap, HashSet};

use hardtack::internal::Model;
use hardtack_bundle::DType;
use hardtack_bundle::graph::{Dim, Operator, ValueId};

use super::operators::{Int16Form, NodeKind, integer_form};
use crate::graph::constants::{is_constant, variable_inputs};
use crate::graph::first_output;
use crate::graph::shape::sample_shape;
use crate::quantize::float_reason::{FloatReason, Int16Reason};

/// A partition: nodes that become one program, in execution order.
#[derive(Debug)]
pub(super) struct Partition {
    /// The indices of the nodes.
    pub nodes: Vec<usize>,
}

/// The reason why a node is unsupported and stays in float, by node index.
pub(super) type FloatReasons = HashMap<usize, FloatReason>;

/// The nodes that use more than int8, by index.
#[derive(Clone, Debug, Default)]
pub(super) struct Int16Nodes {
    /// The nodes with int16 activations, and the reason for each.
    pub activations: HashMap<usize, Int16Reason>,
    /// The layers whose weights are int16, too.
    pub weights: HashSet<usize>,
}

/// Returns the softmax nodes that compute outputs with scores for many places. In 8 bits, the best
/// scores of different places are often equal, and a detector keeps the wrong one.
pub(super) fn dense_scores(model: &Model) -> FloatReasons {
    let mut read: HashSet<ValueId> = model.graph.outputs.iter().copied().collect();
    let mut scores = FloatReasons::new();
    for (index, node) in model.graph.nodes.iter().enumerate().rev() {
        let value = first_output(index);
        if !read.contains(&value) {
            continue;
        }
        let shape = sample_shape(model.graph.fact(value)).unwrap_or_default();
        let places = shape.iter().filter(|size| **size > 1).count() > 1;
        let form = integer_form(&node.operator).map(|form| form.int16);
        match node.operator {
            Operator::Softmax(_) if places => {
                scores.insert(index, FloatReason::DenseScores);
            }
            _ if form == Some(Int16Form::Kept) => read.extend(variable_inputs(model, index)),
            _ => {}
        }
    }
    scores
}

/// Partitions the nodes that are not in `float_reasons`. Adds nodes without an integer form, or
/// without a use for it, to `float_reasons`.
pub(super) fn partitions(model: &Model, float_reasons: &mut FloatReasons) -> Vec<Partition> {
    let nodes = &model.graph.nodes;
    let mut kinds: Vec<Option<NodeKind>> = (0..nodes.len())
        .map(|index| {
            if float_reasons.contains_key(&index) {
                return None;
            }
            match kind(model, index) {
                Ok(kind) => kind,
                Err(reason) => {
                    float_reasons.insert(index, reason);
                    None
                }
            }
        })
        .collect();
    // Each node that leaves the integers can leave others without a reason to stay.
    loop {
        let before = float_reasons.len();
        drop_arithmetic_on_float(model, &mut kinds, float_reasons);
        drop_nodes_with_float_readers(model, &mut kinds, float_reasons);
        if float_reasons.len() == before {
            break;
        }
    }
    let depths = depths(model, &kinds);
    let mut partitions: BTreeMap<(usize, String), Vec<usize>> = BTreeMap::new();
    for (index, kind) in kinds.iter().enumerate() {
        if kind.is_some() {
            let batch = format!("{:?}", nodes[index].outputs[0].shape[0]);
            partitions.entry((depths[index], batch)).or_default().push(index);
        }
    }
    let mut kept = Vec::new();
    for nodes in partitions.into_values() {
        if nodes.iter().any(|index| kinds[*index] == Some(NodeKind::Layer)) {
            kept.push(Partition { nodes });
            continue;
        }
        for index in nodes {
            float_reasons.insert(index, FloatReason::NoLayer);
        }
    }
    kept
}

/// Returns the role of a node, `None` if it computes nothing, or the reason why it is unsupported.
fn kind(model: &Model, index: usize) -> Result<Option<NodeKind>, FloatReason> {
    let node = &model.graph.nodes[index];
    let kind = match &node.operator {
        Operator::Input | Operator::Constant(_) | Operator::Program(_) => return Ok(None),
        _ if is_constant(model, ValueId { node: index as u32, output: 0 }) => return Ok(None),
        operator => integer_form(operator).ok_or(FloatReason::UnsupportedOperator)?.kind,
    };
    let [fact] = &node.outputs[..] else { return Err(FloatReason::SeveralOutputs) };
    let batch = fact.shape.first().ok_or(FloatReason::NoBatch)?;
    let read: Vec<ValueId> = variable_inputs(model, index).collect();
    for fact in read.iter().map(|value_id| model.graph.fact(*value_id)).chain([fact]) {
        // Bool occurs inside fused unary element-wise ops.
        if !matches!(fact.dtype, DType::F32 | DType::I8 | DType::U8 | DType::Bool) {
            return Err(FloatReason::DataType(fact.dtype));
        }
        if fact.shape.first() != Some(batch) {
            return Err(FloatReason::BatchChanged);
        }
        if sample_shape(fact).is_none() {
            return Err(match fact.shape.iter().skip(1).find(|dim| dim.value().is_none()) {
                Some(Dim::Expression(_)) => FloatReason::DynamicDimension,
                _ => FloatReason::NoElements,
            });
        }
    }
    Ok((!read.is_empty()).then_some(kind))
}

/// Removes arithmetic without weights on values that only float operations compute: quantizing it
/// costs accuracy and saves nothing. Also removes arithmetic with a broadcast operand that a float
/// operation computes. This keeps normalizations whole: their statistics, such as a variance and
/// its reciprocal square root, have a range that 8 bits cannot hold.
fn drop_arithmetic_on_float(
    model: &Model,
    kinds: &mut [Option<NodeKind>],
    float_reasons: &mut FloatReasons,
) {
    let nodes = &model.graph.nodes;
    let elements = |value_id: ValueId| {
        sample_shape(model.graph.fact(value_id)).map(|shape| shape.iter().product::<usize>())
    };
    // Whether a node computes in float, or only moves elements that such a node computed.
    let mut float = vec![false; nodes.len()];
    for index in 0..nodes.len() {
        let computed = elements(ValueId { node: index as u32, output: 0 });
        let reads: Vec<ValueId> = variable_inputs(model, index).collect();
        let is_float = |value_id: &&ValueId| float[value_id.node as usize];
        let all = !reads.is_empty() && reads.iter().filter(is_float).count() == reads.len();
        let statistic = reads.iter().filter(is_float).any(|input| elements(*input) < computed);
        float[index] = match kinds[index] {
            Some(NodeKind::Layer | NodeKind::Scale) => false,
            Some(NodeKind::Arithmetic) if all || statistic => {
                kinds[index] = None;
                float_reasons.insert(index, FloatReason::FloatInput);
                true
            }
            Some(NodeKind::Arithmetic) => false,
            Some(NodeKind::Move) => all,
            None => !matches!(
                nodes[index].operator,
                Operator::Input | Operator::Constant(_) | Operator::Program(_)
            ),
        };
    }
}

/// Removes nodes that only feed float operations: quantizing them costs accuracy and saves
/// nothing.
fn drop_nodes_with_float_readers(
    model: &Model,
    kinds: &mut [Option<NodeKind>],
    float_reasons: &mut FloatReasons,
) {
    let nodes = &model.graph.nodes;
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        node.inputs.iter().for_each(|value_id| readers[value_id.node as usize].push(index));
    }
    let mut returned = vec![false; nodes.len()];
    model.graph.outputs.iter().for_each(|value_id| returned[value_id.node as usize] = true);
    for index in (0..nodes.len()).rev() {
        let only_float = !readers[index].is_empty()
            && !returned[index]
            && readers[index].iter().all(|reader| kinds[*reader].is_none());
        let weightless = matches!(kinds[index], Some(NodeKind::Arithmetic | NodeKind::Move));
        if weightless && only_float {
            kinds[index] = None;
            float_reasons.insert(index, FloatReason::NoReader);
        }
    }
}

/// Returns the maximum number of transitions from float to integers on a path to each node. Nodes
/// of one level can run in one program.
fn depths(model: &Model, kinds: &[Option<NodeKind>]) -> Vec<usize> {
    let mut depths = vec![0; kinds.len()];
    for index in 0..kinds.len() {
        let integer = kinds[index].is_some();
        let depth = |value_id: ValueId| {
            let before = value_id.node as usize;
            depths[before] + usize::from(integer && kinds[before].is_none())
        };
        depths[index] = variable_inputs(model, index).map(depth).max().unwrap_or(0);
    }
    depths
}
