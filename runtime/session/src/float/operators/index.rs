//! Operators that pick or write elements by index, and those that make indices.

#[cfg(feature = "export")]
use hardtack_bundle::graph::Operator;
use hardtack_bundle::graph::{Dim, Gather, OneHot, ScatterElements, ScatterReduction, TopK};
use tract_core::internal::*;
use tract_core::ops::array;

use crate::float::error::{Problem, require};
use crate::float::load::Context;
#[cfg(feature = "export")]
use crate::float::save::Scope;
#[cfg(feature = "export")]
use crate::float::tensors::dtype_from_tract;
use crate::float::tensors::dtype_to_tract;

pub(super) fn gather(cx: &Context<'_>, a: &Gather) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(2)?;
    let axis = cx.axis(a.axis, cx.input(0).rank())?;
    Ok(Box::new(array::Gather { axis, output_type: a.output_dtype.map(dtype_to_tract) }))
}

pub(super) fn gather_elements(cx: &Context<'_>, axis: u32) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(2)?;
    require(cx.input(0).rank() == cx.input(1).rank(), "its inputs differ in rank")?;
    Ok(Box::new(array::GatherElements { axis: cx.axis(axis, cx.input(0).rank())? }))
}

pub(super) fn gather_nd(cx: &Context<'_>, batch: u32) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(2)?;
    let (rank, batch_dims) = (cx.input(0).rank(), batch as usize);
    let length = cx.input(1).shape.last().and_then(|dim| dim.as_i64());
    let length = length.ok_or("the length of its index tuples is not known")?;
    let fits = batch_dims < cx.input(1).rank()
        && length >= 0
        && batch_dims.saturating_add(length as usize) <= rank;
    require(fits, "its index tuples do not fit its input")?;
    Ok(Box::new(array::GatherNd { batch_dims }))
}

pub(super) fn scatter_elements(
    cx: &Context<'_>,
    a: &ScatterElements,
) -> Result<Box<dyn TypedOp>, Problem> {
    scatter_types(cx)?;
    let axis = cx.axis(a.axis, cx.input(0).rank())?;
    let ranks = (cx.input(1).rank(), cx.input(2).rank());
    require(ranks == (cx.input(0).rank(), cx.input(0).rank()), "its inputs differ in rank")?;
    Ok(Box::new(array::ScatterElements { axis, reduction: reduction(a.reduction) }))
}

pub(super) fn scatter_nd(
    cx: &Context<'_>,
    how: ScatterReduction,
) -> Result<Box<dyn TypedOp>, Problem> {
    scatter_types(cx)?;
    require(cx.input(1).rank() > 0, "its index tuples have no dimension")?;
    Ok(Box::new(array::ScatterNd { reduction: reduction(how) }))
}

/// Three inputs, the first and last of one type.
fn scatter_types(cx: &Context<'_>) -> Result<(), Problem> {
    cx.arity(3)?;
    require(
        cx.input(0).datum_type == cx.input(2).datum_type,
        "its updates are of another type than its input",
    )
}

pub(super) fn range(cx: &Context<'_>, length: &Dim) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(3)?;
    if let Some(step) = &cx.input(2).konst {
        require(!step.is_zero()?, "its step is 0")?;
    }
    Ok(Box::new(array::Range::new(cx.dim(length)?)))
}

pub(super) fn one_hot(cx: &Context<'_>, a: &OneHot) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    let (off, on) = (cx.scalar(a.off)?, cx.scalar(a.on)?);
    require(off.datum_type() == on.datum_type(), "its two values differ in type")?;
    let dim = u32::try_from(a.depth).map_err(|_| "its depth is unreasonably large")? as usize;
    Ok(Box::new(array::OneHot { axis: cx.axis(a.axis, cx.input(0).rank() + 1)?, dim, off, on }))
}

pub(super) fn top_k(cx: &Context<'_>, a: &TopK) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(2)?;
    let axis = cx.axis(a.axis, cx.input(0).rank())?;
    if let (Some(k), Some(size)) = (&cx.input(1).konst, cx.input(0).shape[axis].as_i64()) {
        let k = k.cast_to_scalar::<i64>()?;
        require((0..=size).contains(&k), "it wants more elements than there are")?;
    }
    Ok(Box::new(array::Topk { axis, largest: a.largest, fallback_k: cx.dim(&a.k)? }))
}

pub(super) fn trilu(cx: &Context<'_>, upper: bool) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(2)?;
    require(cx.input(0).rank() >= 2, "its input is no matrix")?;
    Ok(Box::new(array::Trilu { upper }))
}

#[cfg(feature = "export")]
pub(super) fn save(op: &dyn TypedOp, scope: &mut Scope<'_>) -> Result<Option<Operator>, Problem> {
    Ok(Some(if let Some(op) = op.downcast_ref::<array::Gather>() {
        let output_dtype = match op.output_type {
            None => None,
            Some(dtype) => match dtype_from_tract(dtype) {
                None => return Ok(None),
                dtype => dtype,
            },
        };
        Operator::Gather(Gather { axis: op.axis as u32, output_dtype })
    } else if let Some(op) = op.downcast_ref::<array::GatherElements>() {
        Operator::GatherElements(op.axis as u32)
    } else if let Some(op) = op.downcast_ref::<array::GatherNd>() {
        Operator::GatherNd(op.batch_dims as u32)
    } else if let Some(op) = op.downcast_ref::<array::ScatterElements>() {
        Operator::ScatterElements(ScatterElements {
            axis: op.axis as u32,
            reduction: reduction_from_tract(op.reduction),
        })
    } else if let Some(op) = op.downcast_ref::<array::ScatterNd>() {
        Operator::ScatterNd(reduction_from_tract(op.reduction))
    } else if op.is::<array::Range>() {
        // The length is private to tract, but the shape of the value tells it.
        Operator::Range(scope.dim(&scope.outputs[0].shape[0]))
    } else if let Some(op) = op.downcast_ref::<array::OneHot>() {
        let (Some(off), Some(on)) = (scope.constant(&op.off)?, scope.constant(&op.on)?) else {
            return Ok(None);
        };
        Operator::OneHot(OneHot { axis: op.axis as u32, depth: op.dim as u64, off, on })
    } else if let Some(op) = op.downcast_ref::<array::Topk>() {
        let k = scope.dim(&op.fallback_k);
        Operator::TopK(TopK { axis: op.axis as u32, largest: op.largest, k })
    } else if let Some(op) = op.downcast_ref::<array::Trilu>() {
        Operator::Trilu(op.upper)
    } else {
        return Ok(None);
    }))
}

fn reduction(reduction: ScatterReduction) -> array::ScatterReduction {
    match reduction {
        ScatterReduction::None => array::ScatterReduction::None,
        ScatterReduction::Add => array::ScatterReduction::Add,
        ScatterReduction::Multiply => array::ScatterReduction::Mul,
        ScatterReduction::Minimum => array::ScatterReduction::Min,
        ScatterReduction::Maximum => array::ScatterReduction::Max,
    }
}

#[cfg(feature = "export")]
fn reduction_from_tract(reduction: array::ScatterReduction) -> ScatterReduction {
    match reduction {
        array::ScatterReduction::None => ScatterReduction::None,
        array::ScatterReduction::Add => ScatterReduction::Add,
        array::ScatterReduction::Mul => ScatterReduction::Multiply,
        array::ScatterReduction::Min => ScatterReduction::Minimum,
        array::ScatterReduction::Max => ScatterReduction::Maximum,
    }
}
