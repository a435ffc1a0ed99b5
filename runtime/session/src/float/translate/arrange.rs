//! Converts operators that only move elements.

#[cfg(feature = "export")]
use hardtack_bundle::graph::Operator;
use hardtack_bundle::graph::{
    Dim, Downsample, DynamicSlice, Pad, PadMode, Reshape, Slice, StridedSlice,
};
use tract_core::internal::*;
use tract_core::ops::{array, downsample};

use crate::float::custom_ops::{Check, tile as tile_fits};
use crate::float::error::{Problem, require};
use crate::float::load::Context;
#[cfg(feature = "export")]
use crate::float::save::Scope;

pub(super) fn add_axis(cx: &Context<'_>, axis: u32) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    Ok(Box::new(AxisOp::Add(cx.axis(axis, cx.input(0).rank() + 1)?)))
}

pub(super) fn remove_axis(cx: &Context<'_>, axis: u32) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    Ok(Box::new(AxisOp::Rm(cx.axis(axis, cx.input(0).rank())?)))
}

pub(super) fn move_axis(cx: &Context<'_>, from: u32, to: u32) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    let rank = cx.input(0).rank();
    Ok(Box::new(AxisOp::Move(cx.axis(from, rank)?, cx.axis(to, rank)?)))
}

pub(super) fn reshape(cx: &Context<'_>, a: &Reshape) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    let (from, to) = (cx.shape(&a.from)?, cx.shape(&a.to)?);
    let axis = a.axis as usize;
    let run = cx.input(0).shape.get(axis..axis.saturating_add(from.len()));
    require(run.is_some_and(|run| *run == *from), "its input lacks the dimensions it replaces")?;
    let elements = |dims: &[TDim]| {
        dims.iter().try_fold(1i64, |all, dim| dim.as_i64().and_then(|dim| all.checked_mul(dim)))
    };
    if let (Some(before), Some(after)) = (elements(&from), elements(&to)) {
        require(before == after, "it changes the number of elements")?;
    }
    Ok(Box::new(AxisOp::Reshape(axis, from, to)))
}

pub(super) fn broadcast(cx: &Context<'_>, shape: &[Dim]) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    let shape = cx.shape(shape)?;
    let input = &cx.input(0).shape;
    let repeats = |from: &TDim, to: &TDim| match (from.as_i64(), to.as_i64()) {
        (Some(from), Some(to)) => from == 1 || from == to,
        _ => true,
    };
    let fits = input.rank() <= shape.len()
        && input.iter().rev().zip(shape.iter().rev()).all(|(from, to)| repeats(from, to));
    require(fits, "its input cannot be broadcast to its shape")?;
    Ok(Box::new(array::MultiBroadcastTo { shape: shape.into() }))
}

pub(super) fn slice(cx: &Context<'_>, a: &Slice) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    let axis = cx.axis(a.axis, cx.input(0).rank())?;
    let (start, end) = (cx.dim(&a.start)?, cx.dim(&a.end)?);
    if let (Some(start), Some(end)) = (start.as_i64(), end.as_i64()) {
        let size = cx.input(0).shape[axis].as_i64().unwrap_or(i64::MAX);
        require(0 <= start && start <= end && end <= size, "its range is out of bounds")?;
    }
    Ok(Box::new(array::Slice { axis, start, end }))
}

pub(super) fn dynamic_slice(
    cx: &Context<'_>,
    a: &DynamicSlice,
) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(3)?;
    let axis = cx.axis(a.axis, cx.input(0).rank())?;
    let len = cx.dim(&a.length)?;
    require(len.as_i64().is_none_or(|length| length >= 0), "its length is negative")?;
    for input in [1, 2] {
        require(
            cx.input(input).shape.volume().as_i64() == Some(1),
            "its start or end is not a single element",
        )?;
    }
    cx.checked(Check::DynamicSlice { axis }, array::DynSlice { axis, len })
}

pub(super) fn strided_slice(
    cx: &Context<'_>,
    a: &StridedSlice,
) -> Result<Box<dyn TypedOp>, Problem> {
    let optional = [a.axes_input, a.steps_input];
    cx.arity(3 + optional.iter().flatten().count())?;
    require(
        optional.iter().flatten().all(|input| (3..5).contains(input)),
        "its axes or steps are not input 3 or 4",
    )?;
    require(cx.input(0).rank() < 64, "its input has too many dimensions")?;
    let distinct = a.axes_input.is_none() || a.axes_input != a.steps_input;
    require(distinct, "its axes and steps are the same input")?;
    let (axes, steps) = (a.axes_input.map(|i| i as usize), a.steps_input.map(|i| i as usize));
    let fixed = |input: usize| cx.input(input).konst.is_some();
    require(axes.into_iter().chain(steps).all(fixed), "its axes or steps are not constant")?;
    for input in 1..cx.inputs.len() {
        require(cx.input(input).rank() <= 1, "its starts, ends, axes or steps are not 1-D")?;
    }
    if !(fixed(1) && fixed(2)) {
        computed_bounds(cx, axes, steps)?;
    }
    cx.checked(
        Check::StridedSlice { axes, steps },
        array::StridedSlice {
            optional_axes_input: axes,
            optional_steps_input: steps,
            begin_mask: a.begin_mask,
            end_mask: a.end_mask,
            shrink_axis_mask: a.shrink_axis_mask,
        },
    )
}

/// Checks computed starts and ends: there must be one for each axis, and the steps must be 1. tract
/// would ignore any other step.
fn computed_bounds(
    cx: &Context<'_>,
    axes: Option<usize>,
    steps: Option<usize>,
) -> Result<(), Problem> {
    let elements = |input: usize| cx.input(input).shape.volume().as_i64();
    let count = axes.map_or(Some(cx.input(0).rank() as i64), elements);
    require(
        [1, 2].into_iter().chain(steps).all(|input| elements(input) == count),
        "its starts, ends, axes and steps differ in number, but some bounds are computed",
    )?;
    let Some(steps) = steps else { return Ok(()) };
    let steps = cx.input(steps).konst.as_ref().map(|steps| steps.cast_to::<i64>());
    let steps = steps.transpose()?.ok_or("its steps are not constant")?;
    require(
        steps.try_as_plain_ram()?.as_slice::<i64>()?.iter().all(|step| *step == 1),
        "its steps must be 1 if its starts or ends are computed",
    )
}

pub(super) fn concat(cx: &Context<'_>, axis: u32) -> Result<Box<dyn TypedOp>, Problem> {
    require(!cx.inputs.is_empty(), "it has no inputs")?;
    cx.same_types(0)?;
    let rank = cx.input(0).rank();
    require(cx.inputs.iter().all(|input| input.rank() == rank), "its inputs differ in rank")?;
    Ok(Box::new(array::TypedConcat { axis: cx.axis(axis, rank)? }))
}

pub(super) fn pad(cx: &Context<'_>, a: &Pad) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    let shape = &cx.input(0).shape;
    require(a.pads.len() == shape.rank(), "its padding does not have one size per axis")?;
    // The number of elements the mode needs: reflection needs one more than it pads.
    let least = |(before, after): &(u32, u32)| match a.mode {
        PadMode::Constant(_) => 0,
        PadMode::Edge => (*before > 0 || *after > 0) as usize,
        PadMode::Reflect => *before.max(after) as usize + 1,
    };
    let least = a.pads.iter().map(least).enumerate().filter(|(_, least)| *least > 0).collect();
    let op = array::Pad {
        pads: a.pads.iter().map(|(before, after)| (*before as usize, *after as usize)).collect(),
        mode: match a.mode {
            PadMode::Constant(index) => array::PadMode::Constant(cx.scalar(index)?),
            PadMode::Reflect => array::PadMode::Reflect,
            PadMode::Edge => array::PadMode::Edge,
        },
    };
    cx.checked(Check::Least(least), op)
}

pub(super) fn tile(cx: &Context<'_>, counts: &[Dim]) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    require(counts.len() == cx.input(0).rank(), "it does not have one count per axis")?;
    let multipliers = cx.shape(counts)?;
    // Unknown sizes and counts are checked as 1 here.
    let known = |dim: &TDim| dim.as_i64().unwrap_or(1);
    let sizes: TVec<usize> =
        cx.input(0).shape.iter().map(|dim| usize::try_from(known(dim)).unwrap_or(1)).collect();
    let counts: TVec<i64> = multipliers.iter().map(known).collect();
    let element = cx.input(0).datum_type.size_of();
    tile_fits(&sizes, &counts, element, cx.loader.limit)?;
    Ok(Box::new(array::Tile { multipliers }))
}

pub(super) fn dynamic_tile(cx: &Context<'_>, counts: &[Dim]) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(2)?;
    require(counts.len() == cx.input(0).rank(), "it does not have one count per axis")?;
    let dtype = cx.input(1).datum_type;
    require(dtype.is_integer() || dtype.is_tdim(), "its counts are not of an integer type")?;
    let (element, limit) = (cx.input(0).datum_type.size_of(), cx.loader.limit);
    let op = array::DynTile { multiplier_placeholders: cx.shape(counts)? };
    cx.checked(Check::Tile { element, limit }, op)
}

pub(super) fn downsample(cx: &Context<'_>, a: &Downsample) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    let axis = cx.axis(a.axis, cx.input(0).rank())?;
    let modulo = u32::try_from(a.modulo).map_err(|_| "it skips too many elements")?;
    require(a.stride != 0 && i32::try_from(a.stride).is_ok(), "its stride is 0 or too large")?;
    let modulo = modulo as usize;
    let op = downsample::Downsample { axis, stride: a.stride as isize, modulo };
    cx.checked(Check::Least(tvec!((axis, modulo))), op)
}

#[cfg(feature = "export")]
pub(super) fn save(op: &dyn TypedOp, scope: &mut Scope<'_>) -> Result<Option<Operator>, Problem> {
    Ok(Some(if let Some(op) = op.downcast_ref::<AxisOp>() {
        match op {
            AxisOp::Add(axis) => Operator::AddAxis(*axis as u32),
            AxisOp::Rm(axis) => Operator::RemoveAxis(*axis as u32),
            AxisOp::Move(from, to) => Operator::MoveAxis((*from as u32, *to as u32)),
            AxisOp::Reshape(axis, from, to) => Operator::Reshape(Reshape {
                axis: *axis as u32,
                from: scope.dims(from),
                to: scope.dims(to),
            }),
        }
    } else if op.is::<array::FiniteReshape>() {
        Operator::Reshape(Reshape {
            axis: 0,
            from: scope.dims(scope.inputs[0].shape.dims()),
            to: scope.dims(scope.outputs[0].shape.dims()),
        })
    } else if let Some(op) = op.downcast_ref::<array::MultiBroadcastTo>() {
        Operator::Broadcast(scope.dims(op.shape.dims()))
    } else if let Some(op) = op.downcast_ref::<array::Slice>() {
        let (start, end) = (scope.dim(&op.start), scope.dim(&op.end));
        Operator::Slice(Slice { axis: op.axis as u32, start, end })
    } else if let Some(op) = op.downcast_ref::<array::DynSlice>() {
        let length = scope.dim(&op.len);
        Operator::DynamicSlice(DynamicSlice { axis: op.axis as u32, length })
    } else if let Some(op) = op.downcast_ref::<array::StridedSlice>() {
        Operator::StridedSlice(StridedSlice {
            axes_input: op.optional_axes_input.map(|input| input as u32),
            steps_input: op.optional_steps_input.map(|input| input as u32),
            begin_mask: op.begin_mask,
            end_mask: op.end_mask,
            shrink_axis_mask: op.shrink_axis_mask,
        })
    } else if let Some(op) = op.downcast_ref::<array::TypedConcat>() {
        Operator::Concat(op.axis as u32)
    } else if let Some(op) = op.downcast_ref::<array::Pad>() {
        let mut pads = Vec::with_capacity(op.pads.len());
        for (before, after) in &op.pads {
            let size = |size: &usize| u32::try_from(*size).map_err(|_| "its padding is too large");
            pads.push((size(before)?, size(after)?));
        }
        let mode = match &op.mode {
            array::PadMode::Constant(value) => match scope.constant(value)? {
                Some(index) => PadMode::Constant(index),
                None => return Ok(None),
            },
            array::PadMode::Reflect => PadMode::Reflect,
            array::PadMode::Edge => PadMode::Edge,
        };
        Operator::Pad(Pad { pads, mode })
    } else if let Some(op) = op.downcast_ref::<array::Tile>() {
        Operator::Tile(scope.dims(&op.multipliers))
    } else if let Some(op) = op.downcast_ref::<array::DynTile>() {
        Operator::DynamicTile(scope.dims(&op.multiplier_placeholders))
    } else if let Some(op) = op.downcast_ref::<downsample::Downsample>() {
        Operator::Downsample(Downsample {
            axis: op.axis as u32,
            stride: op.stride as i64,
            modulo: op.modulo as u64,
        })
    } else {
        return Ok(None);
    }))
}
