//! Converts operators that combine elements along axes.

#[cfg(feature = "export")]
use hardtack_bundle::graph::Operator;
use hardtack_bundle::graph::{CumSum, Einsum, Reduce, Reducer, RmsNorm, Softmax};
use tract_core::internal::*;
use tract_core::ops::array;
use tract_core::ops::einsum::EinSum;
use tract_core::ops::nn;
use tract_core::ops::nn::SoftmaxKind;

use crate::float::custom_ops::{Check, Letter};
use crate::float::error::{Problem, require};
use crate::float::load::{Context, Purpose};
#[cfg(feature = "export")]
use crate::float::save::Scope;
#[cfg(feature = "export")]
use crate::float::tensors::dtype_from_tract;
use crate::float::tensors::dtype_to_tract;

pub(super) fn einsum(cx: &Context<'_>, a: &Einsum) -> Result<Box<dyn TypedOp>, Problem> {
    let problem = "its expression does not match its inputs";
    let (inputs, output) = a.expression.split_once("->").ok_or(problem)?;
    let inputs: Vec<&str> = inputs.split(',').collect();
    cx.arity(inputs.len())?;
    cx.same_types(0)?;
    require(cx.input(0).datum_type.is_number(), "its inputs are not numbers")?;
    let ranks = inputs.iter().zip(cx.inputs);
    require(ranks.into_iter().all(|(s, fact)| s.chars().count() == fact.rank()), problem)?;
    let all = || inputs.iter().copied().chain([output]);
    require(all().all(|letters| letters.chars().all(char::is_alphabetic)), problem)?;
    // If an axis occurs twice in one of several inputs, or in the output, tract reads only one
    // index.
    let checked = all().filter(|letters| inputs.len() > 1 || *letters == output);
    let once = |letters: &str| letters.chars().all(|c| letters.matches(c).count() == 1);
    require(checked.into_iter().all(once), "a letter occurs twice in a term of its expression")?;
    let accumulator = dtype_to_tract(a.accumulator);
    require(accumulator.is_number(), "its accumulator does not have a numeric type")?;
    // tract does not multiply matrices of the other types.
    use DatumType::*;
    let dtype = cx.input(0).datum_type;
    require(
        inputs.len() != 2 || matches!(dtype, F16 | F32 | F64 | I8 | U8 | I32),
        "its inputs have a type that does not support matrix multiplication",
    )?;
    let op = EinSum::new(AxesMapping::from_strs(&inputs, &[output])?, accumulator);
    let letters = letters(&inputs, output);
    let check = Check::Letters(letters.clone());
    check.load(cx.inputs)?;
    // Sizes that are unknown until the model runs are known to be equal if their expressions are.
    let same = |letter: &Letter| {
        let mut sizes = letter.places.iter().map(|(input, axis)| &cx.input(*input).shape[*axis]);
        if !sizes.clone().all(|size| {
            size.as_i64().is_some() || matches!(size, tract_core::prelude::TDim::Sym(_))
        }) {
            return false;
        }
        let first = sizes.clone().find(|size| letter.summed || !size.is_one());
        sizes.all(|size| Some(size) == first || (!letter.summed && size.is_one()))
    };
    if cx.loader.purpose != Purpose::Run || letters.iter().all(same) {
        return Ok(Box::new(op));
    }
    cx.guarded(check, op)
}

/// Returns the letters of an expression with their positions in its inputs. A letter that only the
/// output has is an axis of size 1.
fn letters(inputs: &[&str], output: &str) -> Vec<Letter> {
    let mut letters: Vec<Letter> = Vec::new();
    for (input, term) in inputs.iter().enumerate() {
        for (axis, name) in term.chars().enumerate() {
            match letters.iter_mut().find(|letter| letter.name == name) {
                Some(letter) => letter.places.push((input, axis)),
                None => letters.push(Letter {
                    name,
                    places: tvec!((input, axis)),
                    summed: !output.contains(name),
                }),
            }
        }
    }
    letters
}

pub(super) fn reduce(cx: &Context<'_>, a: &Reduce) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    let axes = cx.axes(&a.axes, cx.input(0).rank())?;
    let logical = matches!(a.reducer, Reducer::All | Reducer::Any);
    let dtype = cx.input(0).datum_type;
    // For logical reducers, tract interprets the bytes of any tensor as booleans.
    let fits = if logical { dtype == DatumType::Bool } else { dtype.is_number() };
    require(fits, "it cannot reduce elements of the type of its input")?;
    // All other reducers have a defined value for no elements.
    let least = match a.reducer {
        Reducer::Sum | Reducer::MeanOfSquares => axes.iter().map(|axis| (*axis, 1)).collect(),
        _ => tvec!(),
    };
    cx.checked(Check::Least(least), nn::Reduce { axes, reducer: reducer(a.reducer) })
}

pub(super) fn softmax(cx: &Context<'_>, a: &Softmax) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    require(cx.input(0).datum_type.is_float(), "its input does not have a float type")?;
    let axes = cx.axes(&a.axes, cx.input(0).rank())?;
    let kind = if a.logarithm { SoftmaxKind::LogSoftmax } else { SoftmaxKind::Softmax };
    let least = axes.iter().map(|axis| (*axis, 1)).collect();
    cx.checked(Check::Least(least), nn::Softmax { axes, quant_output_dt: None, kind })
}

pub(super) fn rms_norm(cx: &Context<'_>, a: &RmsNorm) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    require(cx.input(0).datum_type.is_float(), "its input does not have a float type")?;
    let axis = cx.axis(a.axis, cx.input(0).rank())?;
    let eps = tensor0(a.epsilon).cast_to_dt(cx.input(0).datum_type)?.into_owned();
    Ok(Box::new(nn::RmsNorm { axis, eps: eps.into_arc_tensor() }))
}

pub(super) fn cum_sum(cx: &Context<'_>, a: &CumSum) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    require(cx.input(0).datum_type.is_number(), "its input is not numeric")?;
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
