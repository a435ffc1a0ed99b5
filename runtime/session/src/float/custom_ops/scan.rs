//! Loops over slices of their inputs, run by checked code.
//!
//! tract's own loop copies slices without checking them against the source and target tensors. It
//! trusts that all inputs have as many slices as the first. It also carries its state from one
//! inference into the next, whereas ONNX starts each inference with the initial state.

use std::sync::Arc;

use tract_core::internal::*;
use tract_core::ops::scan::{InputMapping, OutputMapping, Scan as TractScan, ScanInfo};

use crate::float::run::{NoWatch, begin, control, run};

/// The bytes that a value takes besides its elements.
const SLICE: usize = 256;

/// A loop that is ready to run.
#[derive(Clone, Debug)]
pub(in crate::float) struct Scan {
    plan: Arc<TypedSimplePlan>,
    inputs: Arc<[InputMapping]>,
    outputs: Arc<[OutputMapping<TDim>]>,
    facts: TVec<TypedFact>,
}

impl Scan {
    /// Creates the loop from tract's and a plan of its body. Its outputs have these types and
    /// shapes.
    pub fn new(
        scan: &TractScan,
        plan: Arc<TypedSimplePlan>,
        facts: TVec<TypedFact>,
    ) -> TractResult<Scan> {
        let states = scan.input_mapping.iter().filter(|input| input.is_state()).count();
        let carried = scan.output_mapping.iter().filter(|output| output.state).count();
        ensure!(states == carried, "a loop takes {states} states but returns {carried}");
        ensure!(scan.skip == 0, "loops that skip iterations are not supported");
        ensure!(scan.input_mapping.iter().any(InputMapping::is_scan), "a loop has no sliced input");
        let mut slots: Vec<usize> = scan.output_mapping.iter().flat_map(slots).collect();
        slots.sort_unstable();
        ensure!(
            slots.iter().copied().eq(0..facts.len()),
            "a loop must assign each output exactly once"
        );
        Ok(Scan {
            plan,
            inputs: scan.input_mapping.as_slice().into(),
            outputs: scan.output_mapping.as_slice().into(),
            facts,
        })
    }

    /// Returns the plan of its body.
    pub(super) fn body(&self) -> &TypedSimplePlan {
        &self.plan
    }

    /// Returns the number of iterations, which must be the same for each sliced input.
    fn iterations(&self, inputs: &[TValue]) -> TractResult<usize> {
        let mut iterations = None;
        for (mapping, input) in self.inputs.iter().zip(inputs) {
            let Some(info) = mapping.as_scan() else { continue };
            let chunk = info.chunk.unsigned_abs();
            let length = *input.shape().get(info.axis).context("a loop lacks this axis")?;
            ensure!(
                chunk > 0 && length.is_multiple_of(chunk),
                "{length} elements are not a multiple of the chunk size {chunk} of a loop"
            );
            let count = length / chunk;
            ensure!(
                *iterations.get_or_insert(count) == count,
                "the inputs of a loop have different numbers of slices"
            );
        }
        iterations.context("a loop has no sliced input")
    }
}

/// Returns the outputs of the loop that an output of the body contributes to.
fn slots(mapping: &OutputMapping<TDim>) -> impl Iterator<Item = usize> + use<> {
    mapping.scan.map(|(slot, _)| slot).into_iter().chain(mapping.last_value_slot)
}

/// Returns the slice of an input for one iteration.
fn slice(input: &TValue, info: &ScanInfo, iteration: usize) -> TractResult<TValue> {
    let (length, chunk) = (input.shape()[info.axis], info.chunk.unsigned_abs());
    if length == chunk {
        return Ok(input.clone());
    }
    let start = match info.chunk > 0 {
        true => iteration * chunk,
        false => length - (iteration + 1) * chunk,
    };
    Ok(input.slice(info.axis, start, start + chunk)?.into_tvalue())
}

impl PartialEq for Scan {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.plan, &other.plan)
    }
}

impl Eq for Scan {}

impl Op for Scan {
    fn name(&self) -> StaticName {
        "Scan".into()
    }

    fn mints_runtime_symbols(&self) -> bool {
        true
    }

    op_as_typed_op!();
}

impl EvalOp for Scan {
    not_out_of_plan!();

    fn state(&self, _: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        Ok(Some(Box::new(State { scan: self.clone(), body: self.plan.spawn()? })))
    }
}

impl TypedOp for Scan {
    fn output_facts(&self, _: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(self.facts.clone())
    }

    as_op!();
}

/// A loop with the state of its body. The next inference starts from the initial state again.
#[derive(Clone, Debug)]
struct State {
    scan: Scan,
    body: TypedSimpleState,
}

impl OpState for State {
    fn eval(
        &mut self,
        context: &EvalContext,
        _: &dyn Op,
        inputs: TVec<TValue>,
    ) -> TractResult<TVec<TValue>> {
        let State { scan, body } = self;
        ensure!(inputs.len() == scan.inputs.len(), "a loop has a different number of inputs");
        let control = control(context);
        begin(body, &control);
        let mut memory = control.memory_left();
        let iterations = scan.iterations(&inputs)?;
        let mut states: Vec<TValue> =
            scan.inputs.iter().zip(&inputs).filter(|(m, _)| m.is_state()).map(second).collect();
        // The values of each sliced output of the body, one per iteration.
        let mut slices: Vec<Vec<TValue>> = vec![Vec::new(); scan.outputs.len()];
        let mut last: TVec<TValue> = tvec!();
        for iteration in 0..iterations {
            // Values inside an iteration are freed when it ends.
            control.give_back_memory(memory);
            let mut carried = states.drain(..);
            let given = scan.inputs.iter().zip(&inputs).map(|(mapping, input)| match mapping {
                InputMapping::Full => Ok(input.clone()),
                InputMapping::State => carried.next().context("a loop has too few states"),
                InputMapping::Scan(info) => slice(input, info, iteration),
            });
            let given = given.collect::<TractResult<TVec<TValue>>>()?;
            drop(carried);
            last = run(&scan.plan, body, given, &control, &mut NoWatch)?;
            control.give_back_memory(memory);
            for (index, (mapping, value)) in scan.outputs.iter().zip(&last).enumerate() {
                if mapping.scan.is_some() {
                    // A slice stays until the loop ends, and the stacked slices are a copy.
                    control.take_memory(scan.kept_bytes(index, value)?)?;
                    slices[index].push(value.clone());
                }
                if mapping.state {
                    states.push(value.clone());
                }
            }
            memory = control.memory_left();
        }
        scan.gather(context, &slices, &last, &states)
    }

    fn reset_lanes(&mut self, _: &[LaneId]) -> TractResult<()> {
        bail!("a loop runs one sequence at a time")
    }
}

fn second((_, value): (&InputMapping, &TValue)) -> TValue {
    value.clone()
}

impl Scan {
    /// Returns the bytes that a collected slice takes until it is stacked, apart from its elements
    /// and their copy if their number was known when the model was planned.
    fn kept_bytes(&self, output: usize, value: &TValue) -> TractResult<u64> {
        let body = self.plan.model();
        let known = body.output_fact(output)?.shape.as_concrete().is_some();
        let elements = if known { 0 } else { value.len() * value.datum_type().size_of() };
        Ok((2 * elements + SLICE) as u64)
    }

    /// Returns the outputs of the loop. `last` holds the body's outputs of the last iteration. If
    /// there was no iteration, `last` is empty and `states` holds the initial states.
    fn gather(
        &self,
        context: &EvalContext<'_>,
        slices: &[Vec<TValue>],
        last: &[TValue],
        states: &[TValue],
    ) -> TractResult<TVec<TValue>> {
        let mut outputs: TVec<Option<TValue>> = tvec![None; self.facts.len()];
        let mut states = states.iter();
        for (index, mapping) in self.outputs.iter().enumerate() {
            let state = if mapping.state { states.next() } else { None };
            if let Some((slot, info)) = mapping.scan {
                outputs[slot] = Some(match slices[index].is_empty() {
                    true => {
                        let mut shape =
                            self.facts[slot].shape.eval_to_usize(context.symbols)?.into_owned();
                        *shape.get_mut(info.axis).context("a loop lacks this axis")? = 0;
                        Tensor::zero_dt(self.facts[slot].datum_type, &shape)?.into_tvalue()
                    }
                    false if slices[index].len() == 1 => slices[index][0].clone(),
                    false => stack(&slices[index], &info)?,
                });
            }
            if let Some(slot) = mapping.last_value_slot {
                let value = last.get(index).or(state);
                let value = value.context("a loop without iterations has no last value")?;
                outputs[slot] = Some(value.clone());
            }
        }
        let outputs: Option<TVec<TValue>> = outputs.into_iter().collect();
        outputs.context("a loop does not assign each of its outputs")
    }
}

/// Concatenates the values of all iterations.
fn stack(values: &[TValue], info: &ScanInfo) -> TractResult<TValue> {
    let tensors: Vec<&Tensor> = match info.chunk > 0 {
        true => values.iter().map(|value| &**value).collect(),
        false => values.iter().rev().map(|value| &**value).collect(),
    };
    Ok(Tensor::stack_tensors(info.axis, &tensors)?.into_tvalue())
}
