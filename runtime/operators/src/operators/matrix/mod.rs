//! Matrix multiplication, Einstein summation, and determinants.

use crate::call::{Call, Operator};
use crate::error::Problem;
use crate::meter;
use crate::shape::{broadcast, broadcast_offsets, elements};
use crate::tensor::Tensor;
use crate::value::Value;

mod einsum;
mod product;

use product::Numbers;
pub(super) use product::{Products, Strides};

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "Det") => det,
        ("", "Einsum") => einsum::einsum,
        ("", "Gemm") => gemm,
        ("", "MatMul") => mat_mul,
        _ => return None,
    })
}

/// Returns the problem of an operand with a wrong shape.
fn wrong_shape(index: usize, tensor: &Tensor, expected: impl Into<String>) -> Problem {
    Problem::InputShape { index, shape: tensor.shape().to_vec(), expected: expected.into() }
}

/// Multiplies matrices as NumPy does: leading axes are broadcast, and a vector is a row on the left
/// and a column on the right.
fn mat_mul(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (a, b) = (call.tensor(0)?, call.tensor(1)?);
    let (rows, depth) = match *a.shape() {
        [] => return Err(wrong_shape(0, a, "have at least one axis")),
        [depth] => (None, depth),
        [.., rows, depth] => (Some(rows), depth),
    };
    let (height, columns) = match *b.shape() {
        [] => return Err(wrong_shape(1, b, "have at least one axis")),
        [height] => (height, None),
        [.., height, columns] => (height, Some(columns)),
    };
    if height != depth {
        return Err(wrong_shape(1, b, format!("have {depth} rows, as input 0 has columns")));
    }
    let (m, n) = (rows.unwrap_or(1), columns.unwrap_or(1));
    let a_batch = &a.shape()[..a.rank().saturating_sub(2)];
    let b_batch = &b.shape()[..b.rank().saturating_sub(2)];
    let batch = broadcast(&[a_batch, b_batch])?;
    let mut shape = batch.clone();
    shape.extend(rows);
    shape.extend(columns);
    let is_empty = elements(&shape)? == 0;
    // All matrices on the left are one if there is only one on the right.
    let (m, starts) = match b_batch {
        _ if is_empty => (m, vec![]),
        [] => (elements(a_batch)?.saturating_mul(m), vec![(0, 0)]),
        _ => {
            let a_starts = broadcast_offsets(a_batch, &batch).map(|offset| offset * m * depth);
            let b_starts = broadcast_offsets(b_batch, &batch).map(|offset| offset * depth * n);
            (m, a_starts.zip(b_starts).collect())
        }
    };
    let (a_strides, b_strides) = (Strides::rows(depth), Strides::rows(n));
    let products = Products { rows: m, depth, columns: n, a: a_strides, b: b_strides, starts };
    Ok(vec![products.of_tensors(a, b)?.tensor(a.element(), shape)?.into()])
}

/// Computes `alpha * A * B + beta * C`, with `A` and `B` transposed on demand.
fn gemm(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let matrix = |index: usize, name: &str| {
        let tensor = call.tensor(index)?;
        let [rows, columns] = *tensor.shape() else {
            return Err(wrong_shape(index, tensor, "have two axes"));
        };
        let strides = Strides::rows(columns);
        Ok(match call.flag(name, false)? {
            true => (tensor, columns, rows, strides.transposed()),
            false => (tensor, rows, columns, strides),
        })
    };
    let (a, rows, depth, a_strides) = matrix(0, "transA")?;
    let (b, height, columns, b_strides) = matrix(1, "transB")?;
    if height != depth {
        return Err(wrong_shape(1, b, format!("have {depth} rows, as input 0 has columns")));
    }
    let products =
        Products { rows, depth, columns, a: a_strides, b: b_strides, starts: vec![(0, 0)] };
    let product = products.of_tensors(a, b)?;
    let shape = vec![rows, columns];
    let (alpha, beta) = (call.float_or("alpha", 1.0)?, call.float_or("beta", 1.0)?);
    // As in BLAS, C is not read if beta is 0.
    let c = match call.optional_tensor(2)? {
        Some(c) if beta != 0.0 => {
            if c.element() != a.element() {
                return Err(Problem::MixedTypes { first: a.element(), second: c.element() });
            }
            if c.rank() > 2 || broadcast(&[c.shape(), &shape])? != shape {
                return Err(wrong_shape(2, c, format!("be broadcast to {shape:?}")));
            }
            Some(Numbers::of(&c.select(shape.clone(), broadcast_offsets(c.shape(), &shape))?)?)
        }
        _ => None,
    };
    Ok(vec![scaled_sum(product, alpha, c, beta).tensor(a.element(), shape)?.into()])
}

/// Returns `alpha * x + beta * y`. Integers that are multiplied by fractions are truncated.
fn scaled_sum(x: Numbers, alpha: f32, y: Option<Numbers>, beta: f32) -> Numbers {
    let scaled = |numbers: Numbers, factor: f32| match numbers {
        numbers if factor == 1.0 => numbers,
        Numbers::Floats(values) => {
            Numbers::Floats(values.into_iter().map(|value| value * f64::from(factor)).collect())
        }
        Numbers::Integers(values) if factor.fract() == 0.0 && factor.abs() < 1e18 => {
            let factor = factor as i64;
            Numbers::Integers(values.into_iter().map(|value| value.wrapping_mul(factor)).collect())
        }
        Numbers::Integers(values) => Numbers::Floats(
            values.into_iter().map(|value| value as f64 * f64::from(factor)).collect(),
        ),
    };
    let floats = |numbers: Numbers| match numbers {
        Numbers::Floats(values) => values,
        Numbers::Integers(values) => values.into_iter().map(|value| value as f64).collect(),
    };
    let x = scaled(x, alpha);
    match y.map(|y| scaled(y, beta)) {
        None => x,
        Some(Numbers::Integers(y)) if matches!(x, Numbers::Integers(_)) => match x {
            Numbers::Integers(x) => {
                Numbers::Integers(x.iter().zip(y).map(|(x, y)| x.wrapping_add(y)).collect())
            }
            floats => floats,
        },
        Some(y) => {
            let sums = floats(x).into_iter().zip(floats(y)).map(|(x, y)| x + y);
            Numbers::Floats(sums.collect())
        }
    }
}

/// Computes the determinants of square matrices.
fn det(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let (batch, size) = match *x.shape() {
        [ref batch @ .., rows, columns] if rows == columns => (batch, rows),
        _ => return Err(wrong_shape(0, x, "end with two equal sizes")),
    };
    let (found, accepted) = (x.element(), "a float");
    if !found.is_float() {
        return Err(Problem::ElementType { found, accepted });
    }
    let mut values = x.to_f64()?;
    let determinants = match size {
        0 => vec![1.0; elements(batch)?],
        _ => values
            .chunks_mut(size.saturating_mul(size))
            .map(|matrix| determinant(matrix, size))
            .collect::<Result<_, _>>()?,
    };
    Ok(vec![Tensor::from_f64(found, batch.to_vec(), determinants)?.into()])
}

/// Returns the determinant of a matrix, by elimination with the largest pivot of each column.
fn determinant(matrix: &mut [f64], size: usize) -> Result<f64, Problem> {
    let mut rows: Vec<&mut [f64]> = matrix.chunks_mut(size).collect();
    let mut product = 1.0;
    for column in 0..size {
        meter::spend(((size - column) as u64).saturating_pow(2))?;
        let at = |row: &&mut [f64]| row.get(column).copied().unwrap_or_default();
        let largest = (column..size)
            .max_by(|a, b| at(&rows[*a]).abs().total_cmp(&at(&rows[*b]).abs()).then(b.cmp(a)));
        let pivot_row = largest.unwrap_or(column);
        if pivot_row != column {
            rows.swap(pivot_row, column);
            product = -product;
        }
        let (upper, lower) = rows.split_at_mut(column + 1);
        let Some(pivot_row) = upper.last() else { continue };
        let pivot = at(pivot_row);
        product *= pivot;
        if pivot == 0.0 {
            continue;
        }
        for row in lower {
            let factor = at(row) / pivot;
            for (value, above) in row.iter_mut().zip(pivot_row.iter()).skip(column + 1) {
                *value -= factor * above;
            }
        }
    }
    Ok(product)
}
