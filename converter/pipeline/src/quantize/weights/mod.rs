//! Quantizes weights to integers, per output channel.

pub(super) mod linear;
mod nine_bits;

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use hardtack::internal::Model;
use hardtack_bundle::graph::{KernelLayout, Operator, ValueId};

use crate::error::Error;
use crate::graph::constants::{dequantized, float_elements, tensor};
use crate::report::WeightsReport;

/// The weights of a layer, ordered by output channel, kernel row, kernel column, and input channel
/// within the group.
pub(super) struct Weights {
    /// The number of weights of one output channel.
    pub depth: usize,
    /// The number of input channels of a group, and so of weights per kernel element.
    pub inputs: usize,
    /// The weights.
    pub values: Values,
}

/// Weights as the source stores them.
pub(super) enum Values {
    /// Float weights, not yet quantized.
    Float(Vec<f32>),
    /// Integers within ±[`MAX_MAGNITUDE`], and the scale of each output channel.
    Integer(Vec<i16>, Vec<f32>),
    /// One float per output channel. Its integer is chosen together with the scale.
    Factor(Vec<f32>),
}

/// Weights that were rounded to minimize the error of their layer's outputs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounded {
    /// Integers in [−127, 127], ordered by output channel.
    pub weights: Vec<i8>,
    /// The scale of each output channel.
    pub scales: Vec<f32>,
    /// The mean output error of each output channel, to be added to the bias.
    pub bias: Vec<f32>,
}

/// Quantized weights, and those of their rounding errors if they are int16.
pub(super) type HighAndLow = (Quantized, Option<Quantized>);

/// The integers of the weights of layers.
pub(super) type QuantizedWeights = HashMap<WeightsKey, Rc<HighAndLow>>;

/// What the integers of a layer's weights depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct WeightsKey {
    /// The index of the layer.
    pub node: usize,
    /// The bits of the input's scale.
    pub input_scale: u32,
    /// Whether the weights are int16.
    pub int16: bool,
    /// The bits of the bias of each output channel.
    pub bias: Vec<u32>,
    /// The bits of the factor of each output channel; empty without factors.
    pub factors: Vec<u32>,
}

/// Quantized weights in [−127, 127], with their scales and bias.
pub(super) struct Quantized {
    /// The weights.
    pub weights: Vec<i8>,
    /// Ranges of each group's input channels that the layer reads again, after all of the group.
    pub copies: Vec<Range<usize>>,
    /// The scale of each output channel.
    pub scales: Vec<f32>,
    /// The bias of each output channel, in units of input scale · weight scale.
    pub bias: Vec<i32>,
}

impl Quantized {
    /// Returns statistics of the weights, for the report.
    pub(super) fn report(&self) -> WeightsReport {
        const PER_PART: usize = 4;
        let mut of_level = [0u64; 256];
        for weight in &self.weights {
            of_level[(i16::from(*weight) + 128) as usize] += 1;
        }
        let (elements, channels) = (self.weights.len() as u64, self.bias.len() as u64);
        let fold = |from, f: fn(f32, f32) -> f32| self.scales.iter().copied().fold(from, f);
        WeightsReport {
            elements,
            float_bytes: 4 * (elements + channels),
            integer_bytes: elements + 8 * channels,
            step: [fold(f32::INFINITY, f32::min), fold(0.0, f32::max)],
            levels: of_level.iter().filter(|count| **count > 0).count(),
            counts: of_level.chunks_exact(PER_PART).map(|part| part.iter().sum()).collect(),
        }
    }
}

/// The maximum bias of float weights, in steps. A larger bias leaves too few accumulator bits, so
/// the weights get coarser steps.
const LARGEST_BIAS: f64 = (1 << 24) as f64;

/// The maximum magnitude of a byte minus its zero point.
pub(super) const MAX_MAGNITUDE: i32 = 255;

/// The minimum integer of a factor. It keeps the scale at most twice the finest one.
const LEAST_FACTOR: i16 = 64;

/// The maximum bias of integer weights and factors. It leaves room in the accumulator.
const BIAS_LIMIT: f64 = (1 << 30) as f64;

/// Checks that the constants that these nodes read are finite; limits may be infinite.
///
/// # Errors
/// Returns an error that names the first node with a constant that is not.
pub(super) fn finite(model: &Model, nodes: impl Iterator<Item = usize>) -> Result<(), Error> {
    for index in nodes {
        let node = &model.graph.nodes[index];
        for input in &node.inputs {
            let Some(values) = tensor(model, *input).and_then(hardtack::Tensor::as_f32) else {
                continue;
            };
            // Limits of a clamp may be infinite, weights may not.
            let layer = matches!(node.operator, Operator::Conv(_) | Operator::Einsum(_));
            let wrong = |value: &&f32| value.is_nan() || (layer && value.is_infinite());
            if let Some(value) = values.iter().find(wrong) {
                return Err(Error::Options(format!(
                    "the weights of {:?} contain {value}: the file is damaged or training failed",
                    node.name
                )));
            }
        }
    }
    Ok(())
}

/// Returns the maximum magnitude of a layer's own integer weights without zero points, else 0.
pub(super) fn max_magnitude(model: &Model, index: usize) -> i32 {
    let node = &model.graph.nodes[index];
    let inputs = match &node.operator {
        Operator::Conv(_) => &node.inputs[1..2],
        Operator::Einsum(_) => &node.inputs[..],
        _ => return 0,
    };
    let weights = inputs.iter().filter_map(|value_id| dequantized(model, *value_id));
    weights.flat_map(|(integers, _)| integers.values).map(i32::abs).max().unwrap_or(0)
}

impl Weights {
    /// Returns the kernel of a convolution with `channels` output channels.
    pub(super) fn of_kernel(
        model: &Model,
        value_id: ValueId,
        layout: KernelLayout,
        channels: usize,
        spatial: usize,
    ) -> Option<Weights> {
        let elements = model.graph.fact(value_id).shape.iter().map(|dim| dim.value());
        let elements: usize = elements.map(|dim| dim.map(|d| d as usize)).product::<Option<_>>()?;
        let inputs = elements.checked_div(channels * spatial)?;
        // Strides of the output channel, kernel element and input channel in the source.
        let [o, s, i] = match layout {
            KernelLayout::Oihw => [inputs * spatial, 1, spatial],
            KernelLayout::Ohwi => [inputs * spatial, inputs, 1],
            KernelLayout::Hwio => [1, inputs * channels, channels],
        };
        Self::gather(model, value_id, [(channels, o), (spatial, s), (inputs, i)])
    }

    /// Returns a matrix with `inputs` rows and `outputs` columns at these strides.
    pub(super) fn of_matrix(
        model: &Model,
        value_id: ValueId,
        (inputs, input_stride): (usize, usize),
        (outputs, output_stride): (usize, usize),
    ) -> Option<Weights> {
        Self::gather(model, value_id, [(outputs, output_stride), (1, 1), (inputs, input_stride)])
    }

    /// Gathers weights by output channel, kernel element and input channel, each a size and a
    /// stride.
    fn gather(model: &Model, value_id: ValueId, by: [(usize, usize); 3]) -> Option<Weights> {
        let [(channels, o), (spatial, s), (inputs, i)] = by;
        let depth = spatial * inputs;
        let places = move || {
            (0..channels).flat_map(move |channel| {
                (0..spatial).flat_map(move |tap| {
                    (0..inputs).map(move |input| channel * o + tap * s + input * i)
                })
            })
        };
        if let Some(integer) = Self::source_integers(model, value_id, channels, o, places()) {
            return Some(Weights { depth, inputs, values: integer });
        }
        let source = float_elements(model, value_id)?;
        let mut values = Vec::with_capacity(source.len());
        for at in places() {
            values.push(*source.get(at)?);
        }
        Some(Weights { depth, inputs, values: Values::Float(values) })
    }

    /// Returns the source's integers if they fit and have one scale or one per output channel.
    fn source_integers(
        model: &Model,
        value_id: ValueId,
        channels: usize,
        channel_stride: usize,
        places: impl Iterator<Item = usize>,
    ) -> Option<Values> {
        let (integers, scales) = dequantized(model, value_id)?;
        let per_scale = integers.values.len() / (integers.outer * scales.len());
        if scales.len() != 1 && (scales.len() != channels || per_scale != channel_stride) {
            return None;
        }
        let within = |at: usize| {
            let weight = *integers.values.get(at)?;
            (weight.abs() <= MAX_MAGNITUDE).then_some(weight as i16)
        };
        let values = places.map(within).collect::<Option<Vec<i16>>>()?;
        let scales = if scales.len() == 1 { vec![scales[0]; channels] } else { scales };
        Some(Values::Integer(values, scales))
    }

    /// Returns float weights, ordered by output channel.
    #[cfg(test)]
    pub(super) fn float(values: Vec<f32>, depth: usize) -> Weights {
        Weights { depth, inputs: depth, values: Values::Float(values) }
    }

    /// Returns weights that are one factor per output channel.
    pub(super) fn factors(values: Vec<f32>) -> Weights {
        Weights { depth: 1, inputs: 1, values: Values::Factor(values) }
    }

    /// Multiplies each output channel by its factor.
    pub(super) fn multiply(&mut self, factors: &[f32]) {
        match &mut self.values {
            Values::Float(weights) => {
                for (row, factor) in weights.chunks_exact_mut(self.depth).zip(factors) {
                    row.iter_mut().for_each(|weight| *weight *= factor);
                }
            }
            Values::Factor(weights) => {
                weights.iter_mut().zip(factors).for_each(|(weight, factor)| *weight *= factor);
            }
            Values::Integer(weights, scales) => {
                let rows = weights.chunks_exact_mut(self.depth).zip(scales);
                for ((row, scale), factor) in rows.zip(factors) {
                    *scale *= factor.abs();
                    if *factor < 0.0 {
                        row.iter_mut().for_each(|weight| *weight = -*weight);
                    }
                    if *scale < f32::MIN_POSITIVE {
                        row.fill(0);
                        *scale = 1.0;
                    }
                }
            }
        }
    }

    /// Quantizes to int16: to int8, and the rounding errors to int8 again, without a bias.
    pub(super) fn quantize_to_int16(self, input_scale: f32, bias: &[f32]) -> HighAndLow {
        let Weights { depth, inputs, values: Values::Float(values) } = self else {
            return (self.quantize(input_scale, bias), None);
        };
        let high = Weights { depth, inputs, values: Values::Float(values.clone()) };
        let high = high.quantize(input_scale, bias);
        let mut rest = values;
        let rows = rest.chunks_exact_mut(depth).zip(high.weights.chunks_exact(depth));
        for ((rest, high), scale) in rows.zip(&high.scales) {
            rest.iter_mut().zip(high).for_each(|(rest, high)| *rest -= f32::from(*high) * scale);
        }
        let low = Weights { depth, inputs, values: Values::Float(rest) };
        let low = low.quantize(input_scale, &vec![0.0; bias.len()]);
        (high, Some(low))
    }

    /// Quantizes symmetrically, for this input scale and one bias per output channel.
    pub(super) fn quantize(self, input_scale: f32, bias: &[f32]) -> Quantized {
        let input_scale = f64::from(input_scale);
        let depth = self.depth;
        let with_room = |(mut weights, mut scales): (Vec<i16>, Vec<f32>)| {
            for ((row, scale), bias) in weights.chunks_exact_mut(depth).zip(&mut scales).zip(bias) {
                while f64::from(bias.abs()) > BIAS_LIMIT * input_scale * f64::from(*scale) {
                    *scale *= 2.0;
                    row.iter_mut().for_each(|weight| *weight /= 2);
                }
            }
            (weights, scales)
        };
        let (weights, scales) = match self.values {
            Values::Integer(weights, scales) => with_room((weights, scales)),
            Values::Factor(values) => with_room(factors(&values, input_scale, bias)),
            Values::Float(values) => {
                let mut weights = Vec::with_capacity(values.len());
                let mut scales = Vec::with_capacity(bias.len());
                for (row, bias) in values.chunks_exact(depth).zip(bias) {
                    let greatest = row.iter().fold(0f32, |greatest, w| greatest.max(w.abs()));
                    let for_bias = f64::from(bias.abs()) / (input_scale * LARGEST_BIAS);
                    let scale = step(row, greatest).unwrap_or(f64::from(greatest) / 127.0);
                    let scale = scale.max(for_bias);
                    let scale = if scale > 1e-15 { scale as f32 } else { 1.0 };
                    let integer = |w: &f32| {
                        let steps = (f64::from(*w) / f64::from(scale)).round_ties_even();
                        steps.clamp(-127.0, 127.0) as i16
                    };
                    weights.extend(row.iter().map(integer));
                    scales.push(scale);
                }
                (weights, scales)
            }
        };
        let bias = bias.iter().zip(&scales).map(|(bias, scale)| {
            (f64::from(*bias) / (input_scale * f64::from(*scale))).round_ties_even() as i32
        });
        let bias = bias.collect();
        let (weights, copies) = nine_bits::split(weights, self.inputs);
        Quantized { weights, copies, bias, scales }
    }
}

/// Quantizes factors. Of the integers that are large enough, chooses the one whose scale represents
/// the bias most exactly: with a single weight, the bias has few steps.
fn factors(values: &[f32], input_scale: f64, bias: &[f32]) -> (Vec<i16>, Vec<f32>) {
    let choose = |(value, bias): (&f32, &f32)| {
        let (value, bias) = (f64::from(*value), f64::from(*bias));
        if value.abs() < 1e-15 {
            return (0, 1.0);
        }
        let distance = |integer: i16| {
            let steps = bias * f64::from(integer) / (input_scale * value.abs());
            (steps - steps.round_ties_even()).abs()
        };
        let tried = (LEAST_FACTOR..=127).rev();
        let best = tried.min_by(|a, b| distance(*a).total_cmp(&distance(*b))).unwrap_or(127);
        (best * value.signum() as i16, (value.abs() / f64::from(best)) as f32)
    };
    values.iter().zip(bias).map(choose).unzip()
}

/// Returns the step of weights that are already multiples of one step, as after quantization-aware
/// training. They quantize without error. `greatest` is the largest magnitude.
pub(super) fn step(row: &[f32], greatest: f32) -> Option<f64> {
    let mut sorted: Vec<f32> = row.iter().map(|weight| weight.abs()).collect();
    sorted.push(0.0);
    sorted.sort_by(f32::total_cmp);
    // With a smaller gap, the largest weight would be more than 127 steps.
    let least = greatest / 128.0;
    let tolerance = greatest * 1e-5;
    let mut gaps = sorted.windows(2).map(|pair| pair[1] - pair[0]);
    let gap = gaps.try_fold(f32::INFINITY, |gap, next| match next {
        _ if next <= tolerance => Some(gap),
        _ if next < least => None,
        _ => Some(gap.min(next)),
    })?;
    let steps = (greatest / gap).round();
    let step = f64::from(greatest) / f64::from(steps);
    let near = |weight: &f32| {
        let steps = f64::from(*weight) / step;
        (steps - steps.round()).abs() < 1e-3
    };
    ((1.0..=127.0).contains(&steps) && row.iter().all(near)).then_some(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_on_a_grid_are_exact() {
        let row: Vec<f32> = [3, -6, 0, 90, 33].iter().map(|steps| *steps as f32 * 0.0173).collect();
        let quantized = Weights::float(row.clone(), 5).quantize(0.1, &[0.0]);
        let back: Vec<f32> =
            quantized.weights.iter().map(|weight| *weight as f32 * quantized.scales[0]).collect();
        assert!(back.iter().zip(&row).all(|(a, b)| (a - b).abs() < 1e-6), "{back:?}");
        assert_eq!(quantized.weights, [1, -2, 0, 30, 11]);
        assert_eq!(step(&[0.1, 0.2, 0.26], 0.26), None);
        assert_eq!(step(&[0.0, 0.0], 0.0), None);
        assert_eq!(step(&[1.0, 0.001], 1.0), None);
    }

    #[test]
    fn each_channel_uses_its_whole_range() {
        let weights = Weights::float(vec![0.51, -1.0, 0.0101, 0.02], 2);
        let quantized = weights.quantize(0.1, &[1.0, 0.0]);
        assert_eq!(quantized.weights, [65, -127, 64, 127]);
        assert!((quantized.scales[1] - 0.02 / 127.0).abs() < 1e-9);
        assert_eq!(quantized.bias, [1270, 0]);
    }

    #[test]
    fn a_report_counts_levels_and_bytes() {
        let weights = vec![-127, -127, 0, 3, 127, 0];
        let (scales, bias) = (vec![0.5, 0.25], vec![0, 1]);
        let quantized = Quantized { weights, copies: vec![], scales, bias };
        let report = quantized.report();
        assert_eq!((report.float_bytes, report.integer_bytes, report.levels), (32, 22, 4));
        assert_eq!(report.step, [0.25, 0.5]);
        assert_eq!((report.counts[0], report.counts[32], report.counts[63]), (2, 3, 1));
        assert_eq!(report.counts.iter().sum::<u64>(), report.elements);
    }

    #[test]
    fn source_integers_are_kept_unless_the_bias_leaves_no_room() {
        let kept = |bias: f32| {
            let values = Values::Integer(vec![100, -7], vec![0.5]);
            Weights { depth: 2, inputs: 2, values }.quantize(1.0, &[bias])
        };
        let quantized = kept(3.0);
        assert_eq!((quantized.weights, quantized.scales), (vec![100, -7], vec![0.5]));
        let quantized = kept(-1e9);
        assert_eq!((quantized.weights, quantized.scales), (vec![50, -3], vec![1.0]));
        assert_eq!(quantized.bias, [-1_000_000_000]);
    }

    #[test]
    fn multiplying_channels_changes_only_the_scales_of_integers() {
        let values = Values::Integer(vec![100, -128, 5, 6, 7, 8], vec![0.5, 0.5, 0.5]);
        let mut weights = Weights { depth: 2, inputs: 2, values };
        weights.multiply(&[-3.0, 0.1, 0.0]);
        let Values::Integer(integers, scales) = weights.values else { panic!("other values") };
        assert_eq!((integers, scales), (vec![-100, 128, 5, 6, 0, 0], vec![1.5, 0.05, 1.0]));
        let mut weights = Weights::float(vec![1.0, 2.0, 3.0, 4.0], 2);
        weights.multiply(&[-1.0, 2.0]);
        assert!(
            matches!(&weights.values, Values::Float(values) if *values == [-1.0, -2.0, 6.0, 8.0])
        );
    }

    #[test]
    fn a_factor_represents_its_bias_nearly_exactly() {
        let (factors, biases) = (vec![1.7f32, -0.31, 0.0, 2.2], vec![0.9f32, 0.123, 5.0, -7.77]);
        let quantized = Weights::factors(factors.clone()).quantize(0.05, &biases);
        for (channel, (factor, bias)) in factors.iter().zip(&biases).enumerate() {
            let scale = quantized.scales[channel];
            assert!((f32::from(quantized.weights[channel]) * scale - factor).abs() < 1e-6);
            let step = f64::from(scale) * f64::from(0.05f32);
            let off = f64::from(quantized.bias[channel]) * step - f64::from(*bias);
            assert!(*factor == 0.0 || off.abs() < 0.05 * step, "channel {channel}: {}", off / step);
        }
    }

    #[test]
    fn a_large_bias_makes_the_steps_coarser() {
        let quantized = Weights::float(vec![1e-6, -1e-6], 2).quantize(0.01, &[1000.0]);
        assert!(quantized.bias[0].abs() <= 1 << 24);
        let quantized = Weights::float(vec![0.0, 0.0], 2).quantize(0.01, &[0.0]);
        assert_eq!((quantized.weights, quantized.bias), (vec![0, 0], vec![0]));
    }
}
