//! Replaces tract's loops and branches with the checked ones of this crate.

use std::sync::Arc;

use tract_core::internal::*;
use tract_core::ops::logic::IfThenElse;
use tract_core::ops::scan::OptScan;

use super::{Branch, Scan};

/// Replaces every loop and branch of an optimized model, including those in bodies.
pub(in crate::float) fn check_bodies(model: &mut TypedModel) -> TractResult<()> {
    for node in &mut model.nodes {
        let facts = || node.outputs.iter().map(|output| output.fact.clone()).collect();
        let checked: Option<Box<dyn TypedOp>> = if let Some(scan) = node.op_as::<OptScan>() {
            Some(Box::new(Scan::new(scan, facts())?))
        } else if let Some(branch) = node.op_as::<IfThenElse>() {
            Some(Box::new(Branch::new(branch, facts())?))
        } else {
            None
        };
        if let Some(checked) = checked {
            node.op = checked;
        }
    }
    Ok(())
}

/// Plans an optimized body after replacing its loops and branches.
pub(super) fn checked_plan(body: &TypedModel) -> TractResult<Arc<TypedSimplePlan>> {
    let mut body = body.clone();
    check_bodies(&mut body)?;
    TypedSimplePlan::new(body)
}
