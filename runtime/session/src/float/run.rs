//! Runs a tract plan one operation at a time.
//!
//! tract's kernels trust that a value has the element type and shape that the plan states. A graph
//! can state any size for a value that depends on data, so the size is known only once the value
//! exists. Every value is therefore compared with its fact as soon as it is computed, before
//! another operation reads it. Between operations, the inference stops if it was canceled or timed
//! out.

use tract_core::internal::*;
use tract_core::ops::matmul::optimized::OptMatMul;

use super::custom_ops::check_matmul;
use super::error::catch;
use super::measure::check_dims;
use super::value_size;
use crate::limits::Control;

/// Observes the operations of an inference.
pub(super) trait Watch {
    /// Called before an operation.
    fn before(&mut self) {}

    /// Called after an operation, with the values that it computed.
    fn after(&mut self, _node: &TypedNode, _values: &mut TVec<TValue>) -> TractResult<()> {
        Ok(())
    }
}

/// An observer that does nothing.
pub(super) struct NoWatch;

impl Watch for NoWatch {}

/// Stores the control in the state, so that operations which run their own plan can find it.
pub(super) fn begin(state: &mut TypedSimpleState, control: &Control) {
    state.turn_state.shared.insert(control.clone());
}

/// Runs a plan once. `state` belongs to `plan`, and [`begin`] was called on it.
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
        check_room(plan.model(), node, &inputs, context.symbols, control)?;
        let mut values = tract_core::plan::eval(context, state, node, inputs)?;
        check(node, &values, context.symbols, control)?;
        watch.after(node, &mut values)?;
        TractResult::Ok(values)
    })
}

/// Returns the control of the inference that an operation belongs to.
pub(super) fn control(context: &EvalContext<'_>) -> Control {
    let shared = context.shared.and_then(|shared| shared.get::<Control>());
    shared.cloned().unwrap_or_default()
}

/// Checks the operands of a node whose sizes were unknown when they were computed: a symbol may
/// have been bound since. Operands of known size were checked when they were computed.
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
            "node {:?} takes an operand of shape {:?}, but the graph states {:?}",
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
fn check_room(
    model: &TypedModel,
    node: &TypedNode,
    operands: &[TValue],
    symbols: &SymbolValues,
    control: &Control,
) -> TractResult<()> {
    let known = |output: &Outlet<TypedFact>| value_size::is_known(&output.fact);
    if node.outputs.iter().all(known) {
        return Ok(());
    }
    // The shapes of the operands are those of the tensors: the symbols need not have values, and
    // the size of a packed matrix is not in its shape.
    let mut facts = Vec::with_capacity(operands.len());
    for (outlet, operand) in node.inputs.iter().zip(operands) {
        let fact = model.outlet_fact(*outlet)?;
        let mut given = fact.datum_type.fact(operand.shape());
        given.konst.clone_from(&fact.konst);
        given.exotic_fact.clone_from(&fact.exotic_fact);
        facts.push(given);
    }
    let facts: Vec<&TypedFact> = facts.iter().collect();
    // Operands that do not match are errors of the operation itself.
    let computed = catch(|| node.op.output_facts(&facts).unwrap_or_default()).unwrap_or_default();
    let mut needed = 0u64;
    for (slot, output) in node.outputs.iter().enumerate().filter(|(_, output)| !known(output)) {
        let of_operands = computed.get(slot).map_or(0, value_size::bytes);
        let of_symbols = match output.fact.shape.eval_to_usize(symbols) {
            Ok(shape) => {
                shape.iter().fold(value_size::element(output.fact.datum_type), |all, dim| {
                    all.saturating_mul((*dim).max(1) as u64)
                })
            }
            Err(_) => 0,
        };
        needed = needed.saturating_add(of_operands.max(of_symbols));
    }
    if needed == 0 { Ok(()) } else { Ok(control.check_room(needed)?) }
}

/// Checks that the values of a node have the types and shapes that the plan states.
fn check(
    node: &TypedNode,
    values: &[TValue],
    symbols: &SymbolValues,
    control: &Control,
) -> TractResult<()> {
    ensure!(
        values.len() == node.outputs.len(),
        "node {:?} has {} outputs, but the graph states {}",
        node.name,
        values.len(),
        node.outputs.len()
    );
    for (value, output) in values.iter().zip(&node.outputs) {
        let fact = &output.fact;
        let same = match fact.shape.as_concrete() {
            Some(shape) => value.datum_type() == fact.datum_type && value.shape() == shape,
            None => {
                let element = value_size::element(value.datum_type());
                control.take_memory((value.len() as u64).saturating_mul(element))?;
                fact.matches(value, Some(symbols))?
            }
        };
        ensure!(
            same,
            "node {:?} computes {:?} {:?}, but the graph states {:?} {:?}",
            node.name,
            value.datum_type(),
            value.shape(),
            fact.datum_type,
            fact.shape
        );
        // tract computes with dimensions in a time and memory that their size does not bound.
        if value.datum_type().is_tdim() {
            let dims = value.try_as_plain_ram()?;
            for dim in dims.as_slice::<TDim>()? {
                check_dims(std::iter::once(std::slice::from_ref(dim)))
                    .map_err(|problem| format_err!("node {:?}: {problem}", node.name))?;
            }
        }
    }
    Ok(())
}
