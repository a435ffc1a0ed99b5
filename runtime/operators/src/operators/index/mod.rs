//! Operators that read or write elements by index.

use crate::call::Operator;
use crate::error::Problem;
use crate::shape::{self, Offsets};
use crate::tensor::Tensor;

mod gather;
mod scatter;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "Compress") => gather::compress,
        ("", "Gather") => gather::gather,
        ("", "GatherElements") => gather::gather_elements,
        ("", "GatherND") => gather::gather_nd,
        ("", "NonZero") => gather::non_zero,
        ("", "OneHot") => gather::one_hot,
        ("", "Scatter" | "ScatterElements") => scatter::scatter_elements,
        ("", "ScatterND") => scatter::scatter_nd,
        ("", "TensorScatter") => scatter::tensor_scatter,
        _ => return None,
    })
}

/// Returns the position that an index means: negative ones count from the end.
fn position(index: i64, size: usize) -> Result<usize, Problem> {
    shape::axis(index, size).map_err(|_| Problem::Index { index, size })
}

/// Returns the offset of the element of `x` that each index means
/// along an axis; the place of the index is the index in the other axes.
fn element_offsets(x: &Tensor, indices: &Tensor, axis: usize) -> Result<Vec<usize>, Problem> {
    let fits = |(other, (size, count)): (usize, (&usize, &usize))| other == axis || count <= size;
    let mut sizes = x.shape().iter().zip(indices.shape()).enumerate();
    if indices.rank() != x.rank() || !sizes.all(fits) {
        return Err(Problem::InputShape {
            index: 1,
            shape: indices.shape().to_vec(),
            expected: format!("lie within {:?} in all axes but {axis}", x.shape()),
        });
    }
    let mut strides = shape::strides(x.shape());
    let stride = std::mem::replace(&mut strides[axis], 0);
    let bases = Offsets::new(indices.shape().to_vec(), strides, 0);
    let indices = indices.to_i64()?.into_iter();
    let offset = |(base, index): (usize, i64)| {
        Ok(position(index, x.shape()[axis])?.saturating_mul(stride).saturating_add(base))
    };
    bases.zip(indices).map(offset).collect()
}

/// Returns the offset of the slice that each tuple of `length` indices of leading axes means.
fn tuple_offsets(indices: &[i64], length: usize, axes: &[usize]) -> Result<Vec<usize>, Problem> {
    let strides = shape::strides(axes);
    let offset = |tuple: &[i64]| {
        let mut offset = 0usize;
        for ((index, size), stride) in tuple.iter().zip(axes).zip(&strides) {
            offset = offset.saturating_add(position(*index, *size)?.saturating_mul(*stride));
        }
        Ok(offset)
    };
    indices.chunks(length.max(1)).map(offset).collect()
}
