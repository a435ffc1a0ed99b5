//! Arithmetic of shapes, axes and strides.

use crate::error::Problem;
use crate::meter;

/// The maximum number of axes.
const MAX_RANK: usize = 64;

/// Returns the number of elements of a shape.
///
/// # Errors
/// Returns [`Problem::TooLarge`] for more than 2^31, or fewer if the evaluation has limits, also if
/// that is only the product of the sizes that are not 0; and [`Problem::Invalid`] for more than 64
/// axes. Returns [`Problem::TooMuchWork`] or [`Problem::Stopped`] if an evaluation with limits has
/// reached one.
pub fn elements(shape: &[usize]) -> Result<usize, Problem> {
    check_rank(shape.len())?;
    // No product of some sizes overflows, even if there are no elements.
    let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul((*size).max(1)));
    match count {
        Some(count) if count <= meter::largest() => {
            meter::spend(count as u64)?;
            Ok(if shape.contains(&0) { 0 } else { count })
        }
        _ => Err(Problem::TooLarge { shape: shape.to_vec(), limit: meter::largest() }),
    }
}

/// Refuses shapes with very many axes.
fn check_rank(rank: usize) -> Result<(), Problem> {
    match rank <= MAX_RANK {
        true => Ok(()),
        false => Err(Problem::Invalid(format!("a shape has {rank} axes, more than {MAX_RANK}"))),
    }
}

/// Returns the distance between neighbors along each axis of a row-major shape.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis].max(1));
    }
    strides
}

/// Returns the axis that an ONNX axis means: negative ones count from the end.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, Problem> {
    let positive = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    match positive.and_then(|axis| usize::try_from(axis).ok()) {
        Some(found) if found < rank => Ok(found),
        _ => Err(Problem::Axis { axis, rank }),
    }
}

/// Returns the axes that a list of ONNX axes means. Each may occur once.
pub(crate) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, Problem> {
    check_rank(rank.max(list.len()))?;
    let found: Vec<usize> = list.iter().map(|one| axis(*one, rank)).collect::<Result<_, _>>()?;
    for (index, one) in found.iter().enumerate() {
        if found[..index].contains(one) {
            return Err(Problem::RepeatedAxis { axis: *one });
        }
    }
    Ok(found)
}

/// Returns a size that ONNX states as an integer.
pub(crate) fn size(value: i64) -> Result<usize, Problem> {
    usize::try_from(value).map_err(|_| Problem::NegativeSize { size: value })
}

/// Returns the shape to which shapes are broadcast together, by the rules of NumPy.
pub(crate) fn broadcast(shapes: &[&[usize]]) -> Result<Vec<usize>, Problem> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    check_rank(rank)?;
    let mut result = vec![1; rank];
    for shape in shapes {
        for (size, other) in result[rank - shape.len()..].iter_mut().zip(*shape) {
            match (*size, *other) {
                (a, b) if a == b || b == 1 => {}
                (1, b) => *size = b,
                _ => {
                    let shapes = shapes.iter().map(|shape| shape.to_vec()).collect();
                    return Err(Problem::Broadcast { shapes });
                }
            }
        }
    }
    elements(&result)?;
    Ok(result)
}

/// Returns the offsets, in a tensor of shape `from`, of the elements of that tensor broadcast to
/// shape `to`.
pub(crate) fn broadcast_offsets(from: &[usize], to: &[usize]) -> Offsets {
    let own = strides(from);
    let skipped = to.len().saturating_sub(from.len());
    let strides = (0..to.len())
        .map(|axis| match axis.checked_sub(skipped) {
            Some(axis) if from[axis] != 1 => own[axis],
            _ => 0,
        })
        .collect();
    Offsets::new(to.to_vec(), strides, 0)
}

/// The offsets of the elements of a strided tensor, in row-major order.
#[derive(Clone, Debug)]
pub(crate) struct Offsets {
    shape: Vec<usize>,
    strides: Vec<usize>,
    index: Vec<usize>,
    next: usize,
    left: usize,
}

impl Offsets {
    /// Creates the offsets of a shape whose axes have the given strides, from an offset.
    pub(crate) fn new(shape: Vec<usize>, strides: Vec<usize>, start: usize) -> Self {
        let left = if shape.contains(&0) { 0 } else { shape.iter().product() };
        Self { index: vec![0; shape.len()], shape, strides, next: start, left }
    }
}

impl Iterator for Offsets {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let current = self.next;
        for axis in (0..self.shape.len()).rev() {
            self.index[axis] += 1;
            self.next = self.next.wrapping_add(self.strides[axis]);
            if self.index[axis] < self.shape[axis] {
                break;
            }
            let back = self.strides[axis].wrapping_mul(self.shape[axis]);
            self.next = self.next.wrapping_sub(back);
            self.index[axis] = 0;
        }
        Some(current)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Offsets {}

/// Returns the indices of all elements of a shape, in row-major order.
pub(crate) fn indices(shape: &[usize]) -> Indices {
    let left = if shape.contains(&0) { 0 } else { shape.iter().product() };
    Indices { shape: shape.to_vec(), next: vec![0; shape.len()], left }
}

/// The indices of the elements of a shape, in row-major order.
pub(crate) struct Indices {
    shape: Vec<usize>,
    next: Vec<usize>,
    left: usize,
}

impl Iterator for Indices {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        self.left = self.left.checked_sub(1)?;
        let current = self.next.clone();
        for axis in (0..self.shape.len()).rev() {
            self.next[axis] += 1;
            if self.next[axis] < self.shape[axis] {
                break;
            }
            self.next[axis] = 0;
        }
        Some(current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_broadcast_axes_repeat() {
        let offsets: Vec<usize> = broadcast_offsets(&[2, 1], &[2, 2, 3]).collect();
        assert_eq!(offsets, [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]);
        assert_eq!(broadcast(&[&[2, 1], &[3]]), Ok(vec![2, 3]));
        assert!(broadcast(&[&[2], &[3]]).is_err());
        assert_eq!(broadcast(&[&[0], &[1]]), Ok(vec![0]));
        assert_eq!(indices(&[2, 2]).last(), Some(vec![1, 1]));
    }
}
