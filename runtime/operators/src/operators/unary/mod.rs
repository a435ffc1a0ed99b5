//! Operators that map each element of a tensor.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use crate::call::{Call, Operator};
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::tensor::{Element, Tensor};
use crate::value::Value;

pub(super) mod erf;
mod old;
pub(super) mod scalar;

use erf::{erf, erfc};
use scalar::{Float, Integer, maximum, minimum, refused, slice, with_float, with_integer};

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    if !domain.is_empty() {
        return None;
    }
    Some(match name {
        "Abs" => |call| number(call, f64::abs, i128::abs),
        "Neg" => |call| number(call, |x| -x, |x| -x),
        "Sign" => |call| number(call, sign, i128::signum),
        "Ceil" => |call| real(call, f64::ceil),
        "Floor" => |call| real(call, f64::floor),
        "Round" => |call| real(call, f64::round_ties_even),
        "Reciprocal" => |call| real(call, f64::recip),
        "Sqrt" => |call| real(call, f64::sqrt),
        "Exp" => |call| real(call, f64::exp),
        "Log" => |call| real(call, f64::ln),
        // An integer result is truncated: 0 for 0, and ±1 where erf(x) rounds to ±1.
        "Erf" => |call| number(call, erf, |x| erf(x as f64) as i128),
        "Sin" => |call| real(call, f64::sin),
        "Cos" => |call| real(call, f64::cos),
        "Tan" => |call| real(call, f64::tan),
        "Asin" => |call| real(call, f64::asin),
        "Acos" => |call| real(call, f64::acos),
        "Atan" => |call| real(call, f64::atan),
        "Sinh" => |call| real(call, f64::sinh),
        "Cosh" => |call| real(call, f64::cosh),
        "Tanh" => |call| real(call, f64::tanh),
        "Asinh" => |call| real(call, f64::asinh),
        "Acosh" => |call| real(call, acosh),
        "Atanh" => |call| real(call, |x| x.abs().atanh().copysign(x)),
        "Relu" => |call| number(call, |x| maximum(x, 0.0), |x| x.max(0)),
        "Sigmoid" => |call| real(call, sigmoid),
        "HardSwish" => |call| real(call, |x| x * hard_sigmoid(x, 1.0 / 6.0, 0.5)),
        "Softplus" => |call| real(call, softplus),
        "Softsign" => |call| real(call, |x| x / (1.0 + x.abs())),
        "Mish" => |call| real(call, |x| x * softplus(x).tanh()),
        "LeakyRelu" => leaky_relu,
        "Elu" => elu,
        "Selu" => selu,
        "Celu" => celu,
        "HardSigmoid" => hard_sigmoid_operator,
        "ThresholdedRelu" => thresholded_relu,
        "Gelu" => gelu,
        "Swish" => swish,
        "Shrink" => shrink,
        "Clip" => clip,
        "Dropout" => dropout,
        "Not" => not,
        "BitwiseNot" => bitwise_not,
        "IsNaN" => |call| test(call, f64::is_nan),
        "IsInf" => is_inf,
        _ => return old::find(name),
    })
}

/// Maps the elements of the first operand.
fn map<T: Element + Copy, R: Element>(
    x: &Tensor,
    f: impl Fn(T) -> R,
) -> Result<Vec<Value>, Problem> {
    let values = slice::<T>(x)?.iter().map(|value| f(*value)).collect();
    Ok(vec![Tensor::new(x.shape().to_vec(), values)?.into()])
}

/// Maps floating-point numbers.
fn real(call: &Call<'_>, f: impl Fn(f64) -> f64) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    with_float!(x.element(), T => map::<T, T>(x, |value| T::narrow(f(value.wide()))))
        .unwrap_or_else(|| Err(refused(0, x, "a floating-point type of 16 bits or more")))
}

/// Maps floating-point numbers or integers. Integers out of range wrap around.
fn number(
    call: &Call<'_>,
    f: impl Fn(f64) -> f64,
    g: impl Fn(i128) -> i128,
) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    with_integer!(x.element(), T => map::<T, T>(x, |value| T::wrap(g(value.wide()))))
        .unwrap_or_else(|| real(call, f))
}

/// Tests floating-point numbers, also those of 8 and 4 bits.
fn test(call: &Call<'_>, f: impl Fn(f64) -> bool) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    if !x.element().is_float() {
        return Err(refused(0, x, "a floating-point type"));
    }
    let results = x.to_f64()?.into_iter().map(f).collect();
    Ok(vec![Tensor::new(x.shape().to_vec(), results)?.into()])
}

/// Returns a float attribute, widened.
fn parameter(call: &Call<'_>, name: &str, default: f32) -> Result<f64, Problem> {
    Ok(f64::from(call.float_or(name, default)?))
}

/// Returns -1, 0 or 1, or NaN for NaN.
fn sign(x: f64) -> f64 {
    if x == 0.0 || x.is_nan() { x.abs() } else { x.signum() }
}

/// Returns the inverse hyperbolic cosine, accurate also near 1.
fn acosh(x: f64) -> f64 {
    let above = x - 1.0;
    if above < 1.0 { (above + (above * (above + 2.0)).sqrt()).ln_1p() } else { x.acosh() }
}

/// Returns 1 / (1 + exp(-x)).
fn sigmoid(x: f64) -> f64 {
    if x < 0.0 {
        let exp = x.exp();
        exp / (1.0 + exp)
    } else {
        1.0 / (1.0 + (-x).exp())
    }
}

/// Returns ln(1 + exp(x)) without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Returns alpha · x + beta, limited to between 0 and 1.
fn hard_sigmoid(x: f64, alpha: f64, beta: f64) -> f64 {
    maximum(0.0, minimum(1.0, alpha * x + beta))
}

/// Computes max(0, min(1, alpha · x + beta)).
fn hard_sigmoid_operator(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (alpha, beta) = (parameter(call, "alpha", 0.2)?, parameter(call, "beta", 0.5)?);
    real(call, |x| hard_sigmoid(x, alpha, beta))
}

/// Computes alpha · x for negative x, and x for others.
fn leaky_relu(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let alpha = parameter(call, "alpha", 0.01)?;
    real(call, |x| if x < 0.0 { alpha * x } else { x })
}

/// Computes alpha · (exp(x) - 1) for negative x, and x for others.
fn elu(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let alpha = parameter(call, "alpha", 1.0)?;
    real(call, |x| if x < 0.0 { alpha * x.exp_m1() } else { x })
}

/// Computes gamma · alpha · (exp(x) - 1) for x up to 0, and gamma · x for others.
fn selu(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let alpha = parameter(call, "alpha", 1.673_263_2)?;
    let gamma = parameter(call, "gamma", 1.050_701)?;
    real(call, |x| gamma * if x <= 0.0 { alpha * x.exp_m1() } else { x })
}

/// Computes max(0, x) + min(0, alpha · (exp(x / alpha) - 1)).
fn celu(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let alpha = parameter(call, "alpha", 1.0)?;
    real(call, |x| maximum(0.0, x) + minimum(0.0, alpha * (x / alpha).exp_m1()))
}

/// Computes x for x above alpha, and 0 for others.
fn thresholded_relu(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let alpha = parameter(call, "alpha", 1.0)?;
    real(call, |x| if x > alpha { x } else { 0.0 })
}

/// Computes x · Φ(x), where Φ is the normal distribution or its approximation by tanh.
fn gelu(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    match call.text("approximate")?.unwrap_or("none") {
        "none" => real(call, |x| 0.5 * x * erfc(-x * FRAC_1_SQRT_2)),
        // (1 + tanh(u)) / 2 is the sigmoid of 2u, which is accurate also where it is small.
        "tanh" => {
            let scale = 2.0 * (2.0 / PI).sqrt();
            real(call, |x| x * sigmoid(scale * (x + 0.044715 * x * x * x)))
        }
        other => Err(Problem::AttributeValue {
            name: "approximate",
            value: format!("{other:?}"),
            accepted: "\"none\" or \"tanh\"",
        }),
    }
}

/// Computes x · sigmoid(alpha · x).
fn swish(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let alpha = parameter(call, "alpha", 1.0)?;
    real(call, |x| x * sigmoid(alpha * x))
}

/// Moves numbers toward 0 by bias where they exceed lambd in size, and sets others to 0.
fn shrink(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (bias, lambd) = (parameter(call, "bias", 0.0)?, parameter(call, "lambd", 0.5)?);
    let float = |x: f64| match x {
        x if x < -lambd => x + bias,
        x if x > lambd => x - bias,
        _ => 0.0,
    };
    // The attributes apply to integers unrounded; the result is truncated.
    let integer = |x: i128| match x as f64 {
        wide if wide < -lambd => add_truncated(x, bias),
        wide if wide > lambd => add_truncated(x, -bias),
        _ => 0,
    };
    number(call, float, integer)
}

/// Returns x + y, truncated toward 0.
fn add_truncated(x: i128, y: f64) -> i128 {
    let sum = x.saturating_add(y as i128);
    match y.fract() {
        rest if rest < 0.0 && sum > 0 => sum - 1,
        rest if rest > 0.0 && sum < 0 => sum + 1,
        _ => sum,
    }
}

/// Returns a bound that `Clip` has as an input.
fn bound<T>(
    call: &Call<'_>,
    index: usize,
    element: ElementType,
    read: impl Fn(&Tensor) -> Result<Vec<T>, Problem>,
) -> Result<Option<T>, Problem> {
    let Some(bound) = call.optional_tensor(index)? else {
        return Ok(None);
    };
    if bound.element() != element {
        return Err(Problem::MixedTypes { first: element, second: bound.element() });
    }
    let mut values = read(bound)?;
    match values.pop() {
        Some(value) if values.is_empty() => Ok(Some(value)),
        _ => Err(Problem::InputShape {
            index,
            shape: bound.shape().to_vec(),
            expected: "have one element".into(),
        }),
    }
}

/// Computes min(max(x, low), high). A bound that is not given is the largest finite number.
fn clip(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let element = x.element();
    if call.version < 11 {
        let (low, high) = (parameter(call, "min", f32::MIN)?, parameter(call, "max", f32::MAX)?);
        return real(call, |x| minimum(maximum(x, low), high));
    }
    if let Some((low, high)) = element.integer_range() {
        let low = bound(call, 1, element, Tensor::to_i128)?.unwrap_or(low);
        let high = bound(call, 2, element, Tensor::to_i128)?.unwrap_or(high);
        return number(call, |x| x, |x| x.max(low).min(high));
    }
    let largest = with_float!(element, T => T::LARGEST).unwrap_or(f64::INFINITY);
    let low = bound(call, 1, element, Tensor::to_f64)?.unwrap_or(-largest);
    let high = bound(call, 2, element, Tensor::to_f64)?.unwrap_or(largest);
    real(call, |x| minimum(maximum(x, low), high))
}

/// Returns the operand as it is, and a mask that keeps all elements.
fn dropout(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let random = match call.version {
        ..7 => !call.flag("is_test", false)?,
        7..12 => false,
        _ => {
            let training = call.optional_tensor(2)?.map_or(Ok(0.0), Tensor::number)? != 0.0;
            training && call.optional_tensor(1)?.map_or(Ok(0.5), Tensor::number)? != 0.0
        }
    };
    if random {
        return Err(Problem::Unsupported { reason: "its results are random" });
    }
    let mut outputs = vec![call.value(0)?.clone()];
    if call.wants(1) {
        let element = if call.version < 10 { x.element() } else { ElementType::Bool };
        outputs.push(Tensor::from_i128(element, x.shape().to_vec(), vec![1; x.len()])?.into());
    }
    Ok(outputs)
}

/// Negates booleans.
fn not(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    match x.element() {
        ElementType::Bool => map(x, |value: bool| !value),
        _ => Err(refused(0, x, "bool")),
    }
}

/// Inverts all bits of integers.
fn bitwise_not(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    with_integer!(x.element(), T => map::<T, T>(x, |value| !value))
        .unwrap_or_else(|| Err(refused(0, x, "an integer type of 8 bits or more")))
}

/// Tests for infinity of the signs that the attributes name.
fn is_inf(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let negative = call.flag("detect_negative", true)?;
    let positive = call.flag("detect_positive", true)?;
    test(call, |x| x.is_infinite() && if x < 0.0 { negative } else { positive })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_accurate_in_their_tails() {
        let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-14 * b.abs(), "{a} is not {b}");
        close(sigmoid(-700.0), (-700f64).exp());
        close(softplus(-40.0), (-40f64).exp());
        close(softplus(1000.0), 1000.0);
        close(acosh(1.0 + f64::EPSILON), (2.0 * f64::EPSILON).sqrt());
        assert!(acosh(0.5).is_nan() && softplus(f64::NAN).is_nan() && sigmoid(f64::NAN).is_nan());
    }

    #[test]
    fn integers_are_shrunk_exactly() {
        assert_eq!(add_truncated((1 << 62) + 1, -1.5), (1 << 62) - 1);
        assert_eq!(add_truncated(-3, 0.75), -2);
        assert_eq!(add_truncated(1, -0.75), 0);
        assert_eq!(add_truncated(1, -1.75), 0);
    }
}
