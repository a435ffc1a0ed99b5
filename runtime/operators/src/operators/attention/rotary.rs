//! The rotary embedding of positions.

use super::{exchanged, float, split_heads, wrong_shape};
use crate::call::Call;
use crate::error::Problem;
use crate::shape::{broadcast, broadcast_offsets, elements};
use crate::tensor::Tensor;
use crate::value::Value;

/// Rotates pairs of elements of each head by angles that depend on the position.
pub(super) fn rotary_embedding(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = float(call, 0)?;
    // Axes 1 and 2 are the sequence and the heads.
    let input = exchanged(&split_heads(call, 0, "num_heads")?)?;
    let [batch, sequence, heads, size] = *input.shape() else {
        return Err(wrong_shape(0, x, "have three or four axes"));
    };
    let name = "rotary_embedding_dim";
    let dimension = call.int_or(name, 0)?;
    let rotated = if dimension == 0 { Some(size) } else { usize::try_from(dimension).ok() };
    let rotated = rotated.filter(|rotated| *rotated <= size && rotated % 2 == 0);
    let rotated = rotated.ok_or_else(|| Problem::AttributeValue {
        name,
        value: dimension.to_string(),
        accepted: "even and at most the size of a head, which must be even if this is 0",
    })?;
    let cosines = angles(call, 1, batch, sequence, rotated / 2)?;
    let sines = angles(call, 2, batch, sequence, rotated / 2)?;
    let mut values = input.to_f64()?;
    // Pairs are neighbors, or an element of the first half and one of the second.
    let (first, second) = match call.flag("interleaved", false)? {
        true => (2, 1),
        false => (1, rotated / 2),
    };
    for (index, head) in values.chunks_mut(size.max(1)).enumerate() {
        let position = index.checked_div(heads).unwrap_or(0) * (rotated / 2);
        for pair in 0..rotated / 2 {
            let (Some(cosine), Some(sine)) =
                (cosines.get(position + pair), sines.get(position + pair))
            else {
                continue;
            };
            let (real, imaginary) = (pair * first, pair * first + second);
            if let Ok([a, b]) = head.get_disjoint_mut([real, imaginary]) {
                (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
            }
        }
    }
    let y = Tensor::from_f64(x.element(), input.shape().to_vec(), values)?;
    let y = if x.rank() == 3 { y.reshaped(x.shape().to_vec())? } else { exchanged(&y)? };
    Ok(vec![y.into()])
}

/// Returns the cosines or sines for each position of each sample.
fn angles(
    call: &Call<'_>,
    index: usize,
    batch: usize,
    sequence: usize,
    size: usize,
) -> Result<Vec<f64>, Problem> {
    let cache = float(call, index)?;
    let target = vec![batch, sequence, size];
    let selected = match (call.optional_tensor(3)?, cache.shape()) {
        (Some(positions), [rows, columns]) if *columns == size => {
            let shape = [positions.shape(), &[size]].concat();
            let mut offsets = Vec::with_capacity(elements(&shape)?);
            for position in positions.to_i64()? {
                // As in `Gather`, negative positions count from the end.
                let row = if position < 0 {
                    position.saturating_add(i64::try_from(*rows).unwrap_or(i64::MAX))
                } else {
                    position
                };
                let row = usize::try_from(row).ok().filter(|row| row < rows);
                let row = row.ok_or(Problem::Index { index: position, size: *rows })?;
                offsets.extend(row * size..(row + 1) * size);
            }
            cache.select(shape, offsets.into_iter())?
        }
        (None, [_, _, columns]) if *columns == size => cache.clone(),
        (Some(_), _) => return Err(wrong_shape(index, cache, format!("be [positions, {size}]"))),
        (None, _) => return Err(wrong_shape(index, cache, format!("be {target:?}"))),
    };
    if selected.rank() != 3 || broadcast(&[selected.shape(), &target])? != target {
        let (what, expected) = match call.optional_tensor(3)? {
            Some(positions) => (3, (positions, format!("be {:?}", [batch, sequence]))),
            None => (index, (cache, format!("be {target:?}"))),
        };
        return Err(wrong_shape(what, expected.0, expected.1));
    }
    let offsets = broadcast_offsets(selected.shape(), &target);
    selected.select(target, offsets)?.to_f64()
}
