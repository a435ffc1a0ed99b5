//! Fits a linear predictor to the weights of a layer, by least squares.

use alloc::vec::Vec;
use core::f64::consts::{LOG2_E, SQRT_2};

use crate::history::HISTORY;
use crate::weights::{Expectation, FACTOR, PARTS, SPREAD, TERMS};

/// The number of weights used for the fit: the first ones of a layer.
const SAMPLE: usize = 1 << 17;
/// The number of these weights used to search for distances.
const SEARCHED: usize = 1 << 15;
/// The maximum number of candidate terms.
const CHOICE: usize = 12;
/// Candidate numbers of parts per row: the sizes of common kernels.
const KERNELS: [usize; 5] = [1, 3, 5, 9, 25];
/// The estimated coded size of a factor, in bits.
const FACTOR_BITS: f64 = 7.0;
/// The least saving, in bits, for which a predictor is used.
const LEAST: f64 = 60.0;

/// Returns the predictor with the least estimated coded size, from the energy of its residuals.
pub(super) fn expectation(bytes: &[u8]) -> Expectation {
    let bytes = &bytes[..bytes.len().min(SAMPLE)];
    let weights: Vec<f64> = bytes.iter().map(|byte| f64::from(*byte as i8)).collect();
    let energy: f64 = weights.iter().map(|weight| weight * weight).sum();
    let mut best = (bits(energy, weights.len()) - LEAST, Expectation::NONE);
    for part in distances(&weights[..weights.len().min(SEARCHED)]) {
        for kernel in KERNELS {
            let row = part * kernel;
            let padded = row.next_multiple_of(4);
            for row in [Some(row), (padded != row).then_some(padded)].into_iter().flatten() {
                let Some(fit) = Fit::new(&weights, row, part) else { continue };
                let found = fit.best();
                if found.0 < best.0 {
                    best = found;
                }
            }
        }
    }
    best.1
}

/// Estimates the coded size in bits of `count` numbers with this sum of squares, up to a constant
/// per number.
fn bits(energy: f64, count: usize) -> f64 {
    let count = count.max(1) as f64;
    count / 2.0 * log2(energy / count + 0.1)
}

/// Returns the binary logarithm of a positive normal number. The result is the same on every
/// machine.
fn log2(x: f64) -> f64 {
    let exponent = (x.to_bits() >> 52) as i32 - 1023;
    let mantissa = f64::from_bits(x.to_bits() & ((1 << 52) - 1) | 1023 << 52);
    // The mantissa is √2·(1 + t)/(1 − t).
    let t = (mantissa - SQRT_2) / (mantissa + SQRT_2);
    let series = (0..8).rev().fold(0.0, |sum, k| sum * t * t + 1.0 / f64::from(2 * k + 1));
    f64::from(exponent) + 0.5 + 2.0 * LOG2_E * t * series
}

/// Returns the distances with the strongest autocorrelation.
fn distances(weights: &[f64]) -> Vec<usize> {
    const TRIED: usize = 3;
    let count = weights.len();
    let energy = weights.iter().map(|weight| weight * weight).sum::<f64>() / count as f64 + 1e-6;
    let mut found: Vec<(f64, usize)> = (1..HISTORY.min(count / 2))
        .map(|distance| {
            let pairs = (count - distance) as f64;
            let sum: f64 = weights.iter().zip(&weights[distance..]).map(|(a, b)| a * b).sum();
            (sum * sum / pairs / energy / energy, distance)
        })
        // Ignore correlations that are not significant.
        .filter(|(deviations, _)| *deviations > 16.0)
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.iter().take(TRIED).map(|(_, distance)| *distance).collect()
}

/// The normal equations of one part of the rows.
struct Normal {
    count: usize,
    energy: f64,
    products: [[f64; CHOICE]; CHOICE],
    right: [f64; CHOICE],
}

impl Normal {
    /// Solves for the factors of some of the terms, rounded to multiples of 1/[`FACTOR`].
    fn factors(&self, terms: &[usize]) -> Vec<i8> {
        let n = terms.len();
        // Ridge regularization, equivalent to a few more weights.
        let ridge = 4.0 * self.energy / self.count.max(1) as f64 + 1e-9;
        let mut rows: Vec<Vec<f64>> = terms
            .iter()
            .map(|a| {
                let row =
                    terms.iter().map(|b| self.products[*a][*b] + if a == b { ridge } else { 0.0 });
                row.chain([self.right[*a]]).collect()
            })
            .collect();
        for i in 0..n {
            let (above, below) = rows.split_at_mut(i + 1);
            for row in below {
                let factor = row[i] / above[i][i];
                for (x, y) in row.iter_mut().zip(&above[i]) {
                    *x -= factor * y;
                }
            }
        }
        let mut solved = alloc::vec![0.0; n];
        for i in (0..n).rev() {
            let known: f64 = (i + 1..n).map(|j| rows[i][j] * solved[j]).sum();
            solved[i] = (rows[i][n] - known) / rows[i][i];
        }
        solved
            .iter()
            .map(|x| {
                let x = x * f64::from(FACTOR);
                (if x < 0.0 { x - 0.5 } else { x + 0.5 }) as i8
            })
            .collect()
    }

    /// Returns the energy of the residuals with these factors.
    fn left(&self, terms: &[usize], factors: &[i8]) -> f64 {
        let real = |factor: &i8| f64::from(*factor) / f64::from(FACTOR);
        let pairs = || terms.iter().zip(factors.iter().map(real));
        let mut left = self.energy;
        for (a, x) in pairs() {
            left -= 2.0 * x * self.right[*a];
            left += pairs().map(|(b, y)| x * y * self.products[*a][*b]).sum::<f64>();
        }
        left.max(0.0)
    }
}

/// The candidate terms and normal equations for a row length and a part length.
struct Fit {
    row: usize,
    part: usize,
    choice: Vec<usize>,
    parts: Vec<Normal>,
}

impl Fit {
    fn new(weights: &[f64], row: usize, part: usize) -> Option<Self> {
        let count = row.div_ceil(part);
        if count > PARTS || row > usize::from(u16::MAX) {
            return None;
        }
        let mut choice: Vec<usize> =
            (1..=8).map(|k| k * part).chain([1, 2, row, row + 1]).collect();
        choice.sort_unstable();
        choice.dedup();
        choice.retain(|offset| *offset < HISTORY && *offset < weights.len() / 2);
        let new = || Normal {
            count: 0,
            energy: 0.0,
            products: [[0.0; CHOICE]; CHOICE],
            right: [0.0; CHOICE],
        };
        let mut parts: Vec<Normal> = (0..count).map(|_| new()).collect();
        for (index, weight) in weights.iter().enumerate() {
            let normal = &mut parts[index % row / part];
            let mut terms = [0.0; CHOICE];
            for (term, offset) in terms.iter_mut().zip(&choice) {
                *term = if index >= *offset { weights[index - offset] } else { 0.0 };
            }
            normal.count += 1;
            normal.energy += weight * weight;
            for (a, x) in terms.iter().enumerate().take(choice.len()) {
                normal.right[a] += x * weight;
                for (sum, y) in normal.products[a].iter_mut().zip(&terms[..choice.len()]) {
                    *sum += x * y;
                }
            }
        }
        Some(Self { row, part, choice, parts })
    }

    /// Selects terms greedily: adds the term with the greatest saving, while there is a saving.
    fn best(&self) -> (f64, Expectation) {
        let mut terms: Vec<usize> = Vec::new();
        let mut best = self.cost(&terms);
        while terms.len() < TERMS {
            let tried = (0..self.choice.len()).filter(|term| !terms.contains(term)).map(|term| {
                let more: Vec<usize> = terms.iter().copied().chain([term]).collect();
                (self.cost(&more), more)
            });
            match tried.min_by(|(a, _), (b, _)| a.total_cmp(b)) {
                Some((cost, more)) if cost < best => (best, terms) = (cost, more),
                _ => break,
            }
        }
        (best, self.expectation(&terms))
    }

    /// Returns the factors of a part and its estimated size in bits. The factors are zero if others
    /// do not reduce the size.
    fn factors(&self, part: &Normal, terms: &[usize]) -> (Vec<i8>, f64) {
        let factors = part.factors(terms);
        let with = bits(part.left(terms, &factors), part.count) + FACTOR_BITS * terms.len() as f64;
        let without = bits(part.energy, part.count);
        if with < without { (factors, with) } else { (alloc::vec![0; terms.len()], without) }
    }

    fn cost(&self, terms: &[usize]) -> f64 {
        let parts = self.parts.iter().map(|part| self.factors(part, terms).1 + FACTOR_BITS);
        parts.sum::<f64>() + 14.0 * terms.len() as f64
    }

    fn expectation(&self, terms: &[usize]) -> Expectation {
        let mut found = Expectation {
            row: self.row as u16,
            part: self.part as u16,
            terms: terms.len(),
            ..Expectation::NONE
        };
        for (offset, term) in found.offsets.iter_mut().zip(terms) {
            *offset = self.choice[*term] as u16;
        }
        let variance = |energy: f64, count: usize| energy / count.max(1) as f64 + 0.1;
        let mut left = Vec::new();
        for (part, row) in self.parts.iter().zip(&mut found.factors) {
            let (factors, _) = self.factors(part, terms);
            row[..factors.len()].copy_from_slice(&factors);
            left.push(part.left(terms, &factors));
        }
        let count = self.parts.iter().map(|part| part.count).sum();
        let mean = variance(left.iter().sum(), count);
        for ((spread, part), left) in found.spreads.iter_mut().zip(&self.parts).zip(left) {
            let relative = variance(left, part.count) / mean;
            let square = |spread: u32| f64::from(spread * spread) / f64::from(SPREAD * SPREAD);
            *spread = (2..=255).take_while(|spread| square(*spread) <= relative).last().unwrap_or(1)
                as u8;
        }
        found
    }
}
