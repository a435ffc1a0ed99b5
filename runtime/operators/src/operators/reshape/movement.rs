//! Copies of elements in bulk: along strides, in blocks, and by positions along each axis.

use std::iter::{empty, repeat_n};

use crate::error::Problem;
use crate::shape::{self, Offsets};
use crate::tensor::{Data, Element, Tensor, with_data};

/// Returns a tensor of a shape whose elements are those of `x` along strides: `axes` holds the size
/// and the stride of each axis to walk, the outermost first.
pub(crate) fn strided(
    x: &Tensor,
    shape: Vec<usize>,
    axes: &[(usize, usize)],
) -> Result<Tensor, Problem> {
    fn copy<T: Element>(
        values: &[T],
        rows: Offsets,
        (size, stride): (usize, usize),
        count: usize,
    ) -> Result<Data, Problem> {
        let mut copied = Vec::with_capacity(count);
        for start in rows {
            let outside = || Problem::Offset { offset: start, len: values.len() };
            let row = values.get(start..).ok_or_else(outside)?;
            match stride {
                0 => copied.extend(repeat_n(row.first().ok_or_else(outside)?.clone(), size)),
                1 => copied.extend_from_slice(row.get(..size).ok_or_else(outside)?),
                _ => copied.extend(row.iter().step_by(stride).take(size).cloned()),
            }
        }
        Ok(T::store(copied))
    }
    let count = shape::elements(&shape)?;
    if count == 0 {
        return x.select(shape, empty());
    }
    x.check_copies(count)?;
    let mut axes = joined(axes);
    let row = axes.pop().unwrap_or((1, 1));
    let (sizes, strides) = axes.into_iter().unzip();
    let rows = Offsets::new(sizes, strides, 0);
    let data = with_data!(x.data(), values => copy(values, rows, row, count))?;
    Tensor::with_type(x.element(), shape, data)
}

/// Joins neighboring axes that one stride can walk, and leaves out axes of size 1.
fn joined(axes: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut joined: Vec<(usize, usize)> = Vec::new();
    for (size, stride) in axes.iter().copied().filter(|(size, _)| *size != 1) {
        match joined.last_mut() {
            Some((outer, step)) if *step == stride.saturating_mul(size) => {
                *outer = outer.saturating_mul(size);
                *step = stride;
            }
            _ => joined.push((size, stride)),
        }
    }
    joined
}

/// Returns a tensor of a shape that consists of blocks of `size` elements of `x`, which start at
/// the given offsets.
pub(crate) fn blocks(
    x: &Tensor,
    shape: Vec<usize>,
    size: usize,
    starts: impl IntoIterator<Item = usize>,
) -> Result<Tensor, Problem> {
    fn copy<T: Element>(
        values: &[T],
        size: usize,
        starts: impl IntoIterator<Item = usize>,
        count: usize,
    ) -> Result<Data, Problem> {
        let mut copied = Vec::with_capacity(count);
        for start in starts {
            let block = values.get(start..start.saturating_add(size));
            let outside = Problem::Offset { offset: start, len: values.len() };
            copied.extend_from_slice(block.ok_or(outside)?);
        }
        Ok(T::store(copied))
    }
    let count = shape::elements(&shape)?;
    if count == 0 {
        return x.select(shape, empty());
    }
    x.check_copies(count)?;
    let data = with_data!(x.data(), values => copy(values, size, starts, count))?;
    Tensor::with_type(x.element(), shape, data)
}

/// Returns a tensor of a shape, of the rank of `x`, whose elements are at other positions in `x`:
/// `position` maps an axis and an index of the result to the index in `x`. Where it returns `None`,
/// the result has the only element of `fill`, or zero.
pub(crate) fn take(
    x: &Tensor,
    shape: Vec<usize>,
    fill: Option<&Tensor>,
    position: impl Fn(usize, usize) -> Option<usize>,
) -> Result<Tensor, Problem> {
    fn start<T: Element>(
        values: &[T],
        fill: Option<&Tensor>,
        axes: &[Axis],
        count: usize,
    ) -> Result<Data, Problem> {
        let fill = match fill.map(|fill| T::slice(fill.data())) {
            Some(Some([value])) => value.clone(),
            Some(_) => return Err(Problem::Invalid("the fill value is not one element".into())),
            None => T::default(),
        };
        let mut copied = Vec::with_capacity(count);
        let outside = Problem::Offset { offset: 0, len: values.len() };
        copy(values, axes, 0, &fill, &mut copied).ok_or(outside)?;
        Ok(T::store(copied))
    }
    if let Some(fill) = fill.filter(|fill| fill.element() != x.element()) {
        return Err(Problem::MixedTypes { first: x.element(), second: fill.element() });
    }
    let count = shape::elements(&shape)?;
    if count == 0 {
        return x.select(shape, empty());
    }
    fill.into_iter().chain([x]).try_for_each(|source| source.check_copies(count))?;
    let axes = plan(x.shape(), &shape, position)?;
    let data = with_data!(x.data(), values => start(values, fill, &axes, count))?;
    Tensor::with_type(x.element(), shape, data)
}

/// Consecutive positions of an axis; `None` for positions to be filled.
struct Run {
    start: Option<usize>,
    len: usize,
}

/// What [`take`] copies along an axis.
struct Axis {
    runs: Vec<Run>,
    /// Whether the runs are the whole axis.
    whole: bool,
    /// The elements of the source from one position to the next.
    stride: usize,
    /// The elements of the result for one position.
    block: usize,
}

/// Plans the copies for each axis, the outermost first. It joins whole axes with each other, and
/// with the axis that encloses them if they are the innermost ones.
fn plan(
    from: &[usize],
    to: &[usize],
    position: impl Fn(usize, usize) -> Option<usize>,
) -> Result<Vec<Axis>, Problem> {
    let mut axes: Vec<Axis> = Vec::new();
    let (mut stride, mut block) = (1usize, 1usize);
    for (axis, (size, count)) in from.iter().zip(to).enumerate().rev() {
        let mut runs: Vec<Run> = Vec::new();
        for start in (0..*count).map(|index| position(axis, index)) {
            if let Some(start) = start.filter(|start| start >= size) {
                return Err(Problem::Index { index: start as i64, size: *size });
            }
            match runs.last_mut() {
                Some(run) if run.start.map(|first| first + run.len) == start => run.len += 1,
                _ => runs.push(Run { start, len: 1 }),
            }
        }
        let whole = matches!(&runs[..], [Run { start: Some(0), len }] if len == size);
        match axes.last_mut() {
            Some(Axis { runs, whole: true, .. }) if whole => {
                runs.iter_mut().for_each(|run| run.len *= size);
            }
            None if whole => {}
            _ => axes.push(Axis { runs, whole, stride, block }),
        }
        stride = stride.saturating_mul(*size);
        block = block.saturating_mul(*count);
    }
    if axes.is_empty() {
        let runs = vec![Run { start: Some(0), len: 1 }];
        axes.push(Axis { runs, whole: true, stride, block });
    }
    axes.reverse();
    Ok(axes)
}

fn copy<T: Clone>(
    values: &[T],
    axes: &[Axis],
    base: usize,
    fill: &T,
    copied: &mut Vec<T>,
) -> Option<()> {
    let (axis, inner) = axes.split_first()?;
    for run in &axis.runs {
        let Some(start) = run.start else {
            copied.extend(repeat_n(fill.clone(), run.len * axis.block));
            continue;
        };
        if inner.is_empty() {
            let first = base + start * axis.stride;
            copied.extend_from_slice(values.get(first..first + run.len * axis.block)?);
            continue;
        }
        for index in start..start + run.len {
            copy(values, inner, base + index * axis.stride, fill, copied)?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_combine_across_whole_and_filled_axes() {
        let x = Tensor::new(vec![2, 2, 3], (0..12u8).collect()).unwrap();
        let fill = Tensor::scalar(99u8);
        let y = take(&x, vec![2, 3, 3], Some(&fill), |axis, index| match axis {
            1 => [Some(1), None, Some(0)][index],
            _ => Some(index),
        });
        let expected = [3u8, 4, 5, 99, 99, 99, 0, 1, 2, 9, 10, 11, 99, 99, 99, 6, 7, 8];
        assert_eq!(y, Tensor::new(vec![2, 3, 3], expected.to_vec()));
        let y =
            take(&x, vec![1, 1, 3], None, |axis, index| [Some(1), Some(0), Some(2 - index)][axis]);
        assert_eq!(y, Tensor::new(vec![1, 1, 3], vec![8u8, 7, 6]));
        assert!(take(&x, vec![3, 2, 3], None, |_, index| Some(index)).is_err());
        assert_eq!(take(&x, vec![2, 2, 3], None, |_, index| Some(index)), Ok(x));
    }

    #[test]
    fn axes_join_if_one_stride_walks_them() {
        assert_eq!(joined(&[(2, 12), (1, 7), (3, 4), (4, 1)]), [(24, 1)]);
        assert_eq!(joined(&[(2, 0), (3, 0), (4, 1), (5, 0)]), [(6, 0), (4, 1), (5, 0)]);
    }
}
