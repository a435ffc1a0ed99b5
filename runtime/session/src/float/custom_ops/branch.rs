//! Branches: run one of two graphs, depending on a condition.

use std::sync::Arc;

use tract_core::internal::*;
use tract_core::ops::logic::IfThenElse;

use crate::float::run::{NoWatch, begin, control, run};

/// A branch that is ready to run.
#[derive(Clone, Debug)]
pub(in crate::float) struct Branch {
    yes: Side,
    no: Side,
    facts: TVec<TypedFact>,
}

/// One of the two graphs of a branch, with the indices of the branch inputs that it takes.
#[derive(Clone, Debug)]
struct Side {
    plan: Arc<TypedSimplePlan>,
    inputs: Arc<[usize]>,
}

impl Side {
    fn new(body: &TypedModel, inputs: &[usize]) -> TractResult<Side> {
        Ok(Side { plan: TypedSimplePlan::new(body.clone())?, inputs: inputs.into() })
    }
}

impl Branch {
    /// Creates the branch from tract's. Its outputs have these types and shapes.
    pub fn new(branch: &IfThenElse, facts: TVec<TypedFact>) -> TractResult<Branch> {
        Ok(Branch {
            yes: Side::new(&branch.then_body, &branch.then_input_mapping)?,
            no: Side::new(&branch.else_body, &branch.else_input_mapping)?,
            facts,
        })
    }
}

impl Branch {
    /// Returns the plans of its two graphs.
    pub(super) fn bodies(&self) -> [&TypedSimplePlan; 2] {
        [&self.yes.plan, &self.no.plan]
    }
}

impl PartialEq for Branch {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.yes.plan, &other.yes.plan) && Arc::ptr_eq(&self.no.plan, &other.no.plan)
    }
}

impl Eq for Branch {}

impl Op for Branch {
    fn name(&self) -> StaticName {
        "If".into()
    }

    fn mints_runtime_symbols(&self) -> bool {
        true
    }

    op_as_typed_op!();
}

impl EvalOp for Branch {
    not_out_of_plan!();

    fn state(&self, _: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        Ok(Some(Box::new(State { branch: self.clone(), yes: None, no: None })))
    }
}

impl TypedOp for Branch {
    fn output_facts(&self, _: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(self.facts.clone())
    }

    as_op!();
}

/// The state of a branch. The state of each graph is created when it first runs.
#[derive(Clone, Debug)]
struct State {
    branch: Branch,
    yes: Option<TypedSimpleState>,
    no: Option<TypedSimpleState>,
}

impl OpState for State {
    fn eval(
        &mut self,
        context: &EvalContext,
        _: &dyn Op,
        inputs: TVec<TValue>,
    ) -> TractResult<TVec<TValue>> {
        let condition = inputs.first().context("a branch has no condition")?;
        ensure!(condition.len() == 1, "the condition of a branch has {} elements", condition.len());
        let taken = condition.try_as_plain_ram()?.as_slice::<bool>()?[0];
        let (side, state) = match taken {
            true => (&self.branch.yes, &mut self.yes),
            false => (&self.branch.no, &mut self.no),
        };
        let given = side.inputs.iter().map(|index| inputs.get(*index).cloned());
        let given: Option<TVec<TValue>> = given.collect();
        let given = given.context("a branch refers to an input that does not exist")?;
        let state = match state {
            Some(state) => state,
            None => state.insert(side.plan.spawn()?),
        };
        let control = control(context);
        begin(state, &control);
        run(&side.plan, state, given, &control, &mut NoWatch)
    }

    fn reset_lanes(&mut self, _: &[LaneId]) -> TractResult<()> {
        bail!("a branch runs one sample at a time")
    }
}
