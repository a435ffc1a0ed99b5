//! Experimental operators that old exporters still write.

use super::scalar::refused;
use super::{parameter, real, softplus};
use crate::call::{Call, Operator};
use crate::error::Problem;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

/// Returns the implementation of an operator of this part.
pub(super) fn find(name: &str) -> Option<Operator> {
    Some(match name {
        "Affine" => affine,
        "ImageScaler" => image_scaler,
        "ParametricSoftplus" => parametric_softplus,
        "Scale" => scale,
        "ScaledTanh" => scaled_tanh,
        _ => return None,
    })
}

/// Returns a float attribute without a default value.
fn required(call: &Call<'_>, name: &'static str) -> Result<f64, Problem> {
    Ok(f64::from(call.float(name)?.ok_or(Problem::MissingAttribute { name })?))
}

/// Computes alpha · x + beta.
fn affine(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (alpha, beta) = (parameter(call, "alpha", 1.0)?, parameter(call, "beta", 0.0)?);
    real(call, |x| alpha * x + beta)
}

/// Computes scale · x.
fn scale(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let scale = parameter(call, "scale", 1.0)?;
    real(call, |x| scale * x)
}

/// Computes alpha · tanh(beta · x).
fn scaled_tanh(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (alpha, beta) = (required(call, "alpha")?, required(call, "beta")?);
    real(call, |x| alpha * (beta * x).tanh())
}

/// Computes alpha · ln(exp(beta · x) + 1).
fn parametric_softplus(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (alpha, beta) = (required(call, "alpha")?, required(call, "beta")?);
    real(call, |x| alpha * softplus(beta * x))
}

/// Computes scale · x + bias of an image `[N, C, H, W]`, with one bias per channel.
fn image_scaler(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let scale = parameter(call, "scale", 1.0)?;
    let bias = call.floats("bias")?.ok_or(Problem::MissingAttribute { name: "bias" })?;
    let [_, channels, height, width] = *x.shape() else {
        return Err(Problem::InputShape {
            index: 0,
            shape: x.shape().to_vec(),
            expected: "have four axes: batch, channels, height, width".into(),
        });
    };
    if bias.len() != channels {
        return Err(Problem::AttributeValue {
            name: "bias",
            value: format!("{bias:?}"),
            accepted: "one number per channel",
        });
    }
    if !x.element().is_float() {
        return Err(refused(0, x, "a floating-point type"));
    }
    let mut values = x.to_f64()?;
    let plane = if values.is_empty() { 1 } else { shape::elements(&[height, width])? };
    for (plane, bias) in values.chunks_mut(plane).zip(bias.iter().cycle()) {
        plane.iter_mut().for_each(|value| *value = scale * *value + f64::from(*bias));
    }
    Ok(vec![Tensor::from_f64(x.element(), x.shape().to_vec(), values)?.into()])
}
