//! Converts loops and branches.

#[cfg(feature = "export")]
use hardtack_bundle::graph::Operator;
#[cfg(feature = "export")]
use hardtack_bundle::graph::ScanOutput;
use hardtack_bundle::graph::{If, Scan, ScanInput, ScanSlice};
use tract_core::internal::*;
use tract_core::ops::logic::IfThenElse;
use tract_core::ops::scan;
use tract_core::ops::scan::{InputMapping, OutputMapping, ScanInfo};

use crate::float::custom_ops::Branch;
use crate::float::error::{Problem, require};
use crate::float::load::{Context, Purpose};
use crate::float::optimize::ready;
#[cfg(feature = "export")]
use crate::float::save::Scope;

pub(super) fn scan(cx: &Context<'_>, a: &Scan) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(a.inputs.len())?;
    let body = cx.loader.body(a.body)?;
    let slice = |slice: &ScanSlice, rank: usize| -> Result<ScanInfo, Problem> {
        let chunk = i32::try_from(slice.chunk).ok().filter(|chunk| *chunk != 0);
        let chunk = chunk.ok_or("its chunk is 0 or too large")?;
        Ok(ScanInfo { axis: cx.axis(slice.axis, rank)?, chunk: chunk as isize })
    };
    let mut input_mapping = Vec::new();
    for (index, input) in a.inputs.iter().enumerate() {
        input_mapping.push(match input {
            ScanInput::Full => InputMapping::Full,
            ScanInput::State => InputMapping::State,
            ScanInput::Slice(of) => InputMapping::Scan(slice(of, cx.input(index).rank())?),
        });
    }
    let mut output_mapping = Vec::new();
    for (index, output) in a.outputs.iter().enumerate() {
        let rank = body.output_fact(index)?.rank();
        let slices = output.slices.as_ref();
        let slices = slices.map(|(slot, of)| Ok::<_, Problem>((*slot as usize, slice(of, rank)?)));
        output_mapping.push(OutputMapping {
            scan: slices.transpose()?,
            full_dim_hint: output.full_dim.as_ref().map(|dim| cx.dim(dim)).transpose()?,
            last_value_slot: output.last_value.map(|slot| slot as usize),
            state: output.state,
        });
    }
    let skip = u32::try_from(a.skip).map_err(|_| "it skips too many iterations")? as usize;
    check_inputs(cx, &body, &input_mapping)?;
    check_outputs(cx, &body, &input_mapping, &output_mapping)?;
    let mut op = scan::Scan::new(body, input_mapping, output_mapping, skip)?;
    op.reset_every_turn = a.reset_every_turn;
    op.external_state = a.external_state;
    Ok(Box::new(op))
}

/// Checks that each input of the loop matches the body's: equal, or with the chunk size on the
/// sliced axis. tract runs a loop of one iteration without its body and does not compare them, so a
/// size that is known in only one of them is refused.
fn check_inputs(
    cx: &Context<'_>,
    body: &TypedModel,
    inputs: &[InputMapping],
) -> Result<(), Problem> {
    let mut iterations = None;
    for (index, mapping) in inputs.iter().enumerate() {
        let (given, taken) = (cx.input(index), body.input_fact(index)?);
        let mut shape = given.shape.to_tvec();
        if let InputMapping::Scan(info) = mapping {
            let chunk = info.chunk.unsigned_abs();
            if let Some(size) = shape[info.axis].as_i64() {
                let count = size / chunk as i64;
                let whole = size % chunk as i64 == 0 && *iterations.get_or_insert(count) == count;
                require(whole, "its sliced inputs differ in the number of iterations")?;
            }
            shape[info.axis] = chunk.to_dim();
        }
        require(
            equals(taken, given.datum_type, &shape),
            "its inputs do not match its body in type or shape",
        )?;
    }
    let sliced = inputs.iter().any(|mapping| mapping.as_scan().is_some());
    require(sliced, "none of its inputs is sliced")
}

/// Checks that every output is assigned once, and that each state matches what the body takes.
fn check_outputs(
    cx: &Context<'_>,
    body: &TypedModel,
    inputs: &[InputMapping],
    outputs: &[OutputMapping<TDim>],
) -> Result<(), Problem> {
    let mut given = vec![false; cx.node.outputs.len()];
    for (index, mapping) in outputs.iter().enumerate() {
        let slices = mapping.scan.map(|(slot, _)| slot);
        for slot in slices.into_iter().chain(mapping.last_value_slot) {
            let free = given.get_mut(slot).filter(|given| !**given);
            *free.ok_or("an output is assigned twice or does not exist")? = true;
        }
        if let Some((_, info)) = mapping.scan {
            let size = body.output_fact(index)?.shape[info.axis].as_i64();
            let whole = size.is_none_or(|size| size == info.chunk.unsigned_abs() as i64);
            require(whole, "a slice of its outputs differs in size from its chunk")?;
            let forward = info.chunk >= -1;
            require(forward, "reversed outputs must have chunks of one element")?;
        }
    }
    require(given.iter().all(|given| *given), "one of its outputs is not assigned")?;
    let taken = inputs.iter().enumerate().filter(|(_, mapping)| mapping.is_state());
    let fed = outputs.iter().enumerate().filter(|(_, mapping)| mapping.state);
    require(
        taken.clone().count() == fed.clone().count(),
        "its body takes and returns different numbers of states",
    )?;
    for ((input, _), (output, _)) in taken.zip(fed) {
        let (taken, fed) = (body.input_fact(input)?, body.output_fact(output)?);
        require(
            equals(taken, fed.datum_type, &fed.shape.to_tvec()),
            "a state that its body returns does not match its input in type or shape",
        )?;
    }
    Ok(())
}

/// Returns whether a fact has this type and exactly this shape.
fn equals(fact: &TypedFact, dtype: DatumType, shape: &[TDim]) -> bool {
    fact.datum_type == dtype && *fact.shape == *shape
}

/// Returns whether a fact has this type, and this shape as far as the sizes are known.
fn fits(fact: &TypedFact, dtype: DatumType, shape: &[TDim]) -> bool {
    let unequal = |(a, b): (&TDim, &TDim)| a.as_i64().zip(b.as_i64()).is_some_and(|(a, b)| a != b);
    fact.datum_type == dtype
        && fact.rank() == shape.len()
        && !fact.shape.iter().zip(shape).any(unequal)
}

pub(super) fn branch(cx: &Context<'_>, a: &If) -> Result<Box<dyn TypedOp>, Problem> {
    require(!cx.inputs.is_empty(), "it has no condition")?;
    let condition = cx.input(0);
    require(
        condition.datum_type == DatumType::Bool && condition.shape.volume().as_i64() == Some(1),
        "its condition is not a single element of type bool",
    )?;
    let body = |index: u32, inputs: &[u32]| -> Result<TypedModel, Problem> {
        let body = cx.loader.body(index)?;
        require(body.inputs.len() == inputs.len(), "its inputs differ in number from its body")?;
        for (taken, given) in inputs.iter().enumerate() {
            let given = cx
                .inputs
                .get(*given as usize)
                .ok_or("it refers to an input that does not exist")?;
            require(
                fits(body.input_fact(taken)?, given.datum_type, &given.shape.to_tvec()),
                "its inputs do not match its body in type or shape",
            )?;
        }
        // A plan runs the body of a branch without optimizing it.
        let mut body = body;
        if cx.loader.purpose == Purpose::Run {
            ready(&mut body, false, &cx.loader.budget)?;
        }
        Ok(body)
    };
    let list = |inputs: &[u32]| inputs.iter().map(|input| *input as usize).collect();
    let branch = IfThenElse {
        then_body: body(a.then_body, &a.then_inputs)?,
        then_input_mapping: list(&a.then_inputs),
        else_body: body(a.else_body, &a.else_inputs)?,
        else_input_mapping: list(&a.else_inputs),
    };
    // tract computes a branch of constants while it simplifies, without the checks of a run.
    Ok(match cx.loader.purpose {
        Purpose::Run => Box::new(Branch::new(&branch, branch.output_facts(cx.inputs)?)?),
        #[cfg(feature = "export")]
        Purpose::Save => Box::new(branch),
    })
}

#[cfg(feature = "export")]
pub(super) fn save(op: &dyn TypedOp, scope: &mut Scope<'_>) -> Result<Option<Operator>, Problem> {
    let slice = |info: &ScanInfo| ScanSlice { axis: info.axis as u32, chunk: info.chunk as i64 };
    Ok(Some(if let Some(op) = op.downcast_ref::<scan::Scan>() {
        let inputs = op.input_mapping.iter().map(|input| match input {
            InputMapping::Full => ScanInput::Full,
            InputMapping::State => ScanInput::State,
            InputMapping::Scan(info) => ScanInput::Slice(slice(info)),
        });
        let outputs = op.output_mapping.iter().map(|output| ScanOutput {
            slices: output.scan.as_ref().map(|(slot, info)| (*slot as u32, slice(info))),
            full_dim: output.full_dim_hint.as_ref().map(|dim| scope.dim(dim)),
            last_value: output.last_value_slot.map(|slot| slot as u32),
            state: output.state,
        });
        let (inputs, outputs) = (inputs.collect(), outputs.collect());
        Operator::Scan(Scan {
            body: scope.body(&op.body),
            skip: op.skip as u64,
            reset_every_turn: op.reset_every_turn,
            external_state: op.external_state,
            inputs,
            outputs,
        })
    } else if let Some(op) = op.downcast_ref::<IfThenElse>() {
        let list = |inputs: &[usize]| inputs.iter().map(|input| *input as u32).collect();
        Operator::If(If {
            then_body: scope.body(&op.then_body),
            then_inputs: list(&op.then_input_mapping),
            else_body: scope.body(&op.else_body),
            else_inputs: list(&op.else_input_mapping),
        })
    } else {
        return Ok(None);
    }))
}
