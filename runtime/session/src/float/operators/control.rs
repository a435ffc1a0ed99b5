//! Loops and branches.

#[cfg(feature = "export")]
use hardtack_bundle::graph::Operator;
#[cfg(feature = "export")]
use hardtack_bundle::graph::ScanOutput;
use hardtack_bundle::graph::{If, Scan, ScanInput, ScanSlice};
use tract_core::internal::*;
use tract_core::ops::logic::IfThenElse;
use tract_core::ops::scan;
use tract_core::ops::scan::{InputMapping, OutputMapping, ScanInfo};

use crate::float::error::{Problem, require};
use crate::float::load::{Context, Purpose};
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
        let fact = body.input_fact(index)?;
        require(
            fact.rank() == cx.input(index).rank() && fact.datum_type == cx.input(index).datum_type,
            "the inputs of its body are of another type or rank",
        )?;
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
    let mut op = scan::Scan::new(body, input_mapping, output_mapping, skip)?;
    op.reset_every_turn = a.reset_every_turn;
    op.external_state = a.external_state;
    Ok(Box::new(op))
}

pub(super) fn branch(cx: &Context<'_>, a: &If) -> Result<Box<dyn TypedOp>, Problem> {
    require(!cx.inputs.is_empty(), "it has no condition")?;
    let body = |index: u32| -> Result<TypedModel, Problem> {
        let body = cx.loader.body(index)?;
        // tract runs bodies of branches as they are.
        Ok(if cx.loader.purpose == Purpose::Run { body.into_optimized()? } else { body })
    };
    let list = |inputs: &[u32]| inputs.iter().map(|input| *input as usize).collect();
    Ok(Box::new(IfThenElse {
        then_body: body(a.then_body)?,
        then_input_mapping: list(&a.then_inputs),
        else_body: body(a.else_body)?,
        else_input_mapping: list(&a.else_inputs),
    }))
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
