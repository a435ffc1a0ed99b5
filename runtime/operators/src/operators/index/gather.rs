//! Operators that read elements by index, or find indices.

use std::iter::empty;

use super::{element_offsets, position, tuple_offsets};
use crate::call::Call;
use crate::error::Problem;
use crate::operators::reshape::movement::blocks;
use crate::shape;
use crate::tensor::{Element, Tensor, with_data};
use crate::value::Value;

/// Reads the slices of an axis at the given indices.
pub(super) fn gather(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, indices) = (call.tensor(0)?, call.tensor(1)?);
    let axis = shape::axis(call.int_or("axis", 0)?, x.rank())?;
    let size = x.shape()[axis];
    let places = indices.to_i64()?.into_iter().map(|index| position(index, size));
    let places = places.collect::<Result<Vec<usize>, _>>()?;
    let (before, after) = (&x.shape()[..axis], &x.shape()[axis + 1..]);
    let sizes = [before, indices.shape(), after].concat();
    if shape::elements(&sizes)? == 0 {
        return Ok(vec![x.select(sizes, empty())?.into()]);
    }
    let block = shape::elements(after)?;
    let outer = 0..shape::elements(before)?;
    let starts = outer.flat_map(|row| places.iter().map(move |place| (row * size + place) * block));
    Ok(vec![blocks(x, sizes, block, starts)?.into()])
}

/// Reads one element for each index; the place of the index is the index in the other axes.
pub(super) fn gather_elements(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, indices) = (call.tensor(0)?, call.tensor(1)?);
    let axis = shape::axis(call.int_or("axis", 0)?, x.rank())?;
    let offsets = element_offsets(x, indices, axis)?;
    Ok(vec![x.select(indices.shape().to_vec(), offsets.into_iter())?.into()])
}

/// Reads a slice for each tuple of indices of the leading axes, after the batch axes.
pub(super) fn gather_nd(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, indices) = (call.tensor(0)?, call.tensor(1)?);
    let batch_axes = shape::size(call.int_or("batch_dims", 0)?)?;
    let wrong = |expected: String| Problem::InputShape {
        index: 1,
        shape: indices.shape().to_vec(),
        expected,
    };
    let Some((length, places)) = indices.shape().split_last() else {
        return Err(wrong("have at least 1 axis".into()));
    };
    let batch = x.shape().get(..batch_axes).filter(|batch| places.get(..batch_axes) == Some(batch));
    let batch = batch.ok_or_else(|| {
        wrong(format!("have the {batch_axes} batch axes of the data, of shape {:?}", x.shape()))
    })?;
    let axes = x.shape().get(batch_axes..).unwrap_or(&[]);
    let inner = axes.get(*length..).filter(|_| *length > 0).ok_or_else(|| {
        wrong(format!("have tuples of 1 to {} indices in its last axis", axes.len()))
    })?;
    let sizes = [places, inner].concat();
    let starts = tuple_offsets(&indices.to_i64()?, *length, axes)?;
    if shape::elements(&sizes)? == 0 {
        return Ok(vec![x.select(sizes, empty())?.into()]);
    }
    let batch_size = shape::elements(axes)?;
    let per_batch = shape::elements(places)? / shape::elements(batch)?;
    let starts = starts.into_iter().enumerate();
    let starts = starts.map(|(at, start)| at / per_batch * batch_size + start);
    Ok(vec![blocks(x, sizes, shape::elements(inner)?, starts)?.into()])
}

/// Writes `values[1]` where the index along a new axis is that of the input, else `values[0]`.
pub(super) fn one_hot(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (indices, values) = (call.tensor(0)?, call.tensor(2)?);
    let depth = match integers(call.tensor(1)?)?[..] {
        [Some(depth)] => i64::try_from(depth).ok(),
        _ => None,
    };
    let depth = depth.ok_or_else(|| Problem::Invalid("the depth is not one integer".into()))?;
    let size = shape::size(depth)?;
    let axis = shape::axis(call.int_or("axis", -1)?, indices.rank() + 1)?;
    if values.len() != 2 {
        return Err(Problem::InputShape {
            index: 2,
            shape: values.shape().to_vec(),
            expected: "have 2 elements".into(),
        });
    }
    // Negative indices count from the end since version 11.
    let wraps = call.version >= 11;
    let places = integers(indices)?.into_iter().map(|index| {
        let index = index?;
        let counted = if wraps && index < 0 { index.checked_add(depth.into())? } else { index };
        usize::try_from(counted).ok()
    });
    let places: Vec<Option<usize>> = places.collect();
    let (before, after) = indices.shape().split_at(axis);
    let sizes = [before, &[size], after].concat();
    let count = shape::elements(&sizes)?;
    let inner = if count == 0 { 1 } else { shape::elements(after)? };
    let offsets = (0..count).map(|place| {
        let (row, at) = (place / inner, place % inner);
        let index = places.get(row / size * inner + at).copied().flatten();
        usize::from(index == Some(row % size))
    });
    Ok(vec![values.select(sizes, offsets)?.into()])
}

/// Returns numbers as integers; floats lose their fraction, and `None` stands for `NaN`.
fn integers(x: &Tensor) -> Result<Vec<Option<i128>>, Problem> {
    if x.element().is_float() {
        let values = x.to_f64()?.into_iter();
        return Ok(values.map(|v| if v.is_nan() { None } else { Some(v as i128) }).collect());
    }
    Ok(x.to_i128()?.into_iter().map(Some).collect())
}

/// Keeps the slices of an axis, or without one the elements, for which a condition holds.
pub(super) fn compress(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let condition = call.tensor(1)?;
    let found = condition.element();
    let wrong = Problem::InputType { index: 1, found, accepted: "bool" };
    let holds = condition.slice::<bool>().ok_or(wrong)?;
    let axis = call.int("axis")?.map(|axis| shape::axis(axis, x.rank())).transpose()?;
    let (before, size, after) = match axis {
        Some(axis) => (&x.shape()[..axis], x.shape()[axis], &x.shape()[axis + 1..]),
        None => (&[][..], x.len(), &[][..]),
    };
    let chosen = holds.iter().enumerate().filter(|(_, holds)| **holds).map(|(place, _)| place);
    let chosen: Vec<usize> = chosen.collect();
    if let Some(outside) = chosen.last().filter(|place| **place >= size) {
        return Err(Problem::Index { index: *outside as i64, size });
    }
    let sizes = [before, &[chosen.len()], after].concat();
    if shape::elements(&sizes)? == 0 {
        return Ok(vec![x.select(sizes, empty())?.into()]);
    }
    let block = shape::elements(after)?;
    let outer = 0..shape::elements(before)?;
    let starts = outer.flat_map(|row| chosen.iter().map(move |place| (row * size + place) * block));
    Ok(vec![blocks(x, sizes, block, starts)?.into()])
}

/// Returns the indices of the elements that are not zero, one axis per row.
pub(super) fn non_zero(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    fn places<T: Element>(values: &[T], zero: &T) -> Vec<usize> {
        let places = values.iter().enumerate().filter(|(_, value)| *value != zero);
        places.map(|(place, _)| place).collect()
    }
    let x = call.tensor(0)?;
    let places = with_data!(x.data(), values => places(values, &Default::default()));
    let mut indices = Vec::with_capacity(shape::elements(&[x.rank(), places.len()])?);
    for (size, stride) in x.shape().iter().zip(shape::strides(x.shape())) {
        indices.extend(places.iter().map(|place| (place / stride % size) as i64));
    }
    Ok(vec![Tensor::new(vec![x.rank(), places.len()], indices)?.into()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::reshape::tests::evaluate;

    #[test]
    fn negative_classes_count_from_the_end_since_version_11() {
        let hot = |version| {
            let indices = Tensor::vector(vec![-1.5f32, f32::NAN, 1.9, 3.0]);
            let values = Tensor::vector(vec![".".to_string(), "x".to_string()]);
            let y = evaluate("OneHot", version, vec![indices, Tensor::scalar(2u8), values], &[]);
            y.unwrap()[0].slice::<String>().map(<[String]>::concat)
        };
        assert_eq!(hot(11).as_deref(), Some(".x...x.."));
        assert_eq!(hot(9).as_deref(), Some(".....x.."));
    }

    #[test]
    fn indices_of_a_scalar_have_no_axis() {
        let y = evaluate("NonZero", 13, vec![Tensor::scalar(f32::NAN)], &[]).unwrap();
        assert_eq!(y[0].shape(), [0, 1]);
        let y = evaluate("NonZero", 13, vec![Tensor::vector(vec![0.0, -0.0, 1.0])], &[]).unwrap();
        assert_eq!(y, [Tensor::new(vec![1, 1], vec![2i64]).unwrap()]);
    }

    #[test]
    fn places_must_exist() {
        let x = Tensor::new(vec![2, 2], vec![1i8, 2, 3, 4]).unwrap();
        let gather =
            |operator, indices: Tensor| evaluate(operator, 13, vec![x.clone(), indices], &[]);
        let one = |index: i64| Tensor::new(vec![1, 1], vec![index]).unwrap();
        for operator in ["Gather", "GatherElements", "GatherND"] {
            assert!(gather(operator, one(-2)).is_ok(), "{operator}");
            for index in [2, -3, i64::MIN, i64::MAX] {
                let wrong = Err(Problem::Index { index, size: 2 });
                assert_eq!(gather(operator, one(index)), wrong, "{operator}");
            }
        }
        let tuple_of_none = Tensor::new(vec![1, 0], Vec::<i64>::new()).unwrap();
        assert!(gather("GatherND", tuple_of_none).is_err());
        let longer = Tensor::vector(vec![true, false, false, false, false]);
        assert_eq!(gather("Compress", longer).unwrap(), [Tensor::vector(vec![1i8])]);
        assert!(gather("Compress", Tensor::vector(vec![true; 5])).is_err());
    }
}
