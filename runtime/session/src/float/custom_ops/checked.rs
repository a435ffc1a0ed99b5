//! Wraps operations of tract in checks of their operands.

use tract_core::internal::*;

use super::check::Check;

/// An operation whose operands are checked before it runs. Its outputs are compared with the stated
/// facts before another operation reads them.
///
/// tract does not optimize the wrapped operation. When the model is prepared, a check of shapes
/// alone is therefore split off as a [`Guard`], so that tract can optimize the operation itself.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::float) struct Checked {
    check: Check,
    op: Box<dyn TypedOp>,
    /// The stated facts of the outputs; empty if there are none.
    stated: TVec<TypedFact>,
}

impl Eq for Checked {}

/// An output that does not match its stated fact.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "output {output} is {given:?} of shape {shape:?}, but {expected:?} of shape {stated:?} is stated"
)]
struct OutputError {
    output: usize,
    given: DatumType,
    shape: TVec<usize>,
    expected: DatumType,
    stated: TVec<TDim>,
}

impl Checked {
    /// Wraps the operation in a check.
    pub fn new(check: Check, op: Box<dyn TypedOp>, stated: TVec<TypedFact>) -> Checked {
        Checked { check, op, stated }
    }

    fn compare(&self, values: &[TValue], symbols: &SymbolValues) -> TractResult<()> {
        if self.stated.is_empty() {
            return Ok(());
        }
        let (given, stated) = (values.len(), self.stated.len());
        ensure!(given == stated, "it has {given} outputs, but the graph states {stated}");
        for (output, (value, fact)) in values.iter().zip(&self.stated).enumerate() {
            let dims: TVec<TDim> = fact.shape.iter().map(|dim| dim.eval(symbols)).collect();
            let fits = value.datum_type() == fact.datum_type
                && value.rank() == dims.len()
                && value.shape().iter().zip(&dims).all(|(size, dim)| {
                    dim.as_i64().is_none_or(|dim| usize::try_from(dim).is_ok_and(|d| d == *size))
                });
            if !fits {
                let (given, shape) = (value.datum_type(), value.shape().into());
                let expected = fact.datum_type;
                Err(OutputError { output, given, shape, expected, stated: dims })?;
            }
        }
        Ok(())
    }

    /// Splits into a guard followed by the operation itself.
    fn split(&self, model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
        rule_if!(self.check.operands().is_empty());
        // If all inputs became constant, the guard is never read: its check is done here.
        self.check.load(&model.node_input_facts(node.id)?)?;
        let mut patch = TypedModelPatch::default();
        let taps = patch.taps(model, &node.inputs)?;
        let guard = Guard { check: self.check.clone() };
        let mut inputs = patch.wire_node(format!("{}.guard", node.name), guard, &taps)?;
        // Constant inputs bypass the guard, so that tract still sees them as constants.
        for (input, tap) in inputs.iter_mut().zip(&taps) {
            if patch.outlet_fact(*tap)?.konst.is_some() {
                *input = *tap;
            }
        }
        let outputs = patch.wire_node(&node.name, self.op.clone(), &inputs)?;
        for (slot, mut output) in outputs.into_iter().enumerate() {
            let fact = &node.outputs[slot].fact;
            if patch.outlet_fact(output)?.shape != fact.shape {
                let name = format!("{}.stated.{slot}", node.name);
                let stated = Stated { shape: fact.shape.clone() };
                output = patch.wire_node(name, stated, &[output])?[0];
            }
            patch.shunt_outside(model, OutletId::new(node.id, slot), output)?;
        }
        patch.obliterate(node.id)?;
        Ok(Some(patch))
    }
}

impl Op for Checked {
    fn name(&self) -> StaticName {
        self.op.name()
    }

    fn mints_runtime_symbols(&self) -> bool {
        true
    }

    fn required_bound_symbols(&self, inputs: &[&TypedFact]) -> TVec<Symbol> {
        self.op.required_bound_symbols(inputs)
    }

    op_as_typed_op!();
}

impl EvalOp for Checked {
    op_out_of_plan!();

    fn eval(&self, ctx: &EvalContext, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        for (input, tensor) in self.check.run(&inputs, ctx.symbols)? {
            inputs[input] = tensor.into_tvalue();
        }
        let values = self.op.eval(ctx, inputs)?;
        self.compare(&values, ctx.symbols)?;
        Ok(values)
    }
}

impl TypedOp for Checked {
    /// The facts that tract computes, with stated dimensions where tract's are unknown.
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut facts = self.op.output_facts(inputs)?;
        for (fact, stated) in facts.iter_mut().zip(&self.stated) {
            let open = fact.shape.iter().any(|dim| dim.as_i64().is_none());
            if !open || fact.rank() != stated.rank() || fact.datum_type != stated.datum_type {
                continue;
            }
            let dims = fact.shape.iter().zip(stated.shape.iter());
            let dims = dims.map(|(dim, stated)| dim.as_i64().map_or(stated.clone(), TDim::Val));
            *fact = fact.datum_type.fact(dims.collect::<TVec<TDim>>());
        }
        Ok(facts)
    }

    fn declutter(
        &self,
        model: &TypedModel,
        node: &TypedNode,
    ) -> TractResult<Option<TypedModelPatch>> {
        self.split(model, node)
    }

    fn codegen(
        &self,
        model: &TypedModel,
        node: &TypedNode,
    ) -> TractResult<Option<TypedModelPatch>> {
        self.split(model, node)
    }

    as_op!();
}

/// Returns its input unchanged, with the stated shape in place of the one that tract computes.
///
/// Operations that were converted or optimized earlier rely on the stated shape. The evaluator
/// compares the value with it before another operation reads it, and tract does not optimize this
/// operation away.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stated {
    shape: ShapeFact,
}

impl Op for Stated {
    fn name(&self) -> StaticName {
        "Stated".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Stated {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(inputs)
    }
}

impl TypedOp for Stated {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].datum_type.fact(&*self.shape)))
    }

    as_op!();
}

/// Checks its inputs and returns them unchanged.
#[derive(Clone, Debug, PartialEq)]
struct Guard {
    check: Check,
}

impl Eq for Guard {}

impl Op for Guard {
    fn name(&self) -> StaticName {
        "Guard".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Guard {
    op_out_of_plan!();

    fn eval(&self, ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.check.run(&inputs, ctx.symbols)?;
        Ok(inputs)
    }
}

impl TypedOp for Guard {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(inputs.iter().map(|fact| fact.without_value()).collect())
    }

    as_op!();
}
