//! Judges a quantized model by its outputs on calibration data.
//!
//! The signal-to-noise ratio of inner values is a poor judge: a range that clips one large value in
//! ten thousand raises the ratio, and loses the one cell in which a detector sees an object. Here,
//! the whole network decides.

use hardtack::Tensor;
use hardtack::float::{FloatModel, FloatPlan};
use hardtack::internal::Model;
use hardtack_bundle::DType;

use crate::error::Error;
use crate::samples::{First, SampleSource, each};

/// The number of samples on which the outputs are compared, if one of them is a vector.
const JUDGED_VECTORS: usize = 32;
/// The same if each output has values for many places.
const JUDGED_PLACES: usize = 12;
/// The number of samples on which the effect of single layers is compared.
const SKETCHED: usize = 4;
/// The relative error to aim for in an output that is one vector per sample, such as class scores:
/// 20 dB. Layers use int16 to meet it.
const VECTOR_AIM: f64 = 0.1;
/// The largest relative error of such an output: 15 dB. Layers stay in float to meet it.
const VECTOR_LIMIT: f64 = 0.178;
/// The relative error to aim for in any other output: one value per sample, such as an estimate, or
/// a value for each of many places, such as boxes or a mask: 28 dB. At 24 dB, one in ten boxes of a
/// detector overlaps that of the float model by less than 90 %.
const VALUE_AIM: f64 = 0.04;
/// The largest relative error of such an output: 26 dB.
const VALUE_LIMIT: f64 = 0.05;
/// The least variation of an output over samples, relative to its RMS. An output that varies less
/// is a constant.
const CONSTANT: f64 = 1e-3;
/// The part of an output's variation that dominates the rest.
const DOMINANT: f64 = 0.99;
/// The number of classes next to the best one whose distance to it counts.
const RIVALS: usize = 4;

/// The outputs of the float model, and how far another model's may differ.
pub(super) struct Reference<'a> {
    samples: &'a dyn SampleSource,
    outputs: Vec<Vec<Tensor>>,
    judged: Vec<Judged>,
}

/// What is judged by itself: an output, or some of its columns.
struct Judged {
    /// The index of the output.
    output: usize,
    columns: Columns,
    /// The variation over samples: see [`variation`].
    variation: f64,
    /// The relative error to aim for.
    aim: f64,
    /// The largest relative error.
    limit: f64,
}

/// The difference of a model's outputs from the float model's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OutputError {
    /// The relative error of the output that is worst for its aim: the RMS difference divided by
    /// the RMS deviation of the float output from its mean over samples.
    pub relative: f64,
    /// The largest error divided by its aim. More than 1 is too much.
    pub excess: f64,
    /// Whether some error exceeds its limit.
    pub exceeds_limit: bool,
    /// The expected number of samples whose best class changes, estimated from the margins between
    /// classes and the error of these margins. Zero if no output is a vector.
    pub changed: f64,
}

impl OutputError {
    /// Returns whether this error is better: fewer changed answers if both errors are small enough,
    /// and the smaller error otherwise.
    pub(super) fn is_better_than(&self, other: &OutputError) -> bool {
        let fine = |error: &OutputError| error.excess <= 1.0;
        match fine(self) && fine(other) && (self.changed, other.changed) != (0.0, 0.0) {
            true => self.changed < other.changed,
            false => self.excess < other.excess,
        }
    }
}

impl<'a> Reference<'a> {
    /// Runs the float model. No output may have a larger relative error than `limit`, or than the
    /// default if there is none.
    ///
    /// # Errors
    /// Returns an error if the model cannot be run on a sample.
    pub(super) fn new(
        model: &Model,
        samples: &'a dyn SampleSource,
        limit: Option<f64>,
    ) -> Result<Reference<'a>, Error> {
        let one = run(model, &First(samples, 1))?;
        let any_vector = one.iter().flatten().any(is_vector);
        let count = if any_vector { JUDGED_VECTORS } else { JUDGED_PLACES };
        let outputs = run(model, &First(samples, count))?;
        let of_first = outputs.first().map_or(&[][..], Vec::as_slice);
        // Integers are decisions, such as class labels. Where the scores are outputs too, they tell
        // more.
        let any_float = of_first.iter().any(is_float);
        let mut judged = Vec::new();
        for (output, first) in of_first.iter().enumerate() {
            if any_float && !is_float(first) {
                continue;
            }
            let vector = is_vector(first) && first.len() > 1 && !are_embeddings(&outputs, output);
            let (aim, largest) =
                if vector { (VECTOR_AIM, VECTOR_LIMIT) } else { (VALUE_AIM, VALUE_LIMIT) };
            let (aim, limit) = (limit.unwrap_or(aim), limit.unwrap_or(largest));
            let apart = Columns::without_dominant(&outputs, output);
            for columns in [Some(Columns::all()), apart].into_iter().flatten() {
                let variation = variation(&outputs, output, &columns);
                judged.push(Judged { output, columns, variation, aim, limit });
            }
        }
        Ok(Reference { samples, outputs, judged })
    }

    /// Aims for errors that are larger by this factor, but not beyond the limits.
    pub(super) fn relax(&mut self, factor: f64) {
        for judged in &mut self.judged {
            judged.aim = (judged.aim * factor).min(judged.limit);
        }
    }

    /// Runs another form of the model and compares its outputs.
    ///
    /// # Errors
    /// Returns an error if the model cannot be run.
    pub(super) fn compare(&self, model: &Model) -> Result<OutputError, Error> {
        self.compare_first(model, self.outputs.len())
    }

    /// Like [`Reference::compare`], on fewer samples.
    ///
    /// # Errors
    /// Returns an error if the model cannot be run.
    pub(super) fn sketch(&self, model: &Model) -> Result<OutputError, Error> {
        self.compare_first(model, SKETCHED)
    }

    fn compare_first(&self, model: &Model, samples: usize) -> Result<OutputError, Error> {
        let outputs = run(model, &First(self.samples, samples.min(self.outputs.len())))?;
        let mut worst =
            OutputError { relative: 0.0, excess: 0.0, exceeds_limit: false, changed: 0.0 };
        for Judged { output, columns, variation, aim, limit } in &self.judged {
            let relative = relative_error(&self.outputs, &outputs, *output, columns, *variation);
            let excess = relative / aim;
            worst.exceeds_limit |= relative > *limit;
            if excess > worst.excess {
                (worst.relative, worst.excess) = (relative, excess);
            }
        }
        for (output, first) in self.outputs.first().into_iter().flatten().enumerate() {
            if is_vector(first) && is_float(first) {
                worst.changed += changed(&self.outputs, &outputs, output);
            }
        }
        Ok(worst)
    }
}

/// The columns of an output along one axis that are judged.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Columns {
    /// The number of elements between two adjacent columns.
    stride: usize,
    /// Whether each column is judged. Empty if all are.
    judged: Vec<bool>,
}

impl Columns {
    /// Returns all columns.
    pub(super) fn all() -> Columns {
        Columns { stride: 1, judged: Vec::new() }
    }

    /// Returns whether an element is judged.
    fn contains(&self, element: usize) -> bool {
        self.judged.is_empty() || self.judged[element / self.stride % self.judged.len()]
    }

    /// Returns an output without the columns whose variation dominates the others', if these are
    /// the smaller number. Detectors often join boxes in pixels and scores from 0 to 1 in one
    /// output; the errors of the scores would not show.
    fn without_dominant(outputs: &[Vec<Tensor>], output: usize) -> Option<Columns> {
        let shape = outputs.first()?.get(output)?.shape();
        let (axis, size) = column_axis(shape)?;
        let stride: usize = shape[axis + 1..].iter().product();
        let mut variations = vec![0.0; size];
        deviations(outputs, output, |element, square| {
            variations[element / stride % size] += square;
        });
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
        (any && 2 * dominant < size).then_some(Columns { stride, judged })
    }
}

/// Returns the axis with the values of one place, such as the coordinates and scores of a box, and
/// its size. There are many more places than values.
fn column_axis(shape: &[usize]) -> Option<(usize, usize)> {
    let sizes = shape.iter().copied().enumerate().filter(|(_, size)| *size > 1);
    let (axis, size) = sizes.min_by_key(|(_, size)| *size)?;
    let places = shape.iter().product::<usize>() / size;
    (places >= 4 * size).then_some((axis, size))
}

/// Returns whether an output has float elements.
fn is_float(output: &Tensor) -> bool {
    matches!(output.dtype(), DType::F16 | DType::F32 | DType::F64)
}

/// Returns whether an output is one vector of length 1 per sample. Embeddings are compared with
/// each other, so all of their elements matter.
fn are_embeddings(outputs: &[Vec<Tensor>], output: usize) -> bool {
    outputs.iter().all(|sample| {
        let values = sample[output].to_f32();
        let squares: f32 = values.iter().map(|x| x * x).sum();
        let one_hot = values.iter().filter(|x| x.abs() > 1e-3).count() < 2;
        (squares - 1.0).abs() < 1e-3 && !one_hot
    })
}

/// Returns the outputs of a model on each sample.
fn run(model: &Model, samples: &dyn SampleSource) -> Result<Vec<Vec<Tensor>>, Error> {
    let loaded = FloatModel::load(model, false)?;
    let mut all = Vec::new();
    let mut planned: Option<FloatPlan> = None;
    for sample in each(samples) {
        let sample = sample?;
        let shapes: Vec<&[usize]> = sample.iter().map(Tensor::shape).collect();
        let plan = planned.take().filter(|plan| plan.input_shapes() == shapes);
        let plan = planned.insert(match plan {
            Some(plan) => plan,
            None => loaded.plan(&shapes)?,
        });
        all.push(plan.run(&sample.iter().collect::<Vec<_>>())?);
    }
    Ok(all)
}

/// Returns whether an output is one vector per sample. `[1, places, 1]` is not: it has one value
/// for each of many places.
fn is_vector(output: &Tensor) -> bool {
    let shape = output.shape();
    let places = shape.len() == 3 && shape[1] > 1;
    !places && shape.iter().filter(|size| **size > 1).count() <= 1
}

/// Returns the sum of the squared deviations of the columns' elements from their mean over samples,
/// per sample. What all samples have in common does not count: an estimate of 1013 ± 6 with an
/// error of 3 is half wrong. With one sample, and where shapes differ, the mean is 0. Elements that
/// are not finite do not count.
pub(super) fn variation(outputs: &[Vec<Tensor>], output: usize, columns: &Columns) -> f64 {
    let mut sum = 0.0;
    deviations(outputs, output, |element, square| {
        sum += if columns.contains(element) { square } else { 0.0 };
    });
    sum / outputs.len().max(1) as f64
}

/// Calls `visit` with the index and the squared deviation of each element of each sample.
fn deviations(outputs: &[Vec<Tensor>], output: usize, mut visit: impl FnMut(usize, f64)) {
    let samples: Vec<Vec<f32>> = outputs.iter().map(|sample| sample[output].to_f32()).collect();
    let length = samples.first().map_or(0, Vec::len);
    let mut means = vec![0.0; length];
    if samples.len() > 1 && samples.iter().all(|sample| sample.len() == length) {
        for (element, mean) in means.iter_mut().enumerate() {
            let finite = samples.iter().map(|sample| sample[element]).filter(|x| x.is_finite());
            let (sum, n) = finite.fold((0.0, 0.0), |(sum, n), x| (sum + f64::from(x), n + 1.0));
            *mean = if n > 0.0 { sum / n } else { 0.0 };
        }
    }
    for (element, x) in samples.iter().flat_map(|sample| sample.iter().enumerate()) {
        if x.is_finite() {
            let (x, mean) = (f64::from(*x), means.get(element).copied().unwrap_or(0.0));
            // An output that hardly varies is a constant.
            visit(element, (x - mean).powi(2).max((CONSTANT * x).powi(2)));
        }
    }
}

/// Returns the relative error of these columns of an output over all samples: the RMS difference,
/// relative to the RMS of their variation. Elements whose original is not finite do not count.
/// Infinite if another element is NaN.
pub(super) fn relative_error(
    original: &[Vec<Tensor>],
    other: &[Vec<Tensor>],
    output: usize,
    columns: &Columns,
    variation: f64,
) -> f64 {
    let (mut signal, mut noise) = (0.0, 0.0);
    for (a, b) in original.iter().zip(other) {
        let (a, b) = (a[output].to_f32(), b[output].to_f32());
        signal += variation;
        let pairs = a.iter().zip(&b).enumerate().filter(|(index, _)| columns.contains(*index));
        for (a, b) in pairs.map(|(_, pair)| pair).filter(|(a, _)| a.is_finite()) {
            noise += (f64::from(*a) - f64::from(*b)).powi(2);
        }
    }
    match noise {
        0.0 => 0.0,
        _ if noise.is_nan() => f64::INFINITY,
        _ => (noise / signal.max(f64::MIN_POSITIVE)).sqrt(),
    }
}

/// Returns the expected number of samples whose best class changes.
fn changed(original: &[Vec<Tensor>], other: &[Vec<Tensor>], output: usize) -> f64 {
    // For each sample and rival: the margin, and its error.
    let mut margins: Vec<(f64, f64)> = Vec::new();
    for (a, b) in original.iter().zip(other) {
        let (a, b) = (a[output].to_f32(), b[output].to_f32());
        let mut order: Vec<usize> = (0..a.len()).collect();
        order.sort_by(|x, y| a[*y].total_cmp(&a[*x]));
        let Some((best, rivals)) = order.split_first() else { continue };
        margins.extend(rivals.iter().take(RIVALS).map(|rival| {
            let margin = |scores: &[f32]| f64::from(scores[*best]) - f64::from(scores[*rival]);
            (margin(&a), margin(&b) - margin(&a))
        }));
    }
    let squares = margins.iter().map(|(_, error)| error.powi(2)).sum::<f64>();
    let deviation = (squares / margins.len().max(1) as f64).sqrt();
    if deviation == 0.0 {
        return 0.0;
    }
    // The probability that a normal error exceeds the margin.
    margins.iter().map(|(margin, _)| tail(margin / deviation)).sum()
}

/// Returns the probability that a standard normal variable exceeds `x`, for x at least 0
/// (Abramowitz and Stegun, 26.2.17).
fn tail(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x);
    let factors = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = factors.iter().rev().fold(0.0, |sum, factor| t * (factor + sum));
    (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of_whole(a: &[Vec<Tensor>], b: &[Vec<Tensor>]) -> f64 {
        let all = Columns::all();
        relative_error(a, b, 0, &all, variation(a, 0, &all))
    }

    fn outputs(samples: &[&[f32]]) -> Vec<Vec<Tensor>> {
        let tensor = |x: &&[f32]| vec![Tensor::new(&[1, x.len()], x.to_vec()).unwrap()];
        samples.iter().map(tensor).collect()
    }

    #[test]
    fn errors_are_relative_to_the_output() {
        let error = |a: &_, b: &_| error_of_whole(a, b);
        let float = outputs(&[&[3.0, 4.0], &[-3.0, f32::NEG_INFINITY]]);
        let other = outputs(&[&[3.0, 4.5], &[-3.0, -9.0]]);
        assert!((error(&float, &other) - 0.5 / 18f64.sqrt()).abs() < 1e-6);
        assert_eq!(error(&float, &float), 0.0);
        let nothing = outputs(&[&[0.0, 0.0]]);
        assert_eq!(error(&nothing, &nothing), 0.0);
        assert!(error(&nothing, &outputs(&[&[0.0, 1e-3]])) > 1e6);
        let wrong = outputs(&[&[f32::NAN, 4.0], &[0.0, 0.0]]);
        assert_eq!(error(&float, &wrong), f64::INFINITY);
    }

    #[test]
    fn columns_that_dominate_are_judged_apart() {
        // Boxes in pixels and scores, as `[1, values, places]` and `[1, places, values]`.
        let (values, places) = (5, 30);
        let element = |value: usize, place: usize, sample: usize| {
            let x = ((value * 31 + place * 17 + sample * 41) % 97) as f32 / 97.0;
            if value < 2 { 300.0 * x } else { x }
        };
        for last in [false, true] {
            let make = |wrong: f32| -> Vec<Vec<Tensor>> {
                let sample = |sample: usize| {
                    let shape = if last { [1, places, values] } else { [1, values, places] };
                    let at = |index: usize| match last {
                        true => (index % values, index / values),
                        false => (index / places, index % places),
                    };
                    let elements = (0..values * places).map(|index| {
                        let (value, place) = at(index);
                        let error = if value < 2 { 0.0 } else { wrong };
                        element(value, place, sample) + error
                    });
                    vec![Tensor::new(&shape, elements.collect::<Vec<f32>>()).unwrap()]
                };
                (0..6).map(sample).collect()
            };
            let (float, other) = (make(0.0), make(0.2));
            assert!(error_of_whole(&float, &other) < 4e-3);
            let scores = Columns::without_dominant(&float, 0).unwrap();
            let variation = variation(&float, 0, &scores);
            assert!(relative_error(&float, &other, 0, &scores, variation) > 0.4);
        }
        let even = (0..6).map(|seed| vec![crate::testing::noise(&[1, 8, 40], seed)]);
        assert_eq!(Columns::without_dominant(&even.collect::<Vec<_>>(), 0), None);
    }

    #[test]
    fn only_vectors_of_length_1_are_embeddings() {
        let unit = outputs(&[&[0.6, -0.8], &[0.8, 0.6]]);
        assert!(are_embeddings(&unit, 0));
        assert!(!are_embeddings(&outputs(&[&[0.6, -0.8], &[0.9, 0.6]]), 0));
        assert!(!are_embeddings(&outputs(&[&[1.0, 0.0], &[0.0, 1.0]]), 0));
    }

    #[test]
    fn an_offset_does_not_hide_errors() {
        let error = |a: &_, b: &_| error_of_whole(a, b);
        let pressure = outputs(&[&[1007.0], &[1019.0]]);
        assert!((error(&pressure, &outputs(&[&[1010.0], &[1016.0]])) - 0.5).abs() < 1e-9);
        let one = outputs(&[&[1000.0]]);
        assert!((error(&one, &outputs(&[&[1003.0]])) - 0.003).abs() < 1e-9);
        let constant = outputs(&[&[1000.0], &[1000.0]]);
        assert!(error(&constant, &outputs(&[&[1000.1], &[1000.1]])) < 0.11);
    }

    #[test]
    fn small_margins_are_likely_to_change() {
        let float = outputs(&[&[0.0, 5.0], &[1.0, 0.0]]);
        let same = changed(&float, &float, 0);
        let small = changed(&float, &outputs(&[&[0.1, 5.0], &[1.0, 0.1]]), 0);
        let large = changed(&float, &outputs(&[&[1.0, 5.0], &[1.0, 1.0]]), 0);
        assert!(same == 0.0 && small < 1e-6 && (large - 0.158_66).abs() < 1e-3, "{small} {large}");
    }
}
