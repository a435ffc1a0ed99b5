//! Operators on quantized tensors, with a scale and a zero point for each operand.

use crate::call::Call;
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::model::Attribute;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

use super::{channels_first, channels_last, floats, forward, standard};

/// The scale and the zero point of a quantized tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    pub(super) scale: f32,
    pub(super) zero: i64,
}

impl Scale {
    /// Reads a scale and an optional zero point.
    pub(super) fn read(call: &Call<'_>, scale: usize, zero: usize) -> Result<Self, Problem> {
        let zero = call.optional_tensor(zero)?.map_or(Ok(0), Tensor::integer)?;
        Ok(Self { scale: call.tensor(scale)?.number()? as f32, zero })
    }

    /// Returns the numbers that integers mean, in single precision.
    pub(super) fn dequantize(self, tensor: &Tensor) -> Result<Vec<f32>, Problem> {
        let number = |value: i64| value.saturating_sub(self.zero) as f32 * self.scale;
        Ok(tensor.to_i64()?.into_iter().map(number).collect())
    }

    /// Returns the integers that mean numbers.
    pub(super) fn quantize(
        self,
        element: ElementType,
        shape: Vec<usize>,
        values: impl Iterator<Item = f32>,
    ) -> Result<Tensor, Problem> {
        self.round(element, shape, values.map(|value| f64::from(value / self.scale)))
    }

    /// Rounds multiples of the scale, half to even, and adds the zero point.
    fn round(
        self,
        element: ElementType,
        shape: Vec<usize>,
        multiples: impl Iterator<Item = f64>,
    ) -> Result<Tensor, Problem> {
        let (low, high) = element
            .integer_range()
            .ok_or(Problem::ElementType { found: element, accepted: "an integer" })?;
        let rounded = |x: f64| {
            let value = x.round_ties_even() as i128;
            value.saturating_add(self.zero.into()).clamp(low, high)
        };
        Tensor::from_i128(element, shape, multiples.map(rounded).collect())
    }
}

/// Quantizes by a scale and a zero point, or by those along an axis.
pub(super) fn quantize_linear(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    call.apply("QuantizeLinear", 21, call.inputs.clone(), &forward(call, &["axis"]))
}

/// Returns the numbers that quantized integers mean.
pub(super) fn dequantize_linear(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    call.apply("DequantizeLinear", 21, call.inputs.clone(), &forward(call, &["axis"]))
}

/// Combines two quantized tensors with broadcasting. `combine` gets the integers without their zero
/// points, and returns multiples of the output's scale.
fn binary(
    call: &Call<'_>,
    combine: impl Fn(f64, f64, [f64; 3]) -> f64,
) -> Result<Vec<Value>, Problem> {
    let (a, b) = (call.tensor(0)?, call.tensor(3)?);
    if a.element() != b.element() {
        return Err(Problem::MixedTypes { first: a.element(), second: b.element() });
    }
    let scales = [Scale::read(call, 1, 2)?, Scale::read(call, 4, 5)?, Scale::read(call, 6, 7)?];
    let factors = scales.map(|scale| f64::from(scale.scale));
    let sizes = shape::broadcast(&[a.shape(), b.shape()])?;
    let offsets = |x: &Tensor| shape::broadcast_offsets(x.shape(), &sizes);
    let number = |values: &[i64], offset: usize, scale: Scale| {
        values.get(offset).copied().unwrap_or(0).saturating_sub(scale.zero) as f64
    };
    let (x, y) = (a.to_i64()?, b.to_i64()?);
    let pairs = offsets(a).zip(offsets(b));
    let values =
        pairs.map(|(i, j)| combine(number(&x, i, scales[0]), number(&y, j, scales[1]), factors));
    Ok(vec![scales[2].round(a.element(), sizes.clone(), values)?.into()])
}

/// Adds quantized tensors.
pub(super) fn add(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    binary(call, |a, b, [x, y, z]| (a * x + b * y) / z)
}

/// Multiplies quantized tensors.
pub(super) fn mul(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    binary(call, |a, b, [x, y, z]| a * b * (x * y) / z)
}

/// Applies a function to each number of a quantized tensor.
fn unary(call: &Call<'_>, function: impl Fn(f32) -> f32) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let values = Scale::read(call, 1, 2)?.dequantize(x)?;
    let output = Scale::read(call, 3, 4)?;
    let values = values.into_iter().map(function);
    Ok(vec![output.quantize(x.element(), x.shape().to_vec(), values)?.into()])
}

/// Computes the sigmoid of a quantized tensor.
pub(super) fn sigmoid(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    unary(call, |x| (1.0 / (1.0 + (-f64::from(x)).exp())) as f32)
}

/// Scales the negative numbers of a quantized tensor.
pub(super) fn leaky_relu(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let alpha = call.float_or("alpha", 0.01)?;
    unary(call, |x| if x < 0.0 { x * alpha } else { x })
}

/// Computes the softmax of a quantized tensor: along one axis, or over all axes from it on before
/// version 13.
pub(super) fn softmax(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let version = call.int("opset")?.ok_or(Problem::MissingAttribute { name: "opset" })?;
    let axis = call.int_or("axis", if version < 13 { 1 } else { -1 })?;
    let axis = shape::axis(axis, x.rank())?;
    let input = Scale::read(call, 1, 2)?;
    let output = Scale::read(call, 3, 4)?;
    if x.is_empty() {
        return Ok(vec![x.reshaped(x.shape().to_vec())?.into()]);
    }
    let (outer, inner) = x.shape().split_at(axis);
    let (count, inner) = match version < 13 {
        true => (shape::elements(inner)?, 1),
        false => {
            (inner.first().copied().unwrap_or(1), shape::elements(inner.get(1..).unwrap_or(&[]))?)
        }
    };
    let values = x.to_i64()?;
    let mut multiples = vec![0.0; values.len()];
    // ONNX Runtime uses the whole part of the reciprocal of the scale.
    let reciprocal = f64::from((1.0 / output.scale).floor());
    for (row, column) in (0..shape::elements(outer)?).flat_map(|r| (0..inner).map(move |c| (r, c)))
    {
        let place = |index: usize| (row * count + index) * inner + column;
        let lane = (0..count).filter_map(|index| values.get(place(index)).copied());
        let lane: Vec<f64> = lane.map(|value| value as f64).collect();
        let largest = lane.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let power = |value: &f64| ((value - largest) * f64::from(input.scale)).exp();
        let sum: f64 = lane.iter().map(power).sum();
        for (index, value) in lane.iter().enumerate() {
            if let Some(multiple) = multiples.get_mut(place(index)) {
                *multiple = power(value) * reciprocal / sum;
            }
        }
    }
    let y = output.round(x.element(), x.shape().to_vec(), multiples.into_iter())?;
    Ok(vec![y.into()])
}

/// Evaluates a standard operator on the numbers of a quantized tensor.
fn through(
    call: &Call<'_>,
    operator: &str,
    version: i64,
    attributes: &[(&str, Attribute)],
) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let numbers = Scale::read(call, 1, 2)?.dequantize(x)?;
    let output = Scale::read(call, 3, 4)?;
    let last = call.flag("channels_last", false)?;
    let mut value = Value::from(Tensor::new(x.shape().to_vec(), numbers)?);
    if last {
        value = channels_first(call, value)?;
    }
    value = standard(call, operator, version, vec![Some(value)], attributes)?;
    if last {
        value = channels_last(call, value)?;
    }
    let y = value.tensor()?;
    let values = floats(y)?.into_iter();
    Ok(vec![output.quantize(x.element(), y.shape().to_vec(), values)?.into()])
}

/// Averages windows of a quantized tensor.
pub(super) fn average_pool(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let names = ["auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"];
    through(call, "AveragePool", 11, &forward(call, &names))
}

/// Averages each channel of a quantized tensor.
pub(super) fn global_average_pool(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    through(call, "GlobalAveragePool", 1, &[])
}

/// Averages a quantized tensor along axes.
pub(super) fn reduce_mean(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    through(call, "ReduceMean", 13, &forward(call, &["axes", "keepdims"]))
}

/// Requantizes a tensor. One with the same scale and zero point stays as it is.
fn requantize(x: &Tensor, from: Scale, to: Scale, element: ElementType) -> Result<Tensor, Problem> {
    if from == to && x.element() == element {
        return x.reshaped(x.shape().to_vec());
    }
    let numbers = match x.element() {
        ElementType::F32 => floats(x)?,
        _ => from.dequantize(x)?,
    };
    to.quantize(element, x.shape().to_vec(), numbers.into_iter())
}

/// Concatenates quantized tensors after it has requantized them.
pub(super) fn concat(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let to = Scale::read(call, 0, 1)?;
    let element = call.tensor(1)?.element();
    let mut parts = Vec::new();
    for index in (2..call.len()).step_by(3) {
        let from = Scale::read(call, index + 1, index + 2)?;
        parts.push(Some(requantize(call.tensor(index)?, from, to, element)?.into()));
    }
    Ok(vec![standard(call, "Concat", 13, parts, &forward(call, &["axis"]))?])
}

/// Selects from two quantized tensors by a condition.
pub(super) fn select(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, y) = (call.tensor(1)?, call.tensor(4)?);
    let to = Scale::read(call, 7, 8)?;
    let first = requantize(x, Scale::read(call, 2, 3)?, to, x.element())?;
    let second = requantize(y, Scale::read(call, 5, 6)?, to, x.element())?;
    let condition = call.tensor(0)?;
    if condition.element() != ElementType::Bool {
        return Err(Problem::InputType { index: 0, found: condition.element(), accepted: "bool" });
    }
    let inputs = vec![call.optional(0).cloned(), Some(first.into()), Some(second.into())];
    Ok(vec![standard(call, "Where", 16, inputs, &[])?])
}
