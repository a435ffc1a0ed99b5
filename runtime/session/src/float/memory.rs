//! Computes the memory that running a plan takes from its shapes.

use std::collections::HashSet;
use std::sync::Arc;

use tract_core::internal::*;
use tract_core::tract_linalg::mmm::PackedExoticFact;

use super::custom_ops::EngineProgram;

/// The maximum number of bytes of an element of a packed matrix.
const PACKED_ELEMENT: u64 = 4;

/// Returns the number of bytes of constants, of arenas of integer programs, and of the values that
/// are alive at the same time while a plan runs. Saturates. Values of unknown size do not count.
pub(super) fn of_plan(plan: &TypedSimplePlan) -> u64 {
    let model = plan.model();
    let mut seen = HashSet::new();
    let arenas = model.nodes.iter().filter_map(|node| node.op_as::<EngineProgram>());
    let mut constants =
        arenas.map(|program| program.arena_bytes() as u64).fold(0, u64::saturating_add);
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
    // The bytes of values that are last used by each step.
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

/// Returns the size of a value in bytes, or 0 if it is unknown. Saturates.
fn bytes(fact: &TypedFact) -> u64 {
    if let Some(packed) =
        fact.exotic_fact().and_then(|fact| fact.downcast_ref::<PackedExoticFact>())
    {
        let mn = packed.mn.as_i64().map_or(0, |mn| mn.max(0) as u64);
        return mn.saturating_mul(packed.k as u64).saturating_mul(PACKED_ELEMENT);
    }
    let size = fact.datum_type.size_of() as u64;
    let Some(shape) = fact.shape.as_concrete() else { return 0 };
    shape.iter().fold(size, |bytes, dim| bytes.saturating_mul(*dim as u64))
}
