//! Statistics of a model's channels over calibration data.

use std::collections::{HashMap, HashSet};

use hardtack_bundle::graph::ValueId;

use super::flow::{self, Flow};
use crate::activations::Observer;
use crate::error::Error;
use crate::offloaded_model::ModelSource;
use crate::quantize::scale::Range;
use crate::samples::{self, SampleSource};

/// The number of elements kept per value, over all samples.
const KEPT_ELEMENTS: usize = 1 << 14;

/// The statistics of the channels of one value.
#[derive(Default)]
pub(super) struct ChannelStatistics {
    /// The minimum and maximum of each channel, over every second sample.
    pub ranges: Vec<Range>,
    /// The mean square of each channel.
    pub square: Vec<f64>,
    /// Sampled positions of the other samples, each with all channels. Factors are evaluated on
    /// samples that they were not chosen from.
    pub places: Vec<f32>,
}

/// Collects the statistics of all values whose channel layout is known.
///
/// # Errors
/// Returns an error if the model cannot be run on a sample.
pub(super) fn observe(
    model: &dyn ModelSource,
    flow: &Flow,
    samples: &dyn SampleSource,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<HashMap<ValueId, ChannelStatistics>, Error> {
    let known = |(index, layout): (usize, &Option<_>)| {
        layout.as_ref().map(|_| ValueId { node: index as u32, output: 0 })
    };
    let value_ids = flow.channels.layouts().iter().enumerate().filter_map(known);
    let mut observer = Observer::new(model, value_ids);
    // Positions are kept only for values whose rounding error is estimated.
    let estimated = flow::estimated_values(model.graph(), flow).into_iter();
    let estimated: HashSet<ValueId> =
        estimated.flat_map(|(value, x)| x.into_iter().chain([value])).collect();
    let mut statistics: HashMap<ValueId, ChannelStatistics> = HashMap::new();
    let count = samples.count();
    for (number, sample) in samples::each(samples).enumerate() {
        observer.run(&sample?, |value_id, shape, values| {
            let Some(layout) = flow.channels.layout(value_id) else { return };
            let channels = layout.units.len();
            let statistics = statistics.entry(value_id).or_default();
            let wanted = match estimated.contains(&value_id) {
                true => (KEPT_ELEMENTS / channels).max(64).div_ceil(count.div_ceil(2)),
                false => 0,
            };
            let within = shape[layout.axis + 1..].iter().product();
            statistics.add(values, within, channels, wanted, number);
        })?;
        progress(number + 1, count);
    }
    for statistics in statistics.values_mut() {
        statistics.square.iter_mut().for_each(|sum| *sum /= count as f64);
    }
    Ok(statistics)
}

impl ChannelStatistics {
    /// Returns the largest magnitude of each channel.
    pub(super) fn greatest(&self) -> Vec<f32> {
        self.ranges.iter().map(|range| range.high.max(-range.low).max(0.0)).collect()
    }

    /// Adds a sample's values, keeping `wanted` positions. `within` is the number of consecutive
    /// elements of one channel, and `number` the index of the sample.
    fn add(
        &mut self,
        values: &[f32],
        within: usize,
        channels: usize,
        wanted: usize,
        number: usize,
    ) {
        let places = values.len() / channels;
        if places == 0 {
            return;
        }
        self.ranges.resize(channels, Range::NONE);
        self.square.resize(channels, 0.0);
        for (at, run) in values.chunks_exact(within).enumerate() {
            let channel = at % channels;
            if number.is_multiple_of(2) {
                self.ranges[channel] = self.ranges[channel].extended(run);
            }
            let sum: f32 = run.iter().map(|value| value * value).sum();
            self.square[channel] += f64::from(sum) / places as f64;
        }
        if number.is_multiple_of(2) {
            return;
        }
        let wanted = wanted.min(places);
        for taken in 0..wanted {
            let place = (taken * places / wanted + number * 7) % places;
            let first = place / within * within * channels + place % within;
            self.places.extend((0..channels).map(|channel| values[first + channel * within]));
        }
    }
}
