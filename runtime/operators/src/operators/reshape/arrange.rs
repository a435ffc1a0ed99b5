//! Operators that reorder or repeat elements.

use super::movement::{blocks, strided, take};
use crate::call::Call;
use crate::error::Problem;
use crate::shape;
use crate::tensor::{Data, Element, Tensor, with_data};
use crate::value::Value;

/// Permutes the axes of a tensor; reverses them by default.
pub(super) fn transpose(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let order: Vec<usize> = match call.ints("perm")? {
        Some(order) => shape::axes(order, x.rank())?,
        None => (0..x.rank()).rev().collect(),
    };
    if order.len() != x.rank() {
        return Err(Problem::AttributeValue {
            name: "perm",
            value: format!("{order:?}"),
            accepted: "a permutation of all axes",
        });
    }
    let sizes = order.iter().map(|axis| x.shape()[*axis]).collect();
    Ok(vec![permuted(x, x.shape(), &order, sizes)?.into()])
}

/// Views a tensor in a shape, permutes the axes of that view, and gives the result a shape.
fn permuted(
    x: &Tensor,
    view: &[usize],
    order: &[usize],
    shape: Vec<usize>,
) -> Result<Tensor, Problem> {
    let strides = shape::strides(view);
    let axes: Vec<(usize, usize)> =
        order.iter().map(|axis| (view[*axis], strides[*axis])).collect();
    strided(x, shape, &axes)
}

/// Returns the sizes of a tensor with four axes.
fn four_axes(x: &Tensor) -> Result<[usize; 4], Problem> {
    x.shape().try_into().map_err(|_| Problem::InputShape {
        index: 0,
        shape: x.shape().to_vec(),
        expected: "have 4 axes".into(),
    })
}

/// Returns the attribute `blocksize`, which must be positive, and its square.
fn block_size(call: &Call<'_>) -> Result<(usize, usize), Problem> {
    let block = call.int("blocksize")?.ok_or(Problem::MissingAttribute { name: "blocksize" })?;
    let size = usize::try_from(block).ok().filter(|size| *size > 0);
    size.and_then(|size| Some((size, size.checked_mul(size)?))).ok_or(Problem::AttributeValue {
        name: "blocksize",
        value: block.to_string(),
        accepted: "a positive integer whose square is not too large",
    })
}

/// Moves the elements of the depth axis to blocks of the spatial axes.
pub(super) fn depth_to_space(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let [n, c, h, w] = four_axes(x)?;
    let (block, area) = block_size(call)?;
    let depth = c / area;
    let sizes = (depth * area == c).then_some(());
    let sizes =
        sizes.and_then(|()| Some(vec![n, depth, h.checked_mul(block)?, w.checked_mul(block)?]));
    let sizes = sizes.ok_or_else(|| Problem::InputShape {
        index: 0,
        shape: x.shape().to_vec(),
        expected: format!("have a depth that is a multiple of {area}"),
    })?;
    let y = match call.text("mode")?.unwrap_or("DCR") {
        "DCR" => permuted(x, &[n, block, block, depth, h, w], &[0, 3, 4, 1, 5, 2], sizes)?,
        "CRD" => permuted(x, &[n, depth, block, block, h, w], &[0, 1, 4, 2, 5, 3], sizes)?,
        mode => {
            return Err(Problem::AttributeValue {
                name: "mode",
                value: mode.into(),
                accepted: "DCR or CRD",
            });
        }
    };
    Ok(vec![y.into()])
}

/// Moves the elements of blocks of the spatial axes to the depth axis.
pub(super) fn space_to_depth(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let [n, c, h, w] = four_axes(x)?;
    let (block, area) = block_size(call)?;
    let (rows, columns) = (h / block, w / block);
    let fits = rows * block == h && columns * block == w;
    let depth = c.checked_mul(area).filter(|_| fits);
    let depth = depth.ok_or_else(|| Problem::InputShape {
        index: 0,
        shape: x.shape().to_vec(),
        expected: format!("have a height and a width that are multiples of {block}"),
    })?;
    let view = [n, c, rows, block, columns, block];
    let y = permuted(x, &view, &[0, 3, 5, 1, 2, 4], vec![n, depth, rows, columns])?;
    Ok(vec![y.into()])
}

/// Broadcasts a tensor together with a shape.
pub(super) fn expand(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let target = call.tensor(1)?.to_i64()?;
    let target: Vec<usize> = target.into_iter().map(shape::size).collect::<Result<_, _>>()?;
    let sizes = shape::broadcast(&[x.shape(), &target])?;
    let strides = shape::strides(x.shape());
    // The missing axes and those of size 1 repeat.
    let mut axes: Vec<(usize, usize)> = sizes.iter().map(|size| (*size, 0)).collect();
    let skipped = axes.len().saturating_sub(x.rank());
    for ((axis, own), stride) in axes.iter_mut().skip(skipped).zip(x.shape()).zip(strides) {
        axis.1 = if *own == 1 { 0 } else { stride };
    }
    Ok(vec![strided(x, sizes, &axes)?.into()])
}

/// Repeats a tensor along each axis.
pub(super) fn tile(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let repeats = call.tensor(1)?.to_i64()?;
    if repeats.len() != x.rank() {
        return Err(Problem::InputShape {
            index: 1,
            shape: call.tensor(1)?.shape().to_vec(),
            expected: format!("have {} elements", x.rank()),
        });
    }
    let mut sizes = Vec::with_capacity(x.rank());
    for (size, repeats) in x.shape().iter().zip(repeats) {
        let repeated = size.checked_mul(shape::size(repeats)?);
        sizes.push(repeated.ok_or_else(|| {
            Problem::Invalid(format!("an axis of size {size} is repeated {repeats} times"))
        })?);
    }
    let y = take(x, sizes, None, |axis, index| index.checked_rem(x.shape()[axis]))?;
    Ok(vec![y.into()])
}

/// Reverses the first elements of the time axis, as many as the batch element's length.
pub(super) fn reverse_sequence(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let lengths = call.tensor(1)?.to_i64()?;
    let axes = (call.int_or("batch_axis", 1)?, call.int_or("time_axis", 0)?);
    let batch_first = match axes {
        (0, 1) => true,
        (1, 0) => false,
        _ => {
            return Err(Problem::Invalid(format!(
                "`batch_axis` and `time_axis` are {axes:?}; one must be 0 and the other 1"
            )));
        }
    };
    let [first, second, ..] = *x.shape() else {
        let expected = "have at least 2 axes".into();
        return Err(Problem::InputShape { index: 0, shape: x.shape().to_vec(), expected });
    };
    let (batch, time) = if batch_first { (first, second) } else { (second, first) };
    if lengths.len() != batch {
        return Err(Problem::InputShape {
            index: 1,
            shape: call.tensor(1)?.shape().to_vec(),
            expected: format!("have one element for each of the {batch} batch elements"),
        });
    }
    let lengths = lengths.into_iter().map(|length| match usize::try_from(length) {
        Ok(found) if found <= time => Ok(found),
        _ => {
            Err(Problem::Invalid(format!("a sequence length is {length}; it must be 0 to {time}")))
        }
    });
    let lengths = lengths.collect::<Result<Vec<usize>, _>>()?;
    if x.is_empty() {
        return Ok(vec![x.clone().into()]);
    }
    let block = x.len() / (first * second);
    let starts = (0..first * second).map(|place| {
        let (row, column) = (place / second, place % second);
        let (b, t) = if batch_first { (row, column) } else { (column, row) };
        let source = if t < lengths[b] { lengths[b] - 1 - t } else { t };
        let place = if batch_first { b * second + source } else { source * second + b };
        place * block
    });
    Ok(vec![blocks(x, x.shape().to_vec(), block, starts)?.into()])
}

/// Keeps the upper or the lower triangle of matrices, and sets the rest to zero.
pub(super) fn trilu(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    fn triangle<T: Element>(
        values: &[T],
        (rows, columns): (usize, usize),
        keep: impl Fn(usize, usize) -> bool,
    ) -> Data {
        let mut kept = values.to_vec();
        for (row, values) in kept.chunks_mut(columns).enumerate() {
            for (column, value) in values.iter_mut().enumerate() {
                if !keep(row % rows, column) {
                    *value = T::default();
                }
            }
        }
        T::store(kept)
    }
    let x = call.tensor(0)?;
    let upper = call.flag("upper", true)?;
    let k = i128::from(call.optional_tensor(1)?.map_or(Ok(0), Tensor::integer)?);
    let [.., rows, columns] = *x.shape() else {
        let expected = "have at least 2 axes".into();
        return Err(Problem::InputShape { index: 0, shape: x.shape().to_vec(), expected });
    };
    if x.is_empty() {
        return Ok(vec![x.clone().into()]);
    }
    let keep = |row: usize, column: usize| {
        let diagonal = column as i128 - row as i128;
        if upper { diagonal >= k } else { diagonal <= k }
    };
    let data = with_data!(x.data(), values => triangle(values, (rows, columns), keep));
    Ok(vec![Tensor::with_type(x.element(), x.shape().to_vec(), data)?.into()])
}
