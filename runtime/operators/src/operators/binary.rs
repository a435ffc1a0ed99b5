//! Operators that combine the elements of several tensors, which are broadcast to one shape.

use std::cmp::Ordering;

use super::unary::scalar::{
    Float, Integer, maximum, minimum, refused, slice, with_float, with_integer,
};
use crate::call::{Call, Operator};
use crate::error::Problem;
use crate::shape::{self, Offsets};
use crate::tensor::{Element, Tensor, with_data};
use crate::value::Value;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    if !domain.is_empty() {
        return None;
    }
    Some(match name {
        "Add" => |call| arithmetic(call, |a, b| a + b, |a, b| Some(a.wrapping_add(b))),
        "Sub" => |call| arithmetic(call, |a, b| a - b, |a, b| Some(a.wrapping_sub(b))),
        "Mul" => |call| arithmetic(call, |a, b| a * b, |a, b| Some(a.wrapping_mul(b))),
        "Div" => |call| arithmetic(call, |a, b| a / b, i128::checked_div),
        "Mod" => modulo,
        "Pow" => pow,
        "PRelu" => prelu,
        "Max" => |call| fold(call, |a, b| numbers(a, b, maximum, |a, b| Some(a.max(b)))),
        "Min" => |call| fold(call, |a, b| numbers(a, b, minimum, |a, b| Some(a.min(b)))),
        "Sum" => |call| sum(call, |sum, _| sum),
        "Mean" => |call| sum(call, |sum, count| sum / count),
        "And" => |call| logic(call, |a, b| a & b),
        "Or" => |call| logic(call, |a, b| a | b),
        "Xor" => |call| logic(call, |a, b| a ^ b),
        "Equal" => equal,
        "Greater" => |call| compare(call, Ordering::is_gt),
        "Less" => |call| compare(call, Ordering::is_lt),
        "GreaterOrEqual" => |call| compare(call, Ordering::is_ge),
        "LessOrEqual" => |call| compare(call, Ordering::is_le),
        "BitShift" => bit_shift,
        "BitwiseAnd" => |call| bitwise(call, |a, b| a & b),
        "BitwiseOr" => |call| bitwise(call, |a, b| a | b),
        "BitwiseXor" => |call| bitwise(call, |a, b| a ^ b),
        "Where" => where_operator,
        _ => return None,
    })
}

/// The element types of arithmetic.
const NUMBERS: &str =
    "an integer type of 8 bits or more or a floating-point type of 16 bits or more";

/// Returns two operands.
fn operands<'a>(call: &'a Call<'_>) -> Result<(&'a Tensor, &'a Tensor), Problem> {
    if call.version < 7 && call.flag("broadcast", false)? {
        let reason = "before opset 7, broadcasting follows other rules";
        return Err(Problem::Unsupported { reason });
    }
    Ok((call.tensor(0)?, call.tensor(1)?))
}

/// Checks that two operands have the same element type.
fn same_type(a: &Tensor, b: &Tensor) -> Result<(), Problem> {
    if a.element() == b.element() {
        return Ok(());
    }
    Err(Problem::MixedTypes { first: a.element(), second: b.element() })
}

/// The elements of a tensor with its shape.
type View<'a, T> = (&'a [usize], &'a [T]);

/// Combines elements that are broadcast to one shape, and returns that shape with the results.
fn broadcast<A, B, R>(
    (a_shape, a): View<'_, A>,
    (b_shape, b): View<'_, B>,
    f: impl Fn(&A, &B) -> R,
) -> Result<(Vec<usize>, Vec<R>), Problem> {
    let shape = shape::broadcast(&[a_shape, b_shape])?;
    let mut results = Vec::with_capacity(shape::elements(&shape)?);
    let (a_strides, b_strides) = (strides(a_shape, shape.len()), strides(b_shape, shape.len()));
    // Along the last axes, each operand is contiguous or constant: that is one run.
    let (mut outer, mut run, mut moves) = (shape.len(), 1usize, (false, false));
    while let Some(axis) = outer.checked_sub(1) {
        let axis_moves = (a_strides[axis] != 0, b_strides[axis] != 0);
        if run > 1 && shape[axis] > 1 && axis_moves != moves {
            break;
        }
        if shape[axis] > 1 {
            moves = axis_moves;
        }
        run = run.saturating_mul(shape[axis]);
        outer = axis;
    }
    let offsets = |strides: &[usize]| {
        let shape = if run == 0 { vec![0] } else { shape[..outer].to_vec() };
        Offsets::new(shape, strides[..outer].to_vec(), 0)
    };
    for (i, j) in offsets(&a_strides).zip(offsets(&b_strides)) {
        let a = part(a, i, if moves.0 { run } else { 1 })?;
        let b = part(b, j, if moves.1 { run } else { 1 })?;
        match (a, b) {
            ([a], b) => results.extend(b.iter().map(|b| f(a, b))),
            (a, [b]) => results.extend(a.iter().map(|a| f(a, b))),
            (a, b) => results.extend(a.iter().zip(b).map(|(a, b)| f(a, b))),
        }
    }
    Ok((shape, results))
}

/// Returns the strides of a tensor that is broadcast to a rank: 0 where it repeats its elements.
fn strides(own: &[usize], rank: usize) -> Vec<usize> {
    let mut strides = vec![0; rank.saturating_sub(own.len())];
    let moving = own.iter().zip(shape::strides(own));
    strides.extend(moving.map(|(size, stride)| if *size == 1 { 0 } else { stride }));
    strides
}

/// Returns the elements of a run.
fn part<T>(values: &[T], offset: usize, run: usize) -> Result<&[T], Problem> {
    let rest = values.get(offset..).and_then(|rest| rest.get(..run));
    rest.ok_or(Problem::Offset { offset, len: values.len() })
}

/// Combines the elements of two tensors of given element types.
fn combine<A: Element, B: Element, R: Element>(
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(&A, &B) -> R,
) -> Result<Tensor, Problem> {
    let (shape, results) = broadcast((a.shape(), slice(a)?), (b.shape(), slice(b)?), f)?;
    Tensor::new(shape, results)
}

/// Combines the elements of two integer tensors of one type. `None` means a division by zero.
fn combine_integers<T: Integer>(
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(i128, i128) -> Option<i128>,
) -> Result<Tensor, Problem> {
    let f = |a: &T, b: &T| f(a.wide(), b.wide()).map(T::wrap);
    let (shape, results) = broadcast((a.shape(), slice(a)?), (b.shape(), slice(b)?), f)?;
    let results: Option<Vec<T>> = results.into_iter().collect();
    Tensor::new(shape, results.ok_or(Problem::DivisionByZero)?)
}

/// Combines the numbers of two tensors of one type.
fn numbers(
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(f64, f64) -> f64,
    g: impl Fn(i128, i128) -> Option<i128>,
) -> Result<Tensor, Problem> {
    same_type(a, b)?;
    let floats = with_float!(a.element(), T => {
        combine(a, b, |a: &T, b: &T| T::narrow(f(a.wide(), b.wide())))
    });
    floats
        .or_else(|| with_integer!(a.element(), T => combine_integers::<T>(a, b, g)))
        .unwrap_or_else(|| Err(refused(0, a, NUMBERS)))
}

/// Combines the numbers of the operands.
fn arithmetic(
    call: &Call<'_>,
    f: impl Fn(f64, f64) -> f64,
    g: impl Fn(i128, i128) -> Option<i128>,
) -> Result<Vec<Value>, Problem> {
    let (a, b) = operands(call)?;
    Ok(vec![numbers(a, b, f, g)?.into()])
}

/// Combines any number of operands, from the first to the last.
fn fold(
    call: &Call<'_>,
    f: impl Fn(&Tensor, &Tensor) -> Result<Tensor, Problem>,
) -> Result<Vec<Value>, Problem> {
    let tensors = call.tensors()?;
    let first = call.tensor(0)?;
    if !first.element().is_float() && !first.element().is_integer() {
        return Err(refused(0, first, NUMBERS));
    }
    let Some((second, others)) = tensors.get(1..).and_then(|rest| rest.split_first()) else {
        return Ok(vec![call.value(0)?.clone()]);
    };
    Ok(vec![others.iter().try_fold(f(first, second)?, |a, b| f(&a, b))?.into()])
}

/// Adds up any number of operands in `f64`, and finishes with the sum and their count.
fn sum(call: &Call<'_>, finish: impl Fn(f64, f64) -> f64) -> Result<Vec<Value>, Problem> {
    let first = call.tensor(0)?;
    let (mut shape, mut sums) = (first.shape().to_vec(), first.to_f64()?);
    for x in call.tensors()?.into_iter().skip(1) {
        same_type(first, x)?;
        let values = x.to_f64()?;
        (shape, sums) = broadcast((&shape, &sums), (x.shape(), &values), |a, b| a + b)?;
    }
    let count = call.len() as f64;
    let result = with_float!(first.element(), T => {
        Tensor::new(shape, sums.iter().map(|sum| T::narrow(finish(*sum, count))).collect())
    });
    let accepted = "a floating-point type of 16 bits or more";
    Ok(vec![result.unwrap_or_else(|| Err(refused(0, first, accepted)))?.into()])
}

/// Combines booleans.
fn logic(call: &Call<'_>, f: impl Fn(bool, bool) -> bool) -> Result<Vec<Value>, Problem> {
    let (a, b) = operands(call)?;
    for (index, x) in [a, b].into_iter().enumerate() {
        x.slice::<bool>().ok_or_else(|| refused(index, x, "bool"))?;
    }
    Ok(vec![combine(a, b, |a: &bool, b: &bool| f(*a, *b))?.into()])
}

/// Combines the bits of integers.
fn bitwise(call: &Call<'_>, f: impl Fn(i128, i128) -> i128) -> Result<Vec<Value>, Problem> {
    let (a, b) = operands(call)?;
    same_type(a, b)?;
    let result = with_integer!(a.element(), T => combine_integers::<T>(a, b, |a, b| Some(f(a, b))));
    let accepted = "an integer type of 8 bits or more";
    Ok(vec![result.unwrap_or_else(|| Err(refused(0, a, accepted)))?.into()])
}

/// Compares elements for equality, also strings and booleans.
fn equal(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    fn of<T: Element>(_: &[T], a: &Tensor, b: &Tensor) -> Result<Tensor, Problem> {
        // The storage of narrower types does not show whether they are equal, as with -0 and 0.
        if a.element() != T::TYPE {
            return Err(refused(0, a, "a type of 8 bits or more that is not a narrow float"));
        }
        combine(a, b, |a: &T, b: &T| a == b)
    }
    let (a, b) = operands(call)?;
    same_type(a, b)?;
    Ok(vec![with_data!(a.data(), values => of(values, a, b))?.into()])
}

/// Compares numbers. Comparisons with NaN are false.
fn compare(call: &Call<'_>, f: impl Fn(Ordering) -> bool) -> Result<Vec<Value>, Problem> {
    fn of<T: Element + PartialOrd>(
        a: &Tensor,
        b: &Tensor,
        f: impl Fn(Ordering) -> bool,
    ) -> Result<Tensor, Problem> {
        combine(a, b, |a: &T, b: &T| a.partial_cmp(b).is_some_and(&f))
    }
    let (a, b) = operands(call)?;
    same_type(a, b)?;
    let result = with_float!(a.element(), T => of::<T>(a, b, &f))
        .or_else(|| with_integer!(a.element(), T => of::<T>(a, b, &f)));
    Ok(vec![result.unwrap_or_else(|| Err(refused(0, a, NUMBERS)))?.into()])
}

/// Computes the remainder of a division: with the sign of the divisor if `fmod` is 0, and with the
/// sign of the dividend if it is 1.
fn modulo(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let floored = |a: i128, b: i128| {
        let rest = a.checked_rem(b)?;
        Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
    };
    let (a, _) = operands(call)?;
    match call.int_or("fmod", 0)? {
        0 if a.element().is_float() => Err(Problem::AttributeValue {
            name: "fmod",
            value: "0".into(),
            accepted: "1 for floating-point operands",
        }),
        0 => arithmetic(call, |a, b| a % b, floored),
        1 => arithmetic(call, |a, b| a % b, i128::checked_rem),
        other => Err(Problem::AttributeValue {
            name: "fmod",
            value: other.to_string(),
            accepted: "0 or 1",
        }),
    }
}

/// Raises a base to a power that may have another type. The result has the type of the base.
fn pow(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, y) = operands(call)?;
    if !y.element().is_float() && !y.element().is_integer() {
        return Err(refused(1, y, "an integer or floating-point type"));
    }
    let result = with_float!(x.element(), T => {
        let powers = y.to_f64()?;
        let f = |x: &T, y: &f64| T::narrow(x.wide().powf(*y));
        let (shape, results) = broadcast((x.shape(), slice(x)?), (y.shape(), &powers), f)?;
        Tensor::new(shape, results)
    });
    let result = result.or_else(|| with_integer!(x.element(), T => integer_pow::<T>(x, y)));
    Ok(vec![result.unwrap_or_else(|| Err(refused(0, x, NUMBERS)))?.into()])
}

/// Raises integers to a power.
fn integer_pow<T: Integer>(x: &Tensor, y: &Tensor) -> Result<Tensor, Problem> {
    let base = (x.shape(), slice::<T>(x)?);
    let (shape, results) = match y.element().is_integer() {
        true => {
            let powers = y.to_i128()?;
            broadcast(base, (y.shape(), &powers), |x, y| power(x.wide(), *y).map(T::wrap))?
        }
        false => {
            let powers = y.to_f64()?;
            broadcast(base, (y.shape(), &powers), |x, y| {
                // A power that is a whole number is computed exactly.
                match y.fract() == 0.0 && y.abs() < 1e18 {
                    true => power(x.wide(), *y as i128).map(T::wrap),
                    false => Some(T::wrap((x.wide() as f64).powf(*y) as i128)),
                }
            })?
        }
    };
    let results: Option<Vec<T>> = results.into_iter().collect();
    Tensor::new(shape, results.ok_or(Problem::DivisionByZero)?)
}

/// Returns a power of an integer: the low 128 bits, truncated toward 0 if it is a fraction. `None`
/// means a division by zero.
fn power(base: i128, exponent: i128) -> Option<i128> {
    if exponent < 0 {
        return match base {
            0 => None,
            1 => Some(1),
            -1 => Some(if exponent % 2 == 0 { 1 } else { -1 }),
            _ => Some(0),
        };
    }
    let (mut base, mut exponent, mut result) = (base, exponent, 1i128);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        exponent >>= 1;
    }
    Some(result)
}

/// Computes slope · x for negative x, and x for others. The slope is broadcast to the shape of x.
fn prelu(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, slope) = operands(call)?;
    let result = numbers(
        x,
        slope,
        |x, slope| if x < 0.0 { slope * x } else { x },
        |x, slope| Some(if x < 0 { slope.wrapping_mul(x) } else { x }),
    )?;
    if result.shape() != x.shape() {
        return Err(Problem::InputShape {
            index: 1,
            shape: slope.shape().to_vec(),
            expected: format!("be broadcastable to {:?}", x.shape()),
        });
    }
    Ok(vec![result.into()])
}

/// Shifts the bits of unsigned integers. Shifts by the width or more leave 0.
fn bit_shift(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, y) = operands(call)?;
    same_type(x, y)?;
    if x.element().integer_range().is_none_or(|(smallest, _)| smallest < 0) {
        return Err(refused(0, x, "an unsigned integer type"));
    }
    // The largest width is 64 bits, so that a shift by 64 leaves 0 in each type.
    let amount = |y: i128| y.min(64) as u32;
    match call.text("direction")?.ok_or(Problem::MissingAttribute { name: "direction" })? {
        "LEFT" => bitwise(call, |x, y| x.wrapping_shl(amount(y))),
        "RIGHT" => bitwise(call, |x, y| x.wrapping_shr(amount(y))),
        other => Err(Problem::AttributeValue {
            name: "direction",
            value: format!("{other:?}"),
            accepted: "\"LEFT\" or \"RIGHT\"",
        }),
    }
}

/// Selects elements of the second operand where the first one is true, and of the third elsewhere.
fn where_operator(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    fn pick<T: Element>(
        x: &[T],
        y: &Tensor,
        choices: impl Iterator<Item = (bool, (usize, usize))>,
        count: usize,
    ) -> Option<crate::Data> {
        let y = T::slice(y.data())?;
        let mut picked = Vec::with_capacity(count);
        for (condition, (i, j)) in choices {
            picked.push(if condition { x.get(i) } else { y.get(j) }?.clone());
        }
        Some(T::store(picked))
    }
    let (condition, x, y) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    same_type(x, y)?;
    let conditions = condition.slice::<bool>().ok_or_else(|| refused(0, condition, "bool"))?;
    let shape = shape::broadcast(&[condition.shape(), x.shape(), y.shape()])?;
    let count = shape::elements(&shape)?;
    [x, y].into_iter().try_for_each(|choice| choice.check_copies(count))?;
    let offsets = |x: &Tensor| shape::broadcast_offsets(x.shape(), &shape);
    let conditions = offsets(condition).filter_map(|offset| conditions.get(offset).copied());
    let choices = conditions.zip(offsets(x).zip(offsets(y)));
    let data = with_data!(x.data(), values => pick(values, y, choices, count));
    let data = data.ok_or(Problem::MixedTypes { first: x.element(), second: y.element() })?;
    Ok(vec![Tensor::with_type(x.element(), shape, data)?.into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_all_kinds_of_broadcasting() {
        let join = |a: &i32, b: &i32| a * 100 + b;
        for (a_shape, b_shape) in [
            (vec![2, 3, 4], vec![2, 3, 4]),
            (vec![2, 3, 4], vec![3, 1]),
            (vec![1, 4], vec![3, 1]),
            (vec![2, 1, 1, 4], vec![3, 1, 4]),
            (vec![1, 1], vec![2, 1, 2]),
            (vec![], vec![]),
            (vec![2, 0], vec![1]),
            (vec![1, 3], vec![0, 1]),
        ] {
            let count = |shape: &[usize]| shape.iter().product::<usize>() as i32;
            let a: Vec<i32> = (0..count(&a_shape)).collect();
            let b: Vec<i32> = (0..count(&b_shape)).collect();
            let (shape, found) = broadcast((&a_shape, &a), (&b_shape, &b), join).unwrap();
            let offsets = |from: &[usize]| shape::broadcast_offsets(from, &shape);
            let pairs = offsets(&a_shape).zip(offsets(&b_shape));
            let expected: Vec<i32> = pairs.map(|(i, j)| join(&a[i], &b[j])).collect();
            assert_eq!(found, expected, "{a_shape:?} {b_shape:?}");
        }
    }

    #[test]
    fn integer_powers_are_exact() {
        assert_eq!(power(3, 39), Some(3i128.pow(39)));
        assert_eq!(power(-1, -3), Some(-1));
        assert_eq!(power(2, -1), Some(0));
        assert_eq!(power(0, -1), None);
        assert_eq!(power(0, 0), Some(1));
    }
}
