//! Refreshes the expressions that tract keeps for the elements of values, with a limit on their
//! size.
//!
//! This replaces tract's pass `PropagateUniformTdim`, which has no limit: the expression for the
//! square of a square of a size has four times as many terms, and so on.

use tract_core::internal::*;
use tract_core::optim::{OptimizerSession, TypedPass};

use super::measure::bound_elements;

/// The name of the tract pass that is replaced.
pub(super) const REPLACED: &str = "PropagateUniformTdim";

/// The pass that refreshes the expressions.
#[derive(Clone, Debug)]
pub(super) struct PropagateElements;

impl TypedPass for PropagateElements {
    fn reset(&mut self) -> TractResult<()> {
        Ok(())
    }

    fn next(
        &mut self,
        _: &mut OptimizerSession,
        _: &TypedModel,
    ) -> TractResult<Option<TypedModelPatch>> {
        Ok(None)
    }

    fn run_direct(&mut self, model: &mut TypedModel) -> TractResult<bool> {
        let order = model.eval_order()?;
        let mut changed_at_all = false;
        loop {
            let mut changed = false;
            for id in &order {
                // The facts of a node that tract cannot compute again stay as they are.
                let Ok(facts) = model.node(*id).op.output_facts(&model.node_input_facts(*id)?)
                else {
                    continue;
                };
                for (output, mut fact) in model.nodes[*id].outputs.iter_mut().zip(facts) {
                    bound_elements(&mut fact);
                    if output.fact.uniform_tdim != fact.uniform_tdim {
                        output.fact.uniform_tdim = fact.uniform_tdim;
                        changed = true;
                    }
                }
            }
            if !changed {
                return Ok(changed_at_all);
            }
            changed_at_all = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use tract_core::optim::Optimizer;

    use super::*;

    #[test]
    fn tract_still_has_the_pass() {
        let passes = Optimizer::declutter().passes;
        assert!(passes.iter().any(|pass| format!("{pass:?}") == REPLACED));
    }
}
