//! Judges a quantized model by its outputs on calibration data.
//!
//! The signal-to-noise ratio of inner values is a poor judge: a range that clips one large value in
//! ten thousand raises the ratio, and loses the one cell in which a detector sees an object. Here,
//! the whole network decides.

use hardtack::Tensor;
use hardtack::float::{FloatModel, FloatPlan};
use hardtack::internal::Model;

use crate::error::Error;
use crate::samples::{First, SampleSource, each};

/// The number of samples on which the outputs are compared.
const JUDGED: usize = 32;
/// The number of samples on which the effect of single layers is compared.
const SKETCHED: usize = 4;
/// The largest relative error of an output: 15 dB. Layers stay in float to meet it.
const LIMIT: f64 = 0.178;
/// The relative error to aim for in an output that is one vector per sample, such as class scores:
/// 20 dB. Layers use int16 to meet it, and do not stay in float.
const VECTOR_AIM: f64 = 0.1;
/// The same for an output with a value for each of many places, such as boxes or a mask: 28 dB. At
/// 24 dB, one in ten boxes of a detector overlaps that of the float model by less than 90 %.
const DENSE_AIM: f64 = 0.04;
/// The number of classes next to the best one whose distance to it counts.
const RIVALS: usize = 4;

/// The outputs of the float model, and how far another model's may differ.
pub(super) struct Reference<'a> {
    samples: &'a dyn SampleSource,
    outputs: Vec<Vec<Tensor>>,
    /// The relative error of each output to aim for.
    aims: Vec<f64>,
    /// The largest relative error of each output.
    limits: Vec<f64>,
}

/// The difference of a model's outputs from the float model's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OutputError {
    /// The relative error of the output that is worst for its aim: the RMS difference divided by
    /// the RMS of the float output.
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
        let outputs = run(model, &First(samples, JUDGED))?;
        let aims =
            outputs.first().into_iter().flatten().map(|output| {
                limit.unwrap_or(if is_vector(output) { VECTOR_AIM } else { DENSE_AIM })
            });
        let aims: Vec<f64> = aims.collect();
        let limits = vec![limit.unwrap_or(LIMIT); aims.len()];
        Ok(Reference { samples, outputs, aims, limits })
    }

    /// Aims for errors that are larger by this factor, but not beyond the limits.
    pub(super) fn relax(&mut self, factor: f64) {
        for (aim, limit) in self.aims.iter_mut().zip(&self.limits) {
            *aim = (*aim * factor).min(*limit);
        }
    }

    /// Runs another form of the model and compares its outputs.
    ///
    /// # Errors
    /// Returns an error if the model cannot be run.
    pub(super) fn compare(&self, model: &Model) -> Result<OutputError, Error> {
        self.compare_first(model, JUDGED)
    }

    /// Like [`Reference::compare`], on fewer samples.
    ///
    /// # Errors
    /// Returns an error if the model cannot be run.
    pub(super) fn sketch(&self, model: &Model) -> Result<OutputError, Error> {
        self.compare_first(model, SKETCHED)
    }

    fn compare_first(&self, model: &Model, samples: usize) -> Result<OutputError, Error> {
        let outputs = run(model, &First(self.samples, samples.min(JUDGED)))?;
        let mut worst =
            OutputError { relative: 0.0, excess: 0.0, exceeds_limit: false, changed: 0.0 };
        let of_first = self.outputs.first().map_or(&[][..], Vec::as_slice);
        // Integers are decisions, such as class labels. Where the scores are outputs too, they tell
        // more.
        let any_float = of_first.iter().any(|output| output.as_f32().is_some());
        for (index, (aim, limit)) in self.aims.iter().zip(&self.limits).enumerate() {
            if any_float && of_first[index].as_f32().is_none() {
                continue;
            }
            let relative = relative_error(&self.outputs, &outputs, index);
            let excess = relative / aim;
            worst.exceeds_limit |= relative > *limit;
            if excess > worst.excess {
                (worst.relative, worst.excess) = (relative, excess);
            }
            if is_vector(&of_first[index]) {
                worst.changed += changed(&self.outputs, &outputs, index);
            }
        }
        Ok(worst)
    }
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

/// Returns whether an output has at most one dimension of more than one element.
fn is_vector(output: &Tensor) -> bool {
    output.shape().iter().filter(|size| **size > 1).count() <= 1
}

/// Returns the relative error of one output over all samples: the RMS difference divided by the RMS
/// of the original. Elements whose original is not finite do not count. Infinite if another element
/// is NaN.
pub(super) fn relative_error(
    original: &[Vec<Tensor>],
    other: &[Vec<Tensor>],
    output: usize,
) -> f64 {
    let (mut signal, mut noise) = (0.0, 0.0);
    for (a, b) in original.iter().zip(other) {
        let (a, b) = (a[output].to_f32(), b[output].to_f32());
        for (a, b) in a.iter().zip(&b).filter(|(a, _)| a.is_finite()) {
            signal += f64::from(*a).powi(2);
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

    fn outputs(samples: &[&[f32]]) -> Vec<Vec<Tensor>> {
        let tensor = |x: &&[f32]| vec![Tensor::new(&[1, x.len()], x.to_vec()).unwrap()];
        samples.iter().map(tensor).collect()
    }

    #[test]
    fn errors_are_relative_to_the_output() {
        let float = outputs(&[&[3.0, 4.0], &[0.0, f32::NEG_INFINITY]]);
        let other = outputs(&[&[3.0, 4.5], &[0.0, -9.0]]);
        assert_eq!(relative_error(&float, &other, 0), 0.1);
        assert_eq!(relative_error(&float, &float, 0), 0.0);
        let nothing = outputs(&[&[0.0, 0.0]]);
        assert_eq!(relative_error(&nothing, &nothing, 0), 0.0);
        assert!(relative_error(&nothing, &outputs(&[&[0.0, 1e-3]]), 0) > 1e6);
        let wrong = outputs(&[&[f32::NAN, 4.0], &[0.0, 0.0]]);
        assert_eq!(relative_error(&float, &wrong, 0), f64::INFINITY);
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
