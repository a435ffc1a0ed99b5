//! Mixed precision: chooses which layers use int16 activations or stay in float to meet an error
//! budget, by measured error and run time.

use std::time::Instant;

use hardtack::Tensor;
use hardtack::float::{FloatModel, FloatPlan};
use hardtack::internal::Model;
use hardtack_bundle::graph::{Operator, ValueId};

use super::calibrate::Calibration;
use super::float_reason::{FloatReason, FormatChoice, Int16Reason};
use super::function;
use super::lower::assemble;
use super::partition::{self, FloatReasons, Int16Nodes};
use crate::error::Error;
use crate::samples::{First, SampleSource, each};

/// The number of samples on which error and time are measured.
const MEASURED: usize = 4;
/// The number of inferences per sample, of which the fastest counts.
const RUNS: usize = 2;
/// The number of layers that are tried in a cheaper form again after the search.
const GIVEN_BACK: usize = 24;

/// The measured error and time of a mix.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// The error of the worst output: the RMS difference divided by the RMS of the float output.
    error: f64,
    /// Seconds per inference.
    seconds: f64,
}

/// The number format of a layer and the element-wise ops that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NumberFormat {
    Int8,
    /// INT8 weights with int16 activations.
    Int16,
    Float,
}

/// The measurements with one layer quantized and all others in float.
struct LayerAlone {
    /// The layer in int8.
    int8: Measured,
    /// The layer in int16; `None` if int16 everywhere meets the budget.
    int16: Option<Measured>,
}

/// Moves layers to int16, and to float where that is not enough, until the error is at most
/// `budget`. Records the reason for each.
///
/// # Errors
/// Returns an error if the model cannot be run, or no mix meets the budget.
pub(super) fn search(
    model: &Model,
    calibration: &Calibration,
    (int16, float_reasons): (&mut Int16Nodes, &mut FloatReasons),
    samples: &dyn SampleSource,
    budget: f64,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(), Error> {
    let samples = &First(samples, MEASURED);
    let mut search = Search { model, calibration, samples, float: Vec::new() };
    let (outputs, float_seconds) = search.run(model)?;
    search.float = outputs;
    let integer = search.measure(int16, float_reasons, [].into_iter())?;
    if integer.error <= budget {
        return Ok(());
    }
    let groups = groups(model, float_reasons);
    let measure = |formats: &[NumberFormat]| {
        let nodes = groups.iter().map(Vec::as_slice);
        search.measure(int16, float_reasons, nodes.zip(formats.iter().copied()))
    };
    let int16_exceeds = measure(&vec![NumberFormat::Int16; groups.len()])?.error > budget;
    let alones = alones(groups.len(), int16_exceeds, &measure, progress)?;
    let orders = Orders::of(&alones, float_seconds);
    let (formats, reached) = fitted(&orders, int16_exceeds, budget, &measure)?;
    for ((nodes, alone), format) in groups.iter().zip(&alones).zip(formats) {
        let choice = FormatChoice {
            int8_error: alone.int8.error,
            int16_error: alone.int16.map(|int16| int16.error),
            saved_seconds: float_seconds - alone.int8.seconds,
            mix: (reached.error, reached.seconds),
            int8: (integer.error, integer.seconds),
        };
        for node in nodes {
            match format {
                NumberFormat::Int8 => {}
                NumberFormat::Int16 => drop(int16.insert(*node, Int16Reason::ErrorBudget(choice))),
                NumberFormat::Float => {
                    drop(float_reasons.insert(*node, FloatReason::ErrorBudget(choice)))
                }
            };
        }
    }
    Ok(())
}

/// Returns each layer of the partitions with the element-wise ops that follow it.
fn groups(model: &Model, float_reasons: &mut FloatReasons) -> Vec<Vec<usize>> {
    let layer = |index: &usize| {
        matches!(model.graph.nodes[*index].operator, Operator::Conv(_) | Operator::Einsum(_))
    };
    let partitions = partition::partitions(model, float_reasons);
    let layers = partitions.iter().flat_map(|partition| partition.nodes.clone()).filter(layer);
    layers.map(|layer| with_followers(model, layer)).collect()
}

/// Measures mixes with a number format for each layer.
type Measure<'m> = dyn Fn(&[NumberFormat]) -> Result<Measured, Error> + 'm;

/// Measures each layer alone in int8, and in int16 if that does not meet the budget everywhere.
fn alones(
    count: usize,
    int16_exceeds: bool,
    measure: &Measure<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<LayerAlone>, Error> {
    let alone = |layer: usize, format: NumberFormat| {
        let mut formats = vec![NumberFormat::Float; count];
        formats[layer] = format;
        measure(&formats)
    };
    let steps = count * (1 + usize::from(int16_exceeds));
    let mut alones = Vec::new();
    for layer in 0..count {
        progress(alones.len() * steps / count, steps);
        let int16 = int16_exceeds.then(|| alone(layer, NumberFormat::Int16)).transpose()?;
        alones.push(LayerAlone { int8: alone(layer, NumberFormat::Int8)?, int16 });
    }
    Ok(alones)
}

/// The orders in which layers leave int8, those that need it most first.
struct Orders {
    /// The order in which layers become float.
    float: Vec<usize>,
    /// The order in which layers become int16.
    int16: Vec<usize>,
}

impl Orders {
    fn of(alones: &[LayerAlone], float_seconds: f64) -> Orders {
        // Errors of layers are nearly independent, so their squares add up. A layer alone often
        // saves no time, because its values are converted before and after it; next to others it
        // does.
        let usual = float_seconds / alones.len().max(1) as f64;
        let worth =
            |alone: &Measured| alone.error.powi(2) / (float_seconds - alone.seconds).max(usual);
        let first = |of: &dyn Fn(&LayerAlone) -> f64| {
            let mut order: Vec<usize> = (0..alones.len()).collect();
            order.sort_by(|a, b| of(&alones[*b]).total_cmp(&of(&alones[*a])));
            order
        };
        Orders {
            float: first(&|alone| worth(alone.int16.as_ref().unwrap_or(&alone.int8))),
            int16: first(&|alone| worth(&alone.int8)),
        }
    }

    /// Returns the mix with `float` layers in float, `int16` of the others in int16, and the rest
    /// in int8.
    fn mix(&self, float: usize, int16: usize) -> Vec<NumberFormat> {
        let mut formats = vec![NumberFormat::Int8; self.float.len()];
        self.float[..float].iter().for_each(|layer| formats[*layer] = NumberFormat::Float);
        let others = self.int16.iter().filter(|layer| !self.float[..float].contains(layer));
        others.take(int16).for_each(|layer| formats[*layer] = NumberFormat::Int16);
        formats
    }
}

/// Returns the mix with the fewest layers in float and then in int16 that meets the budget, after
/// layers that do not need their format are moved to a cheaper one.
fn fitted(
    orders: &Orders,
    int16_exceeds: bool,
    budget: f64,
    measure: &Measure<'_>,
) -> Result<(Vec<NumberFormat>, Measured), Error> {
    let count = orders.float.len();
    let float = match int16_exceeds {
        true => fewest(0..count, budget, |float| measure(&orders.mix(float, count)))?,
        false => 0,
    };
    let int16 = fewest(0..count - float, budget, |int16| measure(&orders.mix(float, int16)))?;
    let mut formats = orders.mix(float, int16);
    let mut reached = measure(&formats)?;
    if reached.error > budget {
        return Err(Error::Options(format!(
            "--max-error {:.2} %: the error is still {:.2} % with all layers in float; \
             allow a larger error",
            100.0 * budget,
            100.0 * reached.error
        )));
    }
    // The last layers of each order need their format least.
    let last = orders.float[..float].iter().rev().chain(orders.int16.iter().rev());
    let last: Vec<usize> =
        last.copied().filter(|layer| formats[*layer] != NumberFormat::Int8).collect();
    for layer in last.into_iter().take(GIVEN_BACK) {
        let cheaper: &[NumberFormat] = match formats[layer] {
            NumberFormat::Float => &[NumberFormat::Int8, NumberFormat::Int16],
            _ => &[NumberFormat::Int8],
        };
        for format in cheaper {
            let kept = std::mem::replace(&mut formats[layer], *format);
            let measured = measure(&formats)?;
            if measured.error <= budget {
                reached = measured;
                break;
            }
            formats[layer] = kept;
        }
    }
    Ok((formats, reached))
}

/// Returns the smallest number that meets the budget, or the end of the range if none does.
fn fewest(
    numbers: std::ops::Range<usize>,
    budget: f64,
    measure: impl Fn(usize) -> Result<Measured, Error>,
) -> Result<usize, Error> {
    let (mut least, mut enough) = (numbers.start, numbers.end);
    while least < enough {
        let middle = usize::midpoint(least, enough);
        match measure(middle)?.error <= budget {
            true => enough = middle,
            false => least = middle + 1,
        }
    }
    Ok(enough)
}

/// Returns a layer and the element-wise ops that follow it.
pub(super) fn with_followers(model: &Model, layer: usize) -> Vec<usize> {
    let value = ValueId { node: layer as u32, output: 0 };
    std::iter::once(layer).chain(function::of(model, value)).collect()
}

/// Measures mixes of one model.
struct Search<'a> {
    model: &'a Model,
    calibration: &'a Calibration,
    samples: &'a dyn SampleSource,
    /// The outputs of the float model on each sample.
    float: Vec<Vec<Tensor>>,
}

impl Search<'_> {
    /// Measures the mix in which these nodes have other forms than chosen so far.
    fn measure<'n>(
        &self,
        int16: &Int16Nodes,
        float_reasons: &FloatReasons,
        formats: impl Iterator<Item = (&'n [usize], NumberFormat)>,
    ) -> Result<Measured, Error> {
        let (mut int16, mut float_reasons) = (int16.clone(), float_reasons.clone());
        for (nodes, format) in formats {
            let nodes = nodes.iter().copied();
            match format {
                NumberFormat::Int8 => {}
                NumberFormat::Int16 => {
                    int16.extend(nodes.map(|node| (node, Int16Reason::Requested)))
                }
                NumberFormat::Float => {
                    float_reasons.extend(nodes.map(|node| (node, FloatReason::KeepFloat)))
                }
            }
        }
        let (partitions, lowered) =
            assemble::lower(self.model, self.calibration, &int16, &mut float_reasons);
        let mixed = assemble::assemble(self.model.clone(), &partitions, lowered);
        let (outputs, seconds) = self.run(&mixed)?;
        Ok(Measured { error: relative_error(&self.float, &outputs), seconds })
    }

    /// Returns the outputs on each sample and the average seconds per inference.
    fn run(&self, model: &Model) -> Result<(Vec<Vec<Tensor>>, f64), Error> {
        let loaded = FloatModel::load(model, false)?;
        let (mut all, mut seconds) = (Vec::new(), 0.0);
        let mut planned: Option<FloatPlan> = None;
        for sample in each(self.samples) {
            let sample = sample?;
            let shapes: Vec<&[usize]> = sample.iter().map(Tensor::shape).collect();
            let plan = planned.take().filter(|plan| plan.input_shapes() == shapes);
            let plan = planned.insert(match plan {
                Some(plan) => plan,
                None => loaded.plan(&shapes)?,
            });
            let inputs: Vec<&Tensor> = sample.iter().collect();
            let mut fastest = f64::INFINITY;
            let mut outputs = Vec::new();
            for _ in 0..RUNS {
                plan.reset()?;
                let began = Instant::now();
                outputs = plan.run(&inputs)?;
                fastest = fastest.min(began.elapsed().as_secs_f64());
            }
            all.push(outputs);
            seconds += fastest / self.samples.count() as f64;
        }
        Ok((all, seconds))
    }
}

/// Returns the error of the worst output over all samples: the RMS difference divided by the RMS
/// of the original.
pub(super) fn relative_error(original: &[Vec<Tensor>], other: &[Vec<Tensor>]) -> f64 {
    let outputs = original.first().map_or(0, Vec::len);
    let of = |output: usize| {
        let (mut signal, mut noise) = (0.0, 0.0);
        for (a, b) in original.iter().zip(other) {
            for (a, b) in a[output].to_f32().iter().zip(b[output].to_f32()) {
                signal += f64::from(*a).powi(2);
                noise += f64::from(*a - b).powi(2);
            }
        }
        (noise / signal.max(f64::MIN_POSITIVE)).sqrt()
    };
    (0..outputs).map(of).fold(0.0, f64::max)
}
