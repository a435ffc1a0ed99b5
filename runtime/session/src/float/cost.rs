//! What running a model takes, as far as its shapes tell.

use std::collections::HashSet;
use std::sync::Arc;

use tract_core::internal::*;
use tract_core::ops::cnn::{MaxPool, PoolSpec, SumPool};
use tract_core::ops::logic::IfThenElse;
use tract_core::ops::scan;

/// What running a node takes besides its elements, in element operations: about a microsecond.
const NODE: u64 = 16384;

/// The number of element operations of one run of a model that is not optimized yet; saturates.
/// Dimensions that are not known count as 1.
pub(super) fn operations(model: &TypedModel) -> TractResult<u64> {
    let mut total = 0u64;
    for node in &model.nodes {
        let inputs = model.node_input_facts(node.id)?;
        total = total.saturating_add(of_node(node, &inputs)?);
    }
    Ok(total)
}

fn of_node(node: &TypedNode, inputs: &[&TypedFact]) -> TractResult<u64> {
    let outputs = node.outputs.iter().map(|output| volume(&output.fact));
    let written = outputs.fold(NODE, u64::saturating_add);
    if let Some(scan) = node.op_as::<scan::Scan>() {
        let iterations = scan.iteration_count(inputs).and_then(|count| value(&count)).unwrap_or(1);
        return Ok(operations(&scan.body)?.saturating_mul(iterations).saturating_add(written));
    }
    if let Some(branch) = node.op_as::<IfThenElse>() {
        return Ok(operations(&branch.then_body)?.max(operations(&branch.else_body)?));
    }
    let window = |pool: &PoolSpec| {
        let kernel = pool.kernel_shape.iter();
        kernel.fold(1u64, |all, size| all.saturating_mul(*size as u64))
    };
    if let Some(pool) = node.op_as::<MaxPool>() {
        return Ok(written.saturating_mul(window(&pool.pool_spec)));
    }
    if let Some(pool) = node.op_as::<SumPool>() {
        return Ok(written.saturating_mul(window(&pool.pool_spec)));
    }
    let products = node.op.cost(inputs)?.into_iter().filter_map(|(cost, count)| match cost {
        Cost::FMA(_) => value(&count),
        _ => None,
    });
    Ok(products.fold(written, u64::saturating_add))
}

/// The elements of a value; saturates.
fn volume(fact: &TypedFact) -> u64 {
    fact.shape.iter().map(|dim| value(dim).unwrap_or(1)).fold(1, u64::saturating_mul)
}

/// The value of a dimension, where it has no symbols.
fn value(dim: &TDim) -> Option<u64> {
    let value = dim.eval_to_i64(&SymbolValues::default()).ok()?;
    Some(value.max(0) as u64)
}

/// The number of bytes that constants and the values alive at the same time take while a plan runs;
/// saturates. Values of unknown size do not count.
pub(super) fn memory(plan: &TypedSimplePlan) -> u64 {
    let model = plan.model();
    let mut seen = HashSet::new();
    let mut constants = 0u64;
    for fact in model.nodes.iter().flat_map(|node| &node.outputs).map(|output| &output.fact) {
        let Some(constant) = &fact.konst else { continue };
        if seen.insert(Arc::as_ptr(constant)) {
            constants = constants.saturating_add(bytes(fact));
        }
    }
    let order = plan.order_without_consts();
    let mut last = vec![0usize; model.nodes.len()];
    for (step, node) in order.iter().enumerate() {
        last[*node] = last[*node].max(step);
        for input in &model.node(*node).inputs {
            last[input.node] = step;
        }
    }
    for output in &model.outputs {
        last[output.node] = order.len();
    }
    // What each step no longer needs once it has run.
    let mut freed = vec![0u64; order.len() + 1];
    let (mut alive, mut peak) = (0u64, 0u64);
    for (step, node) in order.iter().enumerate() {
        let outputs = model.node(*node).outputs.iter().map(|output| bytes(&output.fact));
        let made = outputs.fold(0u64, u64::saturating_add);
        freed[last[*node]] = freed[last[*node]].saturating_add(made);
        alive = alive.saturating_add(made);
        peak = peak.max(alive);
        alive = alive.saturating_sub(freed[step]);
    }
    constants.saturating_add(peak)
}

/// The bytes of a value; saturates.
fn bytes(fact: &TypedFact) -> u64 {
    match fact.shape.as_concrete() {
        Some(_) => volume(fact).saturating_mul(fact.datum_type.size_of() as u64),
        None => 0,
    }
}
