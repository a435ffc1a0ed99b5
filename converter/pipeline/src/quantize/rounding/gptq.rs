//! GPTQ: rounds weights to minimize the error of the layer's outputs, not of each weight.
//!
//! Weights are rounded one after another. Those not yet rounded compensate for the error of each,
//! as far as their inputs correlate over calibration data. Weights with the largest inputs come
//! first.
//! Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
//! Transformers", 2023, after Hassibi and Stork, "Second Order Derivatives for Network Pruning:
//! Optimal Brain Surgeon", 1992.

use super::palette::Palette;
use super::sparsity;
use crate::options::quantize::Sparsity;
use crate::quantize::statistics::second_order::{BLOCK, InputStatistics};
use crate::quantize::weights::{self, Rounded};

/// Damping of the Hessian: the fraction of the mean square input that is added to its diagonal, so
/// that rare inputs count as small, not as absent.
const DAMPING: f64 = 0.01;
/// The number of smaller steps tried for a row, below the one that reaches its largest weight.
const STEPS: i32 = 20;
/// The smallest of these steps, as a fraction of the largest.
const LEAST_STEP: f64 = 0.6;

/// Rounds the weights of a layer. `values` are ordered by output channel, each with as many weights
/// as a group has inputs.
///
/// `noise` is the mean squared quantization error of the layer's input. `step` is the minimum scale
/// of all rows. `palette` is the maximum number of distinct integers.
pub(crate) fn round(
    values: &[f32],
    groups: &[InputStatistics],
    noise: f64,
    step: Option<f32>,
    sparsity: Option<Sparsity>,
    palette: Option<usize>,
) -> Rounded {
    let depth = groups[0].mean.len();
    let rows = values.len() / depth / groups.len();
    let palette = palette.map(|count| palette_of(values, groups, noise, count));
    let nearest = |steps: f32| match &palette {
        Some(palette) => palette.nearest(steps),
        None => steps.round_ties_even().clamp(-127.0, 127.0),
    };
    let mut rounded = Rounded::default();
    for (group, values) in groups.iter().zip(values.chunks_exact(rows * depth)) {
        let sizes = diagonal(group);
        let scale = |row: &[f32]| match (step, &palette) {
            (None, Some(_)) => scale_to(row, &sizes, noise, &nearest),
            _ => step_of(row, &sizes, noise, step),
        };
        let scales: Vec<f32> = values.chunks_exact(depth).map(scale).collect();
        let kept = sparsity.map(|sparsity| sparsity::kept(sparsity, values, &sizes));
        let mut integers = vec![0i8; values.len()];
        for (block, products) in group.products.iter().enumerate() {
            let columns = block * BLOCK..(block * BLOCK + BLOCK).min(depth);
            let solver = Solver::new(products, noise);
            for (row, scale) in scales.iter().enumerate() {
                let at = row * depth + columns.start..row * depth + columns.end;
                let kept = kept.as_ref().map(|kept| &kept[at.clone()]);
                solver.round(&values[at.clone()], *scale, kept, &nearest, &mut integers[at]);
            }
        }
        for ((weights, row), scale) in
            values.chunks_exact(depth).zip(integers.chunks_exact(depth)).zip(&scales)
        {
            // The mean output error of the rounded weights.
            let missing =
                weights.iter().zip(row).zip(&group.mean).map(|((weight, integer), mean)| {
                    (f64::from(*weight) - f64::from(*integer) * f64::from(*scale)) * mean
                });
            rounded.bias.push(missing.sum::<f64>() as f32);
        }
        rounded.weights.extend(integers);
        rounded.scales.extend(scales);
    }
    rounded
}

/// Returns the mean square of each weight's input.
fn diagonal(group: &InputStatistics) -> Vec<f64> {
    let squares = group.products.iter().flat_map(|products| {
        let size = products.len().isqrt();
        (0..size).map(move |at| f64::from(products[at * size + at]))
    });
    squares.collect()
}

fn greatest(row: &[f32]) -> f32 {
    row.iter().fold(0f32, |greatest, weight| greatest.max(weight.abs()))
}

/// Returns the step of a row: at least `least` if given, otherwise the one with the least error.
pub(crate) fn step_of(row: &[f32], sizes: &[f64], noise: f64, least: Option<f32>) -> f32 {
    match least {
        Some(least) => match weights::step(row, greatest(row)) {
            // Weights on a grid that is coarse enough stay exact.
            Some(exact) if exact as f32 >= least => exact as f32,
            _ => least.max(greatest(row) / 127.0),
        },
        None => scale(row, sizes, noise),
    }
}

/// Chooses the allowed integers of a layer's weights, with each row scaled to ±127.
fn palette_of(values: &[f32], groups: &[InputStatistics], noise: f64, count: usize) -> Palette {
    let depth = groups[0].mean.len();
    let rows = values.len() / depth / groups.len();
    let each = groups.iter().zip(values.chunks_exact(rows * depth)).flat_map(|(group, values)| {
        let sizes = diagonal(group);
        values.chunks_exact(depth).flat_map(move |row| {
            let whole = greatest(row).max(f32::MIN_POSITIVE) / 127.0;
            let counts = |size: &f64| f64::from(whole).powi(2) * (size + noise);
            let counted: Vec<(f32, f64)> =
                row.iter().zip(&sizes).map(|(w, size)| (w / whole, counts(size))).collect();
            counted
        })
    });
    Palette::of(each, count)
}

/// Returns the step of a row with the least output error of those tried, assuming independent
/// inputs. Weights on a grid keep their step.
fn scale(row: &[f32], sizes: &[f64], noise: f64) -> f32 {
    if let Some(exact) = weights::step(row, greatest(row)) {
        return exact as f32;
    }
    scale_to(row, sizes, noise, &|steps| steps.round_ties_even().clamp(-127.0, 127.0))
}

/// Returns the step with the least output error if weights in steps are rounded by `nearest`.
fn scale_to(row: &[f32], sizes: &[f64], noise: f64, nearest: &impl Fn(f32) -> f32) -> f32 {
    let whole = f64::from(greatest(row)) / 127.0;
    if whole < 1e-15 {
        return 1.0;
    }
    let error = |scale: f64| {
        let each = row.iter().zip(sizes).map(|(weight, size)| {
            let steps = f64::from(nearest((f64::from(*weight) / scale) as f32));
            (f64::from(*weight) - steps * scale).powi(2) * (size + noise)
        });
        each.sum::<f64>()
    };
    let (mut best, mut least) = (whole, error(whole));
    for tried in 1..=STEPS {
        let scale = whole * (1.0 - (1.0 - LEAST_STEP) * f64::from(tried) / f64::from(STEPS));
        let error = error(scale);
        if error < least {
            (best, least) = (scale, error);
        }
    }
    best as f32
}

/// Compensates for rounding errors among the weights of one block of [`BLOCK`] inputs.
struct Solver {
    /// The order in which weights are rounded.
    order: Vec<usize>,
    /// The upper factor U of the inverse of the damped Hessian, `H⁻¹ = UᵀU`, in that order, with
    /// each row divided by its diagonal element.
    factor: Vec<f32>,
}

impl Solver {
    fn new(products: &[f32], noise: f64) -> Solver {
        let size = products.len().isqrt();
        let square = |at: usize| f64::from(products[at * size + at]);
        let mean = (0..size).map(square).sum::<f64>() / size.max(1) as f64;
        let damping = (DAMPING * mean + noise).max(1e-12);
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|a, b| square(*b).total_cmp(&square(*a)).then(a.cmp(b)));
        // H = R·Rᵀ with R upper triangular, from the last row up; then U = R⁻¹.
        let mut r = vec![0f64; size * size];
        for (i, from) in order.iter().enumerate() {
            for (j, to) in order.iter().enumerate().skip(i) {
                r[i * size + j] = f64::from(products[from * size + to]);
            }
            r[i * size + i] += damping;
        }
        let mut column = vec![0f64; size];
        for j in (0..size).rev() {
            let pivot = r[j * size + j].max(damping * 1e-3).sqrt();
            r[j * size + j] = pivot;
            for i in 0..j {
                r[i * size + j] /= pivot;
                column[i] = r[i * size + j];
            }
            // Subtract what column j explains of the products before it.
            for i in 0..j {
                let of_row = column[i];
                let products = r[i * size + i..i * size + j].iter_mut().zip(&column[i..j]);
                products.for_each(|(product, other)| *product -= of_row * other);
            }
        }
        let mut factor = vec![0f32; size * size];
        let mut row = vec![0f64; size];
        for i in 0..size {
            // Row i of R⁻¹: solve x·R = eᵢ.
            row.fill(0.0);
            row[i] = 1.0;
            for j in i..size {
                row[j] /= r[j * size + j];
                let x = row[j];
                let rest = row[j + 1..].iter_mut().zip(&r[j * size + j + 1..(j + 1) * size]);
                rest.for_each(|(sum, factor)| *sum -= x * factor);
            }
            let diagonal = row[i];
            for j in i..size {
                factor[i * size + j] = (row[j] / diagonal) as f32;
            }
        }
        Solver { order, factor }
    }

    /// Rounds a row. Weights that are not `kept` become 0.
    fn round(
        &self,
        row: &[f32],
        scale: f32,
        kept: Option<&[bool]>,
        nearest: &impl Fn(f32) -> f32,
        integers: &mut [i8],
    ) {
        let size = self.order.len();
        let mut left: Vec<f32> = self.order.iter().map(|at| row[*at]).collect();
        for (i, at) in self.order.iter().enumerate() {
            let steps = match kept {
                Some(kept) if !kept[*at] => 0.0,
                _ => nearest(left[i] / scale),
            };
            integers[*at] = steps as i8;
            let error = left[i] - steps * scale;
            if error != 0.0 {
                let factors = &self.factor[i * size + i + 1..(i + 1) * size];
                left[i + 1..].iter_mut().zip(factors).for_each(|(w, f)| *w -= error * f);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns statistics of three inputs: the first two nearly equal, the third uncorrelated.
    fn group() -> InputStatistics {
        let products = vec![1.0, 0.99, 0.0, 0.99, 1.0, 0.0, 0.0, 0.0, 1.0];
        InputStatistics { mean: vec![0.5, 0.5, 0.0], products: vec![products] }
    }

    /// Returns the mean squared output error of the integers.
    fn error(values: &[f32], rounded: &Rounded) -> f64 {
        let off: Vec<f64> = values
            .iter()
            .zip(&rounded.weights)
            .map(|(w, q)| f64::from(*w) - f64::from(*q) * f64::from(rounded.scales[0]))
            .collect();
        let products = &group().products[0];
        let pairs = (0..9).map(|at| off[at / 3] * off[at % 3] * f64::from(products[at]));
        pairs.sum()
    }

    #[test]
    fn correlated_inputs_compensate_for_errors() {
        let values = [0.43f32, 0.44, 1.0];
        let adaptive = round(&values, &[group()], 0.0, Some(1.0), None, None);
        // Rounding to nearest gives 0, 0, 1. GPTQ makes the first two sum to 1, which is closer.
        assert_eq!(adaptive.weights[0] + adaptive.weights[1], 1);
        assert_eq!(adaptive.weights[2], 1);
        let nearest = Rounded { weights: vec![0, 0, 1], ..adaptive.clone() };
        assert!(error(&values, &adaptive) < 0.2 * error(&values, &nearest));
        // The mean error goes into the bias.
        assert!((adaptive.bias[0] - (0.87 - 1.0) * 0.5).abs() < 1e-6);
    }

    #[test]
    fn pruned_weights_are_compensated_too() {
        let values = [0.5f32, 0.6, 1.0];
        let third = Some(Sparsity::Part(0.34));
        let pruned = round(&values, &[group()], 0.0, None, third, None);
        assert_eq!(pruned.weights[0], 0);
        let second = f64::from(pruned.weights[1]) * f64::from(pruned.scales[0]);
        assert!(second > 0.9, "{second}");
    }

    #[test]
    fn a_palette_holds_all_weights_of_a_layer() {
        let values: Vec<f32> = (0..96).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        let rounded = round(&values, &[group()], 0.0, None, None, Some(4));
        let mut integers = rounded.weights.clone();
        integers.push(0);
        integers.sort_unstable();
        integers.dedup();
        assert!(integers.len() <= 4, "{integers:?}");
        let weights = rounded
            .weights
            .iter()
            .enumerate()
            .map(|(at, w)| f32::from(*w) * rounded.scales[at / 3]);
        let off: f32 = weights.zip(&values).map(|(a, b)| (a - b).powi(2)).sum();
        let all: f32 = values.iter().map(|w| w * w).sum();
        assert!(off < 0.2 * all, "{off} {all}");
    }
}
