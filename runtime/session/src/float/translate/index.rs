//! Converts operators that read or write elements by index, and those that create indices.

#[cfg(feature = "export")]
use hardtack_bundle::graph::Operator;
use hardtack_bundle::graph::{Dim, Gather, OneHot, ScatterElements, ScatterReduction, TopK};
use tract_core::internal::*;
use tract_core::ops::array;

use crate::float::custom_ops;
use crate::float::custom_ops::Check;
use crate::float::error::{Problem, require};
use crate::float::load::{Context, Purpose};
#[cfg(feature = "export")]
use crate::float::save::Scope;
#[cfg(feature = "export")]
use crate::float::tensors::dtype_from_tract;
use crate::float::tensors::dtype_to_tract;

pub(super) fn gather(cx: &Context<'_>, a: &Gather) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(2)?;
    let axis = cx.axis(a.axis, cx.input(0).rank())?;
    let dtype = a.output_dtype.map(dtype_to_tract);
    require(
        dtype.is_none_or(|dtype| dtype == cx.input(0).datum_type),
        "its output and input differ in type",
    )?;
    require(cx.input(1).datum_type == DatumType::I64, "its indices are not of type i64")?;
    cx.checked(Check::Gather { axis }, array::Gather { axis, output_type: dtype })
}

pub(super) fn gather_elements(cx: &Context<'_>, axis: u32) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(2)?;
    indices(cx)?;
    require(cx.input(0).rank() == cx.input(1).rank(), "its inputs differ in rank")?;
    let axis = cx.axis(axis, cx.input(0).rank())?;
    cx.checked(Check::GatherElements { axis }, array::GatherElements { axis })
}

pub(super) fn gather_nd(cx: &Context<'_>, batch: u32) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(2)?;
    indices(cx)?;
    let (rank, batch_dims) = (cx.input(0).rank(), batch as usize);
    let length = cx.input(1).shape.last().and_then(|dim| dim.as_i64());
    let length = length.ok_or("the length of its index tuples is unknown")?;
    let fits = batch_dims < cx.input(1).rank()
        && length >= 0
        && batch_dims.saturating_add(length as usize) <= rank;
    require(fits, "its index tuples do not match its input")?;
    let check = Check::GatherNd { batch_dims };
    let op = array::GatherNd { batch_dims };
    if batch_dims > 0 && cx.loader.purpose == Purpose::Run {
        // tract's simplification of constant indices ignores the batch dimensions.
        check.load(cx.inputs)?;
        return cx.guarded(check, op);
    }
    cx.checked(check, op)
}

pub(super) fn scatter_elements(
    cx: &Context<'_>,
    a: &ScatterElements,
) -> Result<Box<dyn TypedOp>, Problem> {
    scatter_types(cx)?;
    let axis = cx.axis(a.axis, cx.input(0).rank())?;
    let ranks = (cx.input(1).rank(), cx.input(2).rank());
    require(ranks == (cx.input(0).rank(), cx.input(0).rank()), "its inputs differ in rank")?;
    let op = array::ScatterElements { axis, reduction: reduction(a.reduction) };
    cx.checked(Check::ScatterElements { axis }, op)
}

pub(super) fn scatter_nd(
    cx: &Context<'_>,
    how: ScatterReduction,
) -> Result<Box<dyn TypedOp>, Problem> {
    scatter_types(cx)?;
    let length = cx.input(1).shape.last().ok_or("its index tuples have no dimension")?;
    require(length.as_i64() != Some(0), "its index tuples are empty")?;
    cx.checked(Check::ScatterNd, array::ScatterNd { reduction: reduction(how) })
}

/// Checks three inputs, where the first and last must have the same type.
fn scatter_types(cx: &Context<'_>) -> Result<(), Problem> {
    cx.arity(3)?;
    indices(cx)?;
    require(
        cx.input(0).datum_type == cx.input(2).datum_type,
        "its updates and input differ in type",
    )
}

/// Checks that input 1 has an integer type.
fn indices(cx: &Context<'_>) -> Result<(), Problem> {
    let dtype = cx.input(1).datum_type;
    require(dtype.is_integer() || dtype.is_tdim(), "its indices are not of an integer type")
}

pub(super) fn range(cx: &Context<'_>, length: &Dim) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(3)?;
    cx.same_types(0)?;
    let dtype = cx.input(0).datum_type;
    require(dtype.is_number() || dtype.is_tdim(), "its inputs are not numbers")?;
    if let Some(step) = &cx.input(2).konst {
        let zero = step.len() == 1 && step.cast_to_scalar::<f64>().is_ok_and(|step| step == 0.0);
        require(!zero, "its step is 0")?;
    }
    let op = array::Range::new(cx.dim(length)?);
    cx.checked(Check::Range { limit: cx.loader.limit }, op)
}

pub(super) fn one_hot(cx: &Context<'_>, a: &OneHot) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    let (off, on) = (cx.scalar(a.off)?, cx.scalar(a.on)?);
    require(off.datum_type() == on.datum_type(), "its two values differ in type")?;
    require(off.rank() == 0 && on.rank() == 0, "its two values are not scalars")?;
    require(cx.input(0).datum_type.is_number(), "its indices are not numbers")?;
    let depth = u32::try_from(a.depth).map_err(|_| "its depth is too large")? as usize;
    let axis = cx.axis(a.axis, cx.input(0).rank() + 1)?;
    if cx.loader.purpose == Purpose::Run {
        let limit = cx.loader.limit;
        return Ok(Box::new(custom_ops::OneHot { axis, depth, off, on, limit }));
    }
    Ok(Box::new(array::OneHot { axis, dim: depth, off, on }))
}

pub(super) fn top_k(cx: &Context<'_>, a: &TopK) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(2)?;
    let axis = cx.axis(a.axis, cx.input(0).rank())?;
    let count = &cx.input(1).shape;
    require(count.volume().as_i64() == Some(1), "its k is not a single element")?;
    require(cx.input(0).datum_type.is_number(), "its input is not numeric")?;
    require(cx.input(1).datum_type.is_integer(), "its k does not have an integer type")?;
    let mut op = custom_ops::TopK { axis, largest: a.largest, k: cx.dim(&a.k)? };
    if let Some(k) = &cx.input(1).konst {
        let size = cx.input(0).shape[axis].as_i64().unwrap_or(i64::MAX);
        let size = usize::try_from(size).map_err(|_| "its input has a negative size")?;
        op.k = op.count(k, size)?.to_dim();
    }
    if cx.loader.purpose == Purpose::Run {
        return Ok(Box::new(op));
    }
    if let Some(x) = cx.input(0).konst.as_ref().filter(|x| x.datum_type().is_float()) {
        let numbers = x.cast_to::<f64>()?;
        let numbers = numbers.try_as_plain_ram()?.as_slice::<f64>()?;
        require(!numbers.iter().any(|x| x.is_nan()), "its input has a NaN element")?;
    }
    Ok(Box::new(array::Topk { axis, largest: a.largest, fallback_k: op.k }))
}

pub(super) fn trilu(cx: &Context<'_>, upper: bool) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(2)?;
    require(cx.input(0).rank() >= 2, "its input has less than 2 dimensions")?;
    let k = cx.input(1);
    require(k.datum_type == DatumType::I64, "its diagonal is not of type i64")?;
    require(k.shape.volume().as_i64() == Some(1), "its diagonal is not a single element")?;
    cx.checked(Check::Diagonal, array::Trilu { upper })
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
        // tract's length is private, but the shape of the output contains it.
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
