//! Computes the memory that running a plan takes from its shapes.

use std::collections::HashSet;
use std::sync::Arc;

use tract_core::internal::*;
use tract_core::ops::konst::Const;
use tract_core::ops::matmul::optimized::{MatMulOperand, OptMatMul, ProtoFusedSpec};
use tract_core::ops::matmul::pack::{DynPackedExoticFact, OptMatMulPack};

use super::custom_ops::{EngineProgram, Scan, bodies, prepared};
use super::value_size::bytes;

/// Returns the number of bytes of the packed matrices that the products of a model contain, without
/// those in bodies. They are not constants of the model. Saturates.
pub(super) fn of_packed(model: &TypedModel) -> u64 {
    let products = model.nodes.iter().filter_map(|node| node.op_as::<OptMatMul>());
    let operands = products.flat_map(|op| &op.micro_ops).flat_map(|operation| match operation {
        ProtoFusedSpec::AddMatMul { a, b, .. } => vec![a, b],
        _ => vec![],
    });
    operands.fold(0u64, |all, operand| match operand {
        MatMulOperand::Const(matrix) => {
            let sizes = matrix.exotic_fact().buffer_sizes();
            sizes.iter().fold(all, |all, size| {
                all.saturating_add(size.as_i64().map_or(0, |size| size.max(0) as u64))
            })
        }
        MatMulOperand::Input(_) => all,
    })
}

/// Returns the number of bytes of constants, of arenas of integer programs, and of the values that
/// are alive at the same time while a plan runs. Saturates. Values of unknown size do not count.
pub(super) fn of_plan(plan: &TypedSimplePlan) -> u64 {
    of_constants(plan.model()).saturating_add(peak(plan))
}

/// Returns the number of bytes that a model holds between two inferences: constants, prepared
/// weights, and arenas of integer programs, also those of bodies. Saturates.
pub(super) fn of_constants(model: &TypedModel) -> u64 {
    let mut seen = HashSet::new();
    held(model, &mut seen)
}

fn held(model: &TypedModel, seen: &mut HashSet<*const ()>) -> u64 {
    let mut all = 0u64;
    for node in &model.nodes {
        if let Some(program) = node.op_as::<EngineProgram>() {
            all = all.saturating_add(program.arena_bytes() as u64);
        }
        if let Some((pointer, bytes)) = prepared(&*node.op)
            && seen.insert(pointer)
        {
            all = all.saturating_add(bytes);
        }
        for body in bodies(&*node.op) {
            all = all.saturating_add(held(body.model(), seen));
        }
        for fact in node.outputs.iter().map(|output| &output.fact) {
            let Some(constant) = &fact.konst else { continue };
            if seen.insert(Arc::as_ptr(constant).cast()) {
                all = all.saturating_add(bytes(fact));
            }
        }
    }
    all
}

/// Returns the number of bytes of the values that are alive at the same time while a plan runs.
/// Those of a body are alive while its node runs.
fn peak(plan: &TypedSimplePlan) -> u64 {
    let model = plan.model();
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
    // The bytes of values that are last used by each step.
    let mut freed = vec![0u64; order.len() + 1];
    let (mut alive, mut peak) = (0u64, 0u64);
    for (step, node) in order.iter().enumerate() {
        let node_of_step = model.node(*node);
        let outputs = node_of_step.outputs.iter().map(|output| bytes(&output.fact));
        let made = match is_lazy(node_of_step) {
            true => 0,
            false => outputs.fold(0u64, u64::saturating_add),
        };
        freed[last[*node]] = freed[last[*node]].saturating_add(made);
        alive = alive.saturating_add(made);
        let inside = bodies(&*node_of_step.op).iter().map(|body| self::peak(body)).max();
        // A loop holds the slices that it collects until it has stacked them.
        let stacked = if node_of_step.op_is::<Scan>() { made } else { 0 };
        peak = peak.max(alive.saturating_add(inside.unwrap_or(0)).saturating_add(stacked));
        alive = alive.saturating_sub(freed[step]);
    }
    peak
}

/// Returns whether an operation only refers to the elements of its input: the matrix of a
/// convolution that tract gathers while it multiplies.
fn is_lazy(node: &TypedNode) -> bool {
    let is_packed = |output: &Outlet<TypedFact>| {
        output.fact.exotic_fact().is_some_and(|fact| fact.is::<DynPackedExoticFact>())
    };
    node.outputs.iter().any(is_packed) && !node.op_is::<OptMatMulPack>() && !node.op_is::<Const>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_matrices_count_for_each_element_of_the_batch() {
        let packed = |k: TDim| DynPackedExoticFact { k, mn: 5.to_dim(), packers: vec![] };
        assert_eq!(bytes(&f32::fact([2, 3])), 24);
        assert_eq!(bytes(&f32::fact([2]).with_exotic_fact(packed(3.to_dim()))), 2 * 3 * 5 * 4);
        assert_eq!(bytes(&f64::fact([2]).with_exotic_fact(packed(3.to_dim()))), 2 * 3 * 5 * 8);
        let scope = SymbolScope::default();
        assert_eq!(bytes(&f32::fact([2]).with_exotic_fact(packed(scope.sym("s").to_dim()))), 0);
    }
}
