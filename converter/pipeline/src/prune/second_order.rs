//! First- and second-order statistics of layer inputs and outputs over calibration data.

use super::matrix::{add_products, cholesky};

/// The number of rows collected before a matrix multiplication.
const ROWS: usize = 256;

/// Accumulates moments of pairs of vectors `x` and `y`.
pub(super) struct SecondOrder {
    /// The number of elements of x and of y.
    pub size: (usize, usize),
    count: f64,
    sum: (Vec<f64>, Vec<f64>),
    xx: Vec<f64>,
    xy: Vec<f64>,
    yy: f64,
    queued: (Vec<f32>, Vec<f32>),
}

impl SecondOrder {
    /// Creates an accumulator for vectors of these sizes.
    pub(super) fn new(size: (usize, usize)) -> SecondOrder {
        SecondOrder {
            size,
            count: 0.0,
            sum: (vec![0.0; size.0], vec![0.0; size.1]),
            xx: vec![0.0; size.0 * size.0],
            xy: vec![0.0; size.0 * size.1],
            yy: 0.0,
            queued: (Vec::new(), Vec::new()),
        }
    }

    /// Adds a pair. `append` appends the elements of x and y to its two arguments.
    pub(super) fn add(&mut self, append: impl FnOnce(&mut Vec<f32>, &mut Vec<f32>)) {
        append(&mut self.queued.0, &mut self.queued.1);
        self.count += 1.0;
        if self.queued.0.len() >= ROWS * self.size.0.max(1) {
            self.multiply();
        }
    }

    fn multiply(&mut self) {
        let (x, y) = (std::mem::take(&mut self.queued.0), std::mem::take(&mut self.queued.1));
        let (m, n) = self.size;
        for (sums, values) in [(&mut self.sum.0, &x), (&mut self.sum.1, &y)] {
            for row in values.chunks_exact(sums.len().max(1)) {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
            }
        }
        add_products(&x, &x, (m, m), &mut self.xx);
        add_products(&x, &y, (m, n), &mut self.xy);
        self.yy += y.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
    }

    /// Returns the moments about the means if `centred`, or else about 0.
    pub(super) fn finish(mut self, centred: bool) -> Covariance {
        self.multiply();
        let ((m, n), count) = (self.size, self.count.max(1.0));
        let mean = |sums: &[f64]| -> Vec<f64> {
            sums.iter().map(|sum| if centred { sum / count } else { 0.0 }).collect()
        };
        let means = (mean(&self.sum.0), mean(&self.sum.1));
        let about = |sums: &mut Vec<f64>, right: &[f64], width: usize| {
            for i in 0..m {
                for j in 0..width {
                    let sum = &mut sums[i * width + j];
                    *sum = *sum / count - means.0[i] * right[j];
                }
            }
        };
        about(&mut self.xx, &means.0, m);
        about(&mut self.xy, &means.1, n);
        let yy = self.yy / count - means.1.iter().map(|mean| mean * mean).sum::<f64>();
        Covariance { size: self.size, count: self.count, means, xx: self.xx, xy: self.xy, yy }
    }
}

/// Moments, normalized by the number of pairs.
pub(super) struct Covariance {
    /// The number of elements of x and of y.
    pub size: (usize, usize),
    /// The number of pairs.
    pub count: f64,
    /// The means of x and y; 0 if the moments are about 0.
    pub means: (Vec<f64>, Vec<f64>),
    /// The moments of x with x, row-major.
    pub xx: Vec<f64>,
    /// The moments of x with y, row-major with one row per element of x.
    pub xy: Vec<f64>,
    /// The sum of the second moments of all elements of y.
    pub yy: f64,
}

impl Covariance {
    /// Returns the Cholesky factor of `xx`, with `ridge` times the diagonal's mean added to the
    /// diagonal.
    pub(super) fn factor(&self, ridge: f64) -> Option<Vec<f64>> {
        let size = self.size.0;
        let mut matrix = self.xx.clone();
        let mean = (0..size).map(|i| matrix[i * size + i]).sum::<f64>() / size.max(1) as f64;
        let added = (ridge * mean).max(f64::MIN_POSITIVE);
        (0..size).for_each(|i| matrix[i * size + i] += added);
        cholesky(matrix, size)
    }
}
