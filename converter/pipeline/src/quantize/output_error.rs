//! Judges a quantized model by its outputs on calibration data.
//!
//! The signal-to-noise ratio of inner values is a poor judge: a range that clips one large value in
//! ten thousand raises the ratio, and loses the one cell in which a detector sees an object. Here,
//! the whole network decides.

use hardtack::Tensor;
use hardtack::float::{FloatModel, FloatPlan};
use hardtack::internal::Model;
use hardtack_bundle::DType;

use super::mixed_precision::work;
use crate::error::Error;
use crate::samples::{First, SampleSource, each};

/// The least number of samples on which the outputs are compared, if one of them is a vector.
const JUDGED_VECTORS: usize = 32;
/// The same if each output has values for many places.
const JUDGED_PLACES: usize = 12;
/// The largest number of samples on which the outputs are compared: small models can run on many,
/// and the few samples that quantization breaks may not be among the first.
const JUDGED: usize = 128;
/// The work of one comparison, in MACs, that allows for more samples than the least number.
const WORK: f64 = 1e9;
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
        let least = if any_vector { JUDGED_VECTORS } else { JUDGED_PLACES };
        let work: f64 = (0..model.graph.nodes.len()).map(|node| work(model, node)).sum();
        let count = ((WORK / work.max(1.0)) as usize).clamp(least, JUDGED);
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
            for columns in Columns::judged(&outputs, output) {
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

    /// Returns the sets of columns of an output that are judged: all that vary, and those that are
    /// left without the columns of a larger magnitude. Detectors often join boxes in pixels and
    /// scores from 0 to 1 in one output; the errors of the scores would not show.
    fn judged(outputs: &[Vec<Tensor>], output: usize) -> Vec<Columns> {
        let shape = outputs.first().map_or(&[][..], |sample| sample[output].shape());
        let same = outputs.iter().all(|sample| sample[output].shape() == shape);
        let axes = if same { column_axes(shape) } else { Vec::new() };
        let mut sets = Vec::new();
        for axis in axes {
            for set in Columns::along(axis, outputs, output) {
                if !sets.contains(&set) {
                    sets.push(set);
                }
            }
        }
        if sets.is_empty() { vec![Columns::all()] } else { sets }
    }

    /// Returns the sets of columns along an axis that are judged.
    fn along(axis: usize, outputs: &[Vec<Tensor>], output: usize) -> Vec<Columns> {
        let shape = outputs[0][output].shape();
        let (size, stride) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        // The sums of squared deviations and values, and whether all values are from 0 to 1.
        let mut sums = vec![(0.0, 0.0, true); size];
        deviations(outputs, output, |element, x, deviation| {
            let (signal, square, probability) = &mut sums[element / stride % size];
            *signal += deviation.powi(2);
            *square += x.powi(2);
            *probability &= (0.0..=1.0).contains(&x);
        });
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
            // Probabilities share a unit, so small ones need no precision of their own.
            if columns.iter().all(|column| sums[*column].2) {
                break;
            }
            let least = sums[columns[0]].0 * STEP.powi(2);
            columns.retain(|column| sums[*column].0 < least);
        }
        sets
    }
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
    let (mut signal, mut square) = (0.0, 0.0);
    deviations(outputs, output, |element, x, deviation| {
        if columns.contains(element) {
            signal += deviation.powi(2);
            square += x.powi(2);
        }
    });
    let constant = is_constant(signal, square);
    let signal = if constant { OF_CONSTANT.powi(2) * square } else { signal };
    signal / outputs.len().max(1) as f64
}

/// Calls `visit` with the index, the value and the deviation of each element of each sample.
fn deviations(outputs: &[Vec<Tensor>], output: usize, mut visit: impl FnMut(usize, f64, f64)) {
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
            visit(element, x, x - mean);
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
mod tests;
