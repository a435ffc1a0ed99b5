//! Replaces tract's loops with the checked ones of this crate.

use std::sync::Arc;

use tract_core::internal::*;
use tract_core::ops::scan::Scan as TractScan;

use super::{Branch, Scan};
use crate::float::budget::Budget;
use crate::float::optimize::ready;

/// Replaces every loop of a decluttered model. Their bodies are optimized here, because tract would
/// do so without the checks of this crate.
pub(in crate::float) fn own_loops(model: &mut TypedModel, budget: &Budget) -> TractResult<()> {
    for node in &mut model.nodes {
        let Some(scan) = node.op_as::<TractScan>() else { continue };
        let facts = node.outputs.iter().map(|output| output.fact.clone()).collect();
        let mut body = scan.body.clone();
        ready(&mut body, false, budget)?;
        node.op = Box::new(Scan::new(scan, TypedSimplePlan::new(body)?, facts)?);
    }
    Ok(())
}

/// Returns the plans of the bodies of an operation.
pub(in crate::float) fn bodies(op: &dyn TypedOp) -> TVec<&TypedSimplePlan> {
    if let Some(scan) = op.downcast_ref::<Scan>() {
        tvec!(scan.body())
    } else if let Some(branch) = op.downcast_ref::<Branch>() {
        branch.bodies().into_iter().collect()
    } else {
        tvec!()
    }
}

/// Plans the optimized body of a branch.
pub(super) fn plan(body: &TypedModel) -> TractResult<Arc<TypedSimplePlan>> {
    TypedSimplePlan::new(body.clone())
}
