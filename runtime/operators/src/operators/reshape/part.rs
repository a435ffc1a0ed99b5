//! Operators that cut tensors to parts, and join them.

use super::movement::take;
use super::{list, required_list};
use crate::call::Call;
use crate::error::Problem;
use crate::meter;
use crate::shape;
use crate::tensor::{Data, Element, Tensor, with_data};
use crate::value::Value;

/// Joins tensors along an axis.
pub(super) fn concat(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    fn join<T: Element>(_: &[T], parts: &[(&Tensor, usize)], count: usize) -> Option<Data> {
        let mut joined = Vec::with_capacity(count);
        let parts = parts.iter().map(|(part, size)| Some((T::slice(part.data())?, *size)));
        let parts = parts.collect::<Option<Vec<_>>>()?;
        for row in 0.. {
            for (values, size) in &parts {
                joined.extend_from_slice(values.get(row * size..(row + 1) * size)?);
            }
            if joined.len() >= count {
                break;
            }
        }
        Some(T::store(joined))
    }
    let parts = call.tensors()?;
    let first = *parts.first().ok_or(Problem::MissingInput { index: 0 })?;
    let axis = call.int("axis")?.ok_or(Problem::MissingAttribute { name: "axis" })?;
    let axis = shape::axis(axis, first.rank())?;
    let mut sizes = first.shape().to_vec();
    sizes[axis] = 0;
    for (index, part) in parts.iter().enumerate() {
        if part.element() != first.element() {
            return Err(Problem::MixedTypes { first: first.element(), second: part.element() });
        }
        let others = |shape: &[usize]| [&shape[..axis], &shape[axis + 1..]].concat();
        if part.rank() != first.rank() || others(part.shape()) != others(first.shape()) {
            return Err(Problem::InputShape {
                index,
                shape: part.shape().to_vec(),
                expected: format!("match {:?} in all axes but {axis}", first.shape()),
            });
        }
        let joined = sizes[axis].checked_add(part.shape()[axis]);
        let too_long = || Problem::Invalid(format!("axis {axis} of the result is too long"));
        sizes[axis] = joined.ok_or_else(too_long)?;
    }
    let count = shape::elements(&sizes)?;
    if count == 0 {
        return Ok(vec![first.select(sizes, std::iter::empty())?.into()]);
    }
    let rows = shape::elements(&sizes[..axis])?.max(1);
    meter::spend((rows as u64).saturating_mul(parts.len() as u64))?;
    meter::check_text(parts.iter().map(|part| part.text_bytes()).fold(0, usize::saturating_add))?;
    let parts: Vec<_> = parts.into_iter().map(|part| (part, part.len() / rows)).collect();
    let data = with_data!(first.data(), values => join(values, &parts, count));
    let data = data.ok_or_else(|| Problem::Invalid("the operands do not fit together".into()))?;
    Ok(vec![Tensor::with_type(first.element(), sizes, data)?.into()])
}

/// Cuts a tensor along an axis, to parts of given sizes or of equal ones.
pub(super) fn split(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let axis = shape::axis(call.int_or("axis", 0)?, x.rank())?;
    let total = x.shape()[axis];
    let sizes = match list(call, "split", 1, 13)? {
        Some(_) if call.version >= 18 && call.int("num_outputs")?.is_some() => {
            return Err(Problem::Invalid("both `split` and `num_outputs` are given".into()));
        }
        Some(sizes) => sizes.into_iter().map(shape::size).collect::<Result<_, _>>()?,
        None => equal_sizes(call, total, x.len())?,
    };
    let sum = sizes.iter().try_fold(0usize, |sum, size| sum.checked_add(*size));
    if sum != Some(total) {
        return Err(Problem::Invalid(format!(
            "the sizes {sizes:?} do not add up to {total}, the size of axis {axis}"
        )));
    }
    // Each part takes memory by itself.
    shape::elements(&[sizes.len(), 16])?;
    let mut start = 0;
    let mut parts = Vec::with_capacity(sizes.len());
    for size in sizes {
        let mut shape = x.shape().to_vec();
        shape[axis] = size;
        let first = |other| if other == axis { start } else { 0 };
        parts.push(take(x, shape, None, |axis, index| Some(first(axis) + index))?.into());
        start += size;
    }
    Ok(parts)
}

/// Returns the sizes of equal parts of an axis. Since version 18, the last part may be smaller.
fn equal_sizes(call: &Call<'_>, total: usize, len: usize) -> Result<Vec<usize>, Problem> {
    let outputs = call.node.outputs.len();
    let uneven = call.version >= 18;
    let count = match uneven {
        true => {
            let count = call.int("num_outputs")?;
            shape::size(count.ok_or(Problem::MissingAttribute { name: "num_outputs" })?)?
        }
        false => outputs,
    };
    let wrong = || Problem::Invalid(format!("an axis of size {total} has no {count} equal parts"));
    // No more parts than the node or the elements need, so that a number alone takes no memory.
    if count == 0 || count > outputs.max(len + 1) {
        return Err(wrong());
    }
    shape::elements(&[count, 16])?;
    let size = total.div_ceil(count);
    let last = (size.checked_mul(count - 1)).and_then(|others| total.checked_sub(others));
    match last {
        Some(last) if uneven || last == size => {
            let mut sizes = vec![size; count - 1];
            sizes.push(last);
            Ok(sizes)
        }
        _ => Err(wrong()),
    }
}

/// Cuts a part from a tensor: from `starts` to `ends` in steps, along `axes`.
pub(super) fn slice(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let starts = required_list(call, "starts", 1, 10)?;
    let ends = required_list(call, "ends", 2, 10)?;
    let axes = match list(call, "axes", 3, 10)? {
        Some(axes) => shape::axes(&axes, x.rank())?,
        None => (0..starts.len()).collect(),
    };
    let steps = if call.version < 10 { None } else { call.optional_ints(4)? };
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    let lengths = [ends.len(), axes.len(), steps.len()];
    if lengths != [starts.len(); 3] || starts.len() > x.rank() {
        return Err(Problem::Invalid(format!(
            "starts {starts:?}, ends {ends:?}, steps {steps:?} and axes {axes:?} of a tensor with \
             {} axes do not fit together",
            x.rank()
        )));
    }
    let mut sizes = x.shape().to_vec();
    let mut walks = vec![(0i128, 1i128); x.rank()];
    for (((axis, start), end), step) in axes.iter().zip(starts).zip(ends).zip(steps) {
        if step == 0 {
            return Err(Problem::Invalid(format!("the step of axis {axis} is 0")));
        }
        let (size, step) = (x.shape()[*axis] as i128, i128::from(step));
        let from_end = |value: i64| i128::from(value) + if value < 0 { size } else { 0 };
        let (start, end) = match step > 0 {
            true => (from_end(start).clamp(0, size), from_end(end).clamp(0, size)),
            // An axis of size 0 ends where it starts, at -1.
            false => (from_end(start).max(0).min(size - 1), from_end(end).max(-1).min(size - 1)),
        };
        let distance = if step > 0 { end - start } else { start - end };
        let count = (distance.max(0) + step.abs() - 1) / step.abs();
        sizes[*axis] = count as usize;
        walks[*axis] = (start, step);
    }
    let y = take(x, sizes, None, |axis, index| {
        let (start, step) = walks[axis];
        usize::try_from(start + index as i128 * step).ok()
    })?;
    Ok(vec![y.into()])
}

/// Cuts or pads each axis at both ends by the same amount, to a given size.
pub(super) fn center_crop_pad(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let target = call.tensor(1)?.to_i64()?;
    let axes = match call.ints("axes")? {
        Some(axes) => shape::axes(axes, x.rank())?,
        None => (0..x.rank()).collect(),
    };
    if axes.len() != target.len() {
        return Err(Problem::InputShape {
            index: 1,
            shape: call.tensor(1)?.shape().to_vec(),
            expected: format!("have {} elements, one for each axis", axes.len()),
        });
    }
    let mut sizes = x.shape().to_vec();
    for (axis, size) in axes.into_iter().zip(target) {
        sizes[axis] = shape::size(size)?;
    }
    let y = take(x, sizes.clone(), None, |axis, index| {
        let (from, to) = (x.shape()[axis], sizes[axis]);
        match from > to {
            true => Some(index + (from - to) / 2),
            false => index.checked_sub((to - from) / 2).filter(|index| *index < from),
        }
    })?;
    Ok(vec![y.into()])
}

#[cfg(test)]
mod tests {
    use super::super::tests::evaluate;
    use super::*;
    use crate::model::Attribute;

    #[test]
    fn ends_beyond_the_axis_are_clamped_by_the_direction_of_the_step() {
        let x = Tensor::vector(vec![10u8, 11, 12]);
        for (start, end, step, expected) in [
            (-100, i64::MAX, 2, vec![10u8, 12]),
            (100, i64::MIN, -2, vec![12, 10]),
            // The start is clamped to the first element, the end to the place before it.
            (-100, -100, -1, vec![10]),
            (0, i64::MAX, -1, vec![]),
            (1, 2, i64::MIN, vec![]),
            (2, 0, i64::MIN, vec![12]),
        ] {
            let list = |value: i64| Tensor::vector(vec![value]);
            let operands = vec![x.clone(), list(start), list(end), list(-1), list(step)];
            let y = evaluate("Slice", 13, operands, &[]).unwrap();
            assert_eq!(y, [Tensor::vector(expected)], "{start} to {end} by {step}");
        }
    }

    #[test]
    fn only_the_last_part_may_be_smaller() {
        let split = |version, outputs, count: i64| {
            let attributes = [("num_outputs", Attribute::Int(count))];
            let x = vec![Tensor::vector(vec![1i8; 5])];
            let parts = super::super::tests::outputs("Split", version, x, &attributes, outputs)?;
            Ok::<_, Problem>(parts.iter().map(Tensor::len).collect::<Vec<_>>())
        };
        assert_eq!(split(18, 3, 3), Ok(vec![2, 2, 1]));
        assert_eq!(split(18, 6, 6), Ok(vec![1, 1, 1, 1, 1, 0]));
        assert!(split(18, 4, 4).is_err());
        assert!(split(18, 1, i64::MAX).is_err());
        assert_eq!(split(13, 5, 0), Ok(vec![1; 5]));
        assert!(split(13, 3, 0).is_err());
    }
}
