//! Operations on constants that are not evaluated before the model runs.

use tract_core::internal::*;

/// An operation that tract does not evaluate while it optimizes, although its inputs are constant.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::float) struct Late(Box<dyn TypedOp>);

impl Eq for Late {}

impl Late {
    /// Wraps an operation.
    pub fn new(op: Box<dyn TypedOp>) -> Late {
        Late(op)
    }
}

impl Op for Late {
    fn name(&self) -> StaticName {
        self.0.name()
    }

    fn mints_runtime_symbols(&self) -> bool {
        self.0.mints_runtime_symbols()
    }

    fn required_bound_symbols(&self, inputs: &[&TypedFact]) -> TVec<Symbol> {
        self.0.required_bound_symbols(inputs)
    }

    op_as_typed_op!();
}

impl EvalOp for Late {
    not_out_of_plan!();

    fn eval(&self, context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.0.eval(context, inputs)
    }

    fn state(&self, context: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        ensure!(self.0.state(context)?.is_none(), "it keeps a state");
        Ok(None)
    }
}

impl TypedOp for Late {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.0.output_facts(inputs)
    }

    as_op!();
}
