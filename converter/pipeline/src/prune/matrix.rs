//! Linear algebra for symmetric positive definite, row-major matrices.

use ndarray::ArrayView2;

/// Returns the lower triangle `L` such that `L·Lᵀ` is the matrix, or `None` if the matrix is not
/// positive definite.
pub(super) fn cholesky(mut matrix: Vec<f64>, size: usize) -> Option<Vec<f64>> {
    for row in 0..size {
        let (above, rest) = matrix.split_at_mut(row * size);
        let current = &mut rest[..size];
        for column in 0..=row {
            let other = if column == row { None } else { Some(&above[column * size..][..column]) };
            let product = match other {
                Some(other) => dot(other, &current[..column]),
                None => dot(&current[..row], &current[..row]),
            };
            let left = current[column] - product;
            current[column] = match other {
                Some(_) => left / above[column * size + column],
                None if left > 0.0 && left.is_finite() => left.sqrt(),
                None => return None,
            };
        }
        current[row + 1..].fill(0.0);
    }
    Some(matrix)
}

/// Solves `L·Lᵀ·x = b` in place.
pub(super) fn solve(lower: &[f64], b: &mut [f64]) {
    let size = b.len();
    for row in 0..size {
        let known = dot(&lower[row * size..][..row], &b[..row]);
        b[row] = (b[row] - known) / lower[row * size + row];
    }
    for row in (0..size).rev() {
        b[row] /= lower[row * size + row];
        let (value, line) = (b[row], &lower[row * size..][..row]);
        b[..row].iter_mut().zip(line).for_each(|(b, l)| *b -= l * value);
    }
}

/// Returns the inverse of a matrix from its Cholesky factor.
pub(super) fn inverse(lower: &[f64], size: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; size * size];
    for (row, line) in inverse.chunks_exact_mut(size).enumerate() {
        line[row] = 1.0;
        solve(lower, line);
    }
    inverse
}

/// Returns the dot product, with four partial accumulators.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut parts = [0.0; 4];
    let (a, b) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for part in 0..4 {
            parts[part] += a[part] * b[part];
        }
    }
    parts.iter().sum::<f64>() + rest
}

/// Adds `leftᵀ·right` to `sums`, an `m` by `n` matrix. `left` has rows of `m` elements, and `right`
/// has the same number of rows of `n` elements.
pub(super) fn add_products(left: &[f32], right: &[f32], (m, n): (usize, usize), sums: &mut [f64]) {
    if m == 0 || n == 0 {
        return;
    }
    let rows = left.len() / m;
    let left = ArrayView2::from_shape((rows, m), left).expect("whole rows");
    let right = ArrayView2::from_shape((rows, n), right).expect("as many rows");
    let products = left.t().dot(&right);
    sums.iter_mut().zip(&products).for_each(|(sum, product)| *sum += f64::from(*product));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_systems_are_solved() {
        let matrix = vec![4.0, 2.0, 0.6, 2.0, 5.0, 1.0, 0.6, 1.0, 3.0];
        let lower = cholesky(matrix.clone(), 3).unwrap();
        let mut x = [1.0, -2.0, 0.5];
        solve(&lower, &mut x);
        for (row, b) in matrix.chunks(3).zip([1.0, -2.0, 0.5]) {
            assert!((dot(row, &x) - b).abs() < 1e-12);
        }
        let inverse = inverse(&lower, 3);
        for i in 0..3 {
            for j in 0..3 {
                let product = (0..3).map(|k| matrix[i * 3 + k] * inverse[k * 3 + j]).sum::<f64>();
                assert!((product - f64::from(i == j)).abs() < 1e-12);
            }
        }
        assert_eq!(cholesky(vec![1.0, 2.0, 2.0, 1.0], 2), None);
        assert_eq!(cholesky(vec![f64::NAN], 1), None);
    }

    #[test]
    fn products_of_rows_are_accumulated() {
        let (rows, m, n) = (130, 7, 19);
        let value = |i: usize| ((i * 37) % 11) as f32 - 5.0;
        let left: Vec<f32> = (0..rows * m).map(value).collect();
        let right: Vec<f32> = (0..rows * n).map(|i| value(i + 3)).collect();
        let mut sums = vec![1.0; m * n];
        add_products(&left, &right, (m, n), &mut sums);
        for i in 0..m {
            for j in 0..n {
                let sum: f32 = (0..rows).map(|r| left[r * m + i] * right[r * n + j]).sum();
                assert_eq!(sums[i * n + j], 1.0 + f64::from(sum));
            }
        }
    }
}
