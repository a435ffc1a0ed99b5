//! Operators that combine elements along axes.

#[cfg(feature = "export")]
use hardtack_bundle::graph::Operator;
use hardtack_bundle::graph::{CumSum, Einsum, Reduce, Reducer, RmsNorm, Softmax};
use tract_core::internal::*;
use tract_core::ops::array;
use tract_core::ops::einsum::EinSum;
use tract_core::ops::nn;
use tract_core::ops::nn::SoftmaxKind;

use crate::float::error::{Problem, require};
use crate::float::load::Context;
#[cfg(feature = "export")]
use crate::float::save::Scope;
#[cfg(feature = "export")]
use crate::float::tensors::dtype_from_tract;
use crate::float::tensors::dtype_to_tract;

pub(super) fn einsum(cx: &Context<'_>, a: &Einsum) -> Result<Box<dyn TypedOp>, Problem> {
    let problem = "its expression does not fit its inputs";
    let (inputs, output) = a.expression.split_once("->").ok_or(problem)?;
    let inputs: Vec<&str> = inputs.split(',').collect();
    cx.arity(inputs.len())?;
    cx.same_types(0)?;
    let ranks = inputs.iter().zip(cx.inputs);
    require(ranks.into_iter().all(|(s, fact)| s.chars().count() == fact.rank()), problem)?;
    require(!output.contains([',', '>']), problem)?;
    // Sizes of one letter must be equal, or 1; a letter of the output alone is an axis of size 1.
    let mut sizes: HashMap<char, i64> = HashMap::new();
    for (letters, fact) in inputs.iter().zip(cx.inputs) {
        for (letter, dim) in letters.chars().zip(fact.shape.iter()) {
            let size = sizes.entry(letter).or_insert(1);
            let dim = dim.as_i64().unwrap_or(1);
            require(dim == 1 || *size == 1 || dim == *size, problem)?;
            *size = (*size).max(dim);
        }
    }
    let axes = AxesMapping::from_strs(&inputs, &[output])?;
    Ok(Box::new(EinSum::new(axes, dtype_to_tract(a.accumulator))))
}

pub(super) fn reduce(cx: &Context<'_>, a: &Reduce) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    let axes = cx.axes(&a.axes, cx.input(0).rank())?;
    Ok(Box::new(nn::Reduce { axes, reducer: reducer(a.reducer) }))
}

pub(super) fn softmax(cx: &Context<'_>, a: &Softmax) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    require(cx.input(0).datum_type.is_float(), "its input is not of floating point")?;
    let axes = cx.axes(&a.axes, cx.input(0).rank())?;
    let kind = if a.logarithm { SoftmaxKind::LogSoftmax } else { SoftmaxKind::Softmax };
    Ok(Box::new(nn::Softmax { axes, quant_output_dt: None, kind }))
}

pub(super) fn rms_norm(cx: &Context<'_>, a: &RmsNorm) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    require(cx.input(0).datum_type.is_float(), "its input is not of floating point")?;
    let axis = cx.axis(a.axis, cx.input(0).rank())?;
    let eps = tensor0(a.epsilon).cast_to_dt(cx.input(0).datum_type)?.into_owned();
    Ok(Box::new(nn::RmsNorm { axis, eps: eps.into_arc_tensor() }))
}

pub(super) fn cum_sum(cx: &Context<'_>, a: &CumSum) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    let axis = cx.axis(a.axis, cx.input(0).rank())?;
    Ok(Box::new(array::CumSum { axis, exclusive: a.exclusive, reverse: a.reverse }))
}

#[cfg(feature = "export")]
pub(super) fn save(op: &dyn TypedOp, _: &mut Scope<'_>) -> Result<Option<Operator>, Problem> {
    let list = |axes: &[usize]| {
        let mut axes: Vec<u32> = axes.iter().map(|axis| *axis as u32).collect();
        axes.sort();
        axes
    };
    Ok(if let Some(op) = op.downcast_ref::<EinSum>() {
        let accumulator = dtype_from_tract(op.operating_dt).filter(|_| op.q_params.is_none());
        accumulator.map(|accumulator| {
            Operator::Einsum(Einsum { expression: op.axes.to_string(), accumulator })
        })
    } else if let Some(op) = op.downcast_ref::<nn::Reduce>() {
        let reducer = reducer_from_tract(op.reducer);
        Some(Operator::Reduce(Reduce { axes: list(&op.axes), reducer }))
    } else if let Some(op) = op.downcast_ref::<nn::Softmax>() {
        op.quant_output_dt.is_none().then(|| {
            Operator::Softmax(Softmax {
                axes: list(&op.axes),
                logarithm: op.kind == SoftmaxKind::LogSoftmax,
            })
        })
    } else if let Some(op) = op.downcast_ref::<nn::RmsNorm>() {
        Some(Operator::RmsNorm(RmsNorm {
            axis: op.axis as u32,
            epsilon: op.eps.cast_to_scalar::<f32>()?,
        }))
    } else {
        op.downcast_ref::<array::CumSum>().map(|op| {
            Operator::CumSum(CumSum {
                axis: op.axis as u32,
                exclusive: op.exclusive,
                reverse: op.reverse,
            })
        })
    })
}

fn reducer(reducer: Reducer) -> nn::Reducer {
    match reducer {
        Reducer::ArgMax { last } => nn::Reducer::ArgMax(last),
        Reducer::ArgMin { last } => nn::Reducer::ArgMin(last),
        Reducer::Maximum => nn::Reducer::Max,
        Reducer::Minimum => nn::Reducer::Min,
        Reducer::Product => nn::Reducer::Prod,
        Reducer::Sum => nn::Reducer::Sum,
        Reducer::MeanOfSquares => nn::Reducer::MeanOfSquares,
        Reducer::All => nn::Reducer::All,
        Reducer::Any => nn::Reducer::Any,
    }
}

#[cfg(feature = "export")]
fn reducer_from_tract(reducer: nn::Reducer) -> Reducer {
    match reducer {
        nn::Reducer::ArgMax(last) => Reducer::ArgMax { last },
        nn::Reducer::ArgMin(last) => Reducer::ArgMin { last },
        nn::Reducer::Max => Reducer::Maximum,
        nn::Reducer::Min => Reducer::Minimum,
        nn::Reducer::Prod => Reducer::Product,
        nn::Reducer::Sum => Reducer::Sum,
        nn::Reducer::MeanOfSquares => Reducer::MeanOfSquares,
        nn::Reducer::All => Reducer::All,
        nn::Reducer::Any => Reducer::Any,
    }
}
