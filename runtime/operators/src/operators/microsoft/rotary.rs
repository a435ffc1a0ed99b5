//! Rotary embeddings of positions.

use crate::call::Call;
use crate::error::Problem;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

use super::heads::Heads;
use super::{floats, from_floats, wrong_shape};

/// Tables of the cosines and sines of angles: one row per position.
pub(super) struct Angles {
    cosines: Vec<f32>,
    sines: Vec<f32>,
    /// The number of angles of a position.
    count: usize,
    interleaved: bool,
}

impl Angles {
    /// Reads the tables from two operands.
    pub(super) fn read(
        call: &Call<'_>,
        cosines: usize,
        sines: usize,
        interleaved: bool,
    ) -> Result<Self, Problem> {
        let (table, other) = (call.tensor(cosines)?, call.tensor(sines)?);
        match *table.shape() {
            [_, count] if table.shape() == other.shape() => {
                Ok(Self { cosines: floats(table)?, sines: floats(other)?, count, interleaved })
            }
            _ => Err(wrong_shape(cosines, table, "have two axes, like the sines")),
        }
    }

    /// Returns the number of elements that are rotated.
    pub(super) fn size(&self) -> usize {
        self.count.saturating_mul(2)
    }

    /// Rotates pairs of elements by the angles of a position. The members of a pair are neighbors,
    /// or in the two halves of what is rotated.
    pub(super) fn rotate(&self, row: &mut [f32], position: i64) -> Result<(), Problem> {
        let rows = self.cosines.len().checked_div(self.count).unwrap_or(0);
        let outside = Problem::Index { index: position, size: rows };
        let place = usize::try_from(position).ok().filter(|place| *place < rows).ok_or(outside)?;
        for angle in 0..self.count {
            let (first, second) = match self.interleaved {
                true => (2 * angle, 2 * angle + 1),
                false => (angle, angle + self.count),
            };
            let at = place * self.count + angle;
            let (Some(cosine), Some(sine)) = (self.cosines.get(at), self.sines.get(at)) else {
                continue;
            };
            let (Some(x), Some(y)) = (row.get(first).copied(), row.get(second).copied()) else {
                continue;
            };
            let (c, s) = (f64::from(*cosine), f64::from(*sine));
            let (x, y) = (f64::from(x), f64::from(y));
            row[first] = (x * c - y * s) as f32;
            row[second] = (y * c + x * s) as f32;
        }
        Ok(())
    }

    /// Rotates heads; `position` gives the position of a place of a sequence.
    pub(super) fn rotate_heads(
        &self,
        heads: &mut Heads,
        position: impl Fn(usize, usize) -> i64,
    ) -> Result<(), Problem> {
        let (count, length) = (heads.heads.max(1), heads.length.max(1));
        for (index, row) in heads.values.chunks_exact_mut(heads.size.max(1)).enumerate() {
            self.rotate(row, position(index / length / count, index % length))?;
        }
        Ok(())
    }
}

/// Returns the position of a place of a sequence: counted from one number, or one of its own.
pub(super) fn positions(
    tensor: &Tensor,
    index: usize,
    batch: usize,
    length: usize,
) -> Result<impl Fn(usize, usize) -> i64 + use<>, Problem> {
    let ids = tensor.to_i64()?;
    if ids.len() != 1 && ids.len() != batch.saturating_mul(length) {
        return Err(wrong_shape(index, tensor, format!("be [1] or [{batch}, {length}]")));
    }
    let counted = tensor.rank() < 2;
    Ok(move |b: usize, s: usize| match ids[..] {
        [start] if counted => start.saturating_add(s as i64),
        _ => ids.get(b * length + s).copied().unwrap_or(-1),
    })
}

/// Rotates the heads of a tensor by the angles of their positions.
pub(super) fn rotary_embedding(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    if call.flag("is_packed_batching", false)? {
        return Err(Problem::Unsupported { reason: "its sequences are packed" });
    }
    let x = call.tensor(0)?;
    let angles = Angles::read(call, 2, 3, call.flag("interleaved", false)?)?;
    let heads = shape::size(call.int_or("num_heads", 0)?)?;
    let (batch, length, size, by_head) = match *x.shape() {
        [batch, _, length, size] => (batch, length, size, true),
        [batch, length, width] => {
            let size = width.checked_div(heads).unwrap_or(angles.size());
            (batch, length, size, false)
        }
        _ => return Err(wrong_shape(0, x, "have three or four axes")),
    };
    let width = x.shape().last().copied().unwrap_or(0);
    if size == 0 || angles.size() > size || width % size != 0 {
        let expected = format!("hold heads of {size} elements, {} of them rotated", angles.size());
        return Err(wrong_shape(0, x, expected));
    }
    let position = positions(call.tensor(1)?, 1, batch, length)?;
    let mut values = floats(x)?;
    let heads = if by_head { x.shape().get(1).copied().unwrap_or(1) } else { width / size };
    for (index, row) in values.chunks_exact_mut(size).enumerate() {
        let (b, s) = match by_head {
            true => (index / length.max(1) / heads.max(1), index % length.max(1)),
            false => (index / heads / length.max(1), index / heads % length.max(1)),
        };
        angles.rotate(row, position(b, s))?;
    }
    Ok(vec![from_floats(x.element(), x.shape().to_vec(), values)?.into()])
}
