//! The heads of an attention: slices of its queries, keys, and values.

use crate::call::Call;
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::shape;
use crate::tensor::Tensor;

use super::{floats, from_floats, wrong_shape};

/// Queries, keys, or values: `[batch, heads, length, size]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Heads {
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) length: usize,
    pub(super) size: usize,
    pub(super) values: Vec<f32>,
}

/// Refuses sizes whose products are too large, also if one of them is 0.
fn bounded(sizes: [usize; 4]) -> Result<(), Problem> {
    shape::elements(&sizes.map(|size| size.max(1))).map(|_| ())
}

impl Heads {
    /// Reads a tensor of shape `[batch, heads, length, size]`.
    pub(super) fn read(call: &Call<'_>, index: usize) -> Result<Self, Problem> {
        let tensor = call.tensor(index)?;
        let [batch, heads, length, size] = *tensor.shape() else {
            return Err(wrong_shape(index, tensor, "have four axes"));
        };
        bounded([batch, heads, length, size])?;
        Ok(Self { batch, heads, length, size, values: floats(tensor)? })
    }

    /// Takes heads from rows: the elements of head `h` at `(b, s)` start at `start(b, s, h)`.
    pub(super) fn gather(
        [batch, heads, length, size]: [usize; 4],
        values: &[f32],
        start: impl Fn(usize, usize, usize) -> usize,
    ) -> Result<Self, Problem> {
        bounded([batch, heads, length, size])?;
        let mut taken = Vec::with_capacity(shape::elements(&[batch, heads, length, size])?);
        for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
            for s in 0..length {
                let start = start(b, s, h);
                let row = start.checked_add(size).and_then(|end| values.get(start..end));
                let outside = Problem::Offset { offset: start, len: values.len() };
                taken.extend_from_slice(row.ok_or(outside)?);
            }
        }
        Ok(Self { batch, heads, length, size, values: taken })
    }

    /// Returns a row.
    pub(super) fn row(&self, b: usize, h: usize, s: usize) -> &[f32] {
        let start = ((b * self.heads + h) * self.length + s) * self.size;
        self.values.get(start..start + self.size).unwrap_or(&[])
    }

    /// Returns these heads with others before them, along the length.
    pub(super) fn after(self, past: &Self) -> Result<Self, Problem> {
        let key = |heads: &Self| (heads.batch, heads.heads, heads.size);
        if key(past) != key(&self) {
            return Err(Problem::Invalid(format!(
                "past heads of shape {:?} do not precede heads of shape {:?}",
                past.shape(),
                self.shape()
            )));
        }
        let length = past.length.saturating_add(self.length);
        shape::elements(&[self.batch, self.heads, length, self.size])?;
        let mut values = Vec::new();
        for (b, h) in (0..self.batch).flat_map(|b| (0..self.heads).map(move |h| (b, h))) {
            (0..past.length).for_each(|s| values.extend_from_slice(past.row(b, h, s)));
            (0..self.length).for_each(|s| values.extend_from_slice(self.row(b, h, s)));
        }
        Ok(Self { length, values, ..self })
    }

    /// Returns the shape.
    pub(super) fn shape(&self) -> Vec<usize> {
        vec![self.batch, self.heads, self.length, self.size]
    }

    /// Returns the heads as a tensor.
    pub(super) fn tensor(&self, element: ElementType) -> Result<Tensor, Problem> {
        from_floats(element, self.shape(), self.values.clone())
    }

    /// Adds a bias, which has one element per head and place.
    pub(super) fn add(&mut self, bias: &[f32]) {
        let rows = self.values.chunks_exact_mut(self.size.max(1));
        for (index, row) in rows.enumerate() {
            let head = (index / self.length.max(1)) % self.heads.max(1);
            let bias = bias.iter().skip(head * self.size);
            row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
    }
}

/// Returns the scores of a query for all keys. Several heads of queries may share one of keys.
pub(super) fn scores(query: &[f32], keys: &Heads, b: usize, h: usize, scale: f64) -> Vec<f64> {
    let product = |s| {
        let pairs = query.iter().zip(keys.row(b, h, s));
        pairs.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() * scale
    };
    (0..keys.length).map(product).collect()
}

/// Returns the sum of values, each times its weight.
pub(super) fn weighted(values: &Heads, b: usize, h: usize, weights: &[f64]) -> Vec<f32> {
    let mut sum = vec![0f64; values.size];
    for (s, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
        let row = values.row(b, h, s);
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * f64::from(*value));
    }
    sum.into_iter().map(|value| value as f32).collect()
}
