//! The parts of a graph that are compiled.

use std::collections::BTreeSet;

use hardtack_bundle::DType;
use hardtack_bundle::graph::{Binary, Graph, Node, Operator, ValueId};

use crate::functions::unary;

/// The most regions of a graph, and the most nodes of a region: the time to find and to compile
/// them grows with the square.
const MOST_REGIONS: usize = 256;
const MOST_NODES: usize = 4096;

/// A connected part of a graph. No path leaves it and comes back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// The indices of its nodes, ascending. Constants are not listed.
    pub nodes: Vec<u32>,
    /// The values of other nodes that it reads, without constants.
    pub inputs: Vec<ValueId>,
    /// Its values that other nodes read, or that are outputs of the graph.
    pub outputs: Vec<ValueId>,
}

/// Finds the regions of a graph that have at least one convolution or matmul. Nodes in `refused`
/// stay outside.
pub fn regions(graph: &Graph, refused: &BTreeSet<u32>) -> Vec<Region> {
    let count = graph.nodes.len();
    let is_constant = |value: &ValueId| is_constant(graph, *value);
    // The region of each node. A node joins the region of one of its inputs, unless this region
    // would then depend on itself through other nodes or regions.
    let mut region_of: Vec<Option<usize>> = vec![None; count];
    let mut members: Vec<Vec<u32>> = Vec::new();
    // The regions that each region depends on, and that each node outside of regions depends on.
    let mut before: Vec<BTreeSet<usize>> = Vec::new();
    let mut passed: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); count];
    for (index, node) in graph.nodes.iter().enumerate() {
        let inputs = node.inputs.iter().filter(|input| !is_constant(input));
        let inputs: Vec<usize> = inputs.map(|input| input.node as usize).collect();
        let mut needed: BTreeSet<usize> = BTreeSet::new();
        for input in &inputs {
            match region_of[*input] {
                Some(region) => {
                    needed.insert(region);
                }
                None => needed.extend(&passed[*input]),
            }
        }
        if !is_covered(graph, node) || refused.contains(&(index as u32)) {
            passed[index] = needed;
            continue;
        }
        let through = |region: usize| {
            let outside = inputs.iter().filter(|input| region_of[**input].is_none());
            let loops = outside.flat_map(|input| &passed[*input]).any(|other| *other == region);
            loops || needed.iter().any(|other| before[*other].contains(&region))
        };
        let joined = inputs.iter().filter_map(|input| region_of[*input]);
        let joined = joined.filter(|region| members[*region].len() < MOST_NODES);
        let own = match joined.filter(|region| !through(*region)).min() {
            Some(own) => own,
            None if members.len() == MOST_REGIONS => {
                passed[index] = needed;
                continue;
            }
            None => {
                members.push(Vec::new());
                before.push(BTreeSet::new());
                members.len() - 1
            }
        };
        members[own].push(index as u32);
        region_of[index] = Some(own);
        needed.remove(&own);
        let all: BTreeSet<usize> = needed
            .iter()
            .flat_map(|region| &before[*region])
            .copied()
            .chain(needed.clone())
            .collect();
        for (region, before) in before.iter_mut().enumerate() {
            if region == own || before.contains(&own) {
                before.extend(&all);
            }
        }
    }
    members
        .into_iter()
        .filter(|nodes| nodes.iter().any(|node| is_heavy(&graph.nodes[*node as usize])))
        .map(|nodes| bounded(graph, nodes, &is_constant))
        .collect()
}

/// Finds the inputs and outputs of a region.
fn bounded(graph: &Graph, nodes: Vec<u32>, is_constant: &dyn Fn(&ValueId) -> bool) -> Region {
    let inside = |value: &ValueId| nodes.binary_search(&value.node).is_ok();
    let mut region = Region::default();
    let mut outputs = BTreeSet::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let own = nodes.binary_search(&(index as u32)).is_ok();
        for input in &node.inputs {
            if own && !inside(input) && !is_constant(input) && !region.inputs.contains(input) {
                region.inputs.push(*input);
            }
            if !own && inside(input) {
                outputs.insert(*input);
            }
        }
    }
    outputs.extend(graph.outputs.iter().filter(|output| inside(output)));
    region.outputs = outputs.into_iter().collect();
    region.nodes = nodes;
    region
}

/// Returns whether a value is a constant, or quantized constants, which a plan dequantizes once.
pub fn is_constant(graph: &Graph, value: ValueId) -> bool {
    let node = &graph.nodes[value.node as usize];
    match &node.operator {
        Operator::DequantizeLinear(a) => {
            a.dtype == DType::F32 && node.inputs.iter().all(|value| is_stored(graph, *value))
        }
        _ => is_stored(graph, value),
    }
}

/// Returns whether a value is a constant, in 4 bits or more.
fn is_stored(graph: &Graph, value: ValueId) -> bool {
    let node = &graph.nodes[value.node as usize];
    match &node.operator {
        Operator::Constant(_) => true,
        Operator::Unpack => {
            let packed = node.inputs.first().map(|value| &graph.nodes[value.node as usize]);
            packed.is_some_and(|node| matches!(node.operator, Operator::Constant(_)))
        }
        _ => false,
    }
}

/// Returns whether most time of a network is spent in nodes like this.
fn is_heavy(node: &Node) -> bool {
    matches!(node.operator, Operator::Conv(_) | Operator::Einsum(_))
}

/// Returns whether an operator has kernels. Shapes are checked when a plan is compiled.
fn is_covered(graph: &Graph, node: &Node) -> bool {
    let is_float = |value: &ValueId| graph.fact(*value).dtype == DType::F32;
    let constant =
        |index: usize| node.inputs.get(index).is_some_and(|value| is_constant(graph, *value));
    let computed = node.inputs.iter().enumerate().any(|(index, _)| !constant(index));
    let one = node.outputs.len() == 1 && node.outputs[0].dtype == DType::F32;
    if !one || !computed || !node.inputs.iter().all(is_float) {
        return false;
    }
    match &node.operator {
        Operator::Conv(conv) => {
            constant(1) && constant(2) && (1..=2).contains(&conv.window.kernel.len())
        }
        Operator::Einsum(_) => node.inputs.len() == 2,
        Operator::Reduce(a) => crate::functions::reducer(a.reducer).is_some(),
        Operator::Binary(binary) => {
            matches!(
                binary,
                Binary::Add
                    | Binary::Subtract
                    | Binary::SubtractFrom
                    | Binary::Multiply
                    | Binary::Divide
                    | Binary::Minimum
                    | Binary::Maximum
            )
        }
        Operator::Unary(function) => unary(*function).is_some(),
        Operator::MaxPool(pool) => (1..=2).contains(&pool.window.kernel.len()),
        Operator::SumPool(pool) => (1..=2).contains(&pool.window.kernel.len()),
        Operator::AddAxis(_)
        | Operator::RemoveAxis(_)
        | Operator::MoveAxis(_)
        | Operator::Reshape(_)
        | Operator::Slice(_)
        | Operator::Concat(_)
        | Operator::NearestUpsample(_)
        | Operator::Softmax(_)
        | Operator::RmsNorm(_) => true,
        Operator::Downsample(a) => a.stride > 0,
        _ => false,
    }
}
