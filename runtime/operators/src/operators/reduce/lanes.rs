//! Operators that treat each lane of elements along one axis by itself.

use std::cmp::Ordering;

use crate::call::{Call, Operator};
use crate::error::Problem;
use crate::operators::unary::scalar::{
    Float, Integer, maximum, refused, slice, with_float, with_integer,
};
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

/// Returns the implementation of an operator of this part.
pub(super) fn find(name: &str) -> Option<Operator> {
    Some(match name {
        "ArgMax" => |call| arg(call, |order| order),
        "ArgMin" => |call| arg(call, Ordering::reverse),
        "Softmax" => |call| normalize(call, softmax),
        "LogSoftmax" => |call| normalize(call, log_softmax),
        "Hardmax" => |call| normalize(call, hardmax),
        "CumSum" => |call| scan(call, (0.0, |sum, x| sum + x), (0, i128::wrapping_add)),
        "CumProd" => |call| scan(call, (1.0, |product, x| product * x), (1, i128::wrapping_mul)),
        _ => return None,
    })
}

/// The lanes of a tensor: their number of elements, and the distance between these.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    size: usize,
    stride: usize,
}

impl Lanes {
    /// Returns the lanes along an axis.
    pub(super) fn along(shape: &[usize], axis: usize) -> Result<Self, Problem> {
        let (size, after) = match shape.get(axis..) {
            Some([size, after @ ..]) => (*size, after),
            _ => return Err(Problem::Axis { axis: axis as i64, rank: shape.len() }),
        };
        Ok(Self { size, stride: shape::elements(after)? })
    }

    /// Replaces each lane by what a function makes of it.
    pub(super) fn map<T: Copy, N>(
        self,
        values: &[T],
        widen: impl Fn(T) -> N,
        narrow: impl Fn(&N) -> T,
        f: impl Fn(&mut [N]),
    ) -> Vec<T> {
        let mut results = values.to_vec();
        let mut lane = Vec::with_capacity(self.size.min(values.len()));
        // An empty tensor has no blocks.
        for block in results.chunks_mut(self.size.saturating_mul(self.stride).max(1)) {
            for start in 0..self.stride {
                let elements = block.iter().skip(start).step_by(self.stride);
                lane.clear();
                lane.extend(elements.map(|value| widen(*value)));
                f(&mut lane);
                let elements = block.iter_mut().skip(start).step_by(self.stride);
                elements.zip(&lane).for_each(|(element, value)| *element = narrow(value));
            }
        }
        results
    }

    /// Returns the index of the greatest element of each lane.
    fn find<T>(self, values: &[T], order: impl Fn(&T, &T) -> Ordering, last: bool) -> Vec<i64> {
        let mut found = Vec::new();
        for block in values.chunks(self.size.saturating_mul(self.stride).max(1)) {
            for start in 0..self.stride {
                let lane = block.iter().skip(start).step_by(self.stride);
                found.push(greatest(lane, |a, b| order(a, b), last) as i64);
            }
        }
        found
    }
}

/// Finds the index of the largest or the smallest element of each lane: the first one, or the last
/// one if `select_last_index` is set. NaN precedes all numbers, as in NumPy.
fn arg(call: &Call<'_>, direction: fn(Ordering) -> Ordering) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let axis = shape::axis(call.int_or("axis", 0)?, x.rank())?;
    let last = call.version >= 12 && call.flag("select_last_index", false)?;
    let mut sizes = x.shape().to_vec();
    match call.flag("keepdims", true)? {
        true => sizes.iter_mut().skip(axis).take(1).for_each(|size| *size = 1),
        false => drop(sizes.remove(axis)),
    }
    if x.is_empty() {
        // Fails if a lane is empty.
        return Ok(vec![Tensor::new(sizes, Vec::<i64>::new())?.into()]);
    }
    let lanes = Lanes::along(x.shape(), axis)?;
    let found = with_float!(x.element(), T => {
        let order = |a: &T, b: &T| order(a.wide(), b.wide(), direction);
        slice::<T>(x).map(|values| lanes.find(values, order, last))
    });
    let found = found.or_else(|| {
        with_integer!(x.element(), T => {
            slice::<T>(x).map(|values| lanes.find(values, |a, b| direction(a.cmp(b)), last))
        })
    });
    let accepted = "an integer type of 8 bits or more or a floating-point type of 16 bits or more";
    let found = found.unwrap_or_else(|| Err(refused(0, x, accepted)))?;
    Ok(vec![Tensor::new(sizes, found)?.into()])
}

/// Compares two numbers; NaN is the greatest in either direction.
fn order(a: f64, b: f64, direction: fn(Ordering) -> Ordering) -> Ordering {
    match a.partial_cmp(&b) {
        Some(order) => direction(order),
        None => a.is_nan().cmp(&b.is_nan()),
    }
}

/// Returns the index of the greatest value: the first one, or the last one.
fn greatest<V>(
    values: impl Iterator<Item = V>,
    order: impl Fn(&V, &V) -> Ordering,
    last: bool,
) -> usize {
    let mut best: Option<(usize, V)> = None;
    for (index, value) in values.enumerate() {
        let better = best.as_ref().is_none_or(|(_, best)| match order(&value, best) {
            Ordering::Greater => true,
            Ordering::Equal => last,
            Ordering::Less => false,
        });
        if better {
            best = Some((index, value));
        }
    }
    best.map_or(0, |(index, _)| index)
}

/// Replaces each lane of floats. Before opset 13, a lane goes over all axes from `axis` on.
fn normalize(call: &Call<'_>, f: fn(&mut [f64])) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let flat = call.version < 13;
    let axis = shape::axis(call.int_or("axis", if flat { 1 } else { -1 })?, x.rank())?;
    let mut lanes = Lanes::along(x.shape(), axis)?;
    if flat {
        lanes = Lanes { size: lanes.size.saturating_mul(lanes.stride), stride: 1 };
    }
    let result = with_float!(x.element(), T => {
        let values = lanes.map(slice::<T>(x)?, T::wide, |value| T::narrow(*value), f);
        Tensor::new(x.shape().to_vec(), values)
    });
    let accepted = "a floating-point type of 16 bits or more";
    Ok(vec![result.unwrap_or_else(|| Err(refused(0, x, accepted)))?.into()])
}

/// Replaces numbers by their exponentials over the sum of these.
fn softmax(lane: &mut [f64]) {
    let largest = lane.iter().copied().fold(f64::NEG_INFINITY, maximum);
    let mut sum = 0.0;
    for value in &mut *lane {
        *value = (*value - largest).exp();
        sum += *value;
    }
    lane.iter_mut().for_each(|value| *value /= sum);
}

/// Replaces numbers by the logarithms of their softmax.
pub(super) fn log_softmax(lane: &mut [f64]) {
    let largest = lane.iter().copied().fold(f64::NEG_INFINITY, maximum);
    let sum: f64 = lane.iter().map(|value| (value - largest).exp()).sum();
    let sum = sum.ln();
    lane.iter_mut().for_each(|value| *value = *value - largest - sum);
}

/// Replaces the first of the largest numbers by 1, and others by 0.
fn hardmax(lane: &mut [f64]) {
    let first = greatest(lane.iter(), |a, b| order(**a, **b, |order| order), false);
    let elements = lane.iter_mut().enumerate();
    elements.for_each(|(index, value)| *value = f64::from(u8::from(index == first)));
}

/// Accumulates the elements of each lane from a start, in floats or in integers.
fn scan(
    call: &Call<'_>,
    (start, step): (f64, fn(f64, f64) -> f64),
    integers: (i128, fn(i128, i128) -> i128),
) -> Result<Vec<Value>, Problem> {
    fn accumulate<N: Copy>(
        lane: &mut [N],
        start: N,
        step: fn(N, N) -> N,
        (reverse, exclusive): (bool, bool),
    ) {
        let mut sum = start;
        let replace = |value: &mut N| {
            let next = step(sum, *value);
            *value = if exclusive { sum } else { next };
            sum = next;
        };
        match reverse {
            true => lane.iter_mut().rev().for_each(replace),
            false => lane.iter_mut().for_each(replace),
        }
    }
    let x = call.tensor(0)?;
    let lanes = Lanes::along(x.shape(), shape::axis(call.tensor(1)?.integer()?, x.rank())?)?;
    let mode = (call.flag("reverse", false)?, call.flag("exclusive", false)?);
    let result = with_float!(x.element(), T => {
        let f = |lane: &mut [f64]| accumulate(lane, start, step, mode);
        Tensor::new(x.shape().to_vec(), lanes.map(slice::<T>(x)?, T::wide, |v| T::narrow(*v), f))
    });
    let result = result.or_else(|| {
        let (start, step) = integers;
        with_integer!(x.element(), T => slice::<T>(x).and_then(|values| {
            let f = |lane: &mut [i128]| accumulate(lane, start, step, mode);
            Tensor::new(x.shape().to_vec(), lanes.map(values, T::wide, |v| T::wrap(*v), f))
        }))
    });
    let accepted = "an integer type of 8 bits or more or a floating-point type of 16 bits or more";
    Ok(vec![result.unwrap_or_else(|| Err(refused(0, x, accepted)))?.into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greatest_index_prefers_nan() {
        let find = |values: &[f64], direction, last| {
            greatest(values.iter(), |a, b| order(**a, **b, direction), last)
        };
        let nan = f64::NAN;
        assert_eq!(find(&[1.0, nan, 3.0, nan], |order| order, false), 1);
        assert_eq!(find(&[1.0, nan, 3.0, nan], Ordering::reverse, true), 3);
        assert_eq!(find(&[2.0, 1.0, 1.0, 2.0], Ordering::reverse, true), 2);
        assert_eq!(find(&[-f64::INFINITY], |order| order, false), 0);
    }

    #[test]
    fn lanes_cover_a_middle_axis() {
        let values: Vec<i32> = (0..12).collect();
        let lanes = Lanes::along(&[2, 3, 2], 1).unwrap();
        let reversed = lanes.map(&values, |v| v, |v| *v, |lane| lane.reverse());
        assert_eq!(reversed, [4, 5, 2, 3, 0, 1, 10, 11, 8, 9, 6, 7]);
        assert_eq!(lanes.find(&values, |a, b| a.cmp(b), false), [2; 4]);
    }
}
