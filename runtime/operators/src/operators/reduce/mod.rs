//! Operators that reduce axes of a tensor, and operators along one axis.

use super::unary::scalar::{Float, maximum, minimum, refused, slice, with_float};
use crate::call::{Call, Operator};
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::shape::{self, Offsets};
use crate::tensor::Tensor;
use crate::value::Value;

mod lanes;
mod loss;
mod training;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    if !domain.is_empty() {
        return training::find(domain, name);
    }
    Some(match name {
        "ReduceSum" => sum,
        "ReduceMean" => mean,
        "ReduceProd" => product,
        "ReduceMax" => |call| extreme(call, f64::NEG_INFINITY, maximum, i128::max),
        "ReduceMin" => |call| extreme(call, f64::INFINITY, minimum, i128::min),
        "ReduceL1" => l1,
        "ReduceL2" => l2,
        "ReduceSumSquare" => sum_square,
        "ReduceLogSum" => log_sum,
        "ReduceLogSumExp" => log_sum_exp,
        _ => return lanes::find(name).or_else(|| loss::find(name)),
    })
}

/// Adds up elements.
fn sum(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    reduce(
        call,
        (0.0, |sum, x| *sum += x, |sum, _| sum),
        (0i128, |sum, x| *sum = sum.wrapping_add(x), |sum, _| Some(sum)),
    )
}

/// Computes the mean. That of integers is truncated; that of no floats is NaN.
fn mean(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    reduce(
        call,
        (0.0, |sum, x| *sum += x, |sum, count| sum / count as f64),
        (0i128, |sum, x| *sum += x, |sum, count| sum.checked_div(count as i128)),
    )
}

/// Multiplies elements.
fn product(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    reduce(
        call,
        (1.0, |product, x| *product *= x, |product, _| product),
        (1i128, |product, x| *product = product.wrapping_mul(x), |product, _| Some(product)),
    )
}

/// Finds the largest or the smallest element; NaN if one is NaN. That of no elements is infinite,
/// or the farthest integer.
fn extreme(
    call: &Call<'_>,
    farthest: f64,
    float: fn(f64, f64) -> f64,
    integer: fn(i128, i128) -> i128,
) -> Result<Vec<Value>, Problem> {
    // The range of booleans is from 0 to 1.
    let (low, high) = call.tensor(0)?.element().integer_range().unwrap_or((0, 1));
    let start = if farthest < 0.0 { low } else { high };
    reduce(
        call,
        (farthest, |best, x| *best = float(*best, x), |best, _| best),
        (start, |best, x| *best = integer(*best, x), |best, _| Some(best)),
    )
}

/// Adds up absolute values.
fn l1(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    reduce(
        call,
        (0.0, |sum, x| *sum += x.abs(), |sum, _| sum),
        (0i128, |sum, x| *sum = sum.wrapping_add(x.abs()), |sum, _| Some(sum)),
    )
}

/// Computes the square root of the sum of squares. That of integers is truncated.
fn l2(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let add_square = |sum: &mut u128, x: i128| {
        *sum = sum.saturating_add(x.unsigned_abs().saturating_pow(2));
    };
    reduce(
        call,
        (0.0, |sum, x| *sum += x * x, |sum: f64, _| sum.sqrt()),
        (0u128, add_square, |sum, _| Some(sum.isqrt() as i128)),
    )
}

/// Adds up squares.
fn sum_square(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    reduce(
        call,
        (0.0, |sum, x| *sum += x * x, |sum, _| sum),
        (0i128, |sum, x| *sum = sum.wrapping_add(x.wrapping_mul(x)), |sum, _| Some(sum)),
    )
}

/// Computes the logarithm of the sum. That of integers is truncated.
fn log_sum(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    reduce(
        call,
        (0.0, |sum, x| *sum += x, |sum: f64, _| sum.ln()),
        (0i128, |sum, x| *sum += x, |sum, _| Some((sum as f64).ln() as i128)),
    )
}

/// Computes the logarithm of the sum of exponentials. That of integers is truncated.
fn log_sum_exp(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let start = Exponentials { largest: f64::NEG_INFINITY, sum: 0.0 };
    reduce(
        call,
        (start, Exponentials::add, |sum, _| sum.log()),
        (start, |sum: &mut Exponentials, x| sum.add(x as f64), |sum, _| Some(sum.log() as i128)),
    )
}

/// A sum of exponentials: exp(largest) · sum.
#[derive(Clone, Copy)]
struct Exponentials {
    largest: f64,
    sum: f64,
}

impl Exponentials {
    fn add(&mut self, x: f64) {
        // An infinite difference of equal infinities would be NaN.
        if x == self.largest {
            self.sum += 1.0;
        } else if x < self.largest {
            self.sum += (x - self.largest).exp();
        } else {
            self.sum = self.sum * (self.largest - x).exp() + 1.0;
            self.largest = x;
        }
    }

    fn log(self) -> f64 {
        self.largest + self.sum.ln()
    }
}

/// Reduces the axes that the call names. A reduction of floats or integers is given by the start
/// of an accumulator, a function that adds an element to it, and a function that returns the
/// result from it and the number of elements; `None` means a division by zero.
fn reduce<A: Clone, B: Clone>(
    call: &Call<'_>,
    (start, step, finish): (A, impl Fn(&mut A, f64), impl Fn(A, usize) -> f64),
    integers: (B, impl Fn(&mut B, i128), impl Fn(B, usize) -> Option<i128>),
) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let reduced = reduced_axes(call, x.rank())?;
    let shape = reduced_shape(x.shape(), &reduced, call.flag("keepdims", true)?);
    let sizes = x.shape().iter().zip(&reduced).filter(|(_, reduced)| **reduced);
    let count = shape::elements(&sizes.map(|(size, _)| *size).collect::<Vec<_>>())?;
    let floats = with_float!(x.element(), T => {
        let step = |sum: &mut A, value: &T| step(sum, value.wide());
        let sums = accumulate(x.shape(), slice::<T>(x)?, &reduced, start, step)?;
        let results = sums.into_iter().map(|sum| T::narrow(finish(sum, count))).collect();
        Tensor::new(shape.clone(), results)
    });
    if let Some(result) = floats {
        return Ok(vec![result?.into()]);
    }
    let extreme = matches!(call.node.operator.as_str(), "ReduceMax" | "ReduceMin");
    let boolean = x.element() == ElementType::Bool && extreme;
    if !boolean && !x.element().is_integer() {
        return Err(refused(0, x, "an integer type or a floating-point type of 16 bits or more"));
    }
    let (start, step, finish) = integers;
    let step = |sum: &mut B, value: &i128| step(sum, *value);
    let sums = accumulate(x.shape(), &x.to_i128()?, &reduced, start, step)?;
    let results: Option<Vec<i128>> = sums.into_iter().map(|sum| finish(sum, count)).collect();
    let results = results.ok_or(Problem::DivisionByZero)?;
    Ok(vec![Tensor::from_i128(x.element(), shape, results)?.into()])
}

/// Returns for each axis whether the call reduces it.
fn reduced_axes(call: &Call<'_>, rank: usize) -> Result<Vec<bool>, Problem> {
    let input = call.version >= if call.node.operator == "ReduceSum" { 13 } else { 18 };
    let axes = match input {
        true => call.optional_ints(1)?,
        false => call.ints("axes")?.map(<[i64]>::to_vec),
    };
    let axes = axes.unwrap_or_default();
    if axes.is_empty() {
        return Ok(vec![!(input && call.flag("noop_with_empty_axes", false)?); rank]);
    }
    let axes = shape::axes(&axes, rank)?;
    Ok((0..rank).map(|axis| axes.contains(&axis)).collect())
}

/// Returns a shape without the reduced axes, or with size 1 in their place.
fn reduced_shape(shape: &[usize], reduced: &[bool], keep: bool) -> Vec<usize> {
    let axes = shape.iter().zip(reduced);
    axes.filter(|(_, reduced)| keep || !**reduced)
        .map(|(size, reduced)| if *reduced { 1 } else { *size })
        .collect()
}

/// Adds each element to the accumulator of its result. Returns the accumulators in row-major order.
fn accumulate<T, A: Clone>(
    shape: &[usize],
    values: &[T],
    reduced: &[bool],
    start: A,
    step: impl Fn(&mut A, &T),
) -> Result<Vec<A>, Problem> {
    let kept = reduced_shape(shape, reduced, true);
    let mut sums = vec![start; shape::elements(&kept)?];
    let strides = shape::strides(&kept).into_iter().zip(reduced);
    let strides: Vec<usize> =
        strides.map(|(stride, reduced)| if *reduced { 0 } else { stride }).collect();
    // The last axes that are all reduced, or all kept, are one run.
    let last = reduced.last().copied().unwrap_or(false);
    let inner = reduced.iter().rev().take_while(|reduced| **reduced == last).count();
    let (outer_shape, inner_shape) = shape.split_at(shape.len() - inner);
    if values.is_empty() {
        return Ok(sums);
    }
    let run = shape::elements(inner_shape)?;
    let offsets = Offsets::new(outer_shape.to_vec(), strides, 0);
    for (values, offset) in values.chunks(run).zip(offsets) {
        let Some(sums) = sums.get_mut(offset..) else { break };
        match sums.first_mut() {
            Some(sum) if last => values.iter().for_each(|value| step(sum, value)),
            _ => sums.iter_mut().zip(values).for_each(|(sum, value)| step(sum, value)),
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_summed_without_overflow() {
        let log = |values: &[f64]| {
            let mut sum = Exponentials { largest: f64::NEG_INFINITY, sum: 0.0 };
            values.iter().for_each(|value| sum.add(*value));
            sum.log()
        };
        let infinity = f64::INFINITY;
        assert_eq!(log(&[]), -infinity);
        assert_eq!(log(&[-infinity, -infinity]), -infinity);
        assert_eq!(log(&[infinity, 1.0, infinity]), infinity);
        assert_eq!(log(&[-infinity, 1000.0, 1000.0]), 1000.0 + 2f64.ln());
        assert!(log(&[f64::NAN, 1.0]).is_nan() && log(&[infinity, f64::NAN]).is_nan());
    }

    #[test]
    fn any_set_of_axes_is_reduced() {
        let values: Vec<usize> = (0..24).collect();
        let sums = |reduced: &[bool]| {
            accumulate(&[2, 3, 4], &values, reduced, 0, |sum, value| *sum += value).unwrap()
        };
        assert_eq!(sums(&[false, true, false]), [12, 15, 18, 21, 48, 51, 54, 57]);
        assert_eq!(sums(&[true, false, true]), [60, 92, 124]);
        assert_eq!(sums(&[true, true, true]), [276]);
        assert_eq!(sums(&[false, false, false]), values);
        let empty: [usize; 0] = [];
        let sums = accumulate(&[2, 0], &empty, &[false, true], 7, |_, _| ()).unwrap();
        assert_eq!(sums, [7, 7]);
    }
}
