//! The variation of outputs over samples, in all or some of their columns.

use hardtack::Tensor;

use crate::error::Error;
use crate::samples::{SampleSource, each};

/// The deviation from the mean over samples, relative to the RMS, at most which values are
/// constants. The rounding of f32 alone can cause it.
const CONSTANT: f64 = 1e-5;
/// The deviation that is assumed for constants, relative to their RMS.
const OF_CONSTANT: f64 = 1e-3;
/// A column that deviates less than this part of the largest one varies by less than a step of
/// 8 bits.
const STEP: f64 = 1.0 / 50.0;
/// Columns are judged apart if they are at least one in this number.
const FEWEST: usize = 32;

/// The columns of an output along one axis that are judged.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::quantize) struct Columns {
    /// The number of elements between two adjacent columns.
    stride: usize,
    /// Whether each column is judged. Empty if all are.
    judged: Vec<bool>,
}

impl Columns {
    /// Returns all columns.
    pub(in crate::quantize) fn all() -> Columns {
        Columns { stride: 1, judged: Vec::new() }
    }

    /// Returns whether an element is judged.
    pub(super) fn contains(&self, element: usize) -> bool {
        self.judged.is_empty() || self.judged[element / self.stride % self.judged.len()]
    }

    /// Returns the sets of columns of an output that are judged: all that vary, and those that are
    /// left without the columns of a larger magnitude. Detectors often join boxes in pixels and
    /// scores from 0 to 1 in one output; the errors of the scores would not show.
    pub(super) fn judged(outputs: &dyn SampleSource, output: usize) -> Result<Vec<Columns>, Error> {
        let mut shape: Option<Vec<usize>> = None;
        for sample in each(outputs) {
            let sample = sample?;
            let of_sample = sample[output].shape();
            if shape.get_or_insert_with(|| of_sample.to_vec()) != of_sample {
                return Ok(vec![Columns::all()]);
            }
        }
        let shape = shape.unwrap_or_default();
        let mut sets = Vec::new();
        for axis in column_axes(&shape) {
            for set in Columns::along(axis, &shape, outputs, output)? {
                if !sets.contains(&set) {
                    sets.push(set);
                }
            }
        }
        Ok(if sets.is_empty() { vec![Columns::all()] } else { sets })
    }

    /// Returns the sets of columns along an axis that are judged.
    fn along(
        axis: usize,
        shape: &[usize],
        outputs: &dyn SampleSource,
        output: usize,
    ) -> Result<Vec<Columns>, Error> {
        let (size, stride) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        // The sums of squared deviations and values, and whether all values are from 0 to 1.
        let mut sums = vec![(0.0, 0.0, true); size];
        deviations(outputs, output, |element, x, deviation| {
            let (signal, square, probability) = &mut sums[element / stride % size];
            *signal += deviation.powi(2);
            *square += x.powi(2);
            *probability &= (0.0..=1.0).contains(&x);
        })?;
        // Probabilities share a unit, so small ones need no precision of their own.
        if sums.iter().all(|column| column.2) {
            return Ok(vec![Columns::all()]);
        }
        let varies = |column: &usize| !is_constant(sums[*column].0, sums[*column].1);
        let mut columns: Vec<usize> = (0..size).filter(varies).collect();
        columns.sort_by(|a, b| sums[*b].0.total_cmp(&sums[*a].0));
        let mut sets = Vec::new();
        while columns.len() * FEWEST >= size && !columns.is_empty() {
            let mut judged = vec![false; size];
            columns.iter().for_each(|column| judged[*column] = true);
            sets.push(match judged.contains(&false) {
                true => Columns { stride, judged },
                false => Columns::all(),
            });
            if columns.iter().all(|column| sums[*column].2) {
                break;
            }
            let least = sums[columns[0]].0 * STEP.powi(2);
            columns.retain(|column| sums[*column].0 < least);
        }
        Ok(sets)
    }
}

/// Returns whether an output has several values for each of many places.
pub(super) fn has_places(output: &Tensor) -> bool {
    let many = |axis: usize| output.len() / output.shape()[axis] >= 4 * output.shape()[axis];
    column_axes(output.shape()).into_iter().any(many)
}

/// Returns the axes along which the values of an output may have different units, such as the
/// coordinates and scores of a box: the second and the last. If one is much longer than the other,
/// it has a value for each of many places.
fn column_axes(shape: &[usize]) -> Vec<usize> {
    let Some(last) = shape.len().checked_sub(1) else { return Vec::new() };
    let mut axes = vec![last.min(1), last];
    axes.dedup();
    let shortest = axes.iter().map(|axis| shape[*axis]).min().unwrap_or(0);
    axes.retain(|axis| shape[*axis] > 1 && shape[*axis] <= 4 * shortest);
    axes
}

/// Returns whether values with these sums of squared deviations and squares are constants.
fn is_constant(signal: f64, square: f64) -> bool {
    signal <= CONSTANT.powi(2) * square
}

/// Returns the sum of the squared deviations of the columns' elements from their mean over samples,
/// per sample. What all samples have in common does not count: an estimate of 1013 ± 6 with an
/// error of 3 is half wrong. With one sample, and where shapes differ, the mean is 0. Elements that
/// are not finite do not count.
pub(super) fn variation(
    outputs: &dyn SampleSource,
    output: usize,
    columns: &Columns,
) -> Result<f64, Error> {
    let (mut signal, mut square) = (0.0, 0.0);
    deviations(outputs, output, |element, x, deviation| {
        if columns.contains(element) {
            signal += deviation.powi(2);
            square += x.powi(2);
        }
    })?;
    let constant = is_constant(signal, square);
    let signal = if constant { OF_CONSTANT.powi(2) * square } else { signal };
    Ok(signal / outputs.count().max(1) as f64)
}

/// Calls `visit` with the index, the value and the deviation of each finite element of each sample.
fn deviations(
    outputs: &dyn SampleSource,
    output: usize,
    mut visit: impl FnMut(usize, f64, f64),
) -> Result<(), Error> {
    // The sum and the number of the finite elements at each place.
    let mut sums: Vec<(f64, f64)> = Vec::new();
    let mut one_shape = outputs.count() > 1;
    for (index, sample) in each(outputs).enumerate() {
        let values = sample?[output].to_f32();
        if index == 0 {
            sums = vec![(0.0, 0.0); values.len()];
        }
        one_shape &= values.len() == sums.len();
        for ((sum, count), x) in sums.iter_mut().zip(&values).filter(|(_, x)| x.is_finite()) {
            (*sum, *count) = (*sum + f64::from(*x), *count + 1.0);
        }
    }
    let mean = |element: usize| match sums.get(element) {
        Some((sum, count)) if one_shape && *count > 0.0 => sum / count,
        _ => 0.0,
    };
    for sample in each(outputs) {
        for (element, x) in sample?[output].to_f32().iter().enumerate() {
            if x.is_finite() {
                let x = f64::from(*x);
                visit(element, x, x - mean(element));
            }
        }
    }
    Ok(())
}
