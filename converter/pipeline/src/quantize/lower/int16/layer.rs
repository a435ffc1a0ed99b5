//! Lowers layers with an int16 input or output.

use std::borrow::Cow;

use hardtack_bundle::graph::{Binary, Operator};
use hardtack_engine::Layer;
use hardtack_engine::program::{Clamp, TensorId};

use super::{Int16Tensors, LowTensor, STEPS};
use crate::graph::first_output;
use crate::quantize::float_reason::FloatReason;
use crate::quantize::lower::chain::Chain;
use crate::quantize::lower::{Lowering, dims};
use crate::quantize::scale::{Quantization, Range};
use crate::quantize::weights::Quantized;
use crate::quantize::weights::linear::Linear;

/// With fewer low steps than this, the low input's contribution is too large for one int8 tensor.
const FEWEST_STEPS: f32 = 48.0;
/// The maximum magnitude of a bias that is reduced to round down.
const MOST_BIAS: f32 = (1 << 30) as f32;
/// Preferred numbers of depthwise channels to join to one group.
const JOINED: [u32; 3] = [8, 4, 2];
/// The bound of a sum of many terms, in standard deviations: 1 in 100 000 sums exceed it.
const DEVIATIONS: f32 = 4.5;

impl Lowering<'_> {
    /// Emits a convolution with an int16 input or output. `low_weights` are the rounding errors of
    /// int16 weights.
    pub(crate) fn int16_layer(
        &mut self,
        layer: &Linear,
        chain: &Chain,
        input: Int16Tensors,
        (quantized, low_weights): (&Quantized, Option<&Quantized>),
    ) -> Result<(), FloatReason> {
        let last = first_output(chain.last);
        let name = self.name(chain.last);
        let int16 = if chain.prequantized.is_none() { self.int16_quantization(last) } else { None };
        let to = match (int16, chain.prequantized) {
            (Some(int16), _) => int16,
            (None, Some(prequantized)) => prequantized,
            (None, None) => self.quantization(last)?,
        };
        let dims = dims(&self.fact_shape(last)?, &layer.output_order)?;
        let channels = [self.dims_of(input.high)[2], dims[2]];
        // Each step sets its own output.
        let nothing = TensorId::MAX;
        let base = Layer {
            input: input.high,
            output: nothing,
            window: layer.window,
            groups: layer.groups,
            weights: &quantized.weights,
            weight_scales: &quantized.scales,
            bias: &quantized.bias,
            residual: None,
            clamp: to.clamp(chain.limits),
        };
        // What the input's low tensor and the low weights contribute.
        let of_low_input = input.low.map(|low| Contribution {
            input: low.tensor,
            weights: quantized,
            range: sum_range(low.reach, quantized),
        });
        let of_low_weights = low_weights.map(|weights| Contribution {
            input: input.high,
            weights,
            range: sum_range(self.quantization_of(input.high).range(), weights),
        });
        let contributions: Vec<Contribution<'_>> =
            of_low_input.into_iter().chain(of_low_weights).collect();
        let none = Range { low: 0.0, high: 0.0 };
        let added = contributions.iter().fold(none, |sum, part| sum.plus(part.range));
        let steps = (STEPS / (1.0 + (added.high - added.low) / to.scale)).floor().max(1.0);
        if int16.is_some()
            && !contributions.is_empty()
            && steps < FEWEST_STEPS
            && let Some(of_parts) = self.scale_of_parts(layer, chain, added)
            && of_parts.0.scale / part_steps(&contributions) < to.scale / steps / 2.0
        {
            return self.layer_of_parts(layer, chain, base, &contributions, of_parts);
        }
        let residual = self.contribution(name, dims, &contributions, base)?;
        if int16.is_none() {
            let output = self.tensor(last, &layer.output_order, to)?;
            self.conv_with(name, &Layer { output, residual, ..base }, channels, false)?;
            return self.written(last, output, &layer.output_order);
        }

        let open = [chain.limits.low, chain.limits.high].iter().all(|limit| limit.is_infinite());
        let scale = to.scale / steps;
        let input_scale = self.quantization_of(input.high).scale;
        let (bias, clamp, reach) = high_rounding(chain, quantized, base.clamp, to, input_scale);
        let high = self.tensor(last, &layer.output_order, to)?;
        let rounded = Layer { output: high, residual, bias: &bias, clamp, ..base };
        self.conv_with(name, &rounded, channels, false)?;
        let zero = |least: f32| (-126.0 - least / scale).round().clamp(-128.0, 127.0) as i8;
        let low_zero = if open { 0 } else { -128 };
        let limits =
            if open { Clamp::FULL } else { Clamp { low: -128, high: (steps as i32 - 128) as i8 } };
        let low = self.builder.tensor(name, dims, scale, low_zero);
        let less = |output, clamp| Layer { output, residual: Some(high), clamp, ..base };
        match residual {
            None => self.conv_with(name, &less(low, limits), channels, true)?,
            Some(residual) => {
                let rest = self.builder.tensor(name, dims, scale, zero(reach.low - added.high));
                self.conv_with(name, &less(rest, Clamp::FULL), channels, true)?;
                self.builder.add(name, [rest, residual], low, limits)?;
            }
        }
        self.written_int16(last, high, LowTensor { tensor: low, reach }, &layer.output_order)
    }

    /// Sums contributions, without the bias, to a tensor that is added to the high result. Returns
    /// `None` if there are none.
    fn contribution(
        &mut self,
        name: &str,
        dims: [u32; 3],
        contributions: &[Contribution<'_>],
        base: Layer<'_>,
    ) -> Result<Option<TensorId>, FloatReason> {
        let bias = &vec![0; base.bias.len()];
        let (mut sum, mut range) = (None, Range { low: 0.0, high: 0.0 });
        for part in contributions {
            range = range.plus(part.range);
            let Quantization { scale, zero_point } = Quantization::of(range);
            let output = self.builder.tensor(name, dims, scale, zero_point);
            let layer = Layer { output, bias, clamp: Clamp::FULL, ..part.of(base) };
            let channels = [self.dims_of(part.input)[2], dims[2]];
            self.conv_with(name, &Layer { residual: sum, ..layer }, channels, false)?;
            sum = Some(output);
        }
        Ok(sum)
    }

    /// Returns the scale of a layer's result before its limits and without the contributions that
    /// are added, and whether there are limits.
    fn scale_of_parts(
        &self,
        layer: &Linear,
        chain: &Chain,
        added: Range,
    ) -> Option<(Quantization, bool)> {
        let limit = |index: &&usize| {
            let operator = &self.model.graph.nodes[**index].operator;
            matches!(operator, Operator::Binary(Binary::Maximum | Binary::Minimum))
        };
        let limits = chain.fused.iter().filter(limit).count();
        let open = chain.fused.len().checked_sub(limits + 1);
        let sum = first_output(open.map_or(layer.node, |open| chain.fused[open]));
        let seen = self.calibration.ranges.get(&sum)?.int16_range;
        let range = Range { low: seen.low - added.high, high: seen.high - added.low };
        Some((Quantization::of(range), limits > 0))
    }

    /// Convolves the high input and each contribution to int16 and adds the results. Used if the
    /// contributions are too large for one int8 tensor.
    fn layer_of_parts(
        &mut self,
        layer: &Linear,
        chain: &Chain,
        base: Layer<'_>,
        contributions: &[Contribution<'_>],
        (to, limited): (Quantization, bool),
    ) -> Result<(), FloatReason> {
        let last = first_output(chain.last);
        let name = self.name(chain.last);
        let dims = dims(&self.fact_shape(last)?, &layer.output_order)?;
        let scale = to.scale / part_steps(contributions);
        let none = vec![0; base.bias.len()];
        let parts = contributions.iter().map(|part| {
            let middle = (part.range.low + part.range.high) / (2.0 * to.scale);
            (Layer { bias: &none, ..part.of(base) }, (-middle).round() as i8)
        });
        let mut sum: Option<[TensorId; 2]> = None;
        for (part, zero_point) in std::iter::once((base, to.zero_point)).chain(parts) {
            let mut pair = || {
                let high = self.builder.tensor(name, dims, to.scale, zero_point);
                [high, self.builder.tensor(name, dims, scale, 0)]
            };
            let [high, rest] = pair();
            let of_part = Layer { output: high, clamp: Clamp::FULL, ..part };
            self.builder.conv(name, &of_part)?;
            let of_rest = Layer { output: rest, residual: Some(high), ..of_part };
            self.conv_with(name, &of_rest, [self.dims_of(part.input)[2], dims[2]], true)?;
            sum = match sum {
                None => Some([high, rest]),
                Some(before) => {
                    let high_sum = self.builder.tensor(name, dims, to.scale, to.zero_point);
                    let rest_sum = self.builder.tensor(name, dims, scale, 0);
                    self.builder.add(name, [before[0], high], high_sum, Clamp::FULL)?;
                    self.builder.add(name, [before[1], rest], rest_sum, Clamp::FULL)?;
                    Some([high_sum, rest_sum])
                }
            };
        }
        let sum = sum.ok_or(FloatReason::NoInt16Parts)?;
        let (high, low) = self.carried(name, sum, limited)?;
        if !limited {
            return self.written_int16(last, high, low, &layer.output_order);
        }
        let tensors = Int16Tensors { high, low: Some(low) };
        let points = self.points(tensors);
        let limited = points.iter().map(|x| x.max(chain.limits.low).min(chain.limits.high));
        let limited: Vec<f32> = limited.collect();
        let to = self.int16_quantization(last).ok_or(FloatReason::NoInt16Range)?;
        self.int16_function(last, tensors, &limited, &layer.output_order, to)
    }

    /// Emits a convolution whose residual is added, or subtracted if `less`.
    fn conv_with(
        &mut self,
        name: &str,
        layer: &Layer<'_>,
        [input, output]: [u32; 2],
        less: bool,
    ) -> Result<(), FloatReason> {
        let (weights, groups) = joined(layer, input, output);
        let layer = Layer { weights: &weights, groups, ..*layer };
        match less {
            true => self.builder.conv_less(name, &layer),
            false => self.builder.conv(name, &layer),
        }
        .map_err(FloatReason::Build)
    }
}

/// A part of a layer's sums that is added to what the high input and the high weights give.
struct Contribution<'a> {
    input: TensorId,
    weights: &'a Quantized,
    /// A range that nearly always covers the part.
    range: Range,
}

impl Contribution<'_> {
    /// Returns the layer with the input and weights of this part.
    fn of<'b>(&'b self, base: Layer<'b>) -> Layer<'b> {
        let Quantized { weights, scales, .. } = self.weights;
        Layer { input: self.input, weights, weight_scales: scales, ..base }
    }
}

/// Returns the number of integer steps of the low tensor of each part, so that their sum fits.
fn part_steps(contributions: &[Contribution<'_>]) -> f32 {
    STEPS / (1 + contributions.len()) as f32
}

/// Returns the bias and limits of the high tensor, and the range of what its rounding leaves.
///
/// With limits, the high tensor is rounded down, so the remainder is never negative and can be
/// limited too: below the minimum high integer it is 0, above the maximum a whole step.
fn high_rounding(
    chain: &Chain,
    quantized: &Quantized,
    mut clamp: Clamp,
    to: Quantization,
    input_scale: f32,
) -> (Vec<i32>, Clamp, Range) {
    let open = [chain.limits.low, chain.limits.high].iter().all(|limit| limit.is_infinite());
    let mut bias = quantized.bias.clone();
    let reach = if open {
        Range { low: -to.scale / 2.0, high: to.scale / 2.0 }
    } else {
        for (bias, weight_scale) in bias.iter_mut().zip(&quantized.scales) {
            // Of a channel with hardly any weights, half a step is more than its whole bias.
            let half = (0.5 * to.scale / (input_scale * weight_scale)).round();
            *bias -= (half.min(MOST_BIAS) as i32).min(bias.saturating_add(MOST_BIAS as i32));
        }
        if chain.limits.high.is_finite() {
            clamp.high = clamp.high.saturating_sub(1).max(clamp.low);
        }
        Range { low: 0.0, high: to.scale }
    };
    (bias, clamp, reach)
}

/// Returns a range that nearly always covers the layer's sums, over inputs in `reach`.
fn sum_range(reach: Range, layer: &Quantized) -> Range {
    let depth = layer.weights.len() / layer.scales.len().max(1);
    let mean = (reach.low + reach.high) / 2.0;
    let deviation = DEVIATIONS * (reach.high - reach.low) / 12f32.sqrt();
    let rows = layer.weights.chunks_exact(depth.max(1)).zip(&layer.scales);
    rows.fold(Range { low: 0.0, high: 0.0 }, |range, (row, scale)| {
        let sum = |f: fn(f32) -> f32| row.iter().map(|w| f(f32::from(*w) * scale)).sum::<f32>();
        let all = sum(f32::abs) * (reach.high - reach.low) / 2.0;
        let (centre, spread_of_sum) =
            (mean * sum(|w| w), (deviation * sum(|w| w * w).sqrt()).min(all));
        range.extended(&[centre - spread_of_sum, centre + spread_of_sum])
    })
}

/// Returns the weights and groups of a layer. Depthwise kernels take no residual, so a depthwise
/// layer with one joins channels to larger groups, filled with zeros, which run faster.
fn joined<'a>(layer: &Layer<'a>, inputs: u32, outputs: u32) -> (Cow<'a, [i8]>, u32) {
    let groups = layer.groups;
    let alone = groups == inputs && groups == outputs && layer.residual.is_some();
    let size = *JOINED.iter().find(|size| alone && groups.is_multiple_of(**size)).unwrap_or(&1);
    if size == 1 {
        return (layer.weights.into(), groups);
    }
    let taps = layer.weights.len() / outputs as usize;
    let size = size as usize;
    let mut weights = vec![0; layer.weights.len() * size];
    for (index, weight) in layer.weights.iter().enumerate() {
        weights[index * size + index / taps % size] = *weight;
    }
    (weights.into(), groups / size as u32)
}
