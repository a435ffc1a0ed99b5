//! The variation of outputs over samples, in all or some of their columns.

use hardtack::Tensor;

use crate::error::Error;
use crate::samples::{SampleSource, each};

/// The least variation of an output over samples, relative to its RMS. An output that varies less
/// is a constant.
const CONSTANT: f64 = 1e-3;
/// The part of an output's variation that dominates the rest.
const DOMINANT: f64 = 0.99;

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

    /// Returns an output without the columns whose variation dominates the others', if these are
    /// the smaller number. Detectors often join boxes in pixels and scores from 0 to 1 in one
    /// output; the errors of the scores would not show.
    pub(super) fn without_dominant(
        outputs: &dyn SampleSource,
        output: usize,
    ) -> Result<Option<Columns>, Error> {
        if outputs.count() == 0 {
            return Ok(None);
        }
        let first = outputs.sample(0)?;
        let shape = first[output].shape();
        let Some((axis, size)) = column_axis(shape) else { return Ok(None) };
        let stride: usize = shape[axis + 1..].iter().product();
        let mut variations = vec![0.0; size];
        deviations(outputs, output, |element, square| {
            variations[element / stride % size] += square;
        })?;
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|a, b| variations[*b].total_cmp(&variations[*a]));
        let (mut left, mut judged) = (variations.iter().sum::<f64>(), vec![true; size]);
        let rest = left * (1.0 - DOMINANT);
        for column in order {
            if left <= rest {
                break;
            }
            left -= variations[column];
            judged[column] = false;
        }
        let dominant = judged.iter().filter(|judged| !**judged).count();
        let rest = variations.iter().zip(&judged).filter(|(_, judged)| **judged);
        let any = rest.map(|(variation, _)| variation).sum::<f64>() > 0.0;
        Ok((any && 2 * dominant < size).then_some(Columns { stride, judged }))
    }
}

/// Returns whether an output has several values for each of many places.
pub(super) fn has_places(output: &Tensor) -> bool {
    column_axis(output.shape()).is_some()
}

/// Returns the axis with the values of one place, such as the coordinates and scores of a box, and
/// its size. There are many more places than values.
fn column_axis(shape: &[usize]) -> Option<(usize, usize)> {
    let sizes = shape.iter().copied().enumerate().filter(|(_, size)| *size > 1);
    let (axis, size) = sizes.min_by_key(|(_, size)| *size)?;
    let places = shape.iter().product::<usize>() / size;
    (places >= 4 * size).then_some((axis, size))
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
    let mut sum = 0.0;
    deviations(outputs, output, |element, square| {
        sum += if columns.contains(element) { square } else { 0.0 };
    })?;
    Ok(sum / outputs.count().max(1) as f64)
}

/// Calls `visit` with the index and the squared deviation of each element of each sample.
fn deviations(
    outputs: &dyn SampleSource,
    output: usize,
    mut visit: impl FnMut(usize, f64),
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
                // An output that hardly varies is a constant.
                visit(element, (x - mean(element)).powi(2).max((CONSTANT * x).powi(2)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_similar_variation_are_judged_together() {
        let even = (0..6).map(|seed| vec![crate::testing::noise(&[1, 8, 40], seed)]);
        let even = even.collect::<Vec<_>>();
        assert_eq!(Columns::without_dominant(&even, 0).unwrap(), None);
    }
}
