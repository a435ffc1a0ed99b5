//! Products of integer matrices, scaled to floats or quantized again.

use crate::call::Call;
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::model::Attribute;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

use super::quantized::Scale;
use super::{
    channels_first, channels_last, floats, forward, operand, standard, transpose, wrong_shape,
};

/// Returns the smallest scale and the zero point by which 8 bits hold all numbers and 0.
pub(super) fn dynamic_scale(values: &[f32]) -> Scale {
    let low = values.iter().copied().fold(0.0, f32::min);
    let high = values.iter().copied().fold(0.0, f32::max);
    let scale = if high == low { 1.0 } else { (high - low) / 255.0 };
    let zero = (-low / scale).clamp(0.0, 255.0).round_ties_even();
    Scale { scale, zero: zero as i64 }
}

/// Multiplies integer matrices, scales the product, and adds a bias.
fn scaled_product(
    call: &Call<'_>,
    operands: [Option<Value>; 4],
    scale: &Tensor,
    bias: Option<Value>,
) -> Result<Value, Problem> {
    let product = standard(call, "MatMulInteger", 10, operands.to_vec(), &[])?;
    let product = product.tensor()?;
    let numbers = product.to_i64()?.into_iter().map(|value| value as f32).collect();
    let numbers = Tensor::new(product.shape().to_vec(), numbers)?;
    let inputs = vec![Some(numbers.into()), Some(scale.clone().into())];
    let scaled = standard(call, "Mul", 14, inputs, &[])?;
    match bias {
        Some(bias) => standard(call, "Add", 14, vec![Some(scaled), Some(bias)], &[]),
        None => Ok(scaled),
    }
}

/// Returns the scales of a matrix, all multiplied by another scale.
fn multiplied(scales: &Tensor, factor: f32) -> Result<Tensor, Problem> {
    let values = floats(scales)?.into_iter().map(|scale| scale * factor).collect();
    Tensor::new(scales.shape().to_vec(), values)
}

/// Quantizes a matrix by its own range, and multiplies it by a quantized one.
pub(super) fn dynamic_quantize_matmul(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let a = call.tensor(0)?;
    let values = floats(a)?;
    let scale = dynamic_scale(&values);
    let quantized = scale.quantize(ElementType::U8, a.shape().to_vec(), values.into_iter())?;
    let zero = Tensor::scalar(u8::try_from(scale.zero).unwrap_or(0));
    let operands = [Some(quantized.into()), operand(call, 1), Some(zero.into()), operand(call, 3)];
    let scales = multiplied(call.tensor(2)?, scale.scale)?;
    Ok(vec![scaled_product(call, operands, &scales, operand(call, 4))?])
}

/// Multiplies quantized matrices, and returns the product as floats.
pub(super) fn matmul_integer_to_float(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let factor = call.tensor(2)?;
    let operands = [operand(call, 0), operand(call, 1), operand(call, 4), operand(call, 5)];
    let scales = multiplied(call.tensor(3)?, factor.number()? as f32)?;
    let bias = match call.optional_tensor(6)? {
        Some(bias) => Some(Tensor::new(bias.shape().to_vec(), floats(bias)?)?.into()),
        None => None,
    };
    let product = scaled_product(call, operands, &scales, bias)?;
    let product = product.tensor()?;
    let values = floats(product)?;
    Ok(vec![super::from_floats(factor.element(), product.shape().to_vec(), values)?.into()])
}

/// Multiplies quantized matrices as `Gemm` does. The product is quantized if it has a scale.
pub(super) fn quantized_gemm(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let matrix = |index: usize, name: &str| {
        let x = call.value(index)?.clone();
        match (call.flag(name, false)?, x.tensor()?.rank()) {
            (false, _) => Ok(x),
            (true, 2) => transpose(call, x, vec![1, 0]),
            (true, _) => Err(wrong_shape(index, x.tensor()?, "have two axes")),
        }
    };
    let inputs = vec![
        Some(matrix(0, "transA")?),
        Some(matrix(3, "transB")?),
        operand(call, 2),
        operand(call, 5),
    ];
    let mut product = standard(call, "MatMulInteger", 10, inputs, &[])?;
    if let Some(c) = operand(call, 6) {
        product = standard(call, "Add", 14, vec![Some(product), Some(c)], &[])?;
    }
    let product = product.tensor()?;
    let factor = call.float_or("alpha", 1.0)? * call.tensor(1)?.number()? as f32;
    let scales = floats(call.tensor(4)?)?;
    let columns = product.shape().last().copied().unwrap_or(0);
    if scales.len() != 1 && scales.len() != columns {
        let expected = format!("have 1 or {columns} elements");
        return Err(wrong_shape(4, call.tensor(4)?, expected));
    }
    let sums = product.to_i64()?.into_iter().map(|sum| sum as f32);
    let sizes = product.shape().to_vec();
    if call.optional(7).is_none() {
        let scaled = sums.zip(scales.iter().cycle()).map(|(sum, scale)| sum * (factor * scale));
        return Ok(vec![Tensor::new(sizes, scaled.collect())?.into()]);
    }
    let output = Scale::read(call, 7, 8)?;
    let element = call.optional_tensor(8)?.map_or(ElementType::U8, Tensor::element);
    // ONNX Runtime multiplies by the quotient of the scales.
    let unit = Scale { scale: 1.0, zero: output.zero };
    let scaled = sums.zip(scales.iter().cycle());
    let scaled = scaled.map(|(sum, scale)| sum * (factor * scale / output.scale));
    Ok(vec![unit.quantize(element, sizes, scaled)?.into()])
}

/// Convolves quantized tensors; the channels may be last.
pub(super) fn quantized_conv(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let names = ["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];
    let last = call.flag("channels_last", false)?;
    let mut inputs = call.inputs.clone();
    if let (true, Some(x)) = (last, inputs.first_mut()) {
        *x = Some(channels_first(call, call.value(0)?.clone())?);
    }
    let y = standard(call, "QLinearConv", 10, inputs, &forward(call, &names))?;
    Ok(vec![if last { channels_last(call, y)? } else { y }])
}

/// Adds integers along axes, as integers of 32 bits.
pub(super) fn reduce_sum_integer(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let wide = match x.element() {
        ElementType::I8 => ElementType::I32,
        ElementType::U8 => ElementType::U32,
        found => {
            return Err(Problem::InputType { index: 0, found, accepted: "int8 or uint8" });
        }
    };
    let axes: Vec<i64> = match call.ints("axes")? {
        Some(axes) if !axes.is_empty() => axes.to_vec(),
        _ => (0..x.rank() as i64).collect(),
    };
    shape::axes(&axes, x.rank())?;
    let x = Tensor::from_i128(wide, x.shape().to_vec(), x.to_i128()?)?;
    let mut attributes = forward(call, &["keepdims"]);
    attributes.push(("axes", Attribute::Ints(axes)));
    Ok(vec![standard(call, "ReduceSum", 11, vec![Some(x.into())], &attributes)?])
}
