//! Chooses the per-channel factors of cross-layer equalization that minimize the estimated error:
//! that of activations with one scale where layers read them, and that of the layers' weights. Both
//! are relative to the energy of each output channel.

use std::collections::{BTreeMap, HashMap, HashSet};

use hardtack::internal::Model;
use hardtack_bundle::graph::ValueId;

use super::flow::{Flow, Reader, estimated_values};
use super::statistics::ChannelStatistics;
use crate::graph::channels::{KEPT, Unit};
use crate::quantize::scale::{Quantization, Range};

/// Exponents of a channel's range in its factor (SmoothQuant's α); the weights take the rest.
const ALPHAS: [f32; 3] = [1.0, 0.75, 0.5];
/// The maximum gain of a channel: one with small observed values may be larger on other data.
const GREATEST: f32 = 256.0;
/// Factors are used only if they reduce the error to this fraction. On measured models, these
/// reduced the total error; smaller reductions increased it as often as they reduced it.
const WORTH: f64 = 0.125;
/// A layer is split only if its int8 error is at least this; int16 makes smaller ones negligible.
const SPLIT: f64 = 0.01;
/// The factors of a split layer are powers of this number.
const LEVEL: f32 = 16.0;
/// The fractions of the full range that are tried when fitting a scale.
const COVERED: [f32; 6] = [1.0, 0.85, 0.7, 0.55, 0.4, 0.25];

/// Returns the factor of each unit.
pub(super) fn factors(
    model: &Model,
    flow: &Flow,
    statistics: &HashMap<ValueId, ChannelStatistics>,
) -> Vec<f32> {
    let estimator = Estimator::new(model, flow, statistics);
    let mut factors = vec![1f32; flow.units()];
    for group in estimator.groups() {
        estimator.improve(&group, &mut factors);
    }
    factors
}

/// A value that a step rounds.
struct Rounded<'a> {
    units: &'a [Unit],
    statistics: &'a ChannelStatistics,
    /// The statistics of x, if the value is x · sigmoid(x).
    gated: Option<&'a ChannelStatistics>,
}

/// Units that occur in the same values. Their factors are chosen together.
struct Group {
    units: Vec<Unit>,
    /// The indices of the rounded values that contain them.
    values: Vec<usize>,
    /// The indices of the layers whose weights they scale.
    layers: Vec<usize>,
}

/// A layer, with the energy and sensitivity of its output channels.
struct Layer<'a> {
    reader: &'a Reader,
    rows: Vec<Vec<f32>>,
    square: &'a [f64],
    /// The energy (mean square) of each output channel.
    energy: Vec<f64>,
    /// The sensitivity to an error of each output channel; these sum to 1.
    sensitivity: Vec<f64>,
}

struct Estimator<'a> {
    flow: &'a Flow,
    /// Units whose factors are applied by splitting a layer.
    split: HashSet<Unit>,
    values: Vec<Rounded<'a>>,
    layers: Vec<Layer<'a>>,
    /// The sensitivity to a squared error of each unit, summed over the layers that read it.
    weight: Vec<f64>,
}

impl<'a> Estimator<'a> {
    fn new(
        model: &Model,
        flow: &'a Flow,
        statistics: &'a HashMap<ValueId, ChannelStatistics>,
    ) -> Estimator<'a> {
        let mut layers = Vec::new();
        let mut weight = vec![0.0; flow.units()];
        // The share of each unit in the energy of the layers that read it.
        let mut energy_share = vec![0.0; flow.units()];
        for reader in flow.readers.iter().rev() {
            let Some(square) =
                statistics.get(&reader.input).map(|statistics| &statistics.square[..])
            else {
                continue;
            };
            let rows = reader.rows(model);
            let energy = rows.iter().enumerate().map(|(output, row)| {
                each(reader, output, row).map(|(at, w)| w * w * square[at]).sum::<f64>().max(1e-20)
            });
            let energy: Vec<f64> = energy.collect();
            let mut sensitivity: Vec<f64> =
                reader.makes.iter().map(|unit| energy_share[*unit]).collect();
            let all: f64 = sensitivity.iter().sum();
            let even = 1.0 / sensitivity.len().max(1) as f64;
            let known = all > 0.0 && reader.makes.iter().all(|unit| *unit != KEPT);
            sensitivity.iter_mut().for_each(|sensitivity| {
                *sensitivity = if known { *sensitivity / all } else { even }
            });
            for (output, row) in rows.iter().enumerate() {
                for (at, w) in each(reader, output, row) {
                    let part = sensitivity[output] * w * w / energy[output];
                    weight[reader.units[at]] += part;
                    energy_share[reader.units[at]] += part * square[at];
                }
            }
            layers.push(Layer { reader, rows, square, energy, sensitivity });
        }
        let values = estimated_values(&model.graph, flow).into_iter().filter_map(|(value, x)| {
            let units = &flow.channels.layout(value)?.units;
            let gated = match x {
                Some(x) => Some(statistics.get(&x)?),
                None => None,
            };
            Some(Rounded { units, statistics: statistics.get(&value)?, gated })
        });
        let split = flow.split.iter().filter_map(|gate| {
            flow.channels.layout(ValueId { node: gate.product as u32, output: 0 })
        });
        let split = split.flat_map(|layout| &layout.units).copied().collect();
        Estimator { flow, split, values: values.collect(), layers, weight }
    }

    fn groups(&self) -> Vec<Group> {
        let mut within: Vec<Vec<usize>> = vec![Vec::new(); self.flow.units()];
        for (value, rounded) in self.values.iter().enumerate() {
            for unit in rounded.units {
                if within[*unit].last() != Some(&value) {
                    within[*unit].push(value);
                }
            }
        }
        let mut by_values: BTreeMap<&[usize], Vec<Unit>> = BTreeMap::new();
        for (unit, values) in within.iter().enumerate() {
            if unit != KEPT && !values.is_empty() && self.weight[unit] > 0.0 {
                by_values.entry(values).or_default().push(unit);
            }
        }
        let reads = |layer: &&Layer<'_>, units: &[Unit]| {
            !layer.reader.depthwise && layer.reader.units.iter().any(|unit| units.contains(unit))
        };
        let group = |(values, units): (&[usize], Vec<Unit>)| Group {
            values: values.to_vec(),
            layers: self
                .layers
                .iter()
                .enumerate()
                .filter(|(_, layer)| reads(layer, &units))
                .map(|(index, _)| index)
                .collect(),
            units,
        };
        by_values.into_iter().filter(|(_, units)| units.len() > 1).map(group).collect()
    }

    /// Uses the best factors for a group if they reduce the error enough.
    fn improve(&self, group: &Group, factors: &mut Vec<f32>) {
        let before = self.error(group, factors);
        if before < SPLIT && group.units.iter().any(|unit| self.split.contains(unit)) {
            return;
        }
        let (mut least, mut best) = (WORTH * before, None);
        for candidate in self.candidates(group, factors) {
            let error = self.error(group, &candidate);
            if error < least {
                (least, best) = (error, Some(candidate));
            }
        }
        if let Some(best) = best {
            *factors = best;
        }
    }

    fn candidates(&self, group: &Group, factors: &[f32]) -> Vec<Vec<f32>> {
        // The range of each unit, relative to the range of its values; the maximum over all values.
        let mut size = vec![0f32; factors.len()];
        for value in group.values.iter().map(|value| &self.values[*value]) {
            let greatest = value.statistics.greatest();
            let all = value.units.iter().zip(&greatest).map(|(unit, range)| factors[*unit] * range);
            let all = all.fold(0f32, f32::max);
            for (unit, range) in value.units.iter().zip(&greatest) {
                size[*unit] = size[*unit].max(range / all.max(f32::MIN_POSITIVE));
            }
        }
        let of_weights = self.greatest_weights(group);
        let top = group.units.iter().map(|unit| size[*unit]).fold(0f32, f32::max);
        let candidate = |alpha: f32| {
            let mut factors = factors.to_vec();
            let raw = group.units.iter().map(|unit| {
                let range = size[*unit].max(top / GREATEST).max(f32::MIN_POSITIVE);
                range.powf(-alpha) * of_weights[*unit].powf(1.0 - alpha)
            });
            let raw: Vec<f32> = raw.collect();
            // Normalize so that the group's largest channel reaches as far as other channels.
            let reached = group.units.iter().zip(&raw).map(|(unit, raw)| raw * size[*unit]);
            let reached = reached.fold(f32::MIN_POSITIVE, f32::max);
            let split = |unit: &Unit| self.split.contains(unit);
            for (unit, raw) in group.units.iter().zip(&raw) {
                let factor = raw / reached;
                // Each distinct factor becomes a separate layer, so fewer factors run faster.
                factors[*unit] = if split(unit) { to_level(factor) } else { factor };
            }
            factors
        };
        ALPHAS.into_iter().map(candidate).collect()
    }

    /// Returns the largest weight that reads each unit, relative to its output channel's RMS.
    fn greatest_weights(&self, group: &Group) -> Vec<f32> {
        let mut greatest = vec![1e-3f32; self.flow.units()];
        for Layer { reader, rows, energy, .. } in
            group.layers.iter().map(|layer| &self.layers[*layer])
        {
            for (output, (row, energy)) in rows.iter().zip(energy).enumerate() {
                for (at, w) in each(reader, output, row) {
                    let unit = reader.units[at];
                    let part = (w.abs() / energy.max(1e-20).sqrt()) as f32;
                    greatest[unit] = greatest[unit].max(part);
                }
            }
        }
        greatest
    }

    /// Returns the part of the estimated error that depends on a group: the mean squared error of
    /// each output channel relative to its energy, weighted by sensitivity, summed over layers.
    fn error(&self, group: &Group, factors: &[f32]) -> f64 {
        let of_values = group.values.iter().map(|value| self.of_value(*value, factors));
        let of_weights = group.layers.iter().map(|layer| of_weights(&self.layers[*layer], factors));
        of_values.sum::<f64>() + of_weights.sum::<f64>()
    }

    fn of_value(&self, value: usize, factors: &[f32]) -> f64 {
        let Rounded { units, statistics, gated } = &self.values[value];
        let along: Vec<f32> = units.iter().map(|unit| factors[*unit]).collect();
        let errors = match gated {
            Some(x) => of_gate(x, statistics, &along),
            None => of_plain(statistics, &along),
        };
        let parts = units.iter().zip(&along).zip(errors);
        let parts = parts
            .map(|((unit, factor), error)| self.weight[*unit] * error / f64::from(factor * factor));
        parts.sum()
    }
}

fn to_level(factor: f32) -> f32 {
    LEVEL.powf(factor.log(LEVEL).round())
}

/// Returns the weights of an output channel, each with the index of the input channel it reads.
fn each(reader: &Reader, output: usize, row: &[f32]) -> impl Iterator<Item = (usize, f64)> {
    let inputs = if reader.depthwise { 1 } else { reader.units.len() };
    let taps = (row.len() / inputs).max(1);
    let first = if reader.depthwise { output } else { 0 };
    row.iter().enumerate().map(move |(at, w)| (first + at / taps, f64::from(*w)))
}

/// Returns the estimated output error that the rounding of a layer's weights causes.
fn of_weights(layer: &Layer<'_>, factors: &[f32]) -> f64 {
    let Layer { reader, rows, square, energy, sensitivity } = layer;
    let factor = |at: usize| f64::from(factors[reader.units[at]]);
    let input: f64 = (0..reader.units.len()).map(|at| factor(at).powi(2) * square[at]).sum();
    let of_row = |(output, row): (usize, &Vec<f32>)| {
        let greatest =
            each(reader, output, row).fold(0f64, |most, (at, w)| most.max(w.abs() / factor(at)));
        let taps = row.len() / reader.units.len().max(1);
        sensitivity[output] * (greatest / 127.0).powi(2) / 12.0 * input * taps as f64
            / energy[output]
    };
    rows.iter().enumerate().map(of_row).sum()
}

/// Returns the sampled positions and the total range, with each channel times its factor.
fn scaled(statistics: &ChannelStatistics, along: &[f32]) -> (Vec<f32>, Range) {
    let values = statistics.places.iter().zip(along.iter().cycle()).map(|(x, factor)| x * factor);
    let ranges = statistics.ranges.iter().zip(along);
    let range = ranges.fold(Range::NONE, |all, (range, factor)| {
        all.extended(&[range.low * factor, range.high * factor])
    });
    (values.collect(), range)
}

/// Returns the scale with the least squared error after `transfer`.
fn fitted(values: &[f32], range: Range, transfer: impl Fn(f32) -> f32) -> Quantization {
    let wanted: Vec<f32> = values.iter().map(|x| transfer(*x)).collect();
    let error = |quantization: &Quantization| {
        let table: Vec<f32> =
            (i8::MIN..=i8::MAX).map(|i| transfer(quantization.dequantize(i))).collect();
        let off = |(x, wanted): (&f32, &f32)| {
            let integer = quantization.quantize(*x);
            f64::from(table[(i16::from(integer) + 128) as usize] - wanted).powi(2)
        };
        values.iter().zip(&wanted).map(off).sum::<f64>()
    };
    let tried = COVERED.map(|part| {
        let quantization =
            Quantization::of(Range { low: range.low * part, high: range.high * part });
        (error(&quantization), quantization)
    });
    tried
        .into_iter()
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map_or(Quantization::of(range), |best| best.1)
}

fn rounded(quantization: Quantization, x: f32) -> f32 {
    quantization.dequantize(quantization.quantize(x))
}

/// Returns the mean squared error of each channel.
fn means(errors: impl Iterator<Item = f32>, channels: usize) -> Vec<f64> {
    let (mut sums, mut count) = (vec![0.0; channels], 0.0);
    for (at, error) in errors.enumerate() {
        sums[at % channels] += f64::from(error).powi(2);
        count += 1.0 / channels as f64;
    }
    sums.iter().map(|sum| sum / f64::max(count, 1.0)).collect()
}

/// Returns the mean squared error of each scaled channel of a value with one scale.
fn of_plain(statistics: &ChannelStatistics, along: &[f32]) -> Vec<f64> {
    let (values, range) = scaled(statistics, along);
    let scale = fitted(&values, range, |x| x);
    means(values.iter().map(|x| rounded(scale, *x) - x), along.len())
}

/// The same for x · sigmoid(x): computed by a lookup table if all factors are 1, else as a product.
fn of_gate(x: &ChannelStatistics, y: &ChannelStatistics, along: &[f32]) -> Vec<f64> {
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    let (values, range) = scaled(x, along);
    let (results, result_range) = scaled(y, along);
    let result = fitted(&results, result_range, |y| y);
    if along.iter().all(|factor| *factor == 1.0) {
        let read = fitted(&values, range, |x| x * sigmoid(x));
        let made = values.iter().map(|x| {
            let x = rounded(read, *x);
            rounded(result, x * sigmoid(x))
        });
        return means(made.zip(&results).map(|(made, y)| made - y), along.len());
    }
    let read = fitted(&values, range, |x| x);
    let (plain, plain_range) = scaled(x, &vec![1.0; along.len()]);
    let unscaled = fitted(&plain, plain_range, sigmoid);
    let gate = Quantization::of(Range { low: 0.0, high: 1.0 });
    let made = values.iter().zip(along.iter().cycle()).map(|(x, factor)| {
        let x = rounded(read, *x);
        let gate = rounded(gate, sigmoid(rounded(unscaled, x / factor)));
        rounded(result, x * gate)
    });
    means(made.zip(&results).map(|(made, y)| made - y), along.len())
}
