use crate::dynamic::extent;
use crate::{Affine, Product, Ranges};

/// Runs a [`Product`]: the reference implementation of the dynamically quantized matmul.
///
/// # Panics
/// If `output` has the wrong length or another slice is too short.
///
/// # Examples
///
/// A row of two floats times a matrix of 2 × 2 integers:
///
/// ```
/// use hardtack_kernels::{Product, Ranges, product};
///
/// let case = Product {
///     input: &[1.0, -0.5],
///     depth: 2,
///     ranges: Ranges::Row,
///     weights: &[2, 4, 6, 8],
///     scales: &[0.5, 0.25],
///     bias: &[0.0, 1.0],
/// };
/// let mut output = [0.0; 2];
/// product(&case, &mut output);
/// assert!((output[0] - -0.5).abs() < 0.02 && (output[1] - 1.0).abs() < 0.02);
/// ```
pub fn product(product: &Product<'_>, output: &mut [f32]) {
    let columns = product.scales.len();
    let tensor = Affine::of(extent(product.input));
    let rows = product.input.chunks_exact(product.depth);
    assert_eq!(rows.len() * columns, output.len(), "the output must have rows × columns elements");
    for (row, output) in rows.zip(output.chunks_exact_mut(columns)) {
        let affine = match product.ranges {
            Ranges::Row => Affine::of(extent(row)),
            Ranges::Tensor => tensor,
        };
        for (column, output) in output.iter_mut().enumerate() {
            let mut sum = 0i32;
            for (index, x) in row.iter().enumerate() {
                let x = i32::from(affine.apply(*x)) - i32::from(affine.zero_point);
                let weight = product.weights[index * columns + column];
                sum = sum.wrapping_add(x * i32::from(weight));
            }
            *output = sum as f32 * (affine.scale * product.scales[column]) + product.bias[column];
        }
    }
}
