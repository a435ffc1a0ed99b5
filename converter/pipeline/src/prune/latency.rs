//! Measures inference time on this machine.

use std::time::{Duration, Instant};

use hardtack::Tensor;
use hardtack::float::{FloatModel, FloatPlan};
use hardtack::internal::Model;

use crate::error::Error;
use crate::options::quantize::{QuantizeOptions, RangeMethod, Rounding};
use crate::quantize;
use crate::samples::{First, SampleSource};

/// The number of calibration samples for a model that is only timed.
const RANGES: usize = 4;
/// The duration of a comparison of two models.
const TIME: Duration = Duration::from_millis(800);
/// The number of consecutive inferences of one model before the other runs.
const TURN: usize = 8;

/// The original model, planned and ready to compare with.
pub(super) struct Stopwatch<'s> {
    int8: bool,
    samples: &'s dyn SampleSource,
    original: FloatPlan,
}

impl<'s> Stopwatch<'s> {
    /// Prepares the original model, quantized to INT8 if `int8`.
    ///
    /// # Errors
    /// Returns an error if the model cannot be quantized or planned.
    pub(super) fn new(
        model: &Model,
        int8: bool,
        samples: &'s dyn SampleSource,
    ) -> Result<Self, Error> {
        let original = plan(model, int8, samples)?;
        Ok(Stopwatch { int8, samples, original })
    }

    /// Returns the inference time of a model as a fraction of the original's. The two alternate,
    /// and the minimum time of each is used, to exclude interference from other programs.
    ///
    /// # Errors
    /// Returns an error if the model cannot be run.
    pub(super) fn part(&mut self, model: &Model) -> Result<f64, Error> {
        let mut other = plan(model, self.int8, self.samples)?;
        let sample = self.samples.sample(0)?;
        let inputs: Vec<&Tensor> = sample.iter().collect();
        let mut least = [Duration::MAX; 2];
        let began = Instant::now();
        while began.elapsed() < TIME {
            for (plan, least) in [&mut self.original, &mut other].into_iter().zip(&mut least) {
                for _ in 0..TURN {
                    let began = Instant::now();
                    plan.run(&inputs)?;
                    *least = began.elapsed().min(*least);
                }
            }
        }
        Ok(least[1].as_secs_f64() / least[0].as_secs_f64())
    }
}

fn plan(model: &Model, int8: bool, samples: &dyn SampleSource) -> Result<FloatPlan, Error> {
    let quantized = if int8 {
        let (few, none) = (First(samples, RANGES), First(samples, 0));
        // Only the time matters, so use the fastest methods and accept any error.
        let settings = QuantizeOptions {
            method: RangeMethod::MinMax,
            rounding: Rounding::Nearest,
            max_error: Some(f64::INFINITY),
            ..QuantizeOptions::default()
        };
        Some(quantize::quantize(model, &few, &none, true, &settings, &mut |_, _| {})?.model)
    } else {
        None
    };
    let sample = samples.sample(0)?;
    let shapes: Vec<&[usize]> = sample.iter().map(Tensor::shape).collect();
    Ok(FloatModel::load(quantized.as_ref().unwrap_or(model), false)?.plan(&shapes)?)
}
