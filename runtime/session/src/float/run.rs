//! Runs a tract plan one operation at a time.
//!
//! The kernels of tract trust that a value has the element type and shape that the plan states for
//! it. A graph can state any size for a value that depends on data, so only the value shows it. Every
//! value is therefore compared with its fact as soon as it is computed, before another operation
//! reads it. Between operations the run ends early where it was cancelled or its time is over.

use tract_core::internal::*;
use tract_core::ops::matmul::optimized::OptMatMul;

use super::ops::check_matmul;
use crate::limits::Control;

/// Watches the operations of a run.
pub(super) trait Watch {
    /// Called before an operation.
    fn before(&mut self) {}

    /// Called with an operation and the values it gave.
    fn after(&mut self, _node: &TypedNode, _values: &mut TVec<TValue>) -> TractResult<()> {
        Ok(())
    }
}

/// Watches nothing.
pub(super) struct NoWatch;

impl Watch for NoWatch {}

/// Begins a run: operations that run a plan of their own get its control from the state.
pub(super) fn begin(state: &mut TypedSimpleState, control: &Control) {
    state.turn_state.shared.insert(control.clone());
}

/// Runs a plan once. `state` is one of `plan`, for which [`begin`] was called.
pub(super) fn run(
    plan: &TypedSimplePlan,
    state: &mut TypedSimpleState,
    inputs: TVec<TValue>,
    control: &Control,
    watch: &mut impl Watch,
) -> TractResult<TVec<TValue>> {
    state.run_plan_with_eval(inputs, |context, state, node, inputs| {
        control.check()?;
        watch.before();
        check_operands(plan.model(), node, &inputs, context.symbols)?;
        check_room(node, context.symbols, control)?;
        let mut values = tract_core::plan::eval(context, state, node, inputs)?;
        check(node, &values, context.symbols, control)?;
        watch.after(node, &mut values)?;
        TractResult::Ok(values)
    })
}

/// The control of the run that an operation is part of.
pub(super) fn control(context: &EvalContext<'_>) -> Control {
    let shared = context.shared.and_then(|shared| shared.get::<Control>());
    shared.cloned().unwrap_or_default()
}

/// Checks the operands of a node whose sizes were not known when they were computed: a symbol may
/// have got its value since. Operands of known size were compared when they were computed.
fn check_operands(
    model: &TypedModel,
    node: &TypedNode,
    operands: &[TValue],
    symbols: &SymbolValues,
) -> TractResult<()> {
    for (outlet, operand) in node.inputs.iter().zip(operands) {
        let fact = model.outlet_fact(*outlet)?;
        let known = fact.shape.as_concrete().is_some();
        ensure!(
            known || fact.matches(operand, Some(symbols))?,
            "node {:?} is given {:?}, and the graph says {:?}",
            node.name,
            operand.shape(),
            fact.shape
        );
    }
    match node.op_as::<OptMatMul>() {
        Some(op) => check_matmul(op, operands, symbols)
            .with_context(|| format!("node {:?} multiplies other matrices", node.name)),
        None => Ok(()),
    }
}

/// Checks that the outputs of a node whose size only this run shows have room, before they are
/// allocated. Those that the operation itself decides are counted when they are there.
fn check_room(node: &TypedNode, symbols: &SymbolValues, control: &Control) -> TractResult<()> {
    let mut bytes = 0u64;
    for output in node.outputs.iter().filter(|output| output.fact.shape.as_concrete().is_none()) {
        let Ok(shape) = output.fact.shape.eval_to_usize(symbols) else { continue };
        let size = output.fact.datum_type.size_of() as u64;
        let all = shape.iter().fold(size, |all, dim| all.saturating_mul((*dim).max(1) as u64));
        bytes = bytes.saturating_add(all);
    }
    if bytes == 0 { Ok(()) } else { Ok(control.check_room(bytes)?) }
}

/// Checks that a node gave values of the types and shapes that the plan states.
fn check(
    node: &TypedNode,
    values: &[TValue],
    symbols: &SymbolValues,
    control: &Control,
) -> TractResult<()> {
    ensure!(
        values.len() == node.outputs.len(),
        "node {:?} gives {} values, and the graph says {}",
        node.name,
        values.len(),
        node.outputs.len()
    );
    for (value, output) in values.iter().zip(&node.outputs) {
        let fact = &output.fact;
        let same = match fact.shape.as_concrete() {
            Some(shape) => value.datum_type() == fact.datum_type && value.shape() == shape,
            None => {
                control.take_memory((value.len() * value.datum_type().size_of()) as u64)?;
                fact.matches(value, Some(symbols))?
            }
        };
        ensure!(
            same,
            "node {:?} gives {:?} {:?}, and the graph says {:?} {:?}",
            node.name,
            value.datum_type(),
            value.shape(),
            fact.datum_type,
            fact.shape
        );
    }
    Ok(())
}
