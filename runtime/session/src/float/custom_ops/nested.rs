//! The bodies of loops and branches.

use tract_core::internal::*;

use super::{Branch, Scan};

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
