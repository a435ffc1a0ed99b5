//! Helpers for tensor shapes.

use hardtack_bundle::DType;
use hardtack_bundle::graph::{Dim, Fact};

/// Returns the row-major strides of a shape, in elements.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Returns the fact of a value with this type and fixed shape.
pub(crate) fn fact(dtype: DType, shape: &[usize]) -> Fact {
    Fact { dtype, shape: shape.iter().map(|size| Dim::Value(*size as i64)).collect() }
}

/// Returns the dimensions without the batch, or `None` if one of them is dynamic or zero.
pub(crate) fn sample_shape(fact: &Fact) -> Option<Vec<usize>> {
    let (_, rest) = fact.shape.split_first()?;
    rest.iter()
        .map(|dim| dim.value().filter(|d| *d > 0).and_then(|d| usize::try_from(d).ok()))
        .collect()
}
