//! Standard operators with an activation, a bias, or a transpose.

use crate::call::Call;
use crate::error::Problem;
use crate::model::Attribute;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

use super::{
    channels_first, channels_last, forward, map, operand, standard, transpose, wrong_shape,
};

fn exact_gelu(call: &Call<'_>, x: Value) -> Result<Value, Problem> {
    standard(call, "Gelu", 20, vec![Some(x)], &[])
}

/// Computes the Gaussian error linear unit.
pub(super) fn gelu(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    Ok(vec![exact_gelu(call, call.value(0)?.clone())?])
}

/// Computes the Gaussian error linear unit of a sum.
pub(super) fn bias_gelu(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let sum = standard(call, "Add", 14, vec![operand(call, 0), operand(call, 1)], &[])?;
    Ok(vec![exact_gelu(call, sum)?])
}

/// Computes the Gaussian error linear unit by its approximation with `tanh`.
pub(super) fn fast_gelu(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let sum = match operand(call, 1) {
        None => call.value(0)?.clone(),
        bias => standard(call, "Add", 14, vec![operand(call, 0), bias], &[])?,
    };
    let approximate = [("approximate", Attribute::Text("tanh".into()))];
    Ok(vec![standard(call, "Gelu", 20, vec![Some(sum)], &approximate)?])
}

/// Multiplies each element by its sigmoid, whose argument is scaled.
pub(super) fn quick_gelu(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let alpha = f64::from(call.float_or("alpha", 1.702)?);
    Ok(vec![map(call.tensor(0)?, |x| x / (1.0 + (-alpha * x).exp()))?.into()])
}

/// Adds a bias per channel and a residual.
pub(super) fn bias_add(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let sum = standard(call, "Add", 14, vec![operand(call, 0), operand(call, 1)], &[])?;
    Ok(vec![standard(call, "Add", 14, vec![Some(sum), operand(call, 2)], &[])?])
}

/// Adds a bias, and multiplies the first half of each row by the Gaussian error linear unit of the
/// second half.
pub(super) fn bias_split_gelu(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let sum = standard(call, "Add", 14, vec![operand(call, 0), operand(call, 1)], &[])?;
    let sum = sum.tensor()?;
    let Some((size, outer)) = sum.shape().split_last().filter(|(size, _)| *size % 2 == 0) else {
        return Err(wrong_shape(0, sum, "have an even last axis"));
    };
    let half = size / 2;
    let mut sizes = outer.to_vec();
    sizes.push(half);
    let part = |start: usize| {
        let rows = shape::elements(outer)?;
        let offsets = (0..rows).flat_map(|row| (0..half).map(move |i| row * size + start + i));
        Ok(Value::from(sum.select(sizes.clone(), offsets)?))
    };
    let gate = exact_gelu(call, part(half)?)?;
    Ok(vec![standard(call, "Mul", 14, vec![Some(part(0)?), Some(gate)], &[])?])
}

/// Computes the softmax of a sum, over all axes from `axis` on. The bias is repeated for leading
/// axes, as blocks or row by row.
pub(super) fn bias_softmax(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, bias) = (call.tensor(0)?, call.tensor(1)?);
    let axis = shape::axis(call.int_or("axis", 1)?, x.rank())?;
    let inner = call.flag("is_inner_broadcast", false)?;
    let rows = shape::elements(&x.shape()[..axis])?;
    let size = shape::elements(&x.shape()[axis..])?;
    let addends = bias.to_f64()?;
    let mut values = x.to_f64()?;
    if values.is_empty() {
        return Ok(vec![x.reshaped(x.shape().to_vec())?.into()]);
    }
    let groups = addends.len() / size;
    if groups == 0 || addends.len() % size != 0 || rows % groups != 0 {
        return Err(wrong_shape(1, bias, "repeat to the shape of the data"));
    }
    for (row, values) in values.chunks_exact_mut(size).enumerate() {
        let group = if inner { row / (rows / groups) } else { row % groups };
        let addends = addends.iter().skip(group * size);
        values.iter_mut().zip(addends).for_each(|(value, addend)| *value += addend);
        softmax(values);
    }
    Ok(vec![Tensor::from_f64(x.element(), x.shape().to_vec(), values)?.into()])
}

/// Replaces numbers by their exponentials, divided by the sum of these.
pub(super) fn softmax(values: &mut [f64]) {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for value in values.iter_mut() {
        *value = (*value - largest).exp();
        sum += *value;
    }
    values.iter_mut().for_each(|value| *value /= sum);
}

/// Applies the activation that attribute `activation` names.
fn activate(call: &Call<'_>, x: Value, parameters: &[f32]) -> Result<Value, Problem> {
    let names: &[&str] = match call.text("activation")?.unwrap_or("") {
        "" => return Ok(x),
        "Relu" | "Tanh" | "Sigmoid" | "Softplus" | "Softsign" | "HardSwish" => &[],
        "LeakyRelu" | "Elu" | "ThresholdedRelu" => &["alpha"],
        "HardSigmoid" => &["alpha", "beta"],
        "Clip" => &["min", "max"],
        other => {
            return Err(Problem::AttributeValue {
                name: "activation",
                value: other.into(),
                accepted: "Relu, Tanh, Sigmoid, Softplus, Softsign, HardSwish, LeakyRelu, Elu, \
                           ThresholdedRelu, HardSigmoid or Clip",
            });
        }
    };
    let name = call.text("activation")?.unwrap_or("");
    // The bounds of `Clip` are attributes before version 11.
    let version = if name == "Clip" { 7 } else { 16 };
    let values = parameters.iter().map(|value| Attribute::Float(*value));
    let attributes: Vec<_> = names.iter().copied().zip(values).collect();
    standard(call, name, version, vec![Some(x)], &attributes)
}

/// Convolves, adds a tensor, and applies an activation. `Nhwc…` have the channels last.
pub(super) fn fused_conv(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let last = call.node.operator.starts_with("Nhwc");
    let mut x = call.value(0)?.clone();
    if last {
        x = channels_first(call, x)?;
    }
    let names = ["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];
    let inputs = vec![Some(x), operand(call, 1), operand(call, 2)];
    let mut y = standard(call, "Conv", 11, inputs, &forward(call, &names))?;
    if last {
        y = channels_last(call, y)?;
    }
    if let Some(z) = operand(call, 3) {
        y = standard(call, "Add", 14, vec![Some(y), Some(z)], &[])?;
    }
    let parameters = call.floats("activation_params")?.unwrap_or(&[]);
    Ok(vec![activate(call, y, parameters)?])
}

/// Multiplies matrices as `Gemm` does, and applies an activation.
pub(super) fn fused_gemm(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let attributes = forward(call, &["alpha", "beta", "transA", "transB"]);
    let y = standard(call, "Gemm", 13, call.inputs.clone(), &attributes)?;
    let mut parameters = Vec::new();
    for name in ["activation_alpha", "activation_beta", "activation_gamma"] {
        parameters.extend(call.float(name)?);
    }
    if let (Some(alpha), true) = (call.float("leaky_relu_alpha")?, parameters.is_empty()) {
        parameters.push(alpha);
    }
    Ok(vec![activate(call, y, &parameters)?])
}

/// Multiplies matrices after transposes, and scales the product.
pub(super) fn fused_matmul(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let prepare = |index: usize, matrix: &str, batch: &str| {
        let x = call.value(index)?.clone();
        let rank = x.tensor()?.rank();
        let mut order: Vec<usize> = (0..rank).collect();
        if rank > 1 && call.flag(batch, false)? {
            // The first axis moves in front of the last one.
            order = (1..rank - 1).chain([0, rank - 1]).collect();
        }
        if rank > 1 && call.flag(matrix, false)? {
            order.swap(rank - 2, rank - 1);
        }
        transpose(call, x, order)
    };
    let a = prepare(0, "transA", "transBatchA")?;
    let b = prepare(1, "transB", "transBatchB")?;
    let product = standard(call, "MatMul", 13, vec![Some(a), Some(b)], &[])?;
    Ok(vec![match f64::from(call.float_or("alpha", 1.0)?) {
        1.0 => product,
        alpha => map(product.tensor()?, |x| x * alpha)?.into(),
    }])
}

/// Returns the largest elements of windows; the channels are last.
pub(super) fn nhwc_max_pool(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let names = ["auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides"];
    let x = channels_first(call, call.value(0)?.clone())?;
    let y = standard(call, "MaxPool", 12, vec![Some(x)], &forward(call, &names))?;
    Ok(vec![channels_last(call, y)?])
}
