//! Calibration: collects activation statistics and chooses ranges and weights from them.

pub(super) mod range;

use std::cell::RefCell;
use std::collections::HashMap;

use hardtack::internal::Model;
use hardtack_bundle::graph::{Graph, ValueId};

use self::range::ChosenRange;
use super::function::Function;
use super::partition::Partition;
use super::rounding::{bit_allocation, gptq};
use super::scale::Range;
use super::statistics::histogram::Histogram;
use super::statistics::second_order;
use super::weights::{QuantizedWeights, Rounded, Values};
use crate::activations::Observer;
use crate::error::Error;
use crate::offloaded_model::ModelSource;
use crate::options::quantize::{QuantizeOptions, RangeMethod, Rounding, Sparsity};
use crate::samples::{SampleSource, each};

/// Collects a histogram of every observed value over all samples.
///
/// # Errors
/// Returns an error if the model cannot be run on a sample or a value is not finite.
pub(super) fn statistics(
    observer: &mut Observer<'_>,
    graph: &Graph,
    samples: &dyn SampleSource,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Statistics, Error> {
    let mut histograms: HashMap<ValueId, Histogram> = HashMap::new();
    let mut half: HashMap<ValueId, Range> = HashMap::new();
    for (index, sample) in each(samples).enumerate() {
        if index == samples.count() / 2 {
            half = histograms.iter().map(|(value_id, seen)| (*value_id, seen.range())).collect();
        }
        let mut infinite = None;
        observer.run(&sample?, |value_id, _, values| {
            if infinite.is_some() {
                return;
            }
            match values.iter().find(|value| !value.is_finite()) {
                Some(value) => infinite = Some((value_id, *value)),
                None => histograms.entry(value_id).or_default().add(values),
            }
        })?;
        if let Some((value_id, value)) = infinite {
            let node = graph.nodes[value_id.node as usize].name.clone();
            let reads = graph.nodes.iter().filter(|node| node.inputs.contains(&value_id));
            let mut readers: Vec<String> = reads.map(|node| node.name.clone()).collect();
            if readers.is_empty() {
                readers.push(node.clone());
            }
            return Err(Error::NotFinite { node, value, sample: index, readers });
        }
        progress(index + 1, samples.count());
    }
    let grew = |(value_id, histogram): &(&ValueId, &Histogram)| {
        let (now, before) = (histogram.range(), half.get(value_id).copied());
        before.is_none_or(|before| now.high - now.low > GROWTH * (before.high - before.low))
    };
    let unstable = histograms.iter().filter(grew).count();
    Ok(Statistics { histograms, unstable })
}

/// A range is unstable if the second half of the samples widens it by more than this factor.
const GROWTH: f32 = 1.1;

/// The distribution of a model's activations.
pub(super) struct Statistics {
    /// The histogram of each observed value.
    pub histograms: HashMap<ValueId, Histogram>,
    /// The number of ranges that grew by more than 10 % in the second half of the samples.
    pub unstable: usize,
}

/// A warning is issued if at least one range in this many is unstable.
const UNSTABLE: usize = 5;

impl Statistics {
    /// Returns a warning if many ranges were still growing in the second half of the samples.
    pub(super) fn warning(&self, samples: usize) -> Option<String> {
        let (unstable, ranges) = (self.unstable, self.histograms.len());
        (samples > 1 && unstable * UNSTABLE >= ranges).then(|| {
            format!(
                "{unstable} of {ranges} ranges grew by more than 10 % in the second half of the \
                 {samples} calibration samples, so new data may be clipped; use more samples"
            )
        })
    }
}

/// The result of calibrating a model.
#[derive(Default)]
pub(super) struct Calibration {
    /// The histogram of each observed value.
    pub histograms: HashMap<ValueId, Histogram>,
    /// The range chosen for each observed value.
    pub ranges: HashMap<ValueId, ChosenRange>,
    /// The pre-rounded weights of layers, by node index; layers without an entry round to nearest.
    pub weights: HashMap<usize, Rounded>,
    /// The integers of weights, so that the search for number formats computes them once.
    pub quantized: RefCell<QuantizedWeights>,
}

impl Calibration {
    /// Chooses the weights of the partitions of a model.
    ///
    /// # Errors
    /// Returns an error if the model cannot be run on a sample.
    pub(super) fn new(
        model: &dyn ModelSource,
        partitions: &[Partition],
        (histograms, ranges): (HashMap<ValueId, Histogram>, HashMap<ValueId, ChosenRange>),
        samples: &dyn SampleSource,
        settings: &QuantizeOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Calibration, Error> {
        let loaded = model.load()?;
        let weights = match settings.rounding {
            Rounding::Nearest => HashMap::new(),
            Rounding::Adaptive => {
                let layers =
                    partitions.iter().flat_map(|partition| partition.nodes.iter().copied());
                let layers: Vec<usize> = layers.collect();
                let steps = match settings.weight_bits {
                    Some(bits) => bit_allocation::steps(&loaded, &layers, &histograms, bits),
                    None => HashMap::new(),
                };
                let choices = (&steps, settings.sparsity, settings.palette);
                drop(loaded);
                weights(model, &layers, &ranges, choices, samples, progress)?
            }
        };
        Ok(Calibration { histograms, ranges, weights, quantized: RefCell::default() })
    }
}

/// Chooses the range of each observed value.
pub(super) fn ranges(
    model: &Model,
    histograms: &HashMap<ValueId, Histogram>,
    method: RangeMethod,
) -> HashMap<ValueId, ChosenRange> {
    let choose = |(value_id, histogram): (&ValueId, &Histogram)| {
        let Range { low, high } = histogram.range();
        let function = Function::of_readers(model, *value_id, low.min(0.0), high.max(0.0));
        let at = function.as_ref().map(|function| move |x: f64| function.at(x));
        let transfer = at.as_ref().map(|at| at as &dyn Fn(f64) -> f64);
        let chosen = range::choose(histogram, method, transfer);
        let int16_range = range::choose_int16(histogram, transfer);
        (*value_id, ChosenRange { int16_range, ..chosen })
    };
    histograms.iter().map(choose).collect()
}

/// Rounds the weights of all layers to minimize the error of their outputs.
fn weights(
    model: &dyn ModelSource,
    layers: &[usize],
    ranges: &HashMap<ValueId, ChosenRange>,
    (steps, sparsity, palette): (&HashMap<usize, f32>, Option<Sparsity>, Option<usize>),
    samples: &dyn SampleSource,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<HashMap<usize, Rounded>, Error> {
    let mut weights = HashMap::new();
    second_order::measure(model, layers, samples, progress, |index, linear, groups| {
        if let Values::Float(values) = &linear.weights.values {
            let noise = ranges.get(&linear.input).map_or(0.0, |chosen| chosen.error);
            let step = steps.get(&index).copied();
            // Depthwise layers are not pruned: each channel has only a few weights.
            let sparsity = sparsity.filter(|_| linear.groups == 1);
            weights.insert(index, gptq::round(values, &groups, noise, step, sparsity, palette));
        }
    })?;
    Ok(weights)
}
