//! Converts operators that tract lacks or implements only in part.

use hardtack_bundle::DType;
#[cfg(feature = "export")]
use hardtack_bundle::graph::Operator;
use hardtack_bundle::graph::{
    DequantizeBlocks, DequantizeLinear, DynamicMatMul, Lrn, QuantizeLinear, TreeEnsemble,
};
use tract_core::internal::*;
#[cfg(feature = "export")]
use tract_core::ops::element_wise::ElementWiseOp;
#[cfg(feature = "export")]
use tract_core::ops::quant;

use crate::float::custom_ops;
use crate::float::error::{Problem, require};
use crate::float::load::Context;
#[cfg(feature = "export")]
use crate::float::save::Scope;
#[cfg(feature = "export")]
use crate::float::tensors::dtype_from_tract;
use crate::float::tensors::dtype_to_tract;

pub(super) fn program(cx: &Context<'_>, index: u32) -> Result<Box<dyn TypedOp>, Problem> {
    let engine = cx.loader.engines.get(index as usize).ok_or("its program does not exist")?;
    let mut outputs = tvec!();
    for fact in &cx.node.outputs {
        outputs.push(dtype_to_tract(fact.dtype).fact(cx.shape(&fact.shape)?));
    }
    Ok(Box::new(custom_ops::EngineProgram::from_engine(engine.clone(), outputs)))
}

pub(super) fn quantize(cx: &Context<'_>, a: &QuantizeLinear) -> Result<Box<dyn TypedOp>, Problem> {
    parameters(cx, a.axis)?;
    let integers = [DType::I8, DType::U8, DType::I16, DType::U16, DType::I32, DType::U32];
    require(integers.contains(&a.dtype), "its output is not of an integer type")?;
    let axis = a.axis.map(|axis| axis as usize);
    Ok(Box::new(custom_ops::Quantize { dtype: dtype_to_tract(a.dtype), axis }))
}

pub(super) fn dequantize(
    cx: &Context<'_>,
    a: &DequantizeLinear,
) -> Result<Box<dyn TypedOp>, Problem> {
    parameters(cx, a.axis)?;
    let axis = a.axis.map(|axis| axis as usize);
    Ok(Box::new(custom_ops::Dequantize { dtype: dtype_to_tract(a.dtype), axis }))
}

pub(super) fn unpack(cx: &Context<'_>) -> Result<Box<dyn TypedOp>, Problem> {
    let [fact] = &cx.node.outputs[..] else { return Err("it must have one output".into()) };
    let shape = cx.shape(&fact.shape)?;
    let shape = shape.iter().map(|dim| Ok(dim.to_usize()?)).collect::<TractResult<_>>()?;
    Ok(Box::new(custom_ops::Unpack { dtype: dtype_to_tract(fact.dtype), shape }))
}

pub(super) fn dequantize_blocks(
    cx: &Context<'_>,
    a: &DequantizeBlocks,
) -> Result<Box<dyn TypedOp>, Problem> {
    parameters(cx, Some(a.axis))?;
    let (axis, block) = (a.axis as usize, a.block as usize);
    Ok(Box::new(custom_ops::DequantizeBlocks { dtype: dtype_to_tract(a.dtype), axis, block }))
}

pub(super) fn dynamic_mat_mul(
    cx: &Context<'_>,
    a: &DynamicMatMul,
) -> Result<Box<dyn TypedOp>, Problem> {
    Ok(Box::new(custom_ops::DynamicMatMul::on(a.per_row, cx.loader.backend, &cx.loader.shared)))
}

/// Checks that x, scale and zero point are given and that `axis` exists.
fn parameters(cx: &Context<'_>, axis: Option<u32>) -> Result<(), Problem> {
    cx.arity(3)?;
    if let Some(axis) = axis {
        cx.axis(axis, cx.input(0).rank())?;
    }
    Ok(())
}

pub(super) fn lrn(cx: &Context<'_>, a: &Lrn) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    let size = a.size as usize;
    Ok(Box::new(custom_ops::Lrn { alpha: a.alpha, beta: a.beta, bias: a.bias, size }))
}

pub(super) fn tree_ensemble(
    cx: &Context<'_>,
    a: &TreeEnsemble,
) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(custom_ops::TreeEnsemble::INPUTS)?;
    require((1..=1 << 24).contains(&a.targets), "it has no targets or too many")?;
    Ok(Box::new(custom_ops::TreeEnsemble {
        targets: a.targets as usize,
        aggregate: a.aggregate,
        transform: a.transform,
        binary: a.binary,
    }))
}

pub(super) fn evaluate(cx: &Context<'_>, model: &[u8]) -> Result<Box<dyn TypedOp>, Problem> {
    let mut outputs = tvec!();
    for fact in &cx.node.outputs {
        outputs.push(dtype_to_tract(fact.dtype).fact(cx.shape(&fact.shape)?));
    }
    Ok(Box::new(custom_ops::Evaluate::new(model, outputs)?))
}

#[cfg(feature = "export")]
pub(super) fn save(op: &dyn TypedOp, scope: &mut Scope<'_>) -> Result<Option<Operator>, Problem> {
    Ok(if let Some(op) = op.downcast_ref::<custom_ops::EngineProgram>() {
        Some(Operator::Program(scope.program(op.program())))
    } else if let Some(op) = op.downcast_ref::<custom_ops::Quantize>() {
        let axis = op.axis.map(|axis| axis as u32);
        dtype_from_tract(op.dtype)
            .map(|dtype| Operator::QuantizeLinear(QuantizeLinear { dtype, axis }))
    } else if let Some(op) = op.downcast_ref::<custom_ops::Dequantize>() {
        let axis = op.axis.map(|axis| axis as u32);
        dtype_from_tract(op.dtype)
            .map(|dtype| Operator::DequantizeLinear(DequantizeLinear { dtype, axis }))
    } else if let Some(op) = op.downcast_ref::<custom_ops::DynamicMatMul>() {
        Some(Operator::DynamicMatMul(DynamicMatMul { per_row: op.per_row }))
    } else if op.is::<custom_ops::Unpack>() {
        Some(Operator::Unpack)
    } else if let Some(op) = op.downcast_ref::<custom_ops::DequantizeBlocks>() {
        let (axis, block) = (op.axis as u32, op.block as u32);
        dtype_from_tract(op.dtype)
            .map(|dtype| Operator::DequantizeBlocks(DequantizeBlocks { dtype, axis, block }))
    } else if let Some(op) = op.downcast_ref::<custom_ops::Lrn>() {
        let size = op.size as u32;
        Some(Operator::Lrn(Lrn { alpha: op.alpha, beta: op.beta, bias: op.bias, size }))
    } else if let Some(op) = op.downcast_ref::<custom_ops::TreeEnsemble>() {
        Some(Operator::TreeEnsemble(TreeEnsemble {
            targets: op.targets as u32,
            aggregate: op.aggregate,
            transform: op.transform,
            binary: op.binary,
        }))
    } else if let Some(op) = op.downcast_ref::<custom_ops::Evaluate>() {
        Some(Operator::Evaluate(op.bytes().to_vec()))
    } else if let Some(op) = op.downcast_ref::<quant::DequantizeLinearF32>() {
        save_dequantize(op, scope)
    } else if let Some(op) = op.downcast_ref::<ElementWiseOp>().filter(|op| op.1.is_none()) {
        save_quantize(op, scope)
    } else {
        None
    })
}

/// Saves tract's own quantization. It stores its parameters, which ours takes as inputs, and the
/// reciprocal of the scale.
#[cfg(feature = "export")]
fn save_quantize(op: &ElementWiseOp, scope: &mut Scope<'_>) -> Option<Operator> {
    let (scale, zero_point, dtype) =
        if let Some(op) = op.0.downcast_ref::<quant::QuantizeLinearI8>() {
            (op.scale, tensor0(op.zero_point), DType::I8)
        } else if let Some(op) = op.0.downcast_ref::<quant::QuantizeLinearU8>() {
            (op.scale, tensor0(op.zero_point), DType::U8)
        } else {
            return None;
        };
    if scope.inputs[0].datum_type != DatumType::F32 {
        return None;
    }
    scope.add_input("scale", tensor0(scale.recip()));
    scope.add_input("zero_point", zero_point);
    Some(Operator::QuantizeLinear(QuantizeLinear { dtype, axis: None }))
}

#[cfg(feature = "export")]
fn save_dequantize(op: &quant::DequantizeLinearF32, scope: &mut Scope<'_>) -> Option<Operator> {
    let dtype = scope.inputs[0].datum_type;
    let zero_point = tensor0(op.zero_point).cast_to_dt(dtype).ok()?.into_owned();
    scope.add_input("scale", tensor0(op.scale));
    scope.add_input("zero_point", zero_point);
    Some(Operator::DequantizeLinear(DequantizeLinear { dtype: DType::F32, axis: None }))
}
