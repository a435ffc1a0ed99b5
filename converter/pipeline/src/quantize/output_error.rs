//! Judges a quantized model by its outputs on calibration data.
//!
//! The signal-to-noise ratio of inner values is a poor judge: a range that clips one large value in
//! ten thousand raises the ratio, and loses the one cell in which a detector sees an object. Here,
//! the whole network decides.

mod columns;

use std::rc::Rc;

use hardtack::Tensor;
use hardtack::internal::Model;
use hardtack_bundle::DType;

use self::columns::{Columns, has_places, variation};
use super::work::work;
use crate::error::Error;
use crate::float_run;
use crate::offloaded_model::ModelSource;
use crate::samples::{First, SampleSource, Spool, each};

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

/// The accuracy that an output needs.
#[derive(Clone, Copy)]
struct Goal {
    /// The relative error to aim for. Layers use int16 to meet it.
    aim: f64,
    /// The largest relative error with int16 everywhere. Beyond it, layers stay in float to meet
    /// the aim.
    limit: f64,
}

/// The goal for an output that is one vector per sample, such as class scores: 20 dB, at least 15.
const VECTOR: Goal = Goal { aim: 0.1, limit: 0.178 };
/// The goal for one value per sample, such as an estimate, and one value for each of many places,
/// such as a mask: 28 dB, at least 26.
const VALUE: Goal = Goal { aim: 0.04, limit: 0.05 };
/// The goal for several values for each of many places, such as boxes: 34 dB, at least 26. At
/// 28 dB, up to one in three boxes of a detector overlaps that of the float model by less than
/// 90 %, and at 34 dB, one in fifty.
const PLACES: Goal = Goal { aim: 0.02, limit: 0.05 };
/// The least variation that is assumed for a probability distribution, such as class probabilities.
/// If the calibration data have one class only, their small differences need no precision.
const OF_DISTRIBUTION: f64 = 0.01;
/// The number of classes next to the best one whose distance to it counts.
const RIVALS: usize = 4;

/// The outputs of the float model, and how far another model's may differ.
#[derive(Clone)]
pub(super) struct Reference<'a> {
    samples: &'a dyn SampleSource,
    outputs: Rc<Spool>,
    judged: Vec<Judged>,
    /// The indices of the outputs that are one float vector per sample, and may be class scores.
    answers: Vec<usize>,
}

/// What is judged by itself: an output, or some of its columns.
#[derive(Clone)]
struct Judged {
    /// The index of the output.
    output: usize,
    columns: Columns,
    /// The variation over samples: see [`variation`].
    variation: f64,
    goal: Goal,
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
        model: &dyn ModelSource,
        samples: &'a dyn SampleSource,
        limit: Option<f64>,
    ) -> Result<Reference<'a>, Error> {
        let first = float_run::outputs(model, &First(samples, 1))?;
        let first = first.first().map_or(&[][..], Vec::as_slice);
        let least = if first.iter().any(is_vector) { JUDGED_VECTORS } else { JUDGED_PLACES };
        let count = ((WORK / work_of(model)?.max(1.0)) as usize).clamp(least, JUDGED);
        let mut outputs = Spool::new()?;
        float_run::each_output(model, &First(samples, count), |_, made| outputs.push(&made))?;
        // Integers are decisions, such as class labels. Where the scores are outputs too, they tell
        // more.
        let any_float = first.iter().any(is_float);
        let places = first.iter().any(|output| is_float(output) && has_places(output));
        let mut judged = Vec::new();
        for (output, first) in first.iter().enumerate() {
            if any_float && !is_float(first) {
                continue;
            }
            let vector = is_vector(first) && first.len() > 1 && !are_embeddings(&outputs, output)?;
            let goal = match vector {
                true => VECTOR,
                false if places => PLACES,
                false => VALUE,
            };
            let goal = limit.map_or(goal, |limit| Goal { aim: limit, limit });
            let distribution = is_distribution(&outputs, output)?;
            for (index, columns) in Columns::judged(&outputs, output)?.into_iter().enumerate() {
                // Columns that are small next to others need no more precision than scores.
                let goal = if index > 0 && limit.is_none() { VECTOR } else { goal };
                let mut variation = variation(&outputs, output, &columns)?;
                if distribution {
                    variation = variation.max(OF_DISTRIBUTION);
                }
                judged.push(Judged { output, columns, variation, goal });
            }
        }
        let answers = (0..first.len()).filter(|at| is_vector(&first[*at]) && is_float(&first[*at]));
        let answers = answers.collect();
        Ok(Reference { samples, outputs: Rc::new(outputs), judged, answers })
    }

    /// Aims for errors that are larger by this factor, up to the limits.
    pub(super) fn relax(&mut self, factor: f64) {
        for Judged { goal, .. } in &mut self.judged {
            goal.aim = (goal.aim * factor).min(goal.limit);
        }
    }

    /// Runs another form of the model and compares its outputs.
    ///
    /// # Errors
    /// Returns an error if the model cannot be run.
    pub(super) fn compare(&self, model: &Model) -> Result<OutputError, Error> {
        self.compare_first(model, self.outputs.count())
    }

    /// Like [`Reference::compare`], on fewer samples.
    ///
    /// # Errors
    /// Returns an error if the model cannot be run.
    pub(super) fn sketch(&self, model: &Model) -> Result<OutputError, Error> {
        self.compare_first(model, SKETCHED)
    }

    fn compare_first(&self, model: &Model, samples: usize) -> Result<OutputError, Error> {
        let mut noise = vec![0.0; self.judged.len()];
        let mut margins = vec![Vec::new(); self.answers.len()];
        let mut compared = 0.0;
        let samples = First(self.samples, samples.min(self.outputs.count()));
        float_run::each_output(model, &samples, |index, outputs| {
            let expected = self.outputs.sample(index)?;
            for (Judged { output, columns, .. }, noise) in self.judged.iter().zip(&mut noise) {
                *noise += squared_difference(&expected[*output], &outputs[*output], columns);
            }
            for (output, margins) in self.answers.iter().zip(&mut margins) {
                margins.extend(margins_of(&expected[*output], &outputs[*output]));
            }
            compared += 1.0;
            Ok(())
        })?;
        let mut worst =
            OutputError { relative: 0.0, excess: 0.0, exceeds_limit: false, changed: 0.0 };
        for (Judged { variation, goal, .. }, noise) in self.judged.iter().zip(noise) {
            let relative = relative(noise, compared * variation);
            let excess = relative / goal.aim;
            worst.exceeds_limit |= relative > goal.limit;
            if excess > worst.excess {
                (worst.relative, worst.excess) = (relative, excess);
            }
        }
        worst.changed = margins.iter().map(|margins| changed(margins)).sum();
        Ok(worst)
    }
}

/// Returns the work of a model in MACs.
fn work_of(model: &dyn ModelSource) -> Result<f64, Error> {
    let model = model.load()?;
    Ok((0..model.graph.nodes.len()).map(|node| work(&model, node)).sum())
}

/// Returns whether an output has float elements.
fn is_float(output: &Tensor) -> bool {
    matches!(output.dtype(), DType::F16 | DType::F32 | DType::F64)
}

/// Returns whether an output is one vector of length 1 per sample. Embeddings are compared with
/// each other, so all of their elements matter.
fn are_embeddings(outputs: &dyn SampleSource, output: usize) -> Result<bool, Error> {
    for sample in each(outputs) {
        let values = sample?[output].to_f32();
        let squares: f32 = values.iter().map(|x| x * x).sum();
        let one_hot = values.iter().filter(|x| x.abs() > 1e-3).count() < 2;
        if (squares - 1.0).abs() >= 1e-3 || one_hot {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns whether the elements of an output are from 0 to 1 and add up to 1, for each sample.
fn is_distribution(outputs: &dyn SampleSource, output: usize) -> Result<bool, Error> {
    for sample in each(outputs) {
        let values = sample?[output].to_f32();
        let all = values.iter().all(|x| (0.0..=1.0).contains(x));
        if !all || (values.iter().sum::<f32>() - 1.0).abs() > 1e-3 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns whether an output is one vector per sample. `[1, places, 1]` is not: it has one value
/// for each of many places.
fn is_vector(output: &Tensor) -> bool {
    let shape = output.shape();
    let places = shape.len() == 3 && shape[1] > 1;
    !places && shape.iter().filter(|size| **size > 1).count() <= 1
}

/// Returns the sum of the squared differences in these columns. Elements whose original is not
/// finite do not count. NaN if another element is NaN.
fn squared_difference(original: &Tensor, other: &Tensor, columns: &Columns) -> f64 {
    let (a, b) = (original.to_f32(), other.to_f32());
    let pairs = a.iter().zip(&b).enumerate().filter(|(index, _)| columns.contains(*index));
    let finite = pairs.map(|(_, pair)| pair).filter(|(a, _)| a.is_finite());
    finite.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

/// Returns the RMS difference relative to the RMS variation. Infinite for NaN.
fn relative(noise: f64, signal: f64) -> f64 {
    match noise {
        0.0 => 0.0,
        _ if noise.is_nan() => f64::INFINITY,
        _ => (noise / signal.max(f64::MIN_POSITIVE)).sqrt(),
    }
}

/// Returns the relative error of the first output over all samples.
#[cfg(test)]
pub(super) fn relative_error(original: &Vec<Vec<Tensor>>, other: &Vec<Vec<Tensor>>) -> f64 {
    error_in_columns(original, other, &Columns::all())
}

/// Returns the relative error of these columns of the first output over all samples.
#[cfg(test)]
fn error_in_columns(
    original: &Vec<Vec<Tensor>>,
    other: &Vec<Vec<Tensor>>,
    columns: &Columns,
) -> f64 {
    let pairs = original.iter().zip(other);
    let noise = pairs.map(|(a, b)| squared_difference(&a[0], &b[0], columns)).sum();
    relative(noise, original.len() as f64 * variation(original, 0, columns).unwrap())
}

/// Returns the margin between the best class and each of its rivals, and the error of this margin.
fn margins_of(original: &Tensor, other: &Tensor) -> Vec<(f64, f64)> {
    let (a, b) = (original.to_f32(), other.to_f32());
    let mut order: Vec<usize> = (0..a.len()).collect();
    order.sort_by(|x, y| a[*y].total_cmp(&a[*x]));
    let Some((best, rivals)) = order.split_first() else { return Vec::new() };
    let margins = rivals.iter().take(RIVALS).map(|rival| {
        let margin = |scores: &[f32]| f64::from(scores[*best]) - f64::from(scores[*rival]);
        (margin(&a), margin(&b) - margin(&a))
    });
    margins.collect()
}

/// Returns the expected number of margins whose sign changes.
fn changed(margins: &[(f64, f64)]) -> f64 {
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
